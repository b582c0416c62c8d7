"""A disk that fails, is full, is locked or is slow: no half transactions, no lost resolution, no waiting loop."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import POSTPAID, PREPAID, a_deposit, a_hold, a_resolution, run
from faults.auditor import audit, written
from faults.disk import Disk, Nth, broken
from moonpool.errors import Problem
from moonpool.ledger.funds import Pack
from moonpool.ledger.keys import digest
from moonpool.state import books, keystore
from moonpool.state.base import Progress
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Key, Price, Usage


async def _opened(path: Path, disk: Disk) -> SqliteStore:
    store = SqliteStore(path, connection_class=disk.connection_class)
    await store.start()
    await store.keys.save_account(POSTPAID)
    return store


async def _refused(work: Any) -> bool:
    """Was it refused as the storage's fault? Anything else that goes wrong is a failure."""
    try:
        await work
    except Problem as problem:
        if problem.code != "platform.storage":
            raise
        return True
    return False


def _arm(disk: Disk, when: str, n: int) -> Nth:
    """Let the n-th statement from now on fail: "before" it ran, or "after", so that it only seems to have failed."""
    fault = Nth(n)
    if when == "before":
        disk.fail = fault
    else:
        disk.fail_after = fault
    return fault


def _contents(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())


_PARTS = 4


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_first_start_may_fail_anywhere(when: str, part: int, tmp_path: Path) -> None:
    """Whichever statement of a first start fails, migration steps too, the start is refused with a sentence, and the
    next one finishes the work. Each part tries every fourth statement."""

    async def walk() -> None:
        finished: dict[str, bytes] = {}
        n, failed = 1 + part, True
        while failed:
            path, disk = tmp_path / f"{n}.db", Disk()
            _arm(disk, when, n)
            store = SqliteStore(path, connection_class=disk.connection_class)
            failed = await _refused(store.start())
            left = _contents(path) if failed else ""
            if failed:
                # What is left is one of few things, and steps take long: from each of them the work is done once.
                if left in finished:
                    path.write_bytes(finished[left])
                await store.start()
            assert [account.id for account in await store.keys.accounts()] == ["default"]
            await store.stop()
            assert audit(path) == []
            finished.setdefault(left, path.read_bytes())
            n += _PARTS
        assert n > 20
        assert len(finished) > 3

    run(walk())


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_statement_may_fail_once(when: str, tmp_path: Path) -> None:
    """Whichever statement fails while requests are served: each is refused or served, nothing is written by halves,
    every resolution is written, and all is well afterwards."""

    async def life(store: SqliteStore) -> set[str]:
        """What happens to a store; the ids of the holds it took."""
        held = set()
        await _refused(store.keys.create(Key("id", "credit"), digest("text")))
        await _refused(store.books.deposit(a_deposit("d", 50, account="credit")))
        for name in ("a", "b", "c"):
            if not await _refused(store.books.hold(a_hold(name, 10))):
                held.add(name)
                await store.books.resolve(a_resolution(name, owed_pico=3, cost_pico=2))
        await _refused(store.keys.delete("id", 3.0))
        await store.stop()
        return held

    async def walk() -> None:
        await (await _opened(tmp_path / "0.db", Disk())).stop()
        n, failed = 0, True
        while failed:
            n += 1
            path = tmp_path / f"{n}.db"
            path.write_bytes((tmp_path / "0.db").read_bytes())
            disk = Disk()
            store = await _opened(path, disk)
            fault = _arm(disk, when, n)
            held = await life(store)
            failed = fault.left <= 0
            assert audit(path) == []
            ids, resolved = written(path)
            assert held <= ids
            assert held <= set(resolved)
            store = await _opened(path, Disk())
            await store.books.recover(9.0)
            assert await store.books.hold(a_hold("next", 10)) == "held"
            await store.stop()
            assert audit(path) == []
        assert n > 20

    run(walk())


def test_a_dead_disk_comes_back(tmp_path: Path) -> None:
    """While nothing can be written, holds are refused and resolutions wait; when the disk is back, they are written
    without anybody's doing."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        for each in range(20):
            await store.books.hold(a_hold(f"r{each}", 10))
        assert store.trouble() is None
        disk.fail = lambda text: broken()
        waiting = [store.books.resolve(a_resolution(f"r{each}", owed_pico=1)) for each in range(20)]
        for each in range(3):
            start = time.monotonic()
            assert await _refused(store.books.hold(a_hold(f"refused{each}", 10)))
            assert time.monotonic() - start < 2.0
        assert "disk I/O error" in str(store.trouble())
        assert not any(later.done() for later in waiting)
        assert (await store.books.balance("credit")).held_pico == 0  # type: ignore[union-attr]
        disk.fail = lambda text: None
        assert [await later for later in waiting] == ["resolved"] * 20
        assert store.trouble() is None
        assert await store.books.hold(a_hold("refused0", 10)) == "held"
        assert await store.books.resolve(a_resolution("refused0", owed_pico=1)) == "resolved"
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []
    ids, resolved = written(tmp_path / "m.db")
    assert ids == set(resolved) == {f"r{each}" for each in range(20)} | {"refused0"}


def test_resolved_while_its_hold_failed(tmp_path: Path) -> None:
    """A hold that was resolved before it was known that it could not be written is written with its resolution."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        fault = Nth(1)
        disk.fail = fault
        hold = store.books.hold(a_hold("a", 10))
        resolution = store.books.resolve(a_resolution("a", owed_pico=4))
        assert await _refused(hold)
        assert await resolution == "resolved"
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []
    assert written(tmp_path / "m.db") == ({"a"}, {"a": "posted"})


