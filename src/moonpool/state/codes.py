"""Redemption codes. That one was redeemed stands in the books (a deposit or a pack named `code:ID`), not here, so that
no crash between the two can give it twice or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select

from moonpool.ledger.guesses import Guesses
from moonpool.state import tables
from moonpool.state.base_admin import Code, Gift
from moonpool.state.thread import Database, Jobs


class CodeStore:
    """base_admin.Codes."""

    def __init__(self, thread: Jobs) -> None:
        self._thread = thread
        self.guesses = Guesses()

    async def create(self, codes: Sequence[tuple[Code, bytes]]) -> None:
        await self._thread.call(partial(_create, codes))

    async def find(self, digest: bytes) -> Code | None:
        return await self._thread.call(partial(_find, digest))

    async def page(self, after: str, limit: int) -> Sequence[Code]:
        return await self._thread.call(partial(_page, after, limit))


def _create(codes: Sequence[tuple[Code, bytes]], database: Database) -> None:
    rows = [
        {
            "id": code.id,
            "digest": digest,
            "gift": msgspec.to_builtins(code.gift),
            "note": code.note,
            "created_at": code.created_at,
            "expires_at": code.expires_at,
        }
        for code, digest in codes
    ]
    with database.engine.begin() as connection:
        connection.execute(insert(tables.codes), rows)


def _find(digest: bytes, database: Database) -> Code | None:
    with database.engine.connect() as connection:
        row = connection.execute(select(tables.codes).where(tables.codes.c.digest == digest)).first()
    return None if row is None else _code(row)


def _page(after: str, limit: int, database: Database) -> list[Code]:
    codes = tables.codes
    with database.engine.connect() as connection:
        found = connection.execute(select(codes).where(codes.c.id > after).order_by(codes.c.id).limit(limit))
        return [_code(row) for row in found]


def _code(row: Row[Any]) -> Code:
    return Code(row.id, msgspec.convert(row.gift, Gift), row.note, row.created_at, row.expires_at)
