"""A database file that is not what was written: its log is gone, its pages are damaged. It is refused with a sentence,
and what is whole is never refused."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from conformance.backends import POSTPAID, a_deposit, a_hold, a_resolution, run
from faults.auditor import audit, look, written
from faults.disk import Disk, Nth
from moonpool.errors import Problem
from moonpool.state import sqlite
from moonpool.state.recount import recount, sqlite_engine
from moonpool.state.sqlite import SqliteStore
from moonpool.state.wholeness import damage


async def _opened(path: Path, **how: object) -> SqliteStore:
    store = SqliteStore(path, **how)  # type: ignore[arg-type]
    await store.start()
    return store


async def _lived(path: Path, holds: int = 3) -> SqliteStore:
    """A store that is open, with so many holds that it said are durable."""
    store = await _opened(path)
    await store.keys.save_account(POSTPAID)
    for each in range(holds):
        assert await store.books.hold(a_hold(f"r{each}", 10)) == "held"
    return store


def _copied(path: Path, folder: Path, *endings: str) -> Path:
    """The files of a running store as a kill leaves them: the database, and those of its files that end so."""
    folder.mkdir()
    for ending in ("", *endings):
        shutil.copy(f"{path}{ending}", folder / f"m.db{ending}")
    return folder / "m.db"


async def _refused(path: Path, says: str) -> None:
    before = _content(path)
    with pytest.raises(Problem, match=says) as caught:
        await SqliteStore(path).start()
    assert caught.value.code == "platform.storage"
    assert _content(path) == before


def _content(path: Path) -> bytes:
    return path.read_bytes()


async def _served(path: Path) -> bool:
    """Is it, or refused as the storage's fault? Anything else is a failure."""
    try:
        await (await _opened(path)).stop()
    except Problem as problem:
        if problem.code != "platform.storage":
            raise
        return False
    return True


async def _holds(path: Path, **how: object) -> set[str]:
    """Those a start finds; then it stops."""
    store = await _opened(path, **how)
    await store.stop()
    assert audit(path) == []
    return written(path)[0]


def test_a_log_that_is_gone_is_missed(tmp_path: Path) -> None:
    """Case 52: a copy of the database file alone, made while the server ran, is refused each time, with what to do;
    with its log it has everything. Who accepts the loss goes on with the rest, and is not asked again."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db")
        await store._thread.call(lambda database: database.checkpoint())
        assert await store.books.hold(a_hold("last", 10)) == "held"
        alone = _copied(tmp_path / "m.db", tmp_path / "alone")
        for _ in range(2):
            await _refused(alone, r"m\.db-wal is not beside it.*`moonpool ledger accept-loss`")
        # Whoever reads it with SQLite leaves a log that is empty.
        with contextlib.closing(look(alone)) as reader:
            assert reader.execute("SELECT count(*) FROM holds").fetchone() == (3,)
        assert (tmp_path / "alone" / "m.db-wal").exists()
        await _refused(alone, "is not beside it")
        shutil.copy(tmp_path / "m.db-wal", tmp_path / "alone")
        assert await _holds(alone) == {"r0", "r1", "r2", "last"}

        alone = _copied(tmp_path / "m.db", tmp_path / "accepted")
        assert await _holds(alone, accept_loss=True) == {"r0", "r1", "r2"}
        assert await _holds(alone) == {"r0", "r1", "r2"}
        await store.stop()
        assert await _holds(_copied(tmp_path / "m.db", tmp_path / "stopped")) == {"r0", "r1", "r2", "last"}

    run(walk())


def test_a_reader_does_not_hide_it(tmp_path: Path) -> None:
    """Case 52: while somebody reads what was, and a checkpoint cannot come to its end, the file says what it said."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db", 0)
        for turn in range(3):
            with contextlib.closing(look(tmp_path / "m.db")) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM holds").fetchone()
                await store.books.hold(a_hold(f"r{turn}", 10))
                await store._thread.call(lambda database: database.checkpoint())
                await _refused(_copied(tmp_path / "m.db", tmp_path / f"alone{turn}"), "is not beside it")
        await store.stop()

    run(walk())


