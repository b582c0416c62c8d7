"""How many small mistakes in the ledger and in the limiter do their tests notice?

Each mutant is a module with one change: a comparison that is one off or turned round, a sum that is a difference, the
larger for the smaller, a condition turned round, a whole number one larger, a call left out. It is killed when a test
fails: first those of the module itself, and only if they pass the longer ones, up to those of whole books. `--count N`
tries so many of all, drawn with `--seed`; 0 tries all. Each result is told when it is known; whoever stops it (Ctrl-C,
SIGTERM) is told the score so far.

Not tried is what says nothing when it runs: annotations, docstrings, flags like `frozen=True` and `gc=False`, and of
numbers those that are not whole. EQUAL names changes that no caller can notice, and why; a row that fits nothing any
more is an error. There are more of those than rows, so the true score is higher.

Hypothesis tries the same examples for every mutant, without limits of time and without making a failure small. A mutant
whose tests do not end counts as killed, and is shown as such.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "moonpool"

_PARTS = "unit/state/test_tally.py unit/state/test_books_parts.py"
_BOOKS = "conformance/test_books_rules.py conformance/test_books_funds.py conformance/test_books.py"
_MODEL = "conformance/test_books_model.py"
_DISK = "faults/test_store_disk.py -k not every_statement"
_LOST = "faults/test_limits_store.py"
_LINK = "faults/test_limits_link.py"
# module -> its tests, from the nearest to the longest
TESTS: dict[str, tuple[str, ...]] = {
    "ledger/access.py": ("unit/ledger/test_access.py",),
    "ledger/entries.py": ("unit/ledger/test_entries.py", _PARTS, _BOOKS),
    "ledger/estimate.py": ("unit/ledger/test_estimate.py",),
    "ledger/funds.py": ("unit/ledger/test_funds.py", _PARTS, _BOOKS),
    "ledger/guesses.py": ("unit/ledger/test_guesses.py",),
    "ledger/keys.py": ("unit/ledger/test_keys.py",),
    "ledger/money.py": ("unit/ledger/test_money.py",),
    "ledger/reports.py": ("unit/ledger/test_reports.py", "unit/state/test_reports.py"),
    "ledger/spans.py": ("unit/ledger/test_spans.py",),
    "state/asks.py": ("unit/state/test_rates.py", "conformance/test_limiter.py -k memory"),
    "state/booking.py": (_PARTS, _BOOKS, _MODEL),
    "state/limiter.lua": ("conformance/test_limiter.py -k valkey", _LOST, _LINK),
    "state/memory.py": ("unit/state/test_rates.py", "conformance/test_limiter.py -k memory"),
    "state/rows.py": (_PARTS, _BOOKS, _MODEL),
    "state/setbacks.py": (_PARTS, _DISK, _BOOKS, "faults/test_store_disk.py -k every_statement"),
    "state/tally.py": (_PARTS, _BOOKS, _MODEL),
    "state/valkey.py": ("conformance/test_limiter.py -k valkey", _LOST, _LINK),
}
_NEVER = "not postgres and not first_start"
"""Left out everywhere: another database has the same rules, and a first start asks nothing of these modules."""
_FOREIGN = ("hypothesis.strategies", "sqlalchemy.dialects.sqlite", "alembic.command", "psycopg", "redis", "msgspec")
"""What takes long to import and is none of ours."""

# module -> change -> why nobody can notice it
EQUAL: dict[str, dict[str, str]] = {
    "ledger/access.py": {"one more: 16384 in _PEERS_MAX: Final = 16_384": "of how many addresses the answer is kept"},
    "ledger/entries.py": {
        "one more: 1 in TOKENS_MAX: Final = 2**31 - 1": "has as many bits, and only they are asked for"
    },
    "ledger/funds.py": {
        "compare: free <= 0": "of nothing, nothing is taken",
        "compare: there > 0": "of nothing, nothing is drawn",
    },
    "ledger/guesses.py": {
        "one more: 8 in guess = digest[:8]": "of a digest, either is enough",
    },
    "ledger/reports.py": {"one more: 0 in day, last_day = -(-(first - day_of(0)) // DAY_S) *": "the same day"},
    "state/booking.py": {"one more: 1 in if amount <= 0 or settled.get(place, -1) >= hour:": "no hour is as early"},
    "state/memory.py": {
        "one more: 0 in self._more[request_id] = _More(Asks(asks.account, ": "its tokens are not corrected here",
    },
    "state/tally.py": {
        "one more: 0 in owed = cost = 0": "what is voided is charged what it says: nothing",
        "one more: 0 in owed = 0": "what charges nothing is charged what it says: nothing",
    },
}

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
_EXTREME = {"min": "max", "max": "min"}
# Of Lua: comments and strings stay.
_LUA = re.compile(
    r"--[^\n]*|'[^'\n]*'|<=|>=|==|~=|<|>|\b(?:and|or)\b|[-+*]|\bmath\.(?:max|min)\b|(?<![\w.])\d+(?![\w.])"
)
_LUA_OTHER = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "~=", "~=": "==", "and": "or", "or": "and", "+": "-", "-": "+",
    "*": "+", "math.max": "math.min", "math.min": "math.max",
}  # fmt: skip


class Mutant(NamedTuple):
    """Change number `at` of a module."""

    module: str
    at: int
    line: int
    what: str


def mutants(module: str) -> list[Mutant]:
    text = (SOURCE / module).read_text()
    equal = dict.fromkeys(EQUAL.get(module, ()), 0)
    found = []
    for at, (line, what, _) in enumerate(_lua(text) if module.endswith(".lua") else _python(ast.parse(text), text)):
        if what in equal:
            equal[what] += 1
        else:
            found.append(Mutant(module, at, line, what))
    assert all(equal.values()), f"EQUAL names changes that {module} has no place for: {equal}"
    return found


def mutated(mutant: Mutant) -> str:
    """The source with its change."""
    text = (SOURCE / mutant.module).read_text()
    if mutant.module.endswith(".lua"):
        start, end, other = list(_lua(text))[mutant.at][2]
        return text[:start] + other + text[end:]
    tree = ast.parse(text)
    list(_python(tree, text))[mutant.at][2]()
    return ast.unparse(ast.fix_missing_locations(tree))


def _python(tree: ast.Module, text: str) -> Iterator[tuple[int, str, Callable[[], object]]]:
    """(line, what is changed, which changes it in the tree) of everything that can be."""
    silent, lines = _annotations(tree), text.splitlines()
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if (line, getattr(node, "col_offset", 0)) not in silent:
            for what, of, change in _changes(node):
                where = f" in {lines[line - 1].strip()[:50]}" if isinstance(of, ast.Constant) else ""
                yield line, f"{what}: {ast.unparse(of)}{where}", change


def _annotations(tree: ast.Module) -> set[tuple[int, int]]:
    """Where what stands says nothing when it runs."""
    notes = [
        node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation
    ]
    notes += [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns]
    return {(each.lineno, each.col_offset) for note in notes for each in ast.walk(note) if isinstance(each, ast.expr)}


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, Callable[[], object]]]:
    """(the kind of change, what is shown of it, which makes it)"""
    if isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.UnaryOp):
        return  # the same as its test turned
    if isinstance(node, ast.Compare):
        for at, each in enumerate(node.ops):
            if type(each) in _OTHER:
                kind = "compare" if len(node.ops) == 1 else f"compare, {at + 1}"
                yield kind, node, partial(node.ops.__setitem__, at, _OTHER[type(each)]())
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in _OTHER:
        yield (
            "both" if isinstance(node, ast.BoolOp) else "sum",
            node,
            partial(setattr, node, "op", _OTHER[type(node.op)]()),
        )
    elif isinstance(node, ast.If | ast.IfExp):
        yield "turn", node.test, partial(setattr, node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "turn", node, partial(setattr, node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for test, ifs, at in [(test, each.ifs, at) for each in node.generators for at, test in enumerate(each.ifs)]:
            yield "turn", test, partial(ifs.__setitem__, at, ast.UnaryOp(ast.Not(), test))
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "one more", node, partial(setattr, node, "value", node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _EXTREME:
        yield "extreme", node, partial(setattr, node.func, "id", _EXTREME[node.func.id])
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "left out", node, partial(setattr, node, "value", ast.Constant(None))


def _lua(text: str) -> Iterator[tuple[int, str, tuple[int, int, str]]]:
    """(line, what is changed, (from, to, what stands there then)) of everything that can be."""
    for found in _LUA.finditer(text):
        old = found[0]
        other = str(int(old) + 1) if old.isdigit() else _LUA_OTHER.get(old)
        if other is not None:
            line = text.count("\n", 0, found.start()) + 1
            what = f"{old} at {found.start() - text.rfind(chr(10), 0, found.start())}: {text.splitlines()[line - 1]}"
            yield line, what.replace("  ", ""), (found.start(), found.end(), other)


class Trial(NamedTuple):
    """A process that runs a step of the tests of a mutant (None: of no mistake) over a copy of the package."""

    process: BaseProcess
    folder: Path
    mutant: Mutant | None
    tests: tuple[str, ...]
    """This step and those that follow."""
    begun: float


class Bench:
    """Tries mutants, so many at a time. Its processes are forked from this one, which has imported what is not ours."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._as_it_is = folder / "as it is"
        self._folders = [folder / str(job) for job in range(jobs)]
        self._running: list[Trial] = []
        self._bounds_s: dict[str, float] = {}
        for each in (self._as_it_is, *self._folders):
            shutil.copytree(SOURCE, each / "moonpool")

    def tried(self, drawn: list[Mutant]) -> Iterator[tuple[Mutant, str | None]]:
        """Each mutant with the test that fails with it, or None if there is none; as they end."""
        waiting, free = drawn[::-1], list(self._folders)
        while waiting or self._running:
            while waiting and free:
                mutant, folder = waiting.pop(), free.pop()
                path = folder / "moonpool" / mutant.module
                path.write_text(mutated(mutant))
                for made in path.parent.glob(f"__pycache__/{path.stem}.*"):
                    made.unlink()
                self._begin(folder, mutant, TESTS[mutant.module])
            trial, why = self._next()
            assert trial.mutant is not None
            if why is None and len(trial.tests) > 1:
                self._begin(trial.folder, trial.mutant, trial.tests[1:])
                continue
            shutil.copy2(SOURCE / trial.mutant.module, trial.folder / "moonpool" / trial.mutant.module)
            free.append(trial.folder)
            yield trial.mutant, why

    def stop(self) -> None:
        for trial in self._running:
            _end(trial.process)

    def _begin(self, folder: Path, mutant: Mutant | None, tests: tuple[str, ...]) -> None:
        if tests[0] not in self._bounds_s:
            self._measure(tests[0])
        self._running.append(_started(folder, mutant, tests))

    def _measure(self, tests: str) -> None:
        """They pass without a mistake; how long that takes bounds them with one."""
        trial = _started(self._as_it_is, None, (tests,))
        self._running.append(trial)
        trial.process.join()
        self._running.remove(trial)
        why = _failed(trial)
        assert why is None, f"{tests} fails as it is: {why}"
        self._bounds_s[tests] = 30.0 + 5 * (time.monotonic() - trial.begun)

    def _next(self) -> tuple[Trial, str | None]:
        """The first that ends, and the test that failed."""
        while True:
            ended = wait([trial.process.sentinel for trial in self._running], timeout=1.0)
            for trial in self._running:
                late = time.monotonic() > trial.begun + self._bounds_s[trial.tests[0]]
                if trial.process.sentinel in ended:
                    self._running.remove(trial)
                    return trial, _failed(trial)
                if late:
                    _end(trial.process)
                    self._running.remove(trial)
                    return trial, "tests that do not end"


