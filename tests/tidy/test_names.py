"""The names of providers and their models stand in their dialect's file and in the catalogue, nowhere else in code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tidy.tree import SOURCE, docstrings, name, python, tree

PROVIDERS = (
    "deepseek", "lkeap", "tokenhub", "aigateway", "newapi", "tencent", "clickzetta", "vllm", "sglang", "ollama",
)  # fmt: skip
_NAMED = re.compile("|".join(PROVIDERS), re.IGNORECASE)


def _elsewhere() -> list[Path]:
    # Its own files, and the registry of dialects, which names each once.
    homes = {path for name in (*PROVIDERS, "__init__") for path in (SOURCE / "dialects").glob(f"{name}*.py")}
    return [path for path in python(SOURCE) if path not in homes and not path.is_relative_to(SOURCE / "catalog")]


def _spoken(path: Path) -> list[tuple[int, str]]:
    """Identifiers and strings of a module with their lines, but for docstrings and imports."""
    aside = docstrings(path)
    imported = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            imported |= {alias.asname or alias.name.split(".")[-1] for alias in node.names}
    found = []
    for node in ast.walk(tree(path)):
        if id(node) in aside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            found.append((node.lineno, value))
        elif isinstance(node, ast.Name) and node.id not in imported:
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute):
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            found.append((node.lineno, node.arg))
    return found


@pytest.mark.parametrize("path", _elsewhere(), ids=name)
def test_providers_stay_at_home(path: Path) -> None:
    """No rule hangs on a provider's name outside its own file."""
    wrong = [f"{name(path)}:{line}: {said[:60]!r}" for line, said in _spoken(path) if _NAMED.search(said)]
    assert not wrong, "\n".join(wrong)
