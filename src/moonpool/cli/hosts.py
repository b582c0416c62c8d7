"""`moonpool hosts`: where models are served."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="Hosts: list them, check that each answers.", no_args_is_help=True)


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List the hosts of the catalogue that can be used, and why others cannot."""
    page = desk.ask(read(home, config), "GET", "/hosts")
    rows = page["data"]
    if json:
        show.json(rows)
        return
    show.table(
        ("name", "dialect", "transport", "base URL", "key", "concurrency"),
        (
            (
                row["name"],
                row["dialect"],
                row["transport"],
                row["base_url"],
                "yes" if row["has_key"] else "no",
                _concurrency(row),
            )
            for row in rows
        ),
    )
    for name, why in page["absent"].items():
        show.note(f"not in use: {name} ({why})")


def _concurrency(row: dict[str, Any]) -> str:
    limits = [f"{row['concurrency']}"] if row["concurrency"] else []
    limits += [f"{limit} {model}" for model, limit in row["concurrency_by_model"].items() if limit]
    return ", ".join(limits) or "unlimited"


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="Only this host.")] = None,
    json: show.Json = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Ask each host what it serves and what is left there, and say what to do; exit code 1 when one cannot be used."""
    query = {"host": name} if name else {}
    rows = desk.ask(read(home, config), "POST", "/hosts/check", **query)["data"]
    if json:
        show.json(rows)
    else:
        show.table(
            ("name", "dialect", "", "models", "not there", "balance", "after", "says"),
            (
                (
                    row["name"],
                    row["dialect"],
                    "ok" if row["ok"] else "FAILED",
                    row["models"],
                    ", ".join(row["missing"]),
                    row["balance"],
                    f"{row['took_s']:.3f} s",
                    row["says"],
                )
                for row in rows
            ),
            empty="no host is configured",
        )
        for row in rows:
            if row["do"]:
                show.say(f"{row['name']}: {row['do']}.")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)