def test_what_others_make_of_it_is_whole(tmp_path: Path) -> None:
    """Case 52, the other way round: after a crash another program that opens the database and empties its log, and
    copies that SQLite makes of a running one, lose nothing and are not refused."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db")
        path = _copied(tmp_path / "m.db", tmp_path / "emptied", "-wal")
        with contextlib.closing(sqlite3.connect(path)) as foreign:
            foreign.execute("SELECT count(*) FROM holds").fetchone()
        assert not (tmp_path / "emptied" / "m.db-wal").exists()
        assert await _holds(path) == {"r0", "r1", "r2"}
        with contextlib.closing(look(tmp_path / "m.db")) as source:
            source.execute("VACUUM INTO ?", (str(tmp_path / "vacuumed.db"),))
            with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
                source.backup(copy)
        for name in ("vacuumed.db", "copy.db"):
            assert await _holds(tmp_path / name) == {"r0", "r1", "r2"}
        await store.stop()

    run(walk())


def test_killed_as_soon_as_it_is_open(tmp_path: Path) -> None:
    """Cases 52 and 66: a process that is killed before it wrote anything is started again as if nothing had been, at
    its first start and later; without its log it is refused."""
    code = (
        "import asyncio, os, signal, sys\n"
        "from moonpool.state.sqlite import SqliteStore\n"
        "async def walk():\n"
        "    await SqliteStore(sys.argv[1]).start()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(walk())\n"
    )
    path = tmp_path / "m.db"
    for turn in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
        assert done.returncode == -9

        async def again(turn: int = turn) -> None:
            await _refused(_copied(path, tmp_path / f"alone{turn}"), "is not beside it")
            assert await _holds(path) == set()

        run(again())


def test_stale_shared_memory(tmp_path: Path) -> None:
    """Case 52: whatever stands in the file of shared memory (nothing, an older state, rubbish), it is made anew from
    the log, and nothing is lost."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db", 0)
        shm = tmp_path / "m.db-shm"
        stale = [b"", shm.read_bytes(), random.Random(52).randbytes(shm.stat().st_size)]
        for each in range(50):
            await store.books.hold(a_hold(f"r{each}", 10))
        for at, data in enumerate(stale):
            path = _copied(tmp_path / "m.db", tmp_path / str(at), "-wal")
            (tmp_path / str(at) / "m.db-shm").write_bytes(data)
            assert await _holds(path) == {f"r{each}" for each in range(50)}
        await store.stop()

    run(walk())


@pytest.mark.parametrize("when", ["fail", "fail_after"])
def test_a_checkpoint_that_fails(when: str, tmp_path: Path) -> None:
    """Case 52: whichever statement of a checkpoint fails, commits wait for the disk afterwards, what was said to be
    durable is there, and what is left after a stop is whole."""

    async def walk() -> None:
        n, left = 0, 0
        while left <= 0:
            n += 1
            (tmp_path / str(n)).mkdir()
            path, disk, fault = tmp_path / str(n) / "m.db", Disk(), Nth(n)
            store = await _opened(path, connection_class=disk.connection_class)
            await store.keys.save_account(POSTPAID)
            setattr(disk, when, fault)
            await store._thread.call(lambda database: database.checkpoint())
            left = fault.left
            setattr(disk, when, lambda text: None)
            with contextlib.suppress(Problem):  # the connection may be gone, and is replaced then
                await store._thread.call(lambda database: database.execute("PRAGMA schema_version"))
            wait = await store._thread.call(lambda database: database.execute("PRAGMA synchronous").fetchone())
            assert wait == (2,), n
            assert await store.books.hold(a_hold("a", 10)) == "held"
            await store.stop()
            assert await _holds(_copied(path, tmp_path / f"alone{n}")) == {"a"}
        assert n > 6

    run(walk())


PAGE = 4096


