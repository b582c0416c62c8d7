"""Several nodes over one PostgreSQL database: what one decides all know, and what must happen once happens once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, event, text

from conformance.backends import POSTPAID, PREPAID, STORES, a_deposit, a_hold, a_resolution, audited, opened, run
from faults.auditor import audit_at, written_at
from moonpool.errors import Problem
from moonpool.ledger.keys import digest
from moonpool.state.base import Progress, Store
from moonpool.state.postgres import PostgresStore
from moonpool.state.schema import migrate
from moonpool.words import Account, Key, Price, Usage
from postgres import server

_KEY = Key("AbCdEfGhIjKl", "acme", "laptop", 5.0)
_DIGEST = digest("the text of a key")


@asynccontextmanager
async def _nodes(count: int, database: str) -> AsyncIterator[list[PostgresStore]]:
    stores = [PostgresStore(database) for _ in range(count)]
    # All at once: they meet an empty database together.
    await asyncio.gather(*(store.start() for store in stores))
    for account in (PREPAID, POSTPAID):
        await stores[0].keys.save_account(account)
    for store in stores:
        await _until(lambda store=store: "acme" in store._accounts and "credit" in store._accounts)  # type: ignore[misc]
    yield stores
    await asyncio.gather(*(store.stop() for store in stores))


async def _until(true: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def _ask(database: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database, autocommit=True) as connection:
        done = connection.execute(query)  # type: ignore[arg-type]
        return done.fetchall() if done.description else []


@pytest.mark.parametrize(("backend", "count"), [("sqlite", 1), ("postgres", 1), ("postgres", 2), ("postgres", 4)])
def test_fifty_want_what_ten_can_have(backend: str, count: int, tmp_path: Path) -> None:
    """Case 77: with money for ten, exactly ten of fifty at once get it, through however many nodes they ask; twenty
    times over, or as often as ROUNDS says."""
    assert backend in STORES

    async def walk() -> None:
        nodes: list[Store] = [await opened(backend, tmp_path) for _ in range(count)]
        await nodes[0].books.deposit(a_deposit("d", 1009))
        for turn in range(int(os.environ.get("ROUNDS", "20"))):
            waiting = [nodes[each % len(nodes)].books.hold(a_hold(f"{turn}-{each}", 100, "acme")) for each in range(50)]
            answers = [await each for each in waiting]
            assert sorted(answers) == ["held"] * 10 + ["short"] * 40
            for each, answer in enumerate(answers):
                if answer == "held":
                    await nodes[(each + turn) % len(nodes)].books.resolve(a_resolution(f"{turn}-{each}", "voided"))
        for node in nodes:
            await node.stop()

    run(walk())
    assert audited(backend, tmp_path) == []


def test_they_start_together() -> None:
    """Case 64: three nodes that start at once on an empty database migrate it once, and have numbers of their own; a
    node that ends gives its number to the next."""
    database = server().empty()

    async def walk() -> None:
        async with _nodes(3, database) as stores:
            assert sorted(store.books._writer.node for store in stores) == [1, 2, 3]
            for each, store in enumerate(stores):
                assert await store.books.hold(a_hold(f"h{each}", 5)) == "held"
                await store.books.resolve(a_resolution(f"h{each}", owed_pico=2))
            assert {tuple((await store.books.totals()).items()) for store in stores} == {
                tuple((await stores[0].books.totals()).items())
            }
            assert (await stores[1].books.totals())["posted"] == 3
        async with _nodes(2, database) as stores:
            assert sorted(store.books._writer.node for store in stores) == [1, 2]

    run(walk())
    assert audit_at(database) == []


def test_a_node_that_died() -> None:
    """Case 195: whichever of the others look for what a dead node left open, and however many at once, each hold gets
    one resolution, with what its stream was known to have come to. The dead one, if it only seemed so, cannot book any
    more what others ended, and goes on under another number."""
    database = server().fresh()

    async def walk() -> None:
        async with _nodes(4, database) as stores:
            ghost, *others = stores
            held = [ghost.books.hold(a_hold(f"h{each}", 10)) for each in range(150)]
            assert {await each for each in held} == {"held"}
            known = Progress("h0", Usage(9, 0, 4, 0, estimated=True), 7, 3, "a-host", "CNY", Price(1, 1, 1), 3.0)
            ghost.books.progress([known])
            await ghost.books.resolve(a_resolution("h1", owed_pico=1))
            node = ghost.books._writer.node
            _ask(database, f"UPDATE totals SET seen_at = seen_at - 16 WHERE id = {node}")
            found = await asyncio.gather(*(store.books.recover(50.0) for store in others))
            assert sum(found) == 149
            assert sorted(found)[:2] == [0, 0]
            assert await asyncio.gather(*(store.books.recover(50.0) for store in others)) == [0, 0, 0]
            balance = await others[0].books.balance("credit")
            assert balance is not None
            assert (balance.post_paid_pico, balance.held_pico) == (-8, 0)
            # It lives, and learns what became of it.
            assert await ghost.books.resolve(a_resolution("h2", owed_pico=5)) == "exists"
            assert await ghost.books.hold(a_hold("again", 10)) == "held"
            assert await ghost.books.resolve(a_resolution("again", owed_pico=5)) == "resolved"
            assert await ghost.books.resolve(a_resolution("h3", owed_pico=5)) == "exists"
            assert (await others[0].books.totals())["recovered"] == 149

    run(walk())
    assert audit_at(database) == []
    ids, resolved = written_at(database)
    assert ids == set(resolved)


def test_each_hour_is_settled_once() -> None:
    """Case 87: nodes that settle the same hour at the same moment take what is owed once."""
    database = server().fresh()

    async def walk() -> None:
        async with _nodes(3, database) as stores:
            for each in range(30):
                await stores[0].keys.save_account(Account(f"a{each}", f"A {each}", post_paid=True))
            for each in range(30):
                await stores[0].books.hold(a_hold(f"h{each}", 10, f"a{each}"))
                await stores[0].books.resolve(a_resolution(f"h{each}", owed_pico=7))
            counts = await asyncio.gather(*(store.books.settle_hours(7200.0) for store in stores))
            assert sum(counts) == 30
            assert await stores[1].books.settle_hours(7300.0) == 0
            await _until(lambda: "a7" in stores[2]._accounts)
            balance = await stores[2].books.balance("a7")
            assert balance is not None
            assert (balance.topped_up_pico, balance.post_paid_pico) == (-7, 0)

    run(walk())
    assert audit_at(database) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_deleted_key_is_dead_everywhere(told: bool) -> None:
    """Cases 98, 100 and 101: a key that one node deletes is unknown there at once and elsewhere within a second, used
    all the time, and although word of the change may be lost."""
    database = server().fresh()
    if not told:
        _ask(database, "DROP TRIGGER tell_of_change ON changes")

    async def walk() -> None:
        async with _nodes(2, database) as (here, there):
            for turn in range(3):
                key, known = Key(f"key{turn}", "acme"), digest(f"text {turn}")
                await here.keys.create(key, known)
                assert await here.keys.find(known)
                await _until(lambda known=known: there.keys.find(known).result() is not None, 1.0)  # type: ignore[misc]
                assert await here.keys.delete(key.id, 9.0)
                start = time.monotonic()
                assert await here.keys.find(known) is None
                while await there.keys.find(known) is not None:
                    there.keys.used(key.id, 8.0)
                    assert time.monotonic() - start < 1.0
                    await asyncio.sleep(0)
                assert await there.keys.list() == []

    run(walk())


async def _use_for_ever(store: PostgresStore) -> None:
    while True:
        assert await store.keys.find(_DIGEST)
        store.keys.used(_KEY.id, 8.0)
        await asyncio.sleep(0)


def test_nobody_is_let_in_on_an_old_word() -> None:
    """Case 101: a node that cannot ask what changed stops believing its memory after a second, and begins again when it
    can ask, without anybody's doing."""
    database = server().fresh()

    async def walk() -> None:
        async with _nodes(1, database) as (store,):
            await store.keys.create(_KEY, _DIGEST)
            assert await store.keys.find(_DIGEST)
            processes = server().freeze()
            start = time.monotonic()
            try:
                with pytest.raises(Problem) as caught:
                    await _use_for_ever(store)
                assert caught.value.code == "platform.storage"
                assert time.monotonic() - start < 1.1
                assert store.trouble()
            finally:
                server().thaw(processes)
            await _until(store.watch.trusted)
            assert await store.keys.find(_DIGEST)

    run(walk())


