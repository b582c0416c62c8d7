"""From what was typed to Settings, to moments and to spans of time."""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import typer

from moonpool.settings import Settings, load

NEVER: Final = "never"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


def read(home: Path | None, config: Path | None, **overrides: object) -> Settings:
    """Settings from the file, with what was typed over it; names as in moonpool.toml. Raises ConfigError."""
    typed = {name: value for name, value in overrides.items() if value is not None}
    if home is not None:
        typed["home"] = str(home.expanduser().absolute())
    return load(config, os.environ, typed)


def span_s(text: str) -> int:
    """Seconds of a span like "90s", "30m", "24h" or "7d". Raises typer.BadParameter."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time like 90s, 30m, 24h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]


def moment(text: str, now: float) -> float | None:
    """Unix seconds of "24h" (from now), "2027-01-31" (the end of that day here) or "2027-01-31 18:00" (here, unless it
    says another zone: "2027-01-31T18:00+08:00"); None for "never". Raises typer.BadParameter."""
    text = text.strip()
    if text == NEVER:
        return None
    if _SPAN.fullmatch(text):
        return now + span_s(text)
    try:
        found = datetime.fromisoformat(text)
        if len(text) <= len("2027-01-31"):
            found += timedelta(days=1)
        return found.timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no moment: a date like 2027-01-31, with a time of day if wanted, a span like 30d, or never"
        ) from None
