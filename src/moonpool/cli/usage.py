"""`moonpool usage`: what the ledger says in sum."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read
from moonpool.settings import Settings
from moonpool.web import sums

Csv = Annotated[bool, typer.Option("--csv", help="Print a table with commas, all of it.")]
_PAGE = "1000"


def usage(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's, by its id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    host: Annotated[str | None, typer.Option(help="Only what this host answered.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 2026-11-01 (Beijing), a time, Unix seconds.")] = None,
    until: Annotated[str | None, typer.Option(help="Until then, which is not included.")] = None,
    by: Annotated[str | None, typer.Option(help="account,key,model,host and day or hour: a row for each.")] = None,
    csv_: Csv = False,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Show what was used: without options everything since the ledger was made, with any of them sums of this month or
    of the time that is given."""
    settings = read(home, config)
    typed = {
        "account": account,
        "key": key,
        "model": model,
        "host": host,
        "start": since,
        "end": until,
        "group_by": by,
    }
    query = {name: value for name, value in typed.items() if value is not None}
    if not (query or csv_):
        _totals(settings, json)
        return
    about, rows = pages(settings, "/usage", query, as_csv=csv_)
    if json and not csv_:
        show.json({**about, "data": rows})
    elif not csv_:
        # Nobody reads sixteen columns: tokens in two, money in one.
        heads = [name for name in rows[0] if name not in _FINE] if rows else []
        show.table(heads, ([row[name] for name in heads] for row in rows), empty="nothing was used in this time")


_FINE = {
    "estimated",
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
    "reasoning_tokens",
    "granted",
    "topped_up",
    "on_credit",
}


def _totals(settings: Settings, json: bool) -> None:
    totals = desk.ask(settings, "GET", "/totals")
    if json:
        show.json(totals)
    else:
        show.facts(totals)


def pages(
    settings: Settings, path: str, query: dict[str, str], *, as_csv: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All pages of a route: what it says of the question, and the rows; or, as CSV, printed page by page and kept
    nowhere."""
    from moonpool.web import csv

    rows: list[dict[str, Any]] = []
    after: str | None = None
    first = True
    while True:
        page = desk.ask(settings, "GET", path, None, limit=_PAGE, **query, **({"after": after} if after else {}))
        found, after = page.pop("data"), page.pop("next")
        # The same moment for all pages, or a page would go on in another question.
        query = {**query, "start": repr_of(page["start"]), "end": repr_of(page["end"])}
        if as_csv:
            if found and first:
                sys.stdout.write(csv.lines([list(found[0])]).decode())
                first = False
            sys.stdout.write(csv.lines(sums.flat(row) for row in found).decode())
        else:
            rows += found
        if after is None:
            return page, rows


def repr_of(at: float) -> str:
    """A moment as a query takes it, not earlier."""
    return str(int(-(-at // 1)))