def _damages(whole: bytes) -> Iterator[bytes]:
    """Each page torn, of zeros, in the place of another, or with a flipped bit in what SQLite goes by; the last pages
    cut off."""
    chance = random.Random(51)
    for begin in range(0, len(whole), PAGE):
        page = whole[begin : begin + PAGE]
        half = PAGE // 2
        other = whole[PAGE : 2 * PAGE] if begin != PAGE else whole[2 * PAGE : 3 * PAGE]
        flipped = bytearray(page)
        flipped[chance.randrange(12)] ^= 1 << chance.randrange(8)
        kinds = (page[:half] + bytes(half), bytes(PAGE), other, bytes(flipped))
        yield whole[:begin] + kinds[begin // PAGE % 4] + whole[begin + PAGE :]
    yield whole[: len(whole) // 2 // PAGE * PAGE]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Case 51: whatever SQLite's check finds wrong with the file refuses the start, with a sentence that says what to
    put in its place, after a stop and after a crash; the file and its log stay as they are. What it does not find is
    served, or refused without a traceback."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db", 200)
        for each in range(100):
            await store.books.resolve(a_resolution(f"r{each}", owed_pico=3))
        await store._thread.call(lambda database: database.checkpoint())
        await store.books.hold(a_hold("last", 10))
        crashed = _copied(tmp_path / "m.db", tmp_path / "crashed", "-wal")
        await store.stop()
        wal = tmp_path / "crashed" / "m.db-wal"
        log, found, served = wal.read_bytes(), 0, 0
        for data in _damages((tmp_path / "m.db").read_bytes()):
            (tmp_path / "m.db").write_bytes(data)
            if damage(tmp_path / "m.db"):
                found += 1
                await _refused(tmp_path / "m.db", r"m\.db cannot be opened: it is damaged \(.*moonpool ledger audit")
            else:
                served += await _served(tmp_path / "m.db")
        assert found > 20
        assert served > 0
        for data in list(_damages(crashed.read_bytes()))[::6]:
            crashed.write_bytes(data)
            if damage(crashed):
                await _refused(crashed, "is damaged")
                assert wal.read_bytes() == log

    run(walk())


@pytest.mark.parametrize("bound", ["CHECK_S", "CHECK_BYTES_MAX"])
def test_a_start_does_not_wait_for_a_large_file(bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 51: a check that would take too long is not made to its end; that is said, and who checks all of it."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db", 200)
        assert store.notice == ""
        await store.stop()
        monkeypatch.setattr(sqlite, bound, 0)
        store = await _opened(tmp_path / "m.db")
        assert "moonpool doctor" in store.notice
        await store.stop()

    run(walk())


def test_damage_under_a_running_server(tmp_path: Path) -> None:
    """Case 51: pages that go bad while it runs refuse requests as the storage's fault and are said to operators; the
    next start refuses the file."""

    async def walk() -> None:
        store = await _lived(tmp_path / "m.db", 300)
        await store._thread.call(lambda database: database.checkpoint())
        with (tmp_path / "m.db").open("r+b") as file:
            for page in range(1, (tmp_path / "m.db").stat().st_size // PAGE):
                file.seek(page * PAGE)
                file.write(b"\xff" * PAGE)
        await store._thread.call(lambda database: database.execute("PRAGMA shrink_memory"))
        for each in range(3):
            with pytest.raises(Problem, match="storage"):
                await store.books.hold(a_hold(f"more{each}", 10))
        assert "malformed" in str(store.trouble())
        await store.stop()
        await _refused(tmp_path / "m.db", "is damaged")

    run(walk())


def test_one_connection_writes_and_checkpoints(tmp_path: Path) -> None:
    """Case 53: SQLite before 3.51.3 can lose committed pages when two connections write and checkpoint at once.
    Whatever a server does goes through one; an audit beside it can do neither. For two seconds all of it happens at
    once, with a checkpoint after every commit or so: nothing is lost, and every audit agrees."""
    connections: list[sqlite3.Connection] = []

    class Connection(sqlite3.Connection):
        def __init__(self, *args: object, **how: object) -> None:
            super().__init__(*args, **how)  # type: ignore[arg-type]
            connections.append(self)

    ended, audits, said = threading.Event(), [0], list[str]()

    def audit_beside() -> None:
        while not ended.is_set():
            engine = sqlite_engine(tmp_path / "m.db")
            with engine.connect() as connection:
                said.extend(recount(connection, 2.0, lambda text: None).sentences())
            engine.dispose()
            audits[0] += 1

    held, resolved = set[str](), set[str]()

    async def walk() -> None:
        store = await _opened(tmp_path / "m.db", connection_class=Connection)
        await store.keys.save_account(POSTPAID)
        readers = [threading.Thread(target=audit_beside) for _ in range(2)]
        for reader in readers:
            reader.start()
        turn, end = 0, time.monotonic() + 2.0
        while time.monotonic() < end or audits[0] < 3:
            names = [f"r{turn}-{each}" for each in range(5)]
            holding = [store.books.hold(a_hold(name, 10)) for name in names]
            moved = store._thread.call(lambda database: database.checkpoint())
            held.update([name for name, later in zip(names, holding, strict=True) if await later == "held"])
            for name in names[:4]:
                if await store.books.resolve(a_resolution(name, owed_pico=3)) == "resolved":
                    resolved.add(name)
            await store.books.deposit(a_deposit(f"d{turn}", 5, account="credit"))
            await store.books.totals()
            await moved
            turn += 1
        ended.set()
        for reader in readers:
            reader.join(30)
        engine = sqlite_engine(tmp_path / "m.db")
        with engine.connect() as connection:
            for text in ("PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA user_version = 7", "DELETE FROM holds"):
                with pytest.raises(OperationalError, match=r"readonly|I/O error"):
                    connection.exec_driver_sql(text)
        engine.dispose()
        await store.stop()

    run(walk())
    assert said == []
    assert len(held) > 50
    assert len(connections) == 1, "reports, keys and books share the connection of the books"
    assert audit(tmp_path / "m.db") == []
    ids, ended_as = written(tmp_path / "m.db")
    assert held == ids
    assert resolved == set(ended_as)
