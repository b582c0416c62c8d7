"""Which faults of hosts, networks, keys and nodes are tested, and does each still have its test? Cases are those of the
reliability notes, by number; a test says in its docstring which it plays (`case 14`, `cases 16 to 18`, `cases 27, 35
and 36`)."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from tidy.tree import ROOT, functions, name, python

CASES = (*range(14, 48), 70, 79, 93, *range(98, 101), *range(102, 109), 192, 193, 195)
"""Faults of the host are 14 to 40, of the network 41 to 47; keys are 98 to 108; the others are about several nodes."""

_CASES = re.compile(r"\bcases?\s+(\d+(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s+to\s+|\s*-\s*)\d+)*)", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)\s*(?:to|-)\s*(\d+)")


def cases(text: str) -> set[int]:
    """The numbers a docstring names."""
    found: set[int] = set()
    for match in _CASES.finditer(text):
        said = match[1]
        for first, last in _RANGE.findall(said):
            found.update(range(int(first), int(last) + 1))
        found.update(int(number) for number in re.findall(r"\d+", said))
    return found


def played() -> dict[int, list[str]]:
    """Case -> the tests that play it."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in python(ROOT / "tests" / "faults"):
        for function in functions(path):
            if function.name.startswith("test_") and _runs(path, function):
                for case in cases(ast.get_docstring(function) or ""):
                    found[case].append(f"{name(path)}:{function.name}")
    return found


def _runs(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A test that is skipped plays nothing."""
    return path.name.startswith("test_") and not any("skip" in ast.unparse(mark) for mark in function.decorator_list)


def test_every_case_has_its_test() -> None:
    """None of them can be dropped in silence: each is named by a test that runs."""
    there = played()
    missing = [case for case in CASES if case not in there]
    assert not missing, f"no test in tests/faults says in its docstring that it plays case {missing}"


def test_numbers_are_read_as_they_are_written() -> None:
    """Single ones, lists, ranges, over the end of a line; nothing else is a case."""
    assert cases("Case 14: x") == {14}
    assert cases("RELIABILITY cases 16 to 18, and\ncase\n20.") == {16, 17, 18, 20}
    assert cases("Cases 27, 35 and 36; cases 1, 2, and 3: in 40 ms") == {1, 2, 3, 27, 35, 36}
    assert cases("in any case 5 or so? lower case. 9 cases, 40 tests") == {5}
