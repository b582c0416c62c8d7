"""Crashes, power cuts and failing calls below SQLite, at every write and sync of a whole life of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import POSTPAID, PREPAID, a_deposit, a_hold, a_resolution
from faults.auditor import audit, look, written
from faults.vfs import FULL, IOERR_FSYNC, IOERR_READ, IOERR_WRITE, Log, lay, watched
from moonpool.errors import Problem
from moonpool.ledger.funds import Pack
from moonpool.state import file
from moonpool.state.base import Hold, Progress
from moonpool.state.sqlite import SqliteStore
from moonpool.state.wholeness import needs_log
from moonpool.words import Limits, Price, Usage

PRICE = Price(1, 1, 1, version="a price")
SEEDS = 500
LEVELS = 20


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 120))


def _hold(name: str, account: str) -> Hold:
    limits = Limits(day_pico=10**6) if account == "acme" else None
    return replace(a_hold(name, 30, account), tokens=6, token_pico=5, limits=limits)


class Told:
    """What a store said is durable, and how many calls of the file system there had been by then."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.holds: list[tuple[int, str]] = []
        self.resolved: list[tuple[int, str]] = []
        self.deposits: list[tuple[int, str]] = []

    async def note(self, book: list[tuple[int, str]], name: str, later: Any, good: str) -> None:
        """Refused as the storage's fault is no fault of the test; any other answer than the good one is."""
        try:
            answer = await later
        except Problem as problem:
            if problem.code != "platform.storage":
                raise
        else:
            # Where a deposit was refused its money is missing.
            assert answer in {good, "short"}, (name, answer)
            if answer == good:
                book.append((len(self.log.calls), name))


async def life(path: Path, log: Log, told: Told, rounds: int = 3) -> None:
    """Everything that the books can be asked, in several transactions; then the store stops, if it can."""
    store = SqliteStore(path)
    await store.start()
    books = store.books
    for turn in range(rounds):
        await told.note(told.deposits, f"d{turn}", books.deposit(a_deposit(f"d{turn}", 500)), "deposited")
        pack = Pack(f"p{turn}", "acme", "paid", "", "tokens", 9, "", 1.0, 99.0)
        await told.note([], f"p{turn}", books.add_pack(pack), "deposited")
        names = [f"{account}-{turn}-{each}" for account in ("acme", "credit") for each in range(3)]
        waiting = [books.hold(_hold(name, name.partition("-")[0])) for name in names]
        for name, later in zip(names, waiting, strict=True):
            await told.note(told.holds, name, later, "held")
        # What was refused must not be resolved: nobody dispatched it.
        held = {name for _, name in told.holds}
        names = [name for name in names if name in held]
        books.progress([Progress(name, Usage(4), 4, 1, "a-host", "CNY", PRICE, 5.0) for name in names])
        ended = [(name, books.resolve(a_resolution(name, "posted", 12, 2))) for name in names if name[-1] != "2"]
        for name, resolving in ended:
            await told.note(told.resolved, name, resolving, "resolved")
        await _tried(books.settle_hours(3600.0 * turn + 7200.0))
        if turn == 1:
            await store._thread.call(lambda database: database.checkpoint())
    await _tried(store.stop())


async def _tried(work: Any) -> None:
    try:
        await work
    except Problem as problem:
        if problem.code != "platform.storage":
            raise


def _first_start(folder: Path) -> None:
    """It may fail anywhere, too: test_store_disk.py."""

    async def start() -> None:
        store = SqliteStore(folder / "m.db")
        await store.start()
        for account in (PREPAID, POSTPAID):
            await store.keys.save_account(account)
        await store.stop()

    run(start())


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Told]:
    """One life, call by call, after a first start."""
    folder = tmp_path_factory.mktemp("life")
    _first_start(folder)
    with watched(folder) as log:
        told = Told(log)
        run(life(folder / "m.db", log, told))
    return log, told


