"""`moonpool keys`: make, list, change, rotate and delete API keys."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from moonpool.cli import desk, key_limits, show
from moonpool.cli.key_limits import Typed, spoken
from moonpool.cli.options import read, span_s

app = typer.Typer(help="API keys: make, list, change, rotate, delete.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")]
Switches = Annotated[
    list[str] | None,
    typer.Option("--switch", help="NAME=VALUE: keepalive=comment|newline|off, usage=finish|chunk. May be given again."),
]


def _switches(pairs: list[str] | None) -> dict[str, str]:
    switches = {}
    for pair in pairs or []:
        left, equals, right = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--switch")
        switches[left] = right
    return switches


def _path(key_id: str, tail: str = "") -> str:
    return f"/keys/{quote(key_id, safe='')}{tail}"


@app.command()
def create(
    account: Annotated[str, typer.Option(help="Whose key it is; a new name makes a new account.")] = "default",
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    switch: Switches = None,
    expires: key_limits.Expires = None,
    model: key_limits.Models = None,
    address: key_limits.Addresses = None,
    requests: key_limits.Requests = None,
    tokens: key_limits.Tokens = None,
    concurrency: key_limits.Concurrency = None,
    per_day: key_limits.PerDay = None,
    per_month: key_limits.PerMonth = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make a key and print it: this is the only time it can be seen."""
    body: dict[str, Any] = {"account": account, "name": name, "switches": _switches(switch)}
    typed = Typed(expires, model, address, requests, tokens, concurrency, per_day, per_month)
    limits = typed.over(None, time.time())
    if limits is not None:
        body["limits"] = limits
    settings = read(home, config)
    known = {row["name"] for row in desk.ask(settings, "GET", "/accounts")["data"]}
    if account not in known:
        desk.ask(settings, "POST", "/accounts", {"name": account})
        show.note(f"made the account {account!r}")
    made = desk.ask(settings, "POST", "/keys", body)
    _show_secret(made, json, f"key {made['id']} of the account {account!r}; it is shown this once")


def _show_secret(made: dict[str, Any], json: bool, remark: str) -> None:
    if json:
        show.json(made)
        return
    show.say(made["key"])
    show.note(remark)


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
        ("id", "name", "account", "created", "last used", "switches", "limits"),
        (
            (
                row["id"],
                row["name"],
                row["account"],
                show.when(row["created_at"]),
                show.when(row["last_used_at"]),
                " ".join(f"{name}={value}" for name, value in row["switches"].items()),
                spoken(row.get("limits"), show.when),
            )
            for row in rows
        ),
        empty="there is no key yet: moonpool keys create",
    )


@app.command()
def change(
    key_id: Id,
    name: Annotated[str | None, typer.Option(help="What you call it.")] = None,
    switch: Switches = None,
    expires: key_limits.Expires = None,
    model: key_limits.Models = None,
    address: key_limits.Addresses = None,
    requests: key_limits.Requests = None,
    tokens: key_limits.Tokens = None,
    concurrency: key_limits.Concurrency = None,
    per_day: key_limits.PerDay = None,
    per_month: key_limits.PerMonth = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Change a key's name, switches and limits; what is not given stays. It holds from the next request on."""
    settings = read(home, config)
    row = next((row for row in desk.ask(settings, "GET", "/keys")["data"] if row["id"] == key_id), None)
    if row is None:
        raise desk.Refused(f"There is no key {key_id!r}.")
    typed = Typed(expires, model, address, requests, tokens, concurrency, per_day, per_month)
    patch: dict[str, Any] = {"limits": typed.over(row["limits"], time.time())}
    if name is not None:
        patch["name"] = name
    if switch is not None:
        patch["switches"] = row["switches"] | _switches(switch)
    changed = desk.ask(settings, "PATCH", _path(key_id), patch)
    if json:
        show.json(changed)
    else:
        show.say(f"changed {key_id}: {spoken(changed['limits'], show.when) or 'no limits of its own'}")


@app.command()
def rotate(
    key_id: Id,
    grace: Annotated[str, typer.Option(help="How long the old secret still works: 90s, 30m, 24h, 7d.")] = "0s",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Give a key a new secret and print it; id, limits and history stay."""
    grace_s = span_s(grace)
    made = desk.ask(read(home, config), "POST", _path(key_id, "/rotate"), {"grace_s": grace_s})
    old = f"the old one works for {grace} more" if grace_s else "the old one no longer works"
    _show_secret(made, json, f"the new secret of the key {key_id}; it is shown this once, and {old}")


@app.command()
def delete(
    key_id: Id,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Delete a key, for good; requests with it are refused from then on, and what runs ends."""
    gone = desk.ask(read(home, config), "DELETE", _path(key_id))
    if json:
        show.json(gone)
    else:
        show.say(f"deleted {key_id}")