def _started(folder: Path, mutant: Mutant | None, tests: tuple[str, ...]) -> Trial:
    process = get_context("fork").Process(target=_inside, args=(folder, tests[0], mutant is None))
    process.start()
    return Trial(process, folder, mutant, tests, time.monotonic())


def _failed(trial: Trial) -> str | None:
    """The test that failed in a trial that has ended."""
    trial.process.join()
    said = (trial.folder / "said").read_text(errors="replace")
    assert trial.process.exitcode != 5, f"no tests: {trial.tests[0]}\n{said}"
    named = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", said, re.MULTILINE)
    failed = named[1] if named else said.strip()[-200:] or f"exit {trial.process.exitcode}"
    return failed if trial.process.exitcode else None


class _Profile:
    """A plugin of pytest."""

    def pytest_configure(self) -> None:
        phases = Phase.explicit, Phase.generate
        settings.register_profile(
            "mutants", max_examples=50, derandomize=True, database=None, deadline=None, phases=phases
        )
        settings.load_profile("mutants")


def _inside(folder: Path, tests: str, keep: bool) -> None:
    """What the process of a trial does. `keep`: what is compiled here is good for others."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number in (1, 2):
        os.dup2(said, number)
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    if not keep:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import moonpool

    assert str(moonpool.__file__).startswith(str(folder)), moonpool.__file__
    paths, _, chosen = tests.partition(" -k ")
    options = ["-x", "-rfE", "--tb=no", "-p", "no:xdist", "-p", "no:anyio"]
    options += ["-W", "ignore:Module already imported", "-k", f"({_NEVER}) and {chosen}" if chosen else _NEVER]
    sys.exit(int(pytest.main([*options, *(f"tests/{each}" for each in paths.split())], plugins=[_Profile()])))


def _end(process: BaseProcess) -> None:
    """Let tests end what they have started, if they can."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.is_alive():
            os.killpg(process.pid, number)  # type: ignore[arg-type]
            process.join(timeout=10)


