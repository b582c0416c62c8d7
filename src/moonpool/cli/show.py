"""How a command speaks: JSON for programs, tables and sentences for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="MOONPOOL_HOME", help="Where state lives.", show_default="~/.local/share/moonpool"),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="The file of settings.", show_default="moonpool.toml here or in home, if there"),
]


def json(page: object) -> None:
    sys.stdout.write(msgspec.json.encode(page).decode() + "\n")


def say(*lines: str) -> None:
    """To a person, on standard output; long lines stay whole, so that they can be copied."""
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """To a person, on standard error, beside what a program reads."""
    sys.stderr.write(line + "\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "none") -> None:
    """Columns as wide as the terminal allows; without a terminal, nothing is folded or cut."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*heads, box=None, pad_edge=False, header_style="bold")
    count = 0
    for row in rows:
        count += 1
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    if not count:
        note(empty)
        return
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 400, soft_wrap=not terminal, highlight=False, markup=False).print(drawn)


def facts(page: Mapping[str, Any]) -> None:
    width = max((len(name) for name in page), default=0)
    say(*(f"{name:<{width}}  {value}" for name, value in page.items()))


def tree(page: Any, indent: str = "") -> None:
    """Nested facts, one to a line."""
    for name, value in page.items():
        if isinstance(value, Mapping) and value:
            say(f"{indent}{name}:")
            tree(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            for number, part in enumerate(value):
                say(f"{indent}{name}[{number}]:")
                tree(part, indent + "  ")
        else:
            say(f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")


def when(at: float | None) -> str:
    """Unix seconds as the operator's own time."""
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
