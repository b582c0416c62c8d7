"""Modules and functions that one can read at a sitting. The lists of exceptions may only shrink."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidy.tree import SOURCE, files, functions, name, python

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 200 * 1024

# name: lines it may have, and why. A row that is no longer needed fails.
LONG_MODULES: dict[str, tuple[int, str]] = {}
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}


@pytest.mark.parametrize("path", python(SOURCE), ids=name)
def test_sizes(path: Path) -> None:
    """A module has at most 400 lines, a function 70, unless a row says how many and why."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    allowed, _ = LONG_MODULES.get(name(path), (MODULE_LINES_MAX, ""))
    assert lines <= allowed, f"{name(path)} has {lines} lines: which two modules is it?"
    for function in functions(path):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        allowed, _ = LONG_FUNCTIONS.get(f"{name(path)}:{function.name}", (FUNCTION_LINES_MAX, ""))
        assert length <= allowed, f"{name(path)}:{function.lineno}: {function.name} has {length} lines"


def test_exceptions_are_needed() -> None:
    """A row of an exceptions list goes when what it excuses has shrunk."""
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python(SOURCE)}
    lengths = {
        f"{name(path)}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in python(SOURCE)
        for function in functions(path)
    }
    assert not [row for row in LONG_MODULES if lines.get(row, 0) <= MODULE_LINES_MAX]
    assert not [row for row in LONG_FUNCTIONS if lengths.get(row, 0) <= FUNCTION_LINES_MAX]


def test_no_large_files() -> None:
    """Weights, databases and recordings are data of a machine, not of the repository."""
    assert not [
        f"{name(path)}: {path.stat().st_size} bytes" for path in files() if path.stat().st_size > FILE_BYTES_MAX
    ]
