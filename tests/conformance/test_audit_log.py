"""The log of changes: what every store promises of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from conformance.backends import STORES, opened, run
from moonpool.state import tables
from moonpool.state.base_admin import Change
from moonpool.state.thread import Database

AUDIT = tables.audit


def a_change(number: int) -> Change:
    return Change(
        100.0 + number, "socket", "POST /keys", f"key {number}", {"名": ["x", number, None, True], "b": {"a": 1}}
    )


async def tampered(audit: Any, work: Callable[[Connection], object]) -> None:
    """Do to the table what somebody with the database in hand could do."""

    def job(database: Database) -> None:
        with database.engine.begin() as connection:
            work(connection)

    await audit._thread.call(job)


@pytest.mark.parametrize("backend", STORES)
def test_rows_are_numbered_chained_and_kept(backend: str, tmp_path: Path) -> None:
    """Each change is one row, in the order of writing, read newest first in pages; the chain holds over a restart."""

    async def play() -> None:
        store = await opened(backend, tmp_path)
        audit = store.office.audit
        assert (await audit.verify()).trouble == ""
        assert [await audit.write(a_change(number)) for number in range(1, 6)] == [1, 2, 3, 4, 5]
        await store.stop()
        store = await opened(backend, tmp_path)
        audit = store.office.audit
        assert await audit.write(a_change(6)) == 6
        newest = await audit.page(None, 4)
        assert [row.seq for row in newest] == [6, 5, 4, 3]
        assert newest[0].change == a_change(6)
        assert newest[0].before == newest[1].hash
        assert [row.seq for row in await audit.page(3, 100)] == [2, 1]
        verdict = await audit.verify()
        assert (verdict.rows, verdict.trouble, verdict.head) == (6, "", newest[0].hash.hex())
        await store.stop()

    run(play())


@pytest.mark.parametrize("backend", STORES)
def test_many_at_once(backend: str, tmp_path: Path) -> None:
    """Changes that are made at the same moment get numbers of their own, without a gap."""

    async def play() -> None:
        store = await opened(backend, tmp_path)
        audit = store.office.audit
        numbers = await asyncio.gather(*(audit.write(a_change(number)) for number in range(50)))
        assert sorted(numbers) == list(range(1, 51))
        assert (await audit.verify()).trouble == ""
        await store.stop()

    run(play())


def _swap(connection: Connection) -> None:
    """Rows 2 and 3 change places, hashes and all."""
    for old, new in ((2, 999), (3, 2), (999, 3)):
        connection.execute(update(AUDIT).where(AUDIT.c.seq == old).values(seq=new))


def _rewrite(connection: Connection) -> None:
    """Row 3 with a hash that fits what it says now."""
    from moonpool.state.audit_log import hash_of

    row = connection.execute(select(AUDIT).where(AUDIT.c.seq == 3)).one()
    change = Change(row.at, "nobody", row.action, row.target, row.detail)
    values = {"actor": "nobody", "hash": hash_of(3, change, bytes(row.before))}
    connection.execute(update(AUDIT).where(AUDIT.c.seq == 3).values(values))


def _forge(connection: Connection) -> None:
    """A row that we did not write, at the end."""
    row = dict(connection.execute(select(AUDIT).where(AUDIT.c.seq == 5)).mappings().one())
    connection.execute(insert(AUDIT), {**row, "seq": 6})


TAMPERS: dict[str, tuple[Callable[[Connection], object], int]] = {
    "the time": (lambda c: c.execute(update(AUDIT).where(AUDIT.c.seq == 3).values(at=7.0)), 3),
    "who": (lambda c: c.execute(update(AUDIT).where(AUDIT.c.seq == 1).values(actor="x")), 1),
    "what": (lambda c: c.execute(update(AUDIT).where(AUDIT.c.seq == 5).values(action="GET /keys")), 5),
    "of what": (lambda c: c.execute(update(AUDIT).where(AUDIT.c.seq == 2).values(target="key 9")), 2),
    "the detail": (lambda c: c.execute(update(AUDIT).where(AUDIT.c.seq == 4).values(detail={})), 4),
    "the first deleted": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 1)), 1),
    "one deleted": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 3)), 3),
    "the last deleted": (lambda c: c.execute(delete(AUDIT).where(AUDIT.c.seq == 5)), 5),
    "all deleted": (lambda c: c.execute(delete(AUDIT)), 1),
    "two in another order": (_swap, 2),
    "rewritten with its hash": (_rewrite, 4),
    "one too many": (_forge, 6),
}


@pytest.mark.parametrize("backend", STORES)
@pytest.mark.parametrize("what", TAMPERS)
def test_tampering_is_found(backend: str, what: str, tmp_path: Path) -> None:
    """Case 126: a row that was edited, deleted, put elsewhere or added is found, and where."""

    async def play() -> None:
        store = await opened(backend, tmp_path)
        audit = store.office.audit
        for number in range(1, 6):
            await audit.write(a_change(number))
        work, seq = TAMPERS[what]
        await tampered(audit, work)
        verdict = await audit.verify()
        assert verdict.trouble
        assert verdict.seq == seq
        assert verdict.rows == seq - 1
        await store.stop()

    run(play())


@pytest.mark.parametrize("backend", STORES)
def test_others_write_while_it_is_checked(backend: str, tmp_path: Path) -> None:
    """Checking takes many steps; what is written between them is no trouble."""

    async def play() -> None:
        store = await opened(backend, tmp_path)
        audit = store.office.audit
        for number in range(30):
            await audit.write(a_change(number))
        verdict, *_ = await asyncio.gather(audit.verify(), *(audit.write(a_change(number)) for number in range(20)))
        assert verdict.trouble == ""
        assert verdict.rows >= 30
        await store.stop()

    run(play())


@pytest.mark.parametrize("backend", STORES)
def test_a_detail_is_bounded(backend: str, tmp_path: Path) -> None:
    """A detail that is too long is left out, and the row says so: a change is logged whatever it says."""

    async def play() -> None:
        store = await opened(backend, tmp_path)
        await store.office.audit.write(Change(1.0, "a", "b", "c", {"x": "y" * 10_000}))
        (row,) = await store.office.audit.page(None, 1)
        assert set(row.change.detail) == {"left_out"}
        assert (await store.office.audit.verify()).trouble == ""
        await store.stop()

    run(play())
