"""Disks that fail when a test says so: connections to give to a store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any


class Disk:
    """`connection_class` for a SqliteStore; what happens to its statements is set here, from any thread.

    `statements` are those that reached the database, in order. `fail(text)` gives an exception to raise instead of
    running a statement, `fail_after(text)` one to raise after it ran; None lets it pass. While `gate` is clear, COMMIT
    waits. `pages_max` is how many pages the file may have, 0 for no bound.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.fail: Callable[[str], Exception | None] = lambda text: None
        self.fail_after: Callable[[str], Exception | None] = lambda text: None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.pages_max = 0
        disk = self

        class Cursor(sqlite3.Cursor):
            def execute(self, text: str, values: Any = ()) -> Cursor:
                error = disk.fail(text)
                if error is not None:
                    raise error
                if text.startswith("BEGIN"):
                    pages = disk.pages_max or 2**30
                    super().execute(f"PRAGMA max_page_count = {pages}").fetchall()
                if text == "COMMIT" and not disk.gate.is_set():
                    disk.waiting.set()
                    disk.gate.wait(30)
                super().execute(text, values)
                return self._done(text)

            def executemany(self, text: str, values: Any) -> Cursor:
                error = disk.fail(text)
                if error is not None:
                    raise error
                super().executemany(text, values)
                return self._done(text)

            def _done(self, text: str) -> Cursor:
                disk.statements.append(text)
                error = disk.fail_after(text)
                if error is not None:
                    raise error
                return self

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = None) -> Any:
                return super().cursor(Cursor)

        self.connection_class = Connection


class Nth:
    """A fault at the n-th statement, once."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, text: str) -> Exception | None:
        self.left -= 1
        return broken() if self.left == 0 else None


def broken() -> Exception:
    return sqlite3.OperationalError("disk I/O error")
