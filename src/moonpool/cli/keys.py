"""`moonpool keys`: make, list and delete API keys."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="API keys: make, list, delete.", no_args_is_help=True)


@app.command()
def create(
    account: Annotated[str, typer.Option(help="Whose key it is; a new name makes a new account.")] = "default",
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    switch: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE: keepalive=comment|newline|off, usage=finish|chunk. May be given again."),
    ] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make a key and print it: this is the only time it can be seen."""
    switches = {}
    for pair in switch or []:
        left, equals, right = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--switch")
        switches[left] = right
    settings = read(home, config)
    known = {row["name"] for row in desk.ask(settings, "GET", "/accounts")["data"]}
    if account not in known:
        desk.ask(settings, "POST", "/accounts", {"name": account})
        show.note(f"made the account {account!r}")
    made = desk.ask(settings, "POST", "/keys", {"account": account, "name": name, "switches": switches})
    if json:
        show.json(made)
        return
    show.say(made["key"])
    show.note(f"key {made['id']} of the account {account!r}; it is shown this once")


@app.command("list")
def list_(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """List keys; their secrets are not kept and cannot be shown."""
    rows = desk.ask(read(home, config), "GET", "/keys", **({"account": account} if account else {}))["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("id", "name", "account", "created", "last used", "switches"),
        (
            (
                row["id"],
                row["name"],
                row["account"],
                show.when(row["created_at"]),
                show.when(row["last_used_at"]),
                " ".join(f"{name}={value}" for name, value in row["switches"].items()),
            )
            for row in rows
        ),
        empty="there is no key yet: moonpool keys create",
    )


@app.command()
def delete(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Delete a key, for good; requests with it are refused from then on."""
    gone = desk.ask(read(home, config), "DELETE", f"/keys/{quote(key_id, safe='')}")
    if json:
        show.json(gone)
    else:
        show.say(f"deleted {key_id}")
