"""`moonpool config`: what is set, and whether it can be used."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import typer

from moonpool.cli import show
from moonpool.cli.options import read
from moonpool.settings import ConfigError, Settings, address_of, masked

app = typer.Typer(help="Settings: show what holds, check the file.", no_args_is_help=True)

_PASSWORD: Final = re.compile(r"(?<=//)([^:/@]*:)[^/]*(?=@)|((?<=[?&])password=)[^&]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@app.command("show")
def show_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Print every setting that holds, defaults included, as TOML; secrets are masked."""
    settings = read(home, config)
    table = _without_secrets(settings)
    if json:
        show.json(table)
        return
    show.say(f"# from {settings.file or 'no file: these are the defaults'}")
    show.say(*(f"{path} = {value}" for path, value in _lines(table, "")))


@app.command()
def check(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Check the file and all it names, without starting anything; exit code 2 when it cannot be used."""
    from moonpool.catalog.catalog import build
    from moonpool.web import payments

    try:
        settings = read(home, config)
        warnings = build(settings, dict(os.environ)).warnings(time.time())
        for account in settings.accounts:
            account.secrets(os.environ)
        payments.secrets(settings, os.environ)
        address_of(settings, os.environ, "limits")
    except ConfigError as error:
        if not json:
            raise
        show.json({"ok": False, "file": error.file, "key": error.key, "says": error.sentence, "warnings": []})
        raise typer.Exit(2) from None
    if json:
        show.json({"ok": True, "file": settings.file, "key": "", "says": "", "warnings": warnings})
    else:
        show.say(f"{settings.file or 'no file, all defaults'}: ok", *warnings)


def _without_secrets(settings: Settings) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(settings)
    del table["file"]
    table["limits"] = _PASSWORD.sub(r"\1\2****", table["limits"])
    for account in table["accounts"]:
        account["keys"] = [masked(key) for key in account["keys"]]
    for channel in table["payments"].values():
        channel["secret"] = masked(channel["secret"])
    for host in table["hosts"].values():
        if isinstance(host, dict) and "api_key" in host:
            host["api_key"] = masked(str(host["api_key"]))
    return table


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        path = prefix + (name if _BARE.fullmatch(name) else _toml(name))
        if isinstance(value, Mapping) and value:
            yield from _lines(value, path + ".")
        elif not isinstance(value, Mapping):
            yield path, _toml(value)


def _toml(value: Any) -> str:
    """A value as TOML writes it; strings, numbers and truth are the same as in JSON."""
    if isinstance(value, Mapping):
        pairs = (f"{name if _BARE.fullmatch(name) else _toml(name)} = {_toml(part)}" for name, part in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    # The one character that JSON takes as it is and TOML does not.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
