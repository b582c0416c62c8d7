"""`moonpool prices`: what tokens cost now, and what accounts pay instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="Prices: show, agree on another one with an account.", no_args_is_help=True)

_Account = Annotated[str, typer.Argument(help="The account's name.")]
_Model = Annotated[str, typer.Argument(help="The model's name, as a program asks for it.")]
_HEADS = ("missed", "cached", "answer", "1000 searches", "", "peak", "until")
_AMOUNTS = ("prompt_miss", "prompt_hit", "completion")


@app.command("show")
def show_(
    account: Annotated[str, typer.Argument(help="What this account agreed on; none: the list.")] = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Show what a million tokens of each model cost now, or what an account pays instead."""
    settings = read(home, config)
    if not account:
        page = desk.ask(settings, "GET", "/prices")
        if json:
            show.json(page)
            return
        show.table(
            ("model", "product", *_HEADS), ((row["model"], row["product"], *_cells(row)) for row in page["data"])
        )
        for warning in page["warnings"]:
            show.note(warning)
        return
    page = desk.ask(settings, "GET", _path(account))
    if json:
        show.json(page)
        return
    show.table(
        ("model", "from", "agreed"),
        ((row["model"], row["valid_from"], _says(row["price"])) for row in page["data"]),
        empty=f"{account} pays list prices: moonpool prices show",
    )
    if page["now"]:
        show.say("", "now:")
        show.table(("model", *_HEADS), ((model, *_cells(row)) for model, row in page["now"].items()))


@app.command("set")
def set_(
    account: _Account,
    model: _Model,
    factor: Annotated[str, typer.Option(help="So many times the list price, like 0.8; 1 is the list again.")] = "",
    prompt_miss: Annotated[str, typer.Option(help="A million tokens of the question that were not cached.")] = "",
    prompt_hit: Annotated[str, typer.Option(help="A million that were.")] = "",
    completion: Annotated[str, typer.Option(help="A million tokens of the answer.")] = "",
    searches: Annotated[str, typer.Option(help="A thousand web searches.")] = "",
    currency: Annotated[str, typer.Option(help="Three letters.", show_default="CNY")] = "",
    peak_factor: Annotated[str, typer.Option(help="So many times as much in peak hours.")] = "",
    peak_calendar: Annotated[str, typer.Option(help="When it is peak: a calendar of the catalogue.")] = "weekdays",
    valid_from: Annotated[str, typer.Option("--from", help="The first day, in Beijing.", show_default="today")] = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Agree on a price with an account: a factor of the list's, or amounts. It holds for requests from now on."""
    said = {
        "factor": factor,
        "prompt_miss": prompt_miss,
        "prompt_hit": prompt_hit,
        "completion": completion,
        "searches": searches,
        "currency": currency,
    }
    price: dict[str, Any] = {name: value for name, value in said.items() if value}
    if not factor and not all(price.get(name) for name in _AMOUNTS):
        raise typer.BadParameter("give --factor, or all of --prompt-miss, --prompt-hit and --completion")
    if peak_factor:
        price["peak"] = {"calendar": peak_calendar, "factor": peak_factor}
    body = {"price": price, "valid_from": valid_from}
    row = desk.ask(read(home, config), "PUT", _path(account, model), body)
    if json:
        show.json(row)
    else:
        show.say(f"{account} pays for {model} from {row['valid_from']} on: {_says(row['price'])}")


@app.command("unset")
def unset(
    account: _Account,
    model: _Model,
    valid_from: Annotated[str, typer.Option("--from", help="Only what begins on this day.")] = "",
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Forget what was agreed: the list's price holds again."""
    query = {"valid_from": valid_from} if valid_from else {}
    page = desk.ask(read(home, config), "DELETE", _path(account, model), **query)
    if json:
        show.json(page)
    else:
        show.say(f"{account} pays the list's price for {model}, or what was agreed before")


def _path(account: str, model: str = "") -> str:
    path = f"/accounts/{quote(account, safe='')}/prices"
    return f"{path}/{quote(model, safe='')}" if model else path


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    until = show.when(row["until"]) if row["until"] is not None else ""
    peak = "yes" if row["peak"] else "no"
    return (*(row[name] for name in _AMOUNTS), row.get("searches", ""), row["currency"], peak, until)


def _says(price: Mapping[str, Any]) -> str:
    if price.get("factor"):
        return f"{price['factor']} × the list"
    text = " / ".join(price[name] for name in _AMOUNTS) + f" {price.get('currency', 'CNY')}"
    if price.get("searches"):
        text += f", {price['searches']} per 1000 searches"
    if price.get("peak"):
        peak = price["peak"]
        times = f"× {peak['factor']}" if peak.get("factor") else " / ".join(peak[name] for name in _AMOUNTS)
        text += f", at peak ({peak['calendar']}) {times}"
    return text
