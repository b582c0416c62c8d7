"""Tests about tests: each states its promise, none waits for a clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tidy.tree import ROOT, SOURCE, functions, name, python, tree

_TESTS = [path for path in python(ROOT / "tests") if path.name.startswith("test_")]


@pytest.mark.parametrize("path", _TESTS, ids=name)
def test_promises_are_stated(path: Path) -> None:
    """A test's docstring says what it promises."""
    silent = [
        f"{name(path)}:{f.lineno}: {f.name}"
        for f in functions(path)
        if f.name.startswith("test_") and not ast.get_docstring(f)
    ]
    assert not silent, "\n".join(silent)


# file -> how many loops look again and again, with a deadline, for what nobody tells.
_POLLS = {
    "tests/faults/cluster.py": 1,
    "tests/faults/test_edge_sockets.py": 1,
    "tests/faults/test_postgres_books.py": 1,
    "tests/faults/test_postgres_nodes.py": 1,
    "tests/faults/test_workers.py": 1,
    "tests/postgres.py": 1,
}


def _sleeps(path: Path) -> list[int]:
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = node.func
            is_time = (
                isinstance(called, ast.Attribute) and called.attr == "sleep" and ast.unparse(called.value) == "time"
            )
            # asyncio.sleep(0) gives others their turn and waits for nothing.
            is_loop = (
                isinstance(called, ast.Attribute)
                and ast.unparse(called) == "asyncio.sleep"
                and ast.unparse(node.args[0]) != "0"
            )
            if is_time or is_loop or (isinstance(called, ast.Name) and called.id == "sleep"):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", python(ROOT / "tests"), ids=name)
def test_nobody_sleeps(path: Path) -> None:
    """Tests drive clocks by argument and wait for events with a deadline; they never sleep."""
    found = [f"{name(path)}:{line}" for line in _sleeps(path)]
    assert len(found) == _POLLS.get(name(path), 0), found


@pytest.mark.parametrize("path", python(SOURCE), ids=name)
def test_modules_are_introduced(path: Path) -> None:
    """Every module, and so every package, begins with the question it answers."""
    assert ast.get_docstring(tree(path)), f"{name(path)} has no docstring"


def test_packages_have_their_file() -> None:
    """Every folder with Python in it is a package that says what it is for."""
    rooms = {path.parent for path in python(SOURCE)}
    assert not [name(room) for room in rooms if not (room / "__init__.py").is_file()]
