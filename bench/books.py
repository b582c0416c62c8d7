"""Does the ledger agree with what happened? Read from the database file after moonpool has stopped."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

_ENDS = """
SELECT count(*), coalesce(sum(attempts), 0), coalesce(sum(kind = 'posted'), 0), coalesce(sum(kind = 'voided'), 0),
       coalesce(sum(kind NOT IN ('posted', 'voided')), 0), coalesce(sum(estimated), 0), count(DISTINCT hold_seq)
FROM resolutions
"""
_OPEN = "SELECT count(*) FROM holds LEFT JOIN resolutions ON hold_seq = seq WHERE hold_seq IS NULL"


def check_books(home: Path, tally: dict[str, int], dispatches: int) -> dict[str, Any]:
    """Compare three counts that were made apart: what the load generator asked, what reached the stand-in, what the
    database holds. Right when every request has one hold and one end, every dispatch is in an end's `attempts`, every
    answer that came whole is posted, and nothing is open, expired or recovered.
    """
    with sqlite3.connect(f"file:{home / 'moonpool.db'}?mode=ro", uri=True) as connection:

        def row(query: str) -> tuple[Any, ...]:
            return tuple(connection.execute(query).fetchone())

        (holds,) = row("SELECT count(*) FROM holds")
        (left_open,) = row(_OPEN)
        ends, attempts, posted, voided, other, estimated, distinct = row(_ENDS)
        (commits,) = row("SELECT commits FROM totals")
    right = (
        holds == ends == distinct == tally["asked"]
        and left_open == other == 0
        and attempts == dispatches
        and posted >= tally["ok"] > 0
    )
    said = (
        f"asked {tally['asked']:,}, dispatched {dispatches:,}; holds {holds:,}, posted {posted:,}, voided {voided:,}, "
        f"open {left_open}, attempts {attempts:,}, commits {commits:,}"
    )
    return {
        "right": right,
        "said": said,
        "other_ends": other,
        "estimated": estimated,
        "requests_per_commit": round(2 * holds / commits, 1) if commits else None,
    }
