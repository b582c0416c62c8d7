"""`moonpool users`: who may use the admin API over the network, and what they are in which account."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="Users of the admin API: create, list, delete, and their roles.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="USER", help="The user's name or id.")]


class Role(StrEnum):
    owner = "owner"
    member = "member"
    none = "none"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What they are called.")],
    operator: Annotated[bool, typer.Option("--operator", help="They may do everything.")] = False,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make a user, who may do nothing until they have a role or are an operator."""
    made = desk.ask(read(home, config), "POST", "/users", {"name": name, "operator": operator})
    if json:
        show.json(made)
    else:
        show.say(f"made the user {name!r}; a token for them: moonpool tokens create {name}")


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List users with their roles."""
    rows = desk.ask(read(home, config), "GET", "/users")["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("name", "id", "created", "operator", "roles"),
        (
            (
                row["name"],
                row["id"],
                show.when(row["created_at"]),
                "yes" if row["operator"] else "",
                " ".join(f"{account}={role}" for account, role in row["roles"].items()),
            )
            for row in rows
        ),
        empty="there is no user yet: moonpool users create NAME",
    )


@app.command()
def role(
    user: User,
    account: Annotated[str, typer.Argument(help="In which account.")],
    what: Annotated[Role, typer.Argument(metavar="ROLE", help="owner: keys and budgets; member: reads; none.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Say what a user is in an account."""
    body = {"role": None if what is Role.none else what.value}
    path = f"/users/{quote(user, safe='')}/roles/{quote(account, safe='')}"
    row = desk.ask(read(home, config), "PUT", path, body)
    if json:
        show.json(row)
    else:
        show.say(f"{user} is {what.value if body['role'] else 'nothing'} in the account {account!r}")


@app.command()
def delete(user: User, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Delete a user with all their tokens, for good."""
    gone = desk.ask(read(home, config), "DELETE", f"/users/{quote(user, safe='')}")
    if json:
        show.json(gone)
    else:
        show.say(f"deleted {user}")
