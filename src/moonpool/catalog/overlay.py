"""What was said at run time, over what an operator's file says: the same tables, merged in the same way.

Rule: what is kept is in a database, and what is in the database is no secret. A key of a host is named there (env:NAME,
file:/path), never said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from moonpool.catalog import load
from moonpool.settings import ConfigError, Settings, nearest

SECTIONS: Final = ("hosts", "models", "calendars", "holidays")
"""The tables of moonpool.toml that rows are laid over."""

KeptTables = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By section and name."""

NOTHING_KEPT: Final[KeptTables] = {}
_NAME_MAX: Final = 100


def overlaid(settings: Settings, kept: KeptTables) -> Settings:
    """The settings as if their file said all of it; a row replaces the values it names and leaves the others."""
    sections = {}
    for section, rows in kept.items():
        tables: dict[str, dict[str, Any]] = dict(getattr(settings, section))
        for name, row in rows.items():
            before = tables.get(name, {})
            table = {**before, **row}
            if section == "models" and "hosts" in row:
                table["hosts"] = load.as_before(row["hosts"], before.get("hosts", []))
            tables[name] = table
        sections[section] = tables
    return msgspec.structs.replace(settings, **sections) if sections else settings


def may_be_kept(settings: Settings, section: str, name: str, row: Mapping[str, Any]) -> None:
    """Raises ConfigError for what is no section, no name, a secret, or names one of this server's own as a host's key:
    it would be sent there. Whether the row can be used is seen when the catalogue is built."""
    if section not in SECTIONS:
        raise ConfigError("", section, f"is no section{nearest(section, SECTIONS)}")
    if not 0 < len(name) <= _NAME_MAX or not name.isprintable():
        raise ConfigError("", section, f"a name has 1 to {_NAME_MAX} characters that can be printed.")
    key = f"{section}.{name}"
    if section != "hosts":
        return
    api_key, base_url = row.get("api_key", ""), row.get("base_url", "")
    if isinstance(api_key, str) and api_key and not api_key.startswith(("env:", "file:/")):
        raise ConfigError("", f"{key}.api_key", "is written env:NAME or file:/path: no secret goes into the database.")
    if api_key and _is_our_own(settings, api_key):
        raise ConfigError("", f"{key}.api_key", "is a secret of this server's own, and no host's key.")
    if isinstance(base_url, str) and _has_password(base_url):
        raise ConfigError("", f"{key}.base_url", "holds a password, and no secret goes into the database.")


def _is_our_own(settings: Settings, reference: Any) -> bool:
    own = {settings.store, settings.limits, settings.vault.key, f"file:{settings.vault_key_path().resolve()}"}
    own.update(channel.secret for channel in settings.payments.values())
    own.update(text for account in settings.accounts for text in account.keys)
    kind, _, where = str(reference).partition(":")
    if kind == "file":
        reference = f"file:{Path(where).resolve()}"
    return reference in own or (kind == "env" and where.startswith("PG"))  # what libpq reads


def _has_password(address: str) -> bool:
    try:
        return "@" in urlsplit(address).netloc
    except ValueError:
        return False  # no address at all, which is said elsewhere
