"""What came in, read back: deposits and packs as the books wrote them down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Row, func, select

from moonpool.ledger.funds import Pack
from moonpool.state import tables
from moonpool.state.base import Deposit
from moonpool.state.thread import Database, Jobs


class ReceiptReader:
    """base_admin.Receipts."""

    def __init__(self, thread: Jobs) -> None:
        self._thread = thread

    async def deposit(self, deposit_id: str) -> Deposit | None:
        return await self._thread.call(partial(_deposit, deposit_id))

    async def deposits(self, account: str, before: str | None, limit: int) -> Sequence[Deposit]:
        return await self._thread.call(partial(_deposits, account, before, limit))

    async def pack(self, pack_id: str) -> Pack | None:
        return await self._thread.call(partial(_pack, pack_id))

    async def spent(self, account: str, currency: str, since: int) -> int:
        return await self._thread.call(partial(_spent, account, currency, since))


def _deposit(deposit_id: str, database: Database) -> Deposit | None:
    deposits = tables.deposits
    with database.engine.connect() as connection:
        row = connection.execute(select(deposits).where(deposits.c.id == deposit_id)).first()
    return None if row is None else _read(row)


def _deposits(account: str, before: str | None, limit: int, database: Database) -> list[Deposit]:
    deposits = tables.deposits
    wanted = select(deposits).where(deposits.c.account == account)
    if before is not None:
        wanted = wanted.where(deposits.c.seq < select(deposits.c.seq).where(deposits.c.id == before).scalar_subquery())
    newest = wanted.order_by(deposits.c.seq.desc()).limit(limit)
    with database.engine.connect() as connection:
        return [_read(row) for row in connection.execute(newest)]


def _read(row: Row[Any]) -> Deposit:
    return Deposit(row.id, row.account, row.fund, row.amount_pico, row.currency, row.note, row.created_at)


def _pack(pack_id: str, database: Database) -> Pack | None:
    packs = tables.packs
    with database.engine.connect() as connection:
        row = connection.execute(select(packs).where(packs.c.id == pack_id)).first()
    if row is None:
        return None
    return Pack(
        row.id, row.account, row.kind, row.product, row.unit, row.units, row.note, row.bought_at, row.expires_at
    )


def _spent(account: str, currency: str, since: int, database: Database) -> int:
    usage = tables.usage
    wanted = select(func.coalesce(func.sum(usage.c.owed_pico), 0)).where(
        usage.c.account == account, usage.c.span == "day", usage.c.start >= since, usage.c.currency == currency
    )
    with database.engine.connect() as connection:
        return int(connection.execute(wanted).scalar_one())
