"""Does the ledger agree with what happened? Read from the database file after moonpool has stopped."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any


def check_books(home: Path, tally: dict[str, int], dispatches: int) -> dict[str, Any]:
    """Each request that reached the stand-in has exactly one hold, each hold exactly one end."""
    with sqlite3.connect(f"file:{home / 'moonpool.db'}?mode=ro", uri=True) as connection:
        tables = sorted(row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        counts = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
    return {"said": str(counts), "right": False, "tally": tally, "dispatches": dispatches}
