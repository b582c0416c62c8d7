"""`moonpool audit`: who changed what, and whether that list is as it was written."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="The log of changes: list, verify.", no_args_is_help=True)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    before: Annotated[int | None, typer.Option(min=1, help="Only those before this number.")] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """List who changed what, newest first."""
    query = {"limit": str(limit)} | ({"before": str(before)} if before is not None else {})
    rows = desk.ask(read(home, config), "GET", "/audit", **query)["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("number", "at", "who", "what", "of what", "detail"),
        (
            (
                row["seq"],
                show.when(row["at"]),
                row["actor"],
                row["action"],
                row["target"],
                msgspec.json.encode(row["detail"]).decode(),
            )
            for row in rows
        ),
        empty="nothing was changed yet",
    )


@app.command()
def verify(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Check that no row was edited, removed or put elsewhere; exit code 1 when one was. The hash that is printed, noted
    elsewhere, shows later that nothing was cut off and written anew."""
    found = desk.ask(read(home, config), "GET", "/audit/verify")
    if json:
        show.json(found)
    elif found["ok"]:
        show.say(f"{found['rows']} rows, each as it was written; the last one's hash is {found['head']}")
    else:
        show.note(f"moonpool: the log is not whole: {found['trouble']}")
    if not found["ok"]:
        raise typer.Exit(1)
