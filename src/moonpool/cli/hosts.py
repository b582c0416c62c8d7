"""`moonpool hosts`: where models are served."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from moonpool.cli import desk, show
from moonpool.cli.options import read

app = typer.Typer(help="Hosts: list them, check that each answers.", no_args_is_help=True)


@app.command("list")
def list_(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """List the hosts that can be used, why others cannot, how each is doing, and what their caches saved."""
    page = desk.ask(read(home, config), "GET", "/hosts")
    rows = page["data"]
    if json:
        places, caches = page.get("places", []), page.get("caches", [])
        for row in rows:
            row["models"] = [place for place in places if place["host"] == row["name"]]
            row["cache"] = next((cache for cache in caches if cache["account"] == row["account"]), None)
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
    if page.get("places"):
        show.say("")
        show.table(
            ("host", "model there", "", "running", "waiting", "failed", "an answer takes"),
            (
                (
                    place["host"],
                    place["model"],
                    _state(place),
                    f"{place['running']} of {place['room']}" if place["room"] else place["running"],
                    place["waiting"],
                    f"{place['share_failed']:.0%}",
                    f"{place['answer_s']:.1f} s" if place["answer_s"] else "",
                )
                for place in page["places"]
            ),
        )
    for cache in page.get("caches", ()):
        saved = ", ".join(f"{amount} {currency}" for currency, amount in cache["saved"].items()) or "nothing"
        show.note(
            f"cache of {cache['account']}: {cache['hit']} of {cache['expected']} conversations found again, "
            f"{cache['tokens']} tokens, saved {saved}"
        )


def _state(place: dict[str, Any]) -> str:
    if not place["trouble"]:
        return "ok"
    return f"{place['trouble']} ({place['why']}), again in {place['again_in_s']:.0f} s"


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
