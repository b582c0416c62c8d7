"""PostgreSQL that dies, freezes, is cut off or says no: nothing is lost, nothing is booked twice, nobody waits long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from conformance.backends import POSTPAID, PREPAID, a_deposit, a_hold, a_resolution, run
from faults.auditor import audit_at, written_at
from faults.wire import Wire
from moonpool.errors import Problem
from moonpool.state.postgres import PostgresStore
from postgres import server


async def _opened(address: str) -> PostgresStore:
    store = PostgresStore(address)
    await store.start()
    for account in (PREPAID, POSTPAID):
        await store.keys.save_account(account)
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


async def _outcome(work: Any) -> str:
    try:
        return str(await work)
    except Problem as problem:
        return problem.code


async def _until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class _Load:
    """Clients that hold and post without a pause; `held` and `refused` are what they were told."""

    def __init__(self, store: PostgresStore, clients: int = 8) -> None:
        self._store = store
        self.held: set[str] = set()
        self.refused = 0
        self._ending = False
        self._tasks = [asyncio.create_task(self._client(each)) for each in range(clients)]

    async def _client(self, number: int) -> None:
        turn = 0
        while not self._ending:
            turn += 1
            name = f"{number}-{turn}"
            if await _refused(self._store.books.hold(a_hold(name, 100))):
                self.refused += 1
                await asyncio.sleep(0)
            else:
                self.held.add(name)
                self._store.books.resolve(a_resolution(name, owed_pico=turn % 90, cost_pico=1))

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)


def _checked(address: str, held: set[str]) -> None:
    """What was promised is there, resolved once; what was refused is not there, or voided; the sums are right."""
    assert audit_at(address) == []
    ids, resolved = written_at(address)
    assert held <= ids
    assert ids == set(resolved)
    assert {resolved[name] for name in ids - held} <= {"voided"}
    assert {resolved[name] for name in held} == {"posted"}


def test_stopped_at_once_and_back() -> None:
    """Case 57: PostgreSQL is stopped at once under load and comes back: requests are refused meanwhile, and served
    again without anybody's doing; no record is lost or doubled."""
    database = server().fresh()

    async def walk() -> set[str]:
        store = await _opened(database)
        load = _Load(store)
        await _until(lambda: len(load.held) > 100)
        for _ in range(2):
            await asyncio.to_thread(server().stop)
            try:
                await _until(lambda: store.trouble() is not None)
                await _until(lambda least=load.refused + 50: load.refused > least)  # type: ignore[misc]
            finally:
                server().start()
            await _until(lambda: store.trouble() is None)
            least = len(load.held) + 100
            await _until(lambda least=least: len(load.held) > least)  # type: ignore[misc]
        await load.end()
        await store.stop()
        return load.held

    held: set[str] = set()

    async def kept() -> None:
        held.update(await walk())

    run(kept())
    _checked(database, held)


def test_frozen() -> None:
    """Case 58: a PostgreSQL that does not answer any more keeps a request 3 seconds at most, those after it not at all,
    and the event loop never; when it goes on, so do we."""
    database = server().fresh()

    async def walk() -> set[str]:
        store = await _opened(database)
        assert await store.books.hold(a_hold("before", 10)) == "held"
        processes = server().freeze()
        try:
            start = time.monotonic()
            assert await _refused(store.books.hold(a_hold("during", 10)))
            assert time.monotonic() - start < 3.5
            start = time.monotonic()
            for each in range(100):
                assert await _refused(store.books.hold(a_hold(f"during{each}", 10)))
            assert time.monotonic() - start < 0.5
            kept = store.books.resolve(a_resolution("before", owed_pico=3))
        finally:
            server().thaw(processes)
        assert await kept == "resolved"
        await _until(lambda: store.trouble() is None)
        assert await store.books.hold(a_hold("after", 10)) == "held"
        assert await store.books.resolve(a_resolution("after", owed_pico=3)) == "resolved"
        await store.stop()
        return {"before", "after"}

    held: set[str] = set()

    async def kept() -> None:
        held.update(await walk())

    run(kept())
    _checked(database, held)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("turns", [1, 8])