def judge(path: Path, at: int, told: Told) -> None:
    """The ledger in this file is sound, and all that was said before the call number `at` is there; a recovery ends
    what is open, once."""
    assert audit(path) == []
    ids, resolved = written(path)
    assert {name for when, name in told.holds if when <= at} <= ids
    assert {name for when, name in told.resolved if when <= at} <= set(resolved)
    assert {name for when, name in told.deposits if when <= at} <= _deposits(path)

    async def again() -> None:
        store = SqliteStore(path)
        await store.start()
        await store.books.recover(9.0)
        assert (await store.books.totals())["open"] == 0
        await store.stop()

    run(again())
    assert audit(path) == []


def _deposits(path: Path) -> set[str]:
    connection = look(path)
    try:
        return {row[0] for row in connection.execute("SELECT id FROM deposits")}
    finally:
        connection.close()


def test_killed_after_every_call(lived: tuple[Log, Told], tmp_path: Path) -> None:
    """Case 66, below the statements: killed after any write, sync or truncation that SQLite asks for, checkpoints
    included, the file that is left is sound, holds all that was said to be durable, and recovers."""
    log, told = lived
    assert len(log.calls) > 100
    for at in range(len(log.calls) + 1):
        folder = tmp_path / str(at)
        judge(lay(log.killed(at), folder), at, told)
        shutil.rmtree(folder)


def test_alone_after_every_call(lived: tuple[Log, Told], tmp_path: Path) -> None:
    """Case 52: whenever the log is removed, or only the database file is copied, a start refuses unless nothing is
    missing. What SQLite itself makes of the two at the same moment (a backup, VACUUM INTO) is never refused. What is
    left after a stop is whole by itself."""
    log, told = lived
    refused = marked = 0
    for at in range(len(log.calls) + 1):
        folder = tmp_path / str(at)
        path = lay(log.killed(at), folder)
        alone = lay({"m.db": path.read_bytes()}, folder / "alone")
        if needs_log(alone):
            refused += 1
        else:
            assert audit(alone) == []
            ids, resolved = written(alone)
            assert {name for when, name in told.holds if when <= at} <= ids
            assert {name for when, name in told.resolved if when <= at} <= set(resolved)
            assert {name for when, name in told.deposits if when <= at} <= _deposits(alone)
        with contextlib.closing(look(path)) as source, contextlib.closing(sqlite3.connect(folder / "copy.db")) as copy:
            (mark,) = source.execute("PRAGMA user_version").fetchone()
            marked += mark != 0
            if mark or at % 10 == 0:
                source.backup(copy)
                source.execute("VACUUM INTO ?", (str(folder / "vacuumed.db"),))
                assert not needs_log(folder / "copy.db")
                assert not needs_log(folder / "vacuumed.db")
        shutil.rmtree(folder)
    assert refused > len(log.calls) // 2
    assert marked > 0
    assert not needs_log(lay(log.killed(len(log.calls)), tmp_path / "stopped"))


def test_power_cuts_lose_nothing_that_was_acknowledged(lived: tuple[Log, Told], tmp_path: Path) -> None:
    """Case 50: 500 seeds cut the power after some call; of the sectors that were not synced any may be lost. Every
    settlement, hold and deposit that was acknowledged is there, nothing is there by halves."""
    log, told = lived
    for seed in range(SEEDS):
        chance = random.Random(seed)
        at = chance.randrange(len(log.calls) + 1)
        folder = tmp_path / str(seed)
        judge(lay(log.cut(at, chance), folder), at, told)
        shutil.rmtree(folder)


