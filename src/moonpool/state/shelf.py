"""The thoughts in the database, as jobs of the writer thread see them: sealed, counted, the oldest go first.

A write here is not made durable by itself: it is safe when the process is killed, and gets to the disk with the next
commit of the books (or a little later). So a thought costs no fsync, and money never waits for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, func, select

from moonpool.state import tables
from moonpool.state.base import Thought, VaultBounds
from moonpool.state.sealing import MARK_BYTES, Sealer
from moonpool.state.thread import Database

_ASKED_MAX: Final = 400
_SWEPT_MAX: Final = 500
_OVERHEAD_BYTES: Final = 200
_CHANCE_BITS: Final = 20
CHANCES: Final = 1 << _CHANCE_BITS

_THOUGHT: Final = tables.insert_text(tables.thoughts, 1)
_MARK: Final = (
    "INSERT INTO thought_marks (mark, seq, shared) VALUES (?, ?, false) ON CONFLICT (mark) DO UPDATE SET seq = "
)
_CALL_MARK: Final = f"{_MARK}excluded.seq, shared = true RETURNING shared"
_TURN_MARK: Final = f"{_MARK}excluded.seq"
_FIND: Final = (
    "SELECT m.mark, t.seq, t.account, t.marks, t.sealed, t.expires_at "
    "FROM thought_marks m JOIN thoughts t ON t.seq = m.seq WHERE NOT m.shared AND m.mark IN "
)


class Found(Struct, gc=False):
    """A thought that was looked for, the marks it was looked for by, and until when it is kept."""

    marks: list[bytes]
    reasoning: str
    expires_at: float


class Shelf:
    """`rows` may be read by anybody; the rest is the writer thread's."""

    def __init__(self, sealer: Sealer, bounds: VaultBounds, shared: bool, chance: int) -> None:
        """`shared`: other processes write here too, so what was counted is counted anew with every sweep. `chance`: a
        number below CHANCES that they do not have."""
        self._sealer = sealer
        self._bounds = bounds
        self._shared = shared
        self._chance = chance
        self._seq = 0
        self._bytes = 0
        self._accounts: dict[str, int] = {}
        self.rows = 0
        self.uncounted = False
        """Whether `rows` may be wrong."""
        self.unreadable = 0
        """How many thoughts another key sealed, as far as that was seen."""

    def load(self, connection: Connection) -> None:
        """Count what is there, and see whether this key opens it."""
        self._accounts, self._bytes, self.rows = {}, 0, 0
        self.uncounted = False
        thoughts = tables.thoughts.c
        self._seq = connection.execute(select(func.coalesce(func.max(thoughts.seq), 0))).scalar_one()
        counted = select(thoughts.account, func.count(), func.sum(thoughts.bytes)).group_by(thoughts.account)
        for account, rows, size in connection.execute(counted):
            self._accounts[account] = int(size)
            self._bytes += int(size)
            self.rows += rows
        newest = select(thoughts.account, thoughts.marks, thoughts.sealed).order_by(thoughts.seq.desc()).limit(1)
        for account, marks, sealed in connection.execute(newest):
            if self._sealer.open(account, _cut(marks), sealed) is None:
                self.unreadable = self.rows

    def read(self, account: str, marks: Sequence[bytes], now: float, database: Database) -> list[Found]:
        """A job."""
        named = {self._sealer.mark(account, mark): mark for mark in marks}
        asked = list(named)
        found: dict[int, Found | None] = {}
        for start in range(0, len(asked), _ASKED_MAX):
            some = asked[start : start + _ASKED_MAX]
            rows = database.execute(f"{_FIND}({','.join('?' * len(some))})", some).fetchall()
            for mark, seq, owner, bound, sealed, expires_at in rows:
                if owner != account or expires_at <= now:
                    continue
                if seq not in found:
                    text = self._sealer.open(account, _cut(bound), sealed) if mark in _cut(bound) else None
                    self.unreadable += text is None
                    found[seq] = None if text is None else Found([], text, expires_at)
                each = found[seq]
                if each is not None:
                    each.marks.append(named[mark])
        return [each for each in found.values() if each is not None]

    def write(self, batch: Sequence[tuple[Thought, float]], database: Database) -> list[tuple[str, bytes]]:
        """A job: keep these thoughts, each until its time. Returns which marks of calls were there already."""
        shared: list[tuple[str, bytes]] = []
        with self._transaction(database, len(batch)):
            for thought, expires_at in batch:
                self._add(thought, expires_at, database, shared)
            for account in {thought.account for thought, _ in batch}:
                while self._accounts.get(account, 0) > self._bounds.account_bytes_max:
                    if not self._drop("WHERE account = ? ORDER BY seq", [account], 1, database):
                        break
            while self.rows > self._bounds.rows_max or self._bytes > self._bounds.bytes_max:
                if not self._drop("ORDER BY seq", [], 1, database):
                    break
        return shared

    def sweep(self, now: float, database: Database) -> bool:
        """A job: delete what is too old, some at a time. Whether more is left."""
        self.uncounted = self._shared
        with self._transaction(database, 1):
            return self._drop("WHERE expires_at <= ? ORDER BY expires_at", [now], _SWEPT_MAX, database) == _SWEPT_MAX

    @contextmanager
    def _transaction(self, database: Database, rows: int) -> Iterator[None]:
        """One that failed may have been written or not, and other processes write too: then count anew."""
        if self.uncounted:
            with database.engine.begin() as connection:
                self.load(connection)
        try:
            with database.transaction(durable=False, rows=rows):
                yield
        except BaseException:
            self.uncounted = True
            raise

    def _add(self, thought: Thought, expires_at: float, database: Database, shared: list[tuple[str, bytes]]) -> None:
        account, sealer = thought.account, self._sealer
        calls = {sealer.mark(account, mark): mark for mark in thought.calls}
        turn = sealer.mark(account, thought.turn)
        marks = [*calls, turn]
        sealed = sealer.seal(account, marks, thought.reasoning)
        size = len(sealed) + _OVERHEAD_BYTES * (1 + len(marks))
        if size > self._bounds.account_bytes_max:
            return
        # A number of this moment and of chance: other processes give theirs without asking us.
        self._seq = 1 + max(self._seq, int(expires_at * 1000) << _CHANCE_BITS | self._chance)
        database.execute(_THOUGHT, (self._seq, account, b"".join(marks), sealed, size, expires_at))
        for mark, plain in calls.items():
            if database.execute(_CALL_MARK, (mark, self._seq)).fetchone()[0]:
                shared.append((account, plain))
        database.execute(_TURN_MARK, (turn, self._seq))
        self._count(account, 1, size)

    def _drop(self, which: str, values: Sequence[Any], most: int, database: Database) -> int:
        text = f"SELECT seq, account, bytes FROM thoughts {which} LIMIT {most}{database.skip_locked}"
        found = database.execute(text, values).fetchall()
        for seq, account, size in found:
            database.execute("DELETE FROM thought_marks WHERE seq = ?", (seq,))
            database.execute("DELETE FROM thoughts WHERE seq = ?", (seq,))
            self._count(account, -1, -size)
        return len(found)

    def _count(self, account: str, rows: int, size: int) -> None:
        self.rows += rows
        self._bytes += size
        left = self._accounts.get(account, 0) + size
        if left:
            self._accounts[account] = left
        else:
            self._accounts.pop(account, None)


def _cut(marks: bytes) -> list[bytes]:
    return [marks[at : at + MARK_BYTES] for at in range(0, len(marks), MARK_BYTES)]
