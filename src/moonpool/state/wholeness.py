"""Is a database file whole? Looked at before it is opened for writing.

Rules:
- A file in use says so: `user_version` in its header is its `schema_version` then, and 0 once it was closed well. It
  says so only where it stands alone: a checkpoint commits that mark, moves the log into the file, and commits a 0 that
  stays in the log (file.py). Whoever reads both reads 0: after a kill or a power cut, which leave the log in place, and
  in what SQLite itself makes of the two. Whoever has the file alone reads the mark: what came since is missing.
- A copy that SQLite makes between those two commits has the mark but another `schema_version` (a backup counts its own,
  VACUUM adds one), and so is known as whole. A process that dies between them leaves its log; if another program then
  empties that log before the next start, a whole file is refused: a few milliseconds, on the safe side.
- SQLite keeps no checksums: its check finds pages that do not hang together, not a digit in an amount. That is found by
  `moonpool ledger audit`.

Source: https://www.sqlite.org/fileformat2.html#the_database_header; RELIABILITY, cases 51 and 52.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import struct
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

_HEADER: Final = struct.Struct(">18xB21xI16xI36x")
"""The first 100 bytes: the version that writes (2: with a log), schema_version, user_version."""
_LOG_HEADER: Final = 32
"""What a log has before its first entry. A program that only read may leave an empty one."""


def needs_log(path: Path) -> bool:
    """Was this file in use, and is the log that belongs to it gone? Raises OSError for one that cannot be read."""
    path = path.resolve()  # as SQLite does: its log is beside the file itself
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return False
    version, schema, mark = _HEADER.unpack(head)
    if version != 2 or mark == 0 or mark != schema:
        return False
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size <= _LOG_HEADER
    except FileNotFoundError:
        return True


def damage(path: Path, within_s: float = math.inf, check: str = "quick_check") -> str | None:
    """What SQLite finds wrong with a file and its log, "" if nothing; None if it was not through in time. It only
    reads, and may run beside a server. Raises sqlite3.OperationalError where it cannot read."""
    end = time.monotonic() + within_s
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() >= end, 1000)
            said: str = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
            return "" if said == "ok" else said.splitlines()[-1]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
