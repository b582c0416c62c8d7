"""The table, the ratios and the goals of a run, as text."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

Results = dict[str, dict[str, Any]]

ROWS: tuple[tuple[str, str, str], ...] = (
    ("whole answers, requests/s", "requests_s", ",.0f"),
    ("of which CPU of the gateway, us a request", "cpu_gateway_us", ".0f"),
    ("of which CPU of PostgreSQL, us a request", "cpu_postgres_us", ".0f"),
    ("of which CPU of Redis, us a request", "cpu_redis_us", ".0f"),
    ("streams of 50 events at once, streams/s", "streams_s", ",.0f"),
    ("the same, events/s", "events_s", ",.0f"),
    ("added latency p50, 1 connection, ms", "added_p50_1_ms", ".2f"),
    ("added latency p99, 1 connection, ms", "added_p99_1_ms", ".2f"),
    ("added latency p50, 64 connections, ms", "added_p50_64_ms", ".2f"),
    ("added latency p99, 64 connections, ms", "added_p99_64_ms", ".2f"),
    ("memory per open stream of 1,000, KiB", "kib_per_stream", ".1f"),
    ("resident when idle, MiB", "idle_mib", ".0f"),
    ("streams paced at 20 ms that keep pace", "paced_streams", ",.0f"),
    ("p99 lateness of events at 600 streams, ms", "late_p99_at_goal_ms", ".1f"),
    ("upstream closed after hang-ups, s", "hangups_closed_s", ".2f"),
    ("failed requests", "failed_all", ",.0f"),
)
HIGHER_IS_BETTER = ("requests_s", "streams_s", "events_s", "paced_streams")


def derive(results: Results) -> None:
    """Add what follows from a gateway's own numbers and from the direct run."""
    direct = results.get("direct", {})
    for name, row in results.items():
        if name != "direct":
            for field in ("p50_1_ms", "p99_1_ms", "p50_64_ms", "p99_64_ms"):
                if field in row and field in direct:
                    row[f"added_{field}"] = row[field] - direct[field]
        if row.get("idle_kib"):
            row["idle_mib"] = row["idle_kib"] / 1024
        if row.get("at_goal"):
            row["late_p99_at_goal_ms"] = row["at_goal"]["late_p99_ms"]


def _cell(row: dict[str, Any], field: str, form: str) -> str:
    value = row.get(field)
    return "–" if value is None else format(value, form)


def _grid(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    for n, line in enumerate(lines):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("| " + " | ".join(cells) + " |")
        if n == 0:
            dashes = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
            out.append("| " + " | ".join(dashes) + " |")
    return "\n".join(out)


def table(results: Results) -> str:
    """Markdown: one row per measurement, one column per gateway."""
    names = list(results)
    lines = [["one core", *(f"{n} {results[n].get('version', '')}".strip() for n in names)]]
    lines += [[title, *(_cell(results[n], field, form) for n in names)] for title, field, form in ROWS]
    return _grid(lines)


def _ratio(ours: dict[str, Any], theirs: dict[str, Any], field: str) -> float | None:
    return ours[field] / theirs[field] if ours.get(field) and theirs.get(field) else None


def ratios(results: Results) -> str:
    """Markdown: moonpool as a multiple of each peer, where more is better."""
    ours = results.get("moonpool")
    peers = [name for name in ("litellm", "nginx", "direct") if name in results]
    if ours is None or not peers:
        return ""
    lines = [["moonpool as a multiple of", *peers]]
    for title, field, _ in ROWS:
        if field in HIGHER_IS_BETTER:
            values = [_ratio(ours, results[peer], field) for peer in peers]
            lines.append([title, *("–" if v is None else f"{v:,.1f}" if v >= 10 else f"{v:.3f}" for v in values)])
    return _grid(lines)


def goals(results: Results) -> list[tuple[str, str, bool | None]]:
    """(goal, what was measured, met); met is None where it was not measured."""
    ours = results.get("moonpool", {})
    litellm = results.get("litellm", {})
    many = results.get("many", {})
    rows: list[tuple[str, str, bool | None]] = []

    def at_least(title: str, value: float | None, bound: float) -> None:
        rows.append(
            (title, "not measured" if value is None else f"{value:,.1f}", None if value is None else value >= bound)
        )

    def at_most(title: str, value: float | None, bound: float) -> None:
        rows.append(
            (title, "not measured" if value is None else f"{value:,.2f}", None if value is None else value <= bound)
        )

    at_least("at least 9,000 whole answers a second", ours.get("requests_s"), 9000)
    at_least("at least 3,000 streams of 50 events a second", ours.get("streams_s"), 3000)
    at_least("at least 150,000 events a second", ours.get("events_s"), 150_000)
    at_least("at least 600 streams paced at 20 ms keep pace", ours.get("paced_streams"), 600)
    at_most("under 1 ms added at p50, 1 connection", ours.get("added_p50_1_ms"), 1.0)
    at_most("under 2.5 ms added at p99, 1 connection", ours.get("added_p99_1_ms"), 2.5)
    at_least("at least 80 times LiteLLM, whole answers", _ratio(ours, litellm, "requests_s"), 80)
    at_least("at least 80 times LiteLLM, streams", _ratio(ours, litellm, "streams_s"), 80)
    at_most("at most 48 KiB per open stream", ours.get("kib_per_stream"), 48.0)
    at_least("at least 4,000 whole answers a second, with PostgreSQL and Redis", many.get("requests_s"), 4000)
    for book in (*ours.get("books", ()), *many.get("books", ())):
        rows.append(("the books hold every dispatch once, none open", book["said"], book["right"]))
    return rows


def goals_text(results: Results) -> str:
    verdict = {True: "met", False: "MISSED", None: "–"}
    lines = [["goal", "measured", ""], *([title, value, verdict[met]] for title, value, met in goals(results))]
    return _grid(lines)


def machine() -> dict[str, str]:
    """What it ran on: never a host's name, an address or a path."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    one, _, _ = os.getloadavg()
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average before": f"{one:.2f}",
    }