def test_a_full_disk(tmp_path: Path) -> None:
    """Case 49: a full database refuses holds until there is room again; resolutions are kept meanwhile."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        disk.pages_max = 1
        held, full = [], False
        while not full:
            name = f"r{len(held)}"
            full = await _refused(store.books.hold(a_hold(name, 10)))
            held += [] if full else [name]
        assert "full" in str(store.trouble())
        waiting = [store.books.resolve(a_resolution(name, owed_pico=1)) for name in held]
        assert await _refused(store.books.hold(a_hold("refused", 10)))
        disk.pages_max = 0
        assert [await later for later in waiting] == ["resolved"] * len(held)
        assert await store.books.hold(a_hold("more", 10)) == "held"
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []


def test_the_system_refuses_to_write(tmp_path: Path) -> None:
    """Case 55: what the operating system does not write: holds are refused, resolutions are written afterwards."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("store_full.py")), str(tmp_path / "m.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("30 5 30 30 held None\n", "")
    assert audit(tmp_path / "m.db") == []
    ids, resolved = written(tmp_path / "m.db")
    assert ids == set(resolved) | {"after"}
    assert len(resolved) == 30


def test_a_foreign_lock(tmp_path: Path) -> None:
    """Case 54: while another program holds the write lock a request waits a second at most, the loop not at all;
    afterwards all is well again."""

    async def walk() -> None:
        store = await _opened(tmp_path / "m.db", Disk())
        foreign = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        turns, longest = 0, 0.0

        async def turn() -> None:
            nonlocal turns, longest
            last = time.monotonic()
            while True:
                await asyncio.sleep(0)
                now = time.monotonic()
                turns, longest, last = turns + 1, max(longest, now - last), now

        turning = asyncio.create_task(turn())
        start = time.monotonic()
        assert await _refused(store.books.hold(a_hold("a", 10)))
        waited_s = time.monotonic() - start
        turning.cancel()
        assert 0.4 < waited_s < 1.5
        assert turns > 100
        assert longest < 0.3
        foreign.execute("ROLLBACK")
        foreign.close()
        assert await store.books.hold(a_hold("a", 10)) == "held"
        await store.stop()

    run(walk())


def test_a_slow_disk(tmp_path: Path) -> None:
    """Case 62: while a commit takes its time what comes is collected, and one commit makes all of it durable."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        disk.gate.clear()
        first = store.books.hold(a_hold("first", 10))
        await asyncio.to_thread(disk.waiting.wait, 30)
        waiting = [store.books.hold(a_hold(f"r{each}", 10)) for each in range(500)]
        assert not first.done()
        begun = disk.statements.count("BEGIN IMMEDIATE")
        disk.gate.set()
        assert await first == "held"
        assert [await later for later in waiting] == ["held"] * 500
        assert disk.statements.count("BEGIN IMMEDIATE") == begun + 1
        await store.stop()

    run(walk())


def test_stopping_on_a_dead_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that cannot write says how much is missing, and ends; the next start books it as recovered."""
    monkeypatch.setattr(books, "PATIENCE_S", 0.1)

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        await store.books.hold(a_hold("a", 10))
        disk.fail = lambda text: broken()
        store.books.resolve(a_resolution("a", owed_pico=4))
        with pytest.raises(Problem, match=r"1 resolutions could not be written"):
            await store.stop()
        assert await _refused(store.books.hold(a_hold("late", 10)))
        store = await _opened(tmp_path / "m.db", Disk())
        assert await store.books.recover(9.0) == 1
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []


def test_last_uses_outlive_a_fault(tmp_path: Path) -> None:
    """Last uses that could not be written are written the next time, unless there are newer ones."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        for name in ("one", "two"):
            await store.keys.create(Key(name, "credit"), digest(name))
            store.keys.used(name, 5.0)
        disk.fail = lambda text: broken()
        await store.keys.write_used()
        store.keys.used("two", 6.0)
        disk.fail = lambda text: None
        await store.stop()
        store = await _opened(tmp_path / "m.db", Disk())
        assert [key.last_used_at for key in await store.keys.list()] == [5.0, 6.0]
        await store.stop()

    run(walk())


def test_last_uses_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody's doing the last use reaches the disk, and a thousand uses are no thousand writes."""
    monkeypatch.setattr(keystore, "USED_S", 0.01)

    async def walk() -> None:
        disk, written_once = Disk(), threading.Event()
        store = await _opened(tmp_path / "m.db", disk)
        for name in ("one", "two"):
            await store.keys.create(Key(name, "credit"), digest(name))

        def note(text: str) -> None:
            if text == "UPDATE keys SET last_used_at=? WHERE keys.id = ?":
                written_once.set()

        disk.fail_after = note
        for at in range(1000):
            store.keys.used("one", float(at))
        assert await asyncio.to_thread(written_once.wait, 30)
        assert sum(text.startswith("UPDATE keys SET last_used_at") for text in disk.statements) < 10
        assert [key.last_used_at for key in await store.keys.list()] == [999.0, None]
        await store.stop()

    run(walk())


