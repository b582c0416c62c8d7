"""What the vault is sealed with: app.seal and the settings before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonpool.app import seal
from moonpool.settings import ConfigError, Settings, Vault, load, make_home
from moonpool.state.sqlite import SqliteStore

_TEXT = "a text of thirty-two characters, or more"


def _sealed(home: Path, key: str = "", environ: dict[str, str] | None = None) -> SqliteStore:
    settings = Settings(home=str(home), vault=Vault(key=key))
    make_home(settings)
    store = SqliteStore(settings.store_path())
    seal(settings, store, environ or {})
    return store


def test_the_key_of_home(tmp_path: Path) -> None:
    """Without a setting the first start makes a key in home, and the next takes the same."""
    assert _sealed(tmp_path).vault is not None
    made = (tmp_path / "vault.key").read_bytes()
    _sealed(tmp_path)
    assert (tmp_path / "vault.key").read_bytes() == made


def test_a_key_that_anybody_may_read_is_refused(tmp_path: Path) -> None:
    """A key that lies open is none."""
    _sealed(tmp_path)
    (tmp_path / "vault.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"vault\.key.*chmod 600"):
        _sealed(tmp_path)


def test_a_key_of_the_operators_own(tmp_path: Path) -> None:
    """From the environment or a file; then home gets none. One that is short or not there is refused by name."""
    file = tmp_path / "secret"
    file.write_text(_TEXT)
    file.chmod(0o600)
    home = tmp_path / "home"
    _sealed(home, "env:SECRET", {"SECRET": _TEXT})
    _sealed(home, f"file:{file}")
    assert not (home / "vault.key").exists()
    with pytest.raises(ConfigError, match=r"vault\.key.*32 characters"):
        _sealed(home, "env:SECRET", {"SECRET": _TEXT[:31]})
    with pytest.raises(ConfigError, match=r"vault\.key.*no SECRET"):
        _sealed(home, "env:SECRET")


def test_a_literal_key_is_refused(tmp_path: Path) -> None:
    """A key that stands in the settings would stand in backups of them too."""
    file = tmp_path / "moonpool.toml"
    file.write_text(f'[vault]\nkey = "{_TEXT}"\n')
    with pytest.raises(ConfigError, match=r"vault\.key.*env:NAME or file:/path"):
        load(file, {}, {})
