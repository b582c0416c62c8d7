"""Processes over one PostgreSQL database: each has a row of `totals`, which says that it lives.

Rules:
- A node's number is the row's `id`; `name` is a word nobody else has while it has the row, "" where nobody has it. All
  a node does to the books it does with its row locked and its name in it: who was declared dead cannot write.
- Alive is who was seen within DEAD_S, by the database's clock. Whoever finds a dead node's row (locked: one does) ends
  its open holds and gives the row away.
- The sums of a row stay when it changes hands: all rows together are the totals.
"""

from __future__ import annotations

from typing import Final

from moonpool.state.thread import Database

BEAT_S: Final = 5.0
DEAD_S: Final = 15.0

_NOW: Final = "extract(epoch FROM clock_timestamp())"
_TAKE: Final = (
    f"UPDATE totals SET name = ?, seen_at = {_NOW}, first_open = last_seq + 1 WHERE id = "
    "(SELECT id FROM totals WHERE name = '' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, commits"
)
_MAKE: Final = (
    "INSERT INTO totals (id, commits, last_seq, first_open, holds, posted, voided, expired, recovered, "
    "prompt_miss, prompt_hit, completion, reasoning, name, seen_at) "
    f"SELECT coalesce(max(id), 0) + 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, {_NOW} FROM totals "
    "ON CONFLICT DO NOTHING RETURNING id, commits"
)
_BEAT: Final = f"UPDATE totals SET seen_at = {_NOW} WHERE id = ? AND name = ? RETURNING id"
_LEAVE: Final = (
    "UPDATE totals SET seen_at = 0, name = CASE WHEN ? THEN name ELSE '' END WHERE id = ? AND name = ? RETURNING id"
)
DEAD: Final = (
    "SELECT id, first_open, last_seq FROM totals "
    f"WHERE name <> '' AND id > %s AND id <> %s AND seen_at < {_NOW} - {DEAD_S} "
    "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
BURY: Final = "UPDATE totals SET name = '', first_open = last_seq + 1 WHERE id = %s"
LIVING: Final = f"SELECT count(*) FROM totals WHERE name <> '' AND seen_at >= {_NOW} - {DEAD_S}"


def join(name: str, database: Database) -> tuple[int, int]:
    """Take a row: (its id, its `commits`)."""
    while True:
        for text in (_TAKE, _MAKE):
            with database.transaction():
                row = database.execute(text, (name,)).fetchone()
            if row is not None:
                return int(row[0]), int(row[1])


def beat(node: int, name: str, database: Database) -> bool:
    """Say that we live. False: somebody thought otherwise, and the row is not ours any more."""
    with database.transaction(durable=False):
        return database.execute(_BEAT, (node, name)).fetchone() is not None


def leave(node: int, name: str, holds_open: bool, database: Database) -> None:
    """Give the row back; with open holds it stays, dead, until somebody ended those."""
    with database.transaction():
        database.execute(_LEAVE, (holds_open, node, name))
