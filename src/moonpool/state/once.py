"""Requests with an `Idempotency-Key`: who may do one, and what it was answered, as jobs of the writer thread.

Rules:
- What comes while a job runs is one transaction of the next, so many keys share one write to the disk. Within it rows
  go in the order of their keys: two processes that write the same ones cannot wait for each other in a circle.
- A row without a status is of a request that runs, or of one whose process died. Its hold tells: open, somebody is
  responsible for it; resolved, or not there, for GRACE_S (none, where one process has the database): nobody is. If it
  owed nothing, and may be repeated, the next request takes the row over; otherwise the key is `lost`.
- Bodies are compressed and sealed (sealing.py), bound to scope and key: an answer may hold a new key's secret.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.state import tables
from moonpool.state.base import Asking, Begun, OnceBounds, Told
from moonpool.state.sealing import Sealer
from moonpool.state.thread import Database, WriterThread, storage_problem

GRACE_S: Final = 60.0
"""For so long a request that nobody seems to be at is believed to run in another process."""
RETRY_S: Final = 1.0
_PURPOSE: Final = b"moonpool answer"
_BATCH_MAX: Final = 64
_BATCH_BYTES_MAX: Final = 4 << 20
_PENDING_BYTES_MAX: Final = 64 << 20
_SWEPT_MAX: Final = 500
_TRIES: Final = 5
_COMPRESS_BYTES_MIN: Final = 512
_FILL: Final = 0.75  # of a bound, to which it is made room: or each answer would need room again

_once: Final = tables.once.c
# Statements are made once: to put one together costs more than to run it.
_INSERTS: Final[dict[str, Any]] = {
    name: insert(tables.once).on_conflict_do_nothing().returning(_once.key)
    for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}
_OF_KEY: Final = and_(_once.account == bindparam("of"), _once.key == bindparam("named"))
_OF_REQUEST: Final = and_(_OF_KEY, _once.request_id == bindparam("by"))
_READ: Final = select(tables.once).where(_OF_KEY)
_FINISH: Final = (
    update(tables.once)
    .where(_OF_REQUEST)
    .values({name: bindparam(f"new_{name}") for name in ("status", "headers", "body")})
)
_TAKE: Final = (
    update(tables.once)
    .where(_OF_REQUEST, _once.created_at == bindparam("since"))
    .values({column.name: bindparam(f"new_{column.name}") for column in tables.once.columns if not column.primary_key})
)
_DROP: Final = delete(tables.once).where(_OF_REQUEST)
_TRIM: Final = update(tables.once).where(_OF_KEY).values(body=None)
_SWEEP: Final = delete(tables.once).where(_OF_REQUEST, _once.expires_at <= bindparam("now"))
_HELD: Final = (
    select(tables.resolutions.c.resolved_at, tables.resolutions.c.owed_pico)
    .select_from(tables.holds.outerjoin(tables.resolutions, tables.resolutions.c.hold_seq == tables.holds.c.seq))
    .where(tables.holds.c.id == bindparam("by"))
)


class _Job(Struct, eq=False):
    """`told` and `answer` are None but for a finish and a begin."""

    asking: Asking
    told: Told | None = None
    answer: Later[Begun | Told] | None = None


class SqlOnce:
    """Once. All methods are called on the event loop; none blocks it."""

    def __init__(self, thread: WriterThread, secret: str, bounds: OnceBounds, *, grace_s: float = 0.0) -> None:
        """`grace_s`: GRACE_S where other processes work on this database too."""
        self._thread = thread
        self._shelf = _Shelf(Sealer(secret, purpose=_PURPOSE), bounds, grace_s)
        self._pending: deque[_Job] = deque()
        self._pending_bytes = 0
        self._writing: Later[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self.lost = 0
        """How many answers could not be written."""

    def load(self, connection: Connection) -> None:
        """In the writer thread, before `start`."""
        self._shelf.count(connection)

    def start(self) -> None:
        self._open = True

    async def stop(self) -> None:
        """Write what is pending, if that can be done."""
        self._open = False
        self._write()
        while self._writing is not None:
            await self._writing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self, asking: Asking) -> Later[Begun | Told]:
        answer: Later[Begun | Told] = Later()
        if not self._open:
            answer.fail(Problem("platform.storage", detail="the store is closed"))
            return answer
        self._shelf.alive.add(asking.request_id)
        self._put(_Job(asking, answer=answer))
        return answer

    def finish(self, asking: Asking, told: Told) -> None:
        self._put(_Job(asking, told))

    def drop(self, asking: Asking) -> None:
        self._put(_Job(asking))

    def sweep(self, now: float) -> None:
        self._swept(now, True, None)

    def _swept(self, now: float, more: Any, error: Exception | None) -> None:
        """Go on while more is left. What failed is tried again when `sweep` comes again."""
        if more and error is None and self._open:
            self._thread.submit(partial(self._shelf.sweep, now), partial(self._swept, now))

    def _put(self, job: _Job) -> None:
        size = _size(job)
        if self._pending_bytes + size > _PENDING_BYTES_MAX and job.told is not None:
            self.lost += 1
            told = job.told
            job = _Job(job.asking, Told(told.status, told.content_type, told.fields, None))
            size = 0
        self._pending.append(job)
        self._pending_bytes += size
        self._write()

    def _write(self) -> None:
        if self._writing is not None or not self._pending:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[_Job] = []
        size = 0
        while self._pending and len(batch) < _BATCH_MAX and size < _BATCH_BYTES_MAX:
            batch.append(self._pending.popleft())
            size += _size(batch[-1])
        self._pending_bytes -= size
        self._writing = Later()
        self._thread.submit(partial(self._shelf.write, batch), partial(self._written, batch))

    def _written(self, batch: list[_Job], found: Any, error: Exception | None) -> None:
        alive = self._shelf.alive
        answers: Sequence[Begun | Told | None] = found or ()
        if error is None:
            for job, result in zip(batch, answers, strict=True):
                if job.answer is None or result != "new":
                    alive.discard(job.asking.request_id)
        else:
            error = storage_problem(error)
            again = [job for job in batch if job.answer is None] if isinstance(error, Problem) else []
            self._pending.extendleft(reversed(again))
            self._pending_bytes += sum(_size(job) for job in again)
            for job in batch:
                if job.answer is not None or not again:
                    alive.discard(job.asking.request_id)
        if self._shelf.crowded and self._open:
            self._thread.submit(self._shelf.make_room, _told_nobody)
        writing, self._writing = self._writing, None
        if error is None or any(job.answer is not None for job in self._pending):
            self._write()
        elif self._pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._write)
        if writing is not None:
            writing.set(None)
        for at, job in enumerate(batch):
            if job.answer is not None and not job.answer.done():
                if error is None:
                    job.answer.set(answers[at])  # type: ignore[arg-type]
                else:
                    job.answer.fail(error)


class _Shelf:
    """What the jobs do, inside the writer thread. `alive` are the requests of this process that have not ended."""

    def __init__(self, sealer: Sealer, bounds: OnceBounds, grace_s: float) -> None:
        self._sealer = sealer
        self._bounds = bounds
        self._grace_s = grace_s
        self._bytes: dict[str, int] = {}
        self._stale = False
        self.alive: set[str] = set()
        self.crowded: set[str] = set()
        """Scopes that have more than a bound; all, in that "" is among them."""

    def count(self, connection: Connection) -> None:
        """How many bytes are kept, by scope. Where others write too, what they add is seen by the next sweep."""
        size = func.sum(func.length(_once.body))
        rows = connection.execute(select(_once.account, size).where(_once.body.is_not(None)).group_by(_once.account))
        self._bytes = {row[0]: int(row[1]) for row in rows}
        self._stale = False

    def write(self, batch: list[_Job], database: Database) -> list[Begun | Told | None]:
        """What each job is answered; None for those that are not asked for an answer."""
        answers: list[Begun | Told | None] = [None] * len(batch)
        order = sorted(range(len(batch)), key=lambda at: (batch[at].asking.scope, batch[at].asking.key))
        try:
            with database.engine.begin() as connection:
                if self._stale:
                    self.count(connection)
                for at in order:
                    job = batch[at]
                    if job.answer is not None:
                        answers[at] = self._begin(connection, job.asking)
                    elif job.told is not None:
                        self._finish(connection, job.asking, job.told)
                    else:
                        connection.execute(_DROP, _of(job.asking))
        except BaseException:
            self._stale = True  # what was counted did not happen
            raise
        bounds = self._bounds
        touched = {job.asking.scope for job in batch if job.told is not None}
        self.crowded |= {scope for scope in touched if self._bytes.get(scope, 0) > bounds.scope_bytes_max}
        if touched and sum(self._bytes.values()) > bounds.bytes_max:
            self.crowded.add("")
        return answers

    def _begin(self, connection: Connection, asking: Asking) -> Begun | Told:
        made = _fresh(asking, self._bounds.ttl_s)
        put = _INSERTS[connection.dialect.name]
        for _ in range(_TRIES):
            if connection.execute(put, made).first() is not None:
                return "new"
            row = connection.execute(_READ, _of(asking)).first()
            if row is None:
                continue  # it was dropped at this moment, by another process
            if row.status is None or row.expires_at > asking.now:
                found = self._judge(connection, row, asking)
                if found != "new":
                    return found
            mine = {**_of(asking), "by": row.request_id, "since": row.created_at}
            if connection.execute(_TAKE, mine | {f"new_{name}": value for name, value in made.items()}).rowcount == 1:
                self._forget_bytes(asking.scope, row.body)
                return "new"
        return "running"

    def _judge(self, connection: Connection, row: Any, asking: Asking) -> Begun | Told:
        """What a row that is there means for who asks; `new`: it may be taken over."""
        if row.status is not None:
            return "mismatch" if row.asked != asking.digest else self._told(row, asking)
        over = row.expires_at <= asking.now
        if row.asked != asking.digest and not over:
            return "mismatch"
        if row.request_id in self.alive:
            return "running"
        fate, owed = _fate(connection, row)
        if fate is None or asking.now < fate + self._grace_s:
            return "running"
        return "new" if over or (asking.repeatable and not owed) else "lost"

    def _told(self, row: Any, asking: Asking) -> Told | Begun:
        body = None if row.body is None else self._sealer.open_bytes(_bound(asking), row.body)
        if body is None:
            return "lost"
        body = zlib.decompress(body[1:]) if body[:1] == b"z" else body[1:]
        head = row.headers
        return Told(row.status, head["type"], [(name, value) for name, value in head["fields"]], body)

    def _finish(self, connection: Connection, asking: Asking, told: Told) -> None:
        sealed = None
        if told.body is not None:
            packed = b"r" + told.body
            if len(packed) >= _COMPRESS_BYTES_MIN:
                packed = b"z" + zlib.compress(told.body, 1)
            sealed = self._sealer.seal_bytes(_bound(asking), packed)
            if len(sealed) > min(self._bounds.scope_bytes_max, self._bounds.bytes_max):
                sealed = None
        head = {"type": told.content_type, "fields": [list(field) for field in told.fields]}
        row = {"new_status": told.status, "new_headers": head, "new_body": sealed}
        if connection.execute(_FINISH, _of(asking) | row).rowcount and sealed is not None:
            self._bytes[asking.scope] = self._bytes.get(asking.scope, 0) + len(sealed)

    def make_room(self, database: Database) -> None:
        """Forget the oldest bodies of whoever has too many. A transaction of its own: see the order of rows above."""
        bounds = self._bounds
        crowded, self.crowded = self.crowded, set()
        try:
            with database.engine.begin() as connection:
                for scope in sorted(crowded):
                    if scope:
                        self._trim(connection, self._bytes.get(scope, 0), bounds.scope_bytes_max, scope)
                    else:
                        self._trim(connection, sum(self._bytes.values()), bounds.bytes_max)
        except BaseException:
            self._stale = True
            raise

    def _trim(self, connection: Connection, there: int, bound: int, scope: str = "") -> None:
        """Of so many bytes that are there, forget the oldest bodies, but the newest of all never."""
        if there <= bound:
            return
        count = there - int(_FILL * bound)
        wanted = select(_once.account, _once.key, func.length(_once.body)).where(_once.body.is_not(None))
        if scope:
            wanted = wanted.where(_once.account == scope)
        rows = connection.execute(wanted.order_by(_once.expires_at, _once.account, _once.key)).all()
        gone: list[dict[str, str]] = []
        for row in rows[:-1]:
            if count <= 0:
                break
            gone.append({"of": row.account, "named": row.key})
            count -= row[2]
            self._bytes[row.account] = self._bytes.get(row.account, 0) - row[2]
        if gone:
            connection.execute(_TRIM, gone)

    def sweep(self, now: float, database: Database) -> bool:
        """Whether there is more."""
        with database.engine.begin() as connection:
            old = connection.execute(
                select(_once.account, _once.key, _once.request_id, func.length(_once.body).label("bytes"))
                .where(_once.expires_at <= now)
                .order_by(_once.expires_at)
                .limit(_SWEPT_MAX)
            ).all()
            gone = [row for row in old if row.request_id not in self.alive]
            if gone:
                rows = [{"of": row.account, "named": row.key, "by": row.request_id, "now": now} for row in gone]
                connection.execute(_SWEEP, rows)
            if self._grace_s or self._stale:
                self.count(connection)
            else:
                for row in gone:
                    self._bytes[row.account] = self._bytes.get(row.account, 0) - (row.bytes or 0)
        return len(old) == _SWEPT_MAX and bool(gone)

    def _forget_bytes(self, scope: str, body: bytes | None) -> None:
        if body is not None:
            self._bytes[scope] = self._bytes.get(scope, 0) - len(body)


def _fresh(asking: Asking, ttl_s: float) -> dict[str, Any]:
    """The row of a request that begins."""
    return {
        "account": asking.scope,
        "key": asking.key,
        "asked": asking.digest,
        "request_id": asking.request_id,
        "status": None,
        "headers": None,
        "body": None,
        "created_at": asking.now,
        "expires_at": asking.now + ttl_s,
    }


def _of(asking: Asking) -> dict[str, Any]:
    """What finds the row of its key, and whether that is still its own."""
    return {"of": asking.scope, "named": asking.key, "by": asking.request_id}


def _fate(connection: Connection, row: Any) -> tuple[float | None, int]:
    """Since when nobody is at the request of this row (None: somebody is), and what it owed."""
    hold = connection.execute(_HELD, {"by": row.request_id}).first()
    if hold is None:
        return row.created_at, 0
    return hold.resolved_at, hold.owed_pico or 0


def _bound(asking: Asking) -> bytes:
    return sha256(f"{asking.scope}\n{asking.key}".encode()).digest()


def _told_nobody(result: object, error: Exception | None) -> None:
    """Room that could not be made is made after the next answer."""


def _size(job: _Job) -> int:
    return len(job.told.body) if job.told is not None and job.told.body is not None else 0
