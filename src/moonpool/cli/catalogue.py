"""`moonpool catalogue`: rows of models, hosts and calendars that are said at run time, over those of the file."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(
    help="Catalogue: rows of hosts, models, calendars and holidays, changed while servers run.", no_args_is_help=True
)

_Section = Annotated[str, typer.Argument(help="hosts, models, calendars or holidays, as in moonpool.toml.")]
_Name = Annotated[str, typer.Argument(help="The row's name there.")]


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List the rows that were said at run time; what holds is in `models show` and `hosts list`."""
    rows = desk.ask(read(home, config), "GET", "/catalogue")["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("section", "name", "since", "row"),
        ((row["section"], row["name"], show.when(row["created_at"]), _text(row["row"])) for row in rows),
        empty="no row is kept: what moonpool.toml and the shipped catalogue say holds",
    )
    for row in rows:
        if row["trouble"]:
            show.note(f"not in force here: {row['section']}.{row['name']} ({row['trouble']})")


@app.command("set")
def set_(
    section: _Section,
    name: _Name,
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE...", help="Its fields, values as TOML has them.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A file with the row's fields, TOML or JSON; - reads standard input."),
    ] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Lay a row over what the file says of that name, on all servers within a second. It replaces the row that was said
    before, as a whole; what cannot be used is refused, and changes nothing."""
    row = {} if file is None else _from_file(file)
    for pair in pairs or ():
        field, found, text = pair.partition("=")
        if not found or not field:
            raise typer.BadParameter(f"{pair!r} is not FIELD=VALUE")
        row[field.strip()] = _value(text)
    if not row:
        raise typer.BadParameter("give FIELD=VALUE, or --file")
    said = desk.ask(read(home, config), "PUT", _path(section, name), {"row": row})
    if json:
        show.json(said)
    else:
        show.say(f"{section}.{name}: {_text(said['row'])}")
        if said["trouble"]:
            show.note(f"not in force here: {said['trouble']}")


@app.command("unset")
def unset(
    section: _Section, name: _Name, json: show.Json = False, home: show.Home = None, config: show.Config = None
) -> None:
    """Forget such a row: what moonpool.toml and the shipped catalogue say holds again."""
    page = desk.ask(read(home, config), "DELETE", _path(section, name))
    if json:
        show.json(page)
    else:
        show.say(f"{section}.{name} is as the file has it")


def _path(section: str, name: str) -> str:
    return f"/catalogue/{quote(section, safe='')}/{quote(name, safe='')}"


def _from_file(path: Path) -> dict[str, Any]:
    """Raises Refused for what is neither TOML nor JSON, OSError."""
    text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    if text.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise desk.Refused(f"{path} is no JSON: {error}.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise desk.Refused(f"{path} is no TOML: {error}.") from None


def _value(text: str) -> Any:
    """What TOML would read after the sign; a text that needs no quotes is itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _text(row: dict[str, Any]) -> str:
    return msgspec.json.encode(row).decode()
