"""What can be said about `store`, `limits` and `workers`: which addresses there are, what several processes need. Pure.

Each function gives the sentence an operator reads, or None when all is well.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlsplit

POSTGRES: Final = ("postgresql", "postgres")
ELSEWHERE: Final = ("env:", "file:/")
"""The address stands in the environment or in a file; only one with a password in it is worth hiding."""
_LIMITS: Final = re.compile(r"(valkeys?|rediss?)://[^/?#\s]+(/\d+)?(\?[^#\s]+)?|unix://([^/@\s]*@)?/[^\s]+")
_LIMITS_FORM: Final = (
    'is written "memory://", "valkey://HOST:PORT/DB" or "unix:///SOCKET"; "valkeys://" is with TLS, and '
    '"USER:PASSWORD@" goes before HOST (in them / is %2F, ? is %3F, # is %23, % is %25).'
)
_LIMITS_FILES: Final = frozenset(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))


def is_shared(store: str) -> bool:
    """Is this a database that several processes may use?"""
    return store.startswith(ELSEWHERE) or store.partition("://")[0] in POSTGRES


def wrong_with(store: str) -> str | None:
    """Why `store`, as it is written, cannot be used."""
    if is_shared(store):
        if find_spec("psycopg") is None:
            return "needs a driver for PostgreSQL that is not installed: pip install 'moonpool[many]'."
        return None if store.startswith(ELSEWHERE) else wrong_with_address(store, in_file=True)
    scheme, _, name = store.partition("://")
    name = name.removeprefix("/")
    if scheme != "sqlite":
        return f'"{scheme}://" is not supported; use "sqlite:///moonpool.db" or "postgresql://USER@HOST/DATABASE".'
    if name in {"", ":memory:"} or "?" in name or not store.startswith("sqlite:///"):
        return 'is written "sqlite:///FILE"; FILE is relative to home.'
    return None


def wrong_with_address(address: str, *, in_file: bool = False) -> str | None:
    """Why this address of a PostgreSQL database cannot be used; `in_file`: it stands in the configuration itself."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return 'is written "postgresql://USER@HOST:PORT/DATABASE".'
    if parts.scheme not in POSTGRES or len(parts.path) < 2:
        return 'is written "postgresql://USER@HOST:PORT/DATABASE".'
    if in_file and (parts.password is not None or "password=" in parts.query):
        return (
            "has a password in it: set PGPASSWORD (or PGPASSFILE) instead, or write env:NAME or file:/path for the "
            "whole address."
        )
    return None


def wrong_with_limits(address: str) -> str | None:
    """Why this address of a Valkey or Redis cannot be used. None of it is in the sentence: it may hold a password."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return _LIMITS_FORM
    if not _LIMITS.fullmatch(address):
        return _LIMITS_FORM
    if parts.scheme == "unix":
        return None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not options.keys() <= _LIMITS_FILES:
        return f"takes the options {', '.join(sorted(_LIMITS_FILES))}, and no others."
    if options and parts.scheme not in {"valkeys", "rediss"}:
        return "names files for TLS and does not use it: write valkeys:// (or rediss://)."
    if not all(file.startswith("/") for file in options.values()):
        return "names files for TLS by their whole paths: ?ssl_ca_certs=/path/ca.pem."
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        return "names a key without its certificate (ssl_certfile)."
    return None


def wrong_with_workers(workers: int, store: str, limits: str, embedded: bool) -> tuple[str, str] | None:
    """(the setting, why) where so many processes cannot serve."""
    if workers == 1:
        return None
    if not is_shared(store):
        return "workers", (
            "SQLite serves one process, which fills a core and thousands of streams: set workers to 1, or store to "
            '"postgresql://USER@HOST/DATABASE".'
        )
    if limits == "memory://":
        return "workers", (
            "each process would count limits by itself: set limits to a Valkey or Redis that all of them share "
            '("valkey://HOST:6379/0").'
        )
    if embedded:
        return "embedded.enabled", (
            "the embedded model runs in one process: set it to false, or workers to 1. To have both, start a server of "
            "its own for the model (another home, workers = 1) and name it as a host."
        )
    return None
