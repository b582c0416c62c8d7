"""The log of changes: one chain of rows over all processes.

Rules:
- A row holds the hash of the row before it, and its own: SHA-256 over what it says and that. So a row that is edited,
  removed or put elsewhere breaks the chain there. The number of the last row stands in `changes` as well, so that rows
  which are cut off at the end are missed; whoever can write all of that and knows how can still forge it, and is found
  by a hash that was noted elsewhere.
- Rows get their numbers under the lock of that one row of `changes`: two processes cannot write the same one.
- Checking reads in small steps: requests that wait for the same thread are not held up.

Source: RELIABILITY 3.7 (one row per mutation, hash-chained), case 126.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Text, cast, insert, select

from moonpool.state import changes, tables
from moonpool.state.base_admin import DETAIL_BYTES_MAX, Change, Logged, Verdict
from moonpool.state.thread import Database, Jobs

WHAT: Final = "audit"
STEP_ROWS: Final = 1000
FIRST: Final = bytes(32)
"""What the first row says is before it."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.decode
_AUDIT: Final = tables.audit.c
_WHOLE: Final = (
    select(
        _AUDIT.seq,
        _AUDIT.at,
        _AUDIT.actor,
        _AUDIT.action,
        _AUDIT.target,
        cast(_AUDIT.detail, Text),  # the database's own text, which is read faster here
        _AUDIT.before,
        _AUDIT.hash,
    )
    .order_by(_AUDIT.seq)
    .limit(STEP_ROWS)
)


def hash_of(seq: int, change: Change, before: bytes) -> bytes:
    """SHA-256 over a row. Its text is JSON with sorted names, so that it does not depend on how a database keeps it."""
    said = (seq, change.at, change.actor, change.action, change.target, change.detail, before.hex())
    return sha256(_encode(said)).digest()


class AuditLog:
    """base_admin.Audit. Called on the event loop; none of it blocks."""

    def __init__(self, thread: Jobs) -> None:
        self._thread = thread

    async def write(self, change: Change) -> int:
        if len(_encode(change.detail)) > DETAIL_BYTES_MAX:
            change = msgspec.structs.replace(change, detail={"left_out": "more than can be logged"})
        return await self._thread.call(partial(_write, change))

    async def page(self, before: int | None, limit: int) -> Sequence[Logged]:
        return await self._thread.call(partial(_page, before, limit))

    async def verify(self) -> Verdict:
        last = await self._thread.call(_last)
        at, head = 0, FIRST
        while at < last:
            at, head, trouble = await self._thread.call(partial(_step, at, head, last))
            if trouble:
                return Verdict(at, head.hex(), trouble, at + 1)
        trouble = await self._thread.call(partial(_beyond, last))
        return Verdict(at, head.hex(), trouble, at + 1 if trouble else 0)


def _write(change: Change, database: Database) -> int:
    audit = tables.audit
    with database.engine.begin() as connection:
        changes.count_up(connection, WHAT)  # first: its row is the lock
        seq = _revision(connection)
        newest = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
        before = FIRST if newest is None else bytes(newest.hash)
        row = {
            "seq": seq,
            "at": change.at,
            "actor": change.actor,
            "action": change.action,
            "target": change.target,
            "detail": dict(change.detail),
            "before": before,
            "hash": hash_of(seq, change, before),
        }
        connection.execute(insert(audit), row)
    return seq


def _revision(connection: Connection) -> int:
    return changes.revisions(connection).get(WHAT, 0)


def _last(database: Database) -> int:
    with database.engine.connect() as connection:
        return _revision(connection)


def _page(before: int | None, limit: int, database: Database) -> list[Logged]:
    audit = tables.audit
    wanted = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(audit.c.seq < before)
    with database.engine.connect() as connection:
        return [_logged(row) for row in connection.execute(wanted)]


def _logged(row: Row[Any]) -> Logged:
    change = Change(row.at, row.actor, row.action, row.target, row.detail)
    return Logged(row.seq, change, bytes(row.before), bytes(row.hash))


def _step(at: int, head: bytes, last: int, database: Database) -> tuple[int, bytes, str]:
    """Look at the rows after `at`: (the last one in order, its hash, what is wrong after it)."""
    wanted = _WHOLE.where(tables.audit.c.seq > at, tables.audit.c.seq <= last)
    with database.engine.connect() as connection:
        rows = connection.execute(wanted).fetchall()
    for seq, moment, actor, action, target, text, before, found in rows:
        if seq != at + 1:
            return at, head, f"row {at + 1} is missing"
        if before != head:
            return at, head, f"row {seq} does not follow the row before it"
        said = (seq, moment, actor, action, target, _decode(text), head.hex())
        if sha256(_encode(said)).digest() != found:
            return at, head, f"row {seq} is not as it was written"
        at, head = seq, found
    if not rows:
        return at, head, f"row {at + 1} is missing"
    return at, head, ""


def _beyond(last: int, database: Database) -> str:
    """Rows that the counter does not know were not written by us."""
    audit = tables.audit
    with database.engine.begin() as connection:  # as a writer, so that none is written in between
        known = _revision(connection)
        newest = connection.execute(select(audit.c.seq).order_by(audit.c.seq.desc()).limit(1)).scalar() or 0
    if known < last:
        return f"the counter of rows went back from {last} to {known}"
    return "" if newest == known else f"the last row is {newest} and should be {known}"