def _tell(*words: object) -> None:
    print(*words, flush=True)


def _score(results: list[tuple[Mutant, bool]], of: int, chosen: int) -> float:
    """Prints what came of each module, and of all; per cent."""
    tried, killed = Counter(each.module for each, _ in results), Counter(each.module for each, dead in results if dead)
    for module in sorted(tried):
        _tell(f"  {module:20} {killed[module]:4} of {tried[module]:4}  {100.0 * killed[module] / tried[module]:5.1f} %")
    score = 100.0 * killed.total() / max(1, len(results))
    left = f", {chosen - len(results)} not tried" if chosen > len(results) else ""
    _tell(f"{killed.total()} of {len(results)} mutants killed ({of} there are{left}): {score:.1f} %")
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default="*", metavar="PATTERN", help="like 'ledger/*'; several with commas")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.0, metavar="PERCENT", help="fail below this score")
    wanted = parser.parse_args()
    modules = [each for each in TESTS if any(fnmatch.fnmatch(each, some) for some in wanted.modules.split(","))]
    every = [mutant for module in modules for mutant in mutants(module)]
    drawn = random.Random(wanted.seed).sample(every, min(wanted.count or len(every), len(every)))
    results: list[tuple[Mutant, bool]] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for package in _FOREIGN:
        importlib.import_module(package)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), wanted.jobs)
        try:
            _tell(f"{len(drawn)} of {len(every)} mutants, seed {wanted.seed}")
            for at, (mutant, why) in enumerate(bench.tried(drawn), 1):
                results.append((mutant, why is not None))
                what = " ".join(mutant.what.split())[:90]
                _tell(f"{at:4} {'killed' if why else 'lived '} {mutant.module}:{mutant.line}: {what}  {why or ''}")
        except KeyboardInterrupt:
            _score(results, len(every), len(drawn))
            return 130
        finally:
            bench.stop()
    return int(_score(results, len(every), len(drawn)) < wanted.least)


if __name__ == "__main__":
    sys.exit(main())
