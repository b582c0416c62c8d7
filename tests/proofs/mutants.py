"""How many small mistakes in the ledger do its tests notice?

Each mutant is the ledger with one change: a comparison that is one off, a sum that is a difference, a condition turned
round, a number one larger, a statement left out. It is killed when a test fails. `--count N` tries so many of them,
drawn with `--seed`; 0 tries all (about two hours on two cores). Prints those that lived, and the score. Some cannot be
noticed because they change nothing; nobody has marked those, so the true score is higher.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    *(f"ledger/{name}.py" for name in ("entries", "estimate", "funds", "keys", "money", "spans")),
    *(f"state/{name}.py" for name in ("booking", "rows", "setbacks", "tally")),
]
TESTS = [
    "tests/unit/ledger",
    "tests/unit/state/test_tally.py",
    "tests/conformance/test_books_funds.py",
    "tests/conformance/test_books.py",
    "tests/conformance/test_books_rules.py",
    "tests/faults/test_store_disk.py",
    "tests/conformance/test_books_model.py",
]
_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """(node, what can be changed about it), in the order of the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER:
            yield node, "compare"
        elif isinstance(node, ast.BoolOp):
            yield node, "both"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OTHER:
            yield node, "sum"
        elif isinstance(node, ast.If | ast.IfExp):
            yield node, "turn"
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node, "one more"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node, "left out"


def mutants(source: str) -> list[tuple[int, str, str]]:
    """(line, what was changed, the source) of each."""
    found = []
    count = sum(1 for _ in places(ast.parse(source)))
    original = ast.parse(source)
    skipped = _annotations(original)
    for at in range(count):
        tree = copy.deepcopy(original)
        node, what = list(places(tree))[at]
        if (node.lineno, node.col_offset) in skipped:  # type: ignore[attr-defined]
            continue
        before = ast.unparse(node)
        _change(tree, node, what)
        found.append((node.lineno, f"{what}: {before}", ast.unparse(ast.fix_missing_locations(tree))))  # type: ignore[attr-defined]
    return found


def _annotations(tree: ast.Module) -> set[tuple[int, int]]:
    """Where what stands says nothing when it runs."""
    notes = [
        node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation
    ]
    notes += [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns]
    return {(each.lineno, each.col_offset) for note in notes for each in ast.walk(note) if hasattr(each, "lineno")}


def _change(tree: ast.Module, node: ast.AST, what: str) -> None:
    if isinstance(node, ast.Compare):
        node.ops[0] = _OTHER[type(node.ops[0])]()  # type: ignore[assignment]
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign):
        node.op = _OTHER[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant):
        node.value += 1  # type: ignore[operator]
    else:
        assert isinstance(node, ast.Expr)
        node.value = ast.Constant(None)


def killed(module: str, source: str) -> bool:
    """Does a test fail with this source in place of the module's?"""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            ROOT / "src" / "moonpool", Path(folder) / "moonpool", ignore=shutil.ignore_patterns("__pycache__")
        )
        (Path(folder) / "moonpool" / module).write_text(source)
        environ = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", "not postgres", "--timeout", "120", *TESTS]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=400, check=False)
        except subprocess.TimeoutExpired:
            return True
        assert done.returncode in {0, 1, 2, 3, 4}, done.stdout.decode()[-2000:]
        return done.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.0)
    wanted = parser.parse_args()
    every = [
        (module, *mutant) for module in MODULES for mutant in mutants((ROOT / "src" / "moonpool" / module).read_text())
    ]
    drawn = random.Random(wanted.seed).sample(every, wanted.count or len(every))
    assert not killed(MODULES[0], (ROOT / "src" / "moonpool" / MODULES[0]).read_text()), "the tests fail as it is"
    with ThreadPoolExecutor(wanted.jobs) as pool:
        results = list(pool.map(lambda each: killed(each[0], each[3]), drawn))
    for (module, line, what, _), dead in zip(drawn, results, strict=True):
        if not dead:
            print(f"lived: {module}:{line}: {what}")
    score = 100.0 * sum(results) / len(results)
    print(f"{sum(results)} of {len(results)} mutants killed ({len(every)} there are): {score:.1f} %")
    return int(score < wanted.least)


if __name__ == "__main__":
    sys.exit(main())
