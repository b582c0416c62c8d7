"""`moonpool usage`: what the ledger says in sum."""

from __future__ import annotations

from moonpool.cli import desk, show
from moonpool.cli.options import read


def usage(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Show how many requests were booked, how they ended, and the tokens used."""
    totals = desk.ask(read(home, config), "GET", "/totals")
    if json:
        show.json(totals)
    else:
        show.facts(totals)