def test_without_full_synchronisation_a_power_cut_does_lose_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 50, the other way round: with synchronous = NORMAL the same cuts lose acknowledged settlements (and no more
    than that: the books stay sound). So the cuts above can find what they look for."""
    pragmas = [text.replace("= FULL", "= NORMAL") for text in file._PRAGMAS]
    assert tuple(pragmas) != file._PRAGMAS
    folder = tmp_path / "life"
    folder.mkdir()
    _first_start(folder)
    with monkeypatch.context() as patched, watched(folder) as log:
        patched.setattr(file, "_PRAGMAS", tuple(pragmas))
        told = Told(log)
        run(life(folder / "m.db", log, told))
    lost = 0
    for seed in range(40):
        chance = random.Random(seed)
        at = chance.randrange(len(log.calls) // 2, len(log.calls) + 1)
        path = lay(log.cut(at, chance), tmp_path / str(seed))
        assert audit(path) == []
        _, resolved = written(path)
        lost += not {name for when, name in told.resolved if when <= at} <= set(resolved)
    assert lost > 0


def test_recovery_is_killed_twenty_levels_deep(lived: tuple[Log, Told], tmp_path: Path) -> None:
    """Case 67: a recovery that is killed at some call, the next one again, twenty levels deep, ends as one that was
    left in peace: the same records, balances and sums."""
    log, _ = lived
    at = _most_open(log, tmp_path)
    reference = lay(log.killed(at), tmp_path / "reference")
    run(_recover(reference))
    for seed in range(5):
        chance = random.Random(seed)
        files = log.killed(at)
        deepest = 0
        for level in range(LEVELS):
            folder = tmp_path / f"{seed}-{level}"
            path = lay(files, folder)
            with watched(folder) as again:
                run(_recover(path))
            # Kills that come late leave nothing to do for the next level: most come early.
            files = again.killed(int(len(again.calls) * chance.random() ** 2))
            deepest += len(again.calls) > 0
        assert deepest > LEVELS // 2
        path = lay(files, tmp_path / f"{seed}-end")
        run(_recover(path))
        assert audit(path) == []
        assert _tables(path) == _tables(reference)


async def _recover(path: Path) -> None:
    store = SqliteStore(path, clock=lambda: 50.0)
    await store.start()
    await store.books.recover(50.0)
    await store.stop()


def _most_open(log: Log, folder: Path) -> int:
    """The call after which most holds are open."""
    best, most = 0, 0
    for at in range(0, len(log.calls), 3):
        path = lay(log.killed(at), folder / f"open{at}")
        connection = sqlite3.connect(path)
        (count,) = connection.execute(
            "SELECT count(*) FROM holds WHERE seq NOT IN (SELECT hold_seq FROM resolutions)"
        ).fetchone()
        connection.close()
        if count > most:
            best, most = at, count
    assert most >= 6
    return best


def _tables(path: Path) -> dict[str, list[Any]]:
    connection = sqlite3.connect(path)
    try:
        names = ("holds", "resolutions", "transfers", "balances", "pack_balances", "spent", "usage", "progress")
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}
    finally:
        connection.close()


def _nth(kind: str, code: int, n: int) -> Callable[[str, str], int]:
    left = [n]

    def fail(what: str, file: str) -> int:
        if what == kind:
            left[0] -= 1
            return code if left[0] == 0 else 0
        return 0

    fail.left = left  # type: ignore[attr-defined]
    return fail


@pytest.mark.parametrize(
    "kind, code", [("write", IOERR_WRITE), ("write", FULL), ("sync", IOERR_FSYNC), ("read", IOERR_READ)]
)
def test_every_call_may_fail_once(kind: str, code: int, tmp_path: Path) -> None:
    """Case 48: the n-th write, sync or read fails with an I/O error (or a full disk, case 49), n = 1, 2, … until a life
    ends without it. Each time: what was asked is done or refused, nothing is there by halves, all that was said is
    true, and the next start finishes the rest."""
    begun = tmp_path / "begun"
    begun.mkdir()
    _first_start(begun)
    files = {"m.db": (begun / "m.db").read_bytes()}
    n, struck = 0, True
    while struck:
        n += 1
        folder = tmp_path / str(n)
        path = lay(files, folder)
        with watched(folder) as log:
            told = Told(log)
            log.fail = _nth(kind, code, n)
            run(_tried(life(path, log, told, 2)))
            struck = log.fail.left[0] <= 0  # type: ignore[attr-defined]
        assert audit(path) == []
        judge(path, len(log.calls), told)
        shutil.rmtree(folder)
    assert n > 10
