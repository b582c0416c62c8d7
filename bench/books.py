"""Does the ledger agree with what happened? Read from the database after moonpool has stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from gateways import Gateway

Ask = Callable[[str], tuple[Any, ...]]

_ENDS = """
SELECT count(*), coalesce(sum(attempts), 0), count(*) FILTER (WHERE kind = 'posted'),
       count(*) FILTER (WHERE kind = 'voided'), count(*) FILTER (WHERE kind NOT IN ('posted', 'voided')),
       count(*) FILTER (WHERE estimated), count(DISTINCT hold_seq)
FROM resolutions
"""
_OPEN = "SELECT count(*) FROM holds LEFT JOIN resolutions ON hold_seq = seq WHERE hold_seq IS NULL"


@contextmanager
def ledger(gateway: Gateway) -> Iterator[Ask]:
    """Ask the database of a gateway of ours for one row."""
    if gateway.services is None:
        connection: Any = sqlite3.connect(f"file:{gateway.home}/moonpool.db?mode=ro", uri=True)
    else:
        import psycopg

        connection = psycopg.connect(gateway.services.store)
    with closing(connection):
        yield lambda query: tuple(connection.execute(query).fetchone())


def check_books(row: Ask, tally: dict[str, int], dispatches: int) -> dict[str, Any]:
    """Compare three counts that were made apart: what the load generator asked, what reached the stand-in, what the
    database holds. Right when every request has one hold and one end, every dispatch is in an end's `attempts`, every
    answer that came whole is posted, and nothing is open, expired or recovered.
    """
    (holds,) = row("SELECT count(*) FROM holds")
    (left_open,) = row(_OPEN)
    ends, attempts, posted, voided, other, estimated, distinct = row(_ENDS)
    (commits,) = row("SELECT sum(commits) FROM totals")
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
        "requests_per_commit": round(2 * holds / int(commits), 1) if commits else None,
    }
