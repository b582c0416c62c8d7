"""From what was typed to Settings."""

from __future__ import annotations

import os
from pathlib import Path

from moonpool.settings import Settings, load


def read(home: Path | None, config: Path | None, **overrides: object) -> Settings:
    """Settings from the file, with what was typed over it; names as in moonpool.toml. Raises ConfigError."""
    typed = {name: value for name, value in overrides.items() if value is not None}
    if home is not None:
        typed["home"] = str(home.expanduser().absolute())
    return load(config, os.environ, typed)