def test_cut_during_a_commit(when: Literal["before", "after"], turns: int, tmp_path: Path) -> None:
    """Case 56: a connection that ends while COMMIT is under way, before it reached the server or after it was done:
    what became of it is looked up; each hold and each resolution is there once, and so is every deposit."""
    database = server().fresh()

    async def walk() -> None:
        with Wire(tmp_path, server().folder) as wire:
            store = await _opened(wire.url(database))
            held: set[str] = set()
            over: set[str] = set()
            for turn in range(turns):
                wire.cut_at(b"moonpool books", b"COMMIT", when)
                waiting = {f"{turn}-{each}": store.books.hold(a_hold(f"{turn}-{each}", 10)) for each in range(5)}
                answers = {name: await _outcome(later) for name, later in waiting.items()}
                assert set(answers.values()) <= {"held", "platform.storage"}
                held |= {name for name, answer in answers.items() if answer == "held"}
                await _until(lambda: store.trouble() is None)
                wire.cut_at(b"moonpool books", b"COMMIT", when)
                ended = {name: store.books.resolve(a_resolution(name, owed_pico=3)) for name in held - over}
                assert {await later for later in ended.values()} <= {"resolved"}
                over |= held
                wire.cut_at(b"moonpool books", b"COMMIT", when)
                if await _outcome(store.books.deposit(a_deposit(f"d{turn}", 70))) != "deposited":
                    await _until(lambda: store.trouble() is None)
                    await store.books.deposit(a_deposit(f"d{turn}", 70))
            assert wire.cuts == 3 * turns
            assert (await store.books.balance("acme")).topped_up_pico == 70 * turns  # type: ignore[union-attr]
            await store.stop()
            _checked(database, held)
            # It was found out while they waited: but for a slow machine nobody had to be told no.
            assert len(held) > 5 * (turns - 1)

    run(walk())


def test_its_backend_is_killed() -> None:
    """Case 56, at random moments: a killed backend takes all connections down with it; nothing is lost or doubled."""
    database = server().fresh()
    chance = random.Random(56)

    async def walk() -> None:
        store = await _opened(database)
        load = _Load(store)
        for _ in range(4):
            least = len(load.held) + chance.randrange(20, 60)
            await _until(lambda least=least: len(load.held) > least)  # type: ignore[misc]
            with psycopg.connect(database, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'moonpool books%'"
                )
        await _until(lambda: store.trouble() is None)
        await load.end()
        await store.stop()
        _checked(database, load.held)

    run(walk())


def test_a_deadlock() -> None:
    """Case 59: where PostgreSQL ends our transaction to resolve a deadlock it is made again, and who waits sees
    nothing of it; a lock that is held too long refuses holds and delays resolutions."""
    database = server().fresh()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER DATABASE " + connection.info.dbname + " SET deadlock_timeout = '100ms'")  # type: ignore[arg-type]

    async def walk() -> None:
        store = await _opened(database)
        for account in ("acme", "credit"):
            await store.books.deposit(a_deposit(f"d-{account}", 1000, account=account))
        lock = "SELECT 1 FROM balances WHERE account = %s FOR UPDATE"
        with psycopg.connect(database) as other:
            other.execute(lock, ("credit",))
            waiting = [store.books.hold(a_hold(f"h-{name}", 5, name)) for name in ("acme", "credit")]
            await asyncio.to_thread(_somebody_waits, database)
            await asyncio.to_thread(other.execute, lock, ("acme",))
            other.commit()
        assert [await each for each in waiting] == ["held", "held"]
        with psycopg.connect(database) as other:
            other.execute(lock, ("credit",))
            late = store.books.resolve(a_resolution("h-credit", owed_pico=5))
            start = time.monotonic()
            assert await _refused(store.books.hold(a_hold("short of time", 5)))
            assert time.monotonic() - start < 2.5
            assert not late.done()
            other.commit()
        assert await late == "resolved"
        await store.books.resolve(a_resolution("h-acme", owed_pico=5))
        await store.stop()
        _checked(database, {"h-acme", "h-credit"})

    run(walk())


def _somebody_waits(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        while connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:
            pass


def test_what_cannot_be_written_costs_only_itself() -> None:
    """Something that PostgreSQL refuses for good is found among what was asked with it; the rest is written. A
    resolution that cannot be written as it is ends its hold as voided."""
    database = server().fresh()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE holds ADD CHECK (id <> 'refused')")
        connection.execute("ALTER TABLE resolutions ADD CHECK (owed_pico <> 666)")

    async def walk() -> None:
        store = await _opened(database)
        names = [f"r{each}" for each in range(20)]
        waiting = {name: store.books.hold(a_hold(name, 1000)) for name in (*names, "a \x00 in it", 'a " and a \\')}
        refused = store.books.hold(a_hold("refused", 10))
        assert {await later for later in waiting.values()} == {"held"}
        with pytest.raises(Problem) as caught:
            await refused
        assert caught.value.code == "platform.fault"
        assert store.trouble() is None
        ends = [store.books.resolve(a_resolution(name, owed_pico=666 if name == "r7" else 1)) for name in names]
        answers = await asyncio.gather(*map(_outcome, ends))
        assert answers == ["platform.fault" if name == "r7" else "resolved" for name in names]
        for name in ("a \ufffd in it", 'a " and a \\'):
            assert await store.books.resolve(a_resolution(name, owed_pico=1)) == "resolved"
        balance = await store.books.balance("credit")
        assert balance is not None
        assert (balance.post_paid_pico, balance.held_pico) == (-21, 0)
        await store.stop()

    run(walk())
    assert audit_at(database) == []
    ids, resolved = written_at(database)
    assert ids == set(resolved)
    assert [name for name, kind in resolved.items() if kind == "voided"] == ["r7"]
