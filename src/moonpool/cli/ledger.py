"""`moonpool ledger`: does it add up, and what became of an account's money?"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read
from moonpool.settings import Settings
from moonpool.web.sums import STATEMENT_HEADS

POSTGRES = ("postgresql://", "postgres://")

app = typer.Typer(help="The ledger: check it, statements, a file without its log.", no_args_is_help=True)


@app.command()
def audit(
    database: Annotated[
        str | None,
        typer.Option(help="This file, or postgresql://…, instead of the store in the settings: a backup, say."),
    ] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Compute every balance, pack and sum anew from its entries and say what differs; exit code 1 if anything does. It
    only reads, and may run beside a server."""
    from moonpool.app import store_address
    from moonpool.state.recount import postgres_engine, recount, sqlite_engine
    from moonpool.state.wholeness import needs_log

    where = database or store_address(read(home, config), os.environ)
    shared = where.startswith(POSTGRES)
    engine = postgres_engine(where) if shared else sqlite_engine(Path(where))
    try:
        alone = not shared and needs_log(Path(where))
        with engine.connect() as connection:
            found = recount(connection, time.time(), show.note)
        if alone:
            found("log", f"{where} was copied without its log: what was committed last is not in it.")
    finally:
        engine.dispose()
    sentences = found.sentences()
    if json:
        show.json({"differences": found.count, "sentences": sentences})
    elif sentences:
        show.say(*sentences)
    else:
        show.say("the ledger adds up")
    if found.count:
        raise typer.Exit(1)


@app.command("accept-loss")
def accept_loss(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Go on with a database whose log (moonpool.db-wal) is gone, when neither it nor a backup can be put back: what was
    committed last is lost. Nothing changes where nothing is missing. A line of the audit log says that it was done."""
    from moonpool.app import store_address

    settings = read(home, config)
    if store_address(settings, os.environ).startswith(POSTGRES):
        raise desk.Refused("PostgreSQL keeps its log itself: there is nothing to accept.")
    accepted = asyncio.run(_accepted(settings))
    if json:
        show.json({"accepted": accepted})
    else:
        show.say("accepted; check what is left: moonpool ledger audit" if accepted else "nothing is missing")


async def _accepted(settings: Settings) -> bool:
    from moonpool.app import open_store
    from moonpool.state.base_admin import Change

    store = open_store(settings, accept_loss=True)
    await store.start()
    try:
        if store.lost:
            change = Change(time.time(), "operator", "ledger accept-loss", str(settings.store_path()))
            await store.office.audit.write(change)
        return store.lost
    finally:
        await store.stop()


@app.command()
def statement(
    account: Annotated[str, typer.Argument(help="The account's name.")],
    month: Annotated[
        str | None, typer.Option(help="Like 2026-11, as months are in Beijing.", show_default="this one")
    ] = None,
    csv_: Annotated[bool, typer.Option("--csv", help="Print the movements as a table with commas.")] = False,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Show what an account had when a month began, what came and went, and what it had at the end."""
    path = f"/accounts/{quote(account, safe='')}/statement"
    page = desk.ask(read(home, config), "GET", path, None, **({"month": month} if month else {}))
    if csv_:
        from moonpool.web import csv

        sys.stdout.write(csv.lines([STATEMENT_HEADS, *(list(line.values()) for line in page["lines"])]).decode())
        return
    if json:
        show.json(page)
        return
    for name in ("opening", "closing"):
        if name == "closing":
            heads = [head for head in STATEMENT_HEADS if head != "requests"]
            show.table(heads, ([line[head] for head in heads] for line in page["lines"]), empty="nothing moved")
        for each in page[name]:
            parts = ", ".join(f"{fund} {each[fund]}" for fund in ("granted", "topped_up", "post_paid"))
            show.say(f"{name}  {each['total']} {each['currency']}  ({parts})")
    for pack in page["packs"]:
        show.say(f"pack {pack['id']}: {pack['units']} {pack['unit']}, {pack['what']}")
    for use in page["pack_use"]:
        show.say(f"{use['day']}  {use['units']} units of packs for {use['model']}")