def test_progress_outlives_a_fault(tmp_path: Path) -> None:
    """How far a stream has come, noted while nothing can be written, is written when the disk is back, once each: a
    process that is killed then leaves it to be charged, though the stream has said nothing since."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        for name in ("a", "b"):
            await store.books.hold(a_hold(name, 10))
        disk.fail = lambda text: broken()
        for tokens in (3, 7):
            rows = [Progress(name, Usage(tokens), tokens, 0, "a-host", "CNY", Price(1), 5.0) for name in ("a", "b")]
            store.books.progress(rows)
            assert await _refused(store.books.hold(a_hold("refused", 10)))
        ended = store.books.resolve(a_resolution("b", owed_pico=9))
        disk.fail = lambda text: None
        assert await ended == "resolved"
        await store.stop()
        store = await _opened(tmp_path / "m.db", Disk())
        assert await store.books.recover(9.0) == 1
        assert (await store.books.balance("credit")).post_paid_pico == -7 - 9  # type: ignore[union-attr]
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []


def _answer_nothing_after_commit(disk: Disk, landed: bool) -> None:
    """From the next COMMIT on, which is done or not, every statement fails."""
    over = [False]

    def before(text: str) -> Exception | None:
        over[0] = over[0] or (text == "COMMIT" and not landed)
        return broken() if over[0] else None

    def after(text: str) -> Exception | None:
        over[0] = over[0] or text == "COMMIT"
        return broken() if over[0] else None

    disk.fail, disk.fail_after = before, after


@pytest.mark.parametrize("landed", [True, False], ids=["written", "not written"])
def test_a_commit_whose_end_nobody_knows(landed: bool, tmp_path: Path) -> None:
    """Case 48, twice in a row: COMMIT reports an error, and then the disk answers nothing for a while. Whoever waits is
    refused; once it answers, the books hold what the file holds. What was written all the same counts: a hold that
    nobody used is voided, a deposit and a pack are there once and can be spent, an hour is settled once."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path / "m.db", disk)
        await store.keys.save_account(PREPAID)
        books = store.books
        await books.hold(a_hold("used", 10))
        await books.resolve(a_resolution("used", owed_pico=4))
        pack = Pack("p", "acme", "paid", "", "tokens", 9, "", 1.0, 99.0)
        asked: list[Callable[[], Any]] = [
            lambda: books.hold(a_hold("lost", 10)),
            lambda: books.settle_hours(7200.0),
            lambda: _booked(books.deposit(a_deposit("d", 50)), disk, landed),
            lambda: _booked(books.add_pack(pack), disk, landed),
        ]
        for at, ask in enumerate(asked):
            if at < 2:
                _answer_nothing_after_commit(disk, landed)
            assert await _refused(ask())
            assert await _refused(books.hold(a_hold(f"meanwhile{at}", 10)))
            assert store.trouble() is not None
            disk.fail = disk.fail_after = lambda text: None
            # The first that comes may still be told of the trouble.
            answers = [await _refused(books.hold(a_hold(f"afterwards{at}", 10))) for _ in range(2)]
            assert False in answers
            assert await books.resolve(a_resolution(f"afterwards{at}", "voided")) == "resolved"
        assert store.trouble() is None
        assert (await books.totals())["open"] == 0
        assert await books.deposit(a_deposit("d", 50)) == ("exists" if landed else "deposited")
        assert await books.add_pack(pack) == ("exists" if landed else "deposited")
        assert [each.pack.id for each in await books.packs("acme", 2.0)] == ["p"]
        assert await books.settle_hours(7300.0) == (0 if landed else 1)
        assert await books.hold(replace(a_hold("more", 59, "acme"), tokens=59, token_pico=1)) == "held"
        assert (await books.balance("acme")).held_pico == 59 - 9  # type: ignore[union-attr]
        await books.resolve(a_resolution("more"))
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []
    ids, resolved = written(tmp_path / "m.db")
    assert ids == set(resolved)
    assert ("lost" in ids) == landed


async def _booked(work: Any, disk: Disk, landed: bool) -> Any:
    """A booking first looks whether it came before; then the disk goes."""
    asked = [0]

    def note(text: str) -> Exception | None:
        asked[0] += text.startswith("SELECT")
        if asked[0] == 1:
            _answer_nothing_after_commit(disk, landed)
        return None

    disk.fail_after = note
    return await work
