"""`moonpool models`: what can be asked for, and the embedded model's weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read
from moonpool.settings import make_home

app = typer.Typer(help="Models: list, show one, pull the embedded model's weights.", no_args_is_help=True)


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List the models that can be asked for, and which hosts answer."""
    rows = desk.ask(read(home, config), "GET", "/models")["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("name", "served by", "window", "can"),
        ((row["name"], ", ".join(row["hosts"]), row["window"], " ".join(row["can"])) for row in rows),
    )


@app.command("show")
def show_(
    name: Annotated[str, typer.Argument(help="The model's name, as a program asks for it.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Show all that the catalogue says of one model: what holds, not only what was written; what it costs now, whether
    that is peak, and until when."""
    row = desk.ask(read(home, config), "GET", f"/models/{quote(name, safe='')}")
    if json:
        show.json(row)
        return
    if row["now"]["until"] is not None:
        row["now"]["until"] = show.when(row["now"]["until"])
    show.tree(row)


@app.command("pull")
def pull_(
    name: Annotated[
        str, typer.Argument(help="A row of the catalogue's weights; what the settings say otherwise.")
    ] = "",
    into: Annotated[
        Path | None, typer.Option(help="Folder to put them in.", show_default="weights, in home", file_okay=False)
    ] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Fetch the embedded model's weights and check them; at once when they are there."""
    from moonpool.cli import pull
    from moonpool.transports.weights import PullError

    settings = read(home, config)
    at = pull.place(settings, name, into)
    if into is None:
        make_home(settings)
    try:
        path = pull.fetch(at, os.environ)
    except PullError as error:
        raise desk.Refused(str(error)) from None
    if not at.found():
        raise desk.Refused(f"{path} is not there.")
    if json:
        show.json({"path": str(path), "bytes": path.stat().st_size})
    else:
        show.say(str(path))
