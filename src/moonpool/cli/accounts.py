"""`moonpool accounts`: who uses this server."""

from __future__ import annotations

from typing import Annotated

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="Accounts: list, create.", no_args_is_help=True)


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List accounts."""
    rows = desk.ask(read(home, config), "GET", "/accounts")["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("name", "post-paid", "concurrency"),
        ((row["name"], "yes" if row["post_paid"] else "no", row["concurrency"]) for row in rows),
        empty="there is no account yet: moonpool accounts create NAME",
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    post_paid: Annotated[bool, typer.Option("--post-paid", help="It may owe: bookkeeping never stops it.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="How many of its requests may run at once.")] = 100,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make an account."""
    body = {"name": name, "post_paid": post_paid, "concurrency": concurrency}
    made = desk.ask(read(home, config), "POST", "/accounts", body)
    if json:
        show.json(made)
    else:
        show.say(f"made the account {name!r}; its first key: moonpool keys create --account {name}")
