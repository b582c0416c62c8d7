"""`moonpool accounts`: who uses this server, what they may, and which products they use on credit."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(
    help="Accounts: list, create, change, disable, and the products they use on credit.", no_args_is_help=True
)

NO_BOUND: Final = "none"

Name = Annotated[str, typer.Argument(help="What it is called.")]
Credit = Annotated[
    str | None, typer.Option(help="How much a post-paid account may owe, like 100.00, or none: no bound.")
]
Requests = Annotated[int | None, typer.Option("--requests", min=0, help="Requests in a minute; 0: no limit.")]
Tokens = Annotated[int | None, typer.Option("--tokens", min=0, help="Tokens in a minute; 0: no limit.")]


class Turn(StrEnum):
    on = "on"
    off = "off"


def _path(name: str, *tail: str) -> str:
    return "/".join(("/accounts", *(quote(part, safe="") for part in (name, *tail))))


def _typed(credit: str | None, requests: int | None, tokens: int | None, **more: Any) -> dict[str, Any]:
    """What was given, as the admin API has it."""
    body = {**more, "requests_per_minute": requests, "tokens_per_minute": tokens}
    body = {name: value for name, value in body.items() if value is not None}
    if credit is not None:
        body["credit"] = None if credit == NO_BOUND else credit
    return body


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List accounts."""
    rows = desk.ask(read(home, config), "GET", "/accounts")["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("name", "post-paid", "credit", "concurrency", "requests/min", "tokens/min", "state"),
        (
            (
                row["name"],
                "yes" if row["post_paid"] else "no",
                row.get("credit") if row["post_paid"] else "",
                row["concurrency"],
                row.get("requests_per_minute") or "",
                row.get("tokens_per_minute") or "",
                "disabled" if row.get("disabled") else "",
            )
            for row in rows
        ),
        empty="there is no account yet: moonpool accounts create NAME",
    )


@app.command()
def create(
    name: Name,
    post_paid: Annotated[bool, typer.Option("--post-paid", help="It may owe: bookkeeping never stops it.")] = False,
    credit: Credit = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many of its requests may run at once.")] = 100,
    requests: Requests = None,
    tokens: Tokens = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make an account."""
    body = {"name": name, **_typed(credit, requests, tokens, post_paid=post_paid, concurrency=concurrency)}
    made = desk.ask(read(home, config), "POST", "/accounts", body)
    if json:
        show.json(made)
    else:
        show.say(f"made the account {name!r}; its first key: moonpool keys create --account {name}")


@app.command()
def change(
    name: Name,
    post_paid: Annotated[bool | None, typer.Option("--post-paid/--pre-paid", help="May it owe?")] = None,
    credit: Credit = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="How many of its requests may run at once.")] = None,
    requests: Requests = None,
    tokens: Tokens = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Change what an account may; what is not given stays. It holds from the next request on."""
    body = _typed(credit, requests, tokens, post_paid=post_paid, concurrency=concurrency)
    _patch(name, body, "changed", json, home, config)


@app.command()
def disable(name: Name, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Serve an account no more: its keys are refused from then on, and what runs ends. Nothing is lost."""
    _patch(name, {"disabled": True}, "disabled", json, home, config)


@app.command()
def enable(name: Name, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Serve an account again."""
    _patch(name, {"disabled": False}, "enabled", json, home, config)


def _patch(name: str, body: dict[str, Any], done: str, json: bool, home: Path | None, config: Path | None) -> None:
    row = desk.ask(read(home, config), "PATCH", _path(name), body)
    if json:
        show.json(row)
    else:
        show.say(f"{done} the account {name!r}")


@app.command()
def products(name: Name, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List the products, and whether the account uses them on credit."""
    rows = desk.ask(read(home, config), "GET", _path(name, "products"))["data"]
    if json:
        show.json(rows)
        return
    show.table(("product", "on credit"), ((row["product"], "on" if row["on"] else "off") for row in rows))


@app.command()
def switch(
    name: Name,
    product: Annotated[str, typer.Argument(help="As `accounts products` shows it.")],
    turn: Annotated[Turn, typer.Argument(help="May it be used on credit?")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Turn the use of a product on credit on or off; once an hour at most."""
    row = desk.ask(read(home, config), "PUT", _path(name, "products", product), {"on": turn is Turn.on})
    if json:
        show.json(row)
    else:
        show.say(f"{product} is {turn.value} for the account {name!r}")
