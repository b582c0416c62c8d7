"""Money by command: `moonpool accounts deposit` and `redeem`, `moonpool packs`, `moonpool codes`, `moonpool alerts`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from moonpool.cli import accounts, desk, show
from moonpool.cli.options import read

packs = typer.Typer(help="Packs of tokens or search calls: add, list.", no_args_is_help=True)
codes = typer.Typer(help="Redemption codes: create, list.", no_args_is_help=True)
alerts = typer.Typer(help="Messages when money reaches a threshold: create, list, delete.", no_args_is_help=True)

Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name.")]
Once = Annotated[str | None, typer.Option("--id", help="Names it, so that it happens once however often it is said.")]
Note = Annotated[str, typer.Option(help="What you want to remember of it.")]
Currency = Annotated[str, typer.Option(help="ISO 4217.")]


def _path(account: str, rest: str = "") -> str:
    return f"/accounts/{quote(account, safe='')}{rest}"


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


@accounts.app.command()
def deposit(
    account: Account,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like 12.50.")],
    currency: Currency = "CNY",
    granted: Annotated[bool, typer.Option("--granted", help="It is a gift; otherwise it was paid.")] = False,
    once: Once = None,
    note: Note = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Give an account money."""
    fund = "granted" if granted else "topped_up"
    body = _given({"id": once, "fund": fund, "amount": amount, "currency": currency, "note": note})
    made = desk.ask(read(home, config), "POST", _path(account, "/deposits"), body)
    if json:
        show.json(made)
    else:
        show.say(f"{account} has got {made['amount']} {made['currency']} ({made['id']})")


@accounts.app.command()
def redeem(
    account: Account,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The text of the code.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Redeem a code for an account."""
    got = desk.ask(read(home, config), "POST", _path(account, "/redeem"), {"code": code})
    if json:
        show.json(got)
        return
    worth = got["deposit"] or got["pack"]
    what = f"{worth['amount']} {worth['currency']}" if got["deposit"] else f"{worth['units']} {worth['unit']}"
    show.say(f"{account} had redeemed it before: {what}" if got["again"] else f"{account} has got {what}")


@packs.command("list")
def list_packs(account: Account, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List an account's packs, in the order in which they are drawn."""
    rows = desk.ask(read(home, config), "GET", _path(account, "/packs"))["data"]
    if json:
        show.json(rows)
        return
    names = ("id", "kind", "product", "unit", "units", "used", "held", "left")
    show.table(
        (*names, "expires"),
        ((*(row[name] for name in names), show.when(row["expires_at"])) for row in rows),
        empty="there is no pack: moonpool packs add",
    )


@packs.command("add")
def add_pack(
    account: Account,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="What it is of.")],
    units: Annotated[int, typer.Argument(metavar="UNITS", min=1, help="How many.")],
    calls: Annotated[bool, typer.Option("--calls", help="Units are search calls; otherwise tokens.")] = False,
    trial: Annotated[bool, typer.Option("--trial", help="It is a gift; otherwise it was paid.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long it is valid.")] = 365,
    once: Once = None,
    note: Note = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Give an account a pack."""
    body = _given(
        {
            "id": once,
            "kind": "trial" if trial else "paid",
            "product": product,
            "unit": "calls" if calls else "tokens",
            "units": units,
            "valid_days": days,
            "note": note,
        }
    )
    made = desk.ask(read(home, config), "POST", _path(account, "/packs"), body)
    if json:
        show.json(made)
    else:
        until = show.when(made["expires_at"])
        show.say(f"{account} has got {made['units']} {made['unit']} of {product} until {until} ({made['id']})")


@codes.command("create")
def create_codes(
    amount: Annotated[str | None, typer.Option(help="Money that is granted, like 12.50.")] = None,
    currency: Currency = "CNY",
    product: Annotated[str | None, typer.Option(help="A trial pack of this product instead.")] = None,
    units: Annotated[int, typer.Option(min=1, help="How many units the pack has.")] = 1_000_000,
    calls: Annotated[bool, typer.Option("--calls", help="Units are search calls; otherwise tokens.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long the pack is valid.")] = 365,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many codes.")] = 1,
    expires: Annotated[float | None, typer.Option(help="Until when they can be redeemed, in Unix seconds.")] = None,
    note: Note = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Make redemption codes and print them: this is the only time they can be seen."""
    if (amount is None) == (product is None):
        raise typer.BadParameter("say --amount or --product")
    gift: dict[str, Any] = {"fund": "granted", "amount": amount, "currency": currency}
    if product is not None:
        unit = "calls" if calls else "tokens"
        gift = {"kind": "trial", "product": product, "unit": unit, "units": units, "valid_days": days}
    body = _given({"gift": gift, "count": count, "expires_at": expires, "note": note})
    rows = desk.ask(read(home, config), "POST", "/codes", body)["data"]
    if json:
        show.json(rows)
    else:
        show.say(*(row["code"] for row in rows))


@codes.command("list")
def list_codes(
    after: Annotated[str | None, typer.Option(help="Only those after this id.")] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """List codes and who redeemed them; their texts are not kept and cannot be shown."""
    query = {"limit": "1000"} | ({"after": after} if after else {})
    rows = desk.ask(read(home, config), "GET", "/codes", **query)["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("id", "gift", "note", "expires", "redeemed by"),
        (
            (
                row["id"],
                " ".join(str(value) for value in row["gift"].values()),
                row["note"],
                show.when(row["expires_at"]),
                row["redeemed_by"],
            )
            for row in rows
        ),
        empty="there is no code: moonpool codes create",
    )


@alerts.command("list")
def list_alerts(account: Account, json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List an account's alerts."""
    rows = desk.ask(read(home, config), "GET", _path(account, "/alerts"))["data"]
    if json:
        show.json(rows)
        return
    names = ("id", "kind", "threshold", "currency", "url", "told_of")
    show.table(names, ([row[name] for name in names] for row in rows), empty="there is no alert")


@alerts.command("create")
def create_alert(
    account: Account,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="balance_below, spent_day, spent_month or arrears.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the message is sent.")],
    threshold: Annotated[str, typer.Option(help="Like 12.50.")] = "0",
    currency: Currency = "CNY",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Have a message sent when money reaches a threshold; prints the secret it is signed with, this once."""
    body = {"kind": kind, "url": url, "threshold": threshold, "currency": currency}
    made = desk.ask(read(home, config), "POST", _path(account, "/alerts"), body)
    if json:
        show.json(made)
        return
    show.say(made["secret"])
    show.note(f"alert {made['id']} of the account {account!r}; its secret is shown this once")


@alerts.command("delete")
def delete_alert(
    account: Account,
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="The alert's id, as `alerts list` shows it.")],
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Delete an alert, and what is still to be told of it."""
    gone = desk.ask(read(home, config), "DELETE", _path(account, f"/alerts/{quote(alert_id, safe='')}"))
    if json:
        show.json(gone)
    else:
        show.say(f"deleted {alert_id}")
