"""state/books.py and thread.py: how many transactions, how many turns of the loop, when a checkpoint."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.backends import POSTPAID, a_hold, a_resolution, run
from faults.auditor import audit
from faults.disk import Disk
from moonpool.errors import Problem
from moonpool.state import books
from moonpool.state.base import StoreInUse
from moonpool.state.sqlite import SqliteStore


async def _opened(folder: Path, disk: Disk) -> SqliteStore:
    store = SqliteStore(folder / "m.db", connection_class=disk.connection_class)
    await store.start()
    await store.keys.save_account(POSTPAID)
    disk.statements.clear()
    return store


def test_one_transaction_for_all_that_came_in_a_turn(tmp_path: Path) -> None:
    """Holds of one turn of the loop share a transaction; its rows are bound in few statements."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path, disk)
        waiting = [store.books.hold(a_hold(f"r{each}", 10)) for each in range(200)]
        assert [await later for later in waiting] == ["held"] * 200
        assert disk.statements.count("COMMIT") == 1
        assert sum(text.startswith("INSERT INTO holds") for text in disk.statements) == 4  # 64 + 64 + 64 + 8
        assert sum(text.startswith("INSERT INTO balances") for text in disk.statements) == 1
        await store.stop()

    run(walk())


def test_all_answers_in_one_callback(tmp_path: Path) -> None:
    """Everybody who waits for a transaction is answered in the same turn of the loop."""

    async def walk() -> None:
        store = await _opened(tmp_path, Disk())
        loop = asyncio.get_running_loop()
        turns: list[int] = []
        now = 0

        def turn() -> None:
            nonlocal now
            now += 1
            loop.call_soon(turn)

        def note(_: Any) -> None:
            turns.append(now)

        turn()
        waiting = [store.books.hold(a_hold(f"r{each}", 10)) for each in range(100)]
        for later in waiting:
            later.add_done_callback(note)
        last = store.books.hold(a_hold("last", 10))
        await last
        assert len(turns) == 100
        assert len(set(turns)) == 1
        await store.stop()

    run(walk())


def test_a_resolution_rides_with_the_next_hold(tmp_path: Path) -> None:
    """A client alone needs one transaction for each request: the resolution goes along with the hold after it."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path, disk)
        for each in range(20):
            assert await store.books.hold(a_hold(f"r{each}", 10)) == "held"
            store.books.resolve(a_resolution(f"r{each}"))
        commits = disk.statements.count("COMMIT")
        await store.stop()
        # On a machine that is very busy the wait for company may end a few times.
        assert 20 <= commits <= 30

    run(walk())


def test_a_resolution_alone_does_not_wait_long(tmp_path: Path) -> None:
    """Without another hold a resolution is written by itself."""

    async def walk() -> None:
        store = await _opened(tmp_path, Disk())
        await store.books.hold(a_hold("a", 10))
        assert await asyncio.wait_for(_value(store.books.resolve(a_resolution("a"))), 5) == "resolved"
        await store.stop()

    run(walk())


async def _value(later: Any) -> Any:
    return await later


def test_what_is_free_moves_nothing(tmp_path: Path) -> None:
    """A request without amounts writes its two rows, the sums and the totals: no transfer, no balance."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path, disk)
        await store.books.hold(a_hold("a", 0))
        await store.books.resolve(a_resolution("a"))
        written = {text.split(" (")[0] for text in disk.statements if text.startswith(("INSERT", "UPDATE"))}
        assert {text.split(" SET")[0] for text in written} == {
            "INSERT INTO holds",
            "INSERT INTO resolutions",
            "INSERT INTO usage",
            "UPDATE totals",
        }
        await store.stop()

    run(walk())


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more holds are open than memory is meant for, more are refused until some have ended."""
    monkeypatch.setattr(books, "OPEN_MAX", 5)

    async def walk() -> None:
        store = await _opened(tmp_path, Disk())
        for each in range(5):
            assert await store.books.hold(a_hold(f"r{each}", 10)) == "held"
        with pytest.raises(Problem) as caught:
            await store.books.hold(a_hold("more", 10))
        assert caught.value.code == "platform.overloaded"
        await store.books.resolve(a_resolution("r0"))
        assert await store.books.hold(a_hold("more", 10)) == "held"
        await store.stop()

    run(walk())


def test_checkpoints_are_not_inside_a_commit(tmp_path: Path) -> None:
    """After many commits the log is moved into the database, between transactions; SQLite never does it by itself."""

    async def walk() -> None:
        disk = Disk()
        store = await _opened(tmp_path, disk)
        for each in range(410):
            await store.books.hold(a_hold(f"r{each}"))
        await store.books.hold(a_hold("last"))
        marks = [text for text in disk.statements if text in {"BEGIN IMMEDIATE", "COMMIT"} or "checkpoint" in text]
        places = [place for place, text in enumerate(marks) if "checkpoint" in text]
        assert len(places) >= 1
        assert all(marks[place - 1] == "COMMIT" for place in places)
        await store.stop()
        assert not (tmp_path / "m.db-wal").exists()

    run(walk())


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    """Database, log and lock are for the owner's eyes only, whatever the umask."""

    async def walk() -> None:
        before = os.umask(0)
        try:
            store = await _opened(tmp_path, Disk())
            modes = _modes(tmp_path)
            assert modes.keys() >= {"m.db", "m.db-wal", "m.db.lock"}
            assert set(modes.values()) == {0o600}
            await store.stop()
        finally:
            os.umask(before)

    run(walk())


def _no_folder(folder: Path) -> Path:
    return folder / "missing" / "m.db"


def _no_database(folder: Path) -> Path:
    (folder / "m.db").write_bytes(b"this is no database, but it is long enough to look like one" * 100)
    return folder / "m.db"


def _a_folder(folder: Path) -> Path:
    (folder / "m.db").mkdir()
    return folder / "m.db"


@pytest.mark.parametrize("wrong", [_no_folder, _no_database, _a_folder])
def test_a_start_that_cannot_be(wrong: Callable[[Path], Path], tmp_path: Path) -> None:
    """What cannot be opened is refused with a sentence that names the file, and leaves no lock behind."""
    path = wrong(tmp_path)

    async def walk() -> None:
        for _ in range(2):
            with pytest.raises(Problem, match=r"m\.db cannot be opened") as caught:
                await SqliteStore(path).start()
            assert caught.value.code == "platform.storage"
            assert not isinstance(caught.value, StoreInUse)

    run(walk())


def test_two_stores_in_one_process(tmp_path: Path) -> None:
    """A second store on the same file is refused in the same process too, until the first one stops."""

    async def walk() -> None:
        store = await _opened(tmp_path, Disk())
        with pytest.raises(StoreInUse, match=f"process {os.getpid()}"):
            await SqliteStore(tmp_path / "m.db").start()
        assert await store.books.hold(a_hold("a")) == "held"
        await store.stop()
        await store.stop()
        other = SqliteStore(tmp_path / "m.db")
        await other.start()
        await other.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []


def test_after_stop(tmp_path: Path) -> None:
    """A store that was stopped refuses; nobody waits for it for ever."""

    async def walk() -> None:
        store = await _opened(tmp_path, Disk())
        await store.stop()
        for work in (
            store.books.hold(a_hold("a")),
            store.books.resolve(a_resolution("a")),
            store.keys.delete("id", 1.0),
            store.keys.save_account(POSTPAID),
        ):
            if asyncio.iscoroutine(work) and work.__name__ == "delete":
                assert await work is False
                continue
            with pytest.raises(Problem) as caught:
                await work
            assert caught.value.code == "platform.storage"

    run(walk())