def test_a_migration_that_was_killed() -> None:
    """Case 64: whichever statement of a migration is the last that ran, the next start finishes it; a schema that is
    newer than the program is refused."""
    statements = 0

    def walk(stop_at: int) -> int:
        """Migrate until that statement; gives how many there were."""
        database = server().empty().replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(database)
        count = 0

        def before(*_: object) -> None:
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt

        event.listen(engine, "before_cursor_execute", before)
        try:
            with engine.connect() as connection:
                migrate(connection)
        except KeyboardInterrupt:
            pass
        finally:
            engine.dispose()
        again = create_engine(database)
        with again.connect() as connection:
            migrate(connection)
            assert connection.execute(text("SELECT count(*) FROM totals")).scalar() == 1
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.commit()
            with pytest.raises(Problem, match="newer"):
                migrate(connection)
        again.dispose()
        return count

    statements = walk(0)
    assert statements > 50
    for stop_at in range(2, statements, 9):
        walk(stop_at)


def test_they_declare_the_same_account_together() -> None:
    """Case 64: nodes whose files say the same begin at once; each account is made once, and none of them is told that
    it is somebody else's."""
    database = server().fresh()

    async def walk() -> None:
        async with _nodes(4, database) as stores:
            for turn in range(25):
                account = Account(f"declared-{turn}", f"declared-{turn}", post_paid=True, concurrency=7)
                await asyncio.gather(*(store.keys.save_account(account) for store in stores))
                other = Account(f"other-{turn}", account.name)
                with pytest.raises(Problem, match="another account"):
                    await stores[turn % 4].keys.save_account(other)
            await _until(lambda: all(len(store._accounts) >= 27 for store in stores))

    run(walk())
    assert _ask(database, "SELECT count(*) FROM accounts WHERE name LIKE 'declared-%'") == [(25,)]
