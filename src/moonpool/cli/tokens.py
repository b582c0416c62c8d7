"""`moonpool tokens`: what users show to the admin API."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import moment, read

app = typer.Typer(help="Tokens for the admin API: create, list, delete.", no_args_is_help=True)


@app.command()
def create(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose token it is: a name or id.")],
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    expires: Annotated[
        str, typer.Option(help="When it ends: 30d, 2027-01-31 (that day's end), '2027-01-31 18:00', or never.")
    ] = "never",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make a token and print it: this is the only time it can be seen."""
    body = {"user": user, "name": name, "expires_at": moment(expires, time.time())}
    made = desk.ask(read(home, config), "POST", "/tokens", body)
    if json:
        show.json(made)
        return
    show.say(made["token"])
    show.note(f"token {made['id']} of {user}; it is shown this once")


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """List tokens; their secrets are not kept and cannot be shown."""
    settings = read(home, config)
    rows = desk.ask(settings, "GET", "/tokens", **({"user": user} if user else {}))["data"]
    if json:
        show.json(rows)
        return
    names = {row["id"]: row["name"] for row in desk.ask(settings, "GET", "/users")["data"]}
    show.table(
        ("id", "user", "name", "created", "expires", "last used"),
        (
            (
                row["id"],
                names.get(row["user"], row["user"]),
                row["name"],
                show.when(row["created_at"]),
                show.when(row["expires_at"]),
                show.when(row["last_used_at"]),
            )
            for row in rows
        ),
        empty="there is no token yet: moonpool tokens create USER",
    )


@app.command()
def delete(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `tokens list` shows it.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Delete a token, for good; it is refused from then on."""
    gone = desk.ask(read(home, config), "DELETE", f"/tokens/{quote(token_id, safe='')}")
    if json:
        show.json(gone)
    else:
        show.say(f"deleted {token_id}")
