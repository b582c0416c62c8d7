"""`moonpool serve` that kills itself at a named point: `python crash_child.py POINT --home … --config … --port 0`.

POINT is `before|after TEXT N`: SIGKILL right before, or right after, the N-th statement that begins so from SIGUSR1
on, with `start` before it: already while it starts; or `none`. The
product knows nothing of it: the points are the statements of its one connection (faults/disk.py has the same seam),
and those between a host and us are moments of the host. Everything that happens by itself happens often here, and a
cashier deposits, gives packs and settles hours; what he was told is durable he writes to `cashier` in the home.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from moonpool import app
from moonpool.cli.main import main
from moonpool.ledger.funds import Pack
from moonpool.relay import pulse
from moonpool.settings import Settings
from moonpool.state.base import Deposit
from moonpool.state.sqlite import SqliteStore


class Crash:
    """Strikes at one point. The N-th `COMMIT of TEXT` is that of the N-th transaction in which TEXT was run."""

    def __init__(self, point: str) -> None:
        self.armed = point.startswith("start ")
        self.when, _, rest = point.removeprefix("start ").partition(" ")
        self.text, _, left = rest.rpartition(" ")
        self.left = int(left or 0)
        self.ran: set[str] = set()

    def connection_class(self) -> type[sqlite3.Connection]:
        crash = self

        class Cursor(sqlite3.Cursor):
            def execute(self, text: str, values: Any = ()) -> Cursor:
                crash.seen("before", text)
                super().execute(text, values)
                crash.seen("after", text)
                return self

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = None) -> Any:
                return super().cursor(Cursor)

        return Connection

    def seen(self, when: str, text: str) -> None:
        if text.startswith("BEGIN"):
            self.ran.clear()
        what = self.text.removeprefix("COMMIT of ")
        here = text.startswith(what) if what == self.text else text == "COMMIT" and what in self.ran
        if self.armed and when == self.when and here:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith(what):
            self.ran.add(what)


async def cashier(store: SqliteStore, home: Path) -> None:
    """Everything but requests, over and over. What was under way at a kill, and the last that was told, come again."""
    loop, done = asyncio.get_running_loop(), home / "cashier"
    done.touch()
    turn = max(len(set(done.read_text().split())) - 1, 0)
    while True:
        turn += 1
        now = time.time()
        await store.books.deposit(Deposit(f"c{turn}", "a1", "topped_up", 1000, "CNY", "", now))
        with done.open("a") as file:
            file.write(f"c{turn}\n")
        await store.books.add_pack(Pack(f"c{turn}", "a2", "trial", "", "tokens", 1, "", now, now + 999.0))
        await store.books.settle_hours(now + 3600.0 * turn)
        passed: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.05, passed.set_result, None)
        await passed


def run(point: str) -> None:
    pulse.PULSE_S = 0.05  # type: ignore[misc]
    tasks, crash = [], Crash(point)

    def open_store(settings: Settings, environ: object = None) -> SqliteStore:
        return SqliteStore(settings.store_path(), connection_class=crash.connection_class())

    start = app.App.start

    async def start_all(self: app.App) -> None:
        def begin() -> None:
            crash.armed = True
            tasks.append(asyncio.ensure_future(cashier(self.store, self.settings.home_path())))

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
        await start(self)

    app.open_store = open_store
    app.App.start = start_all  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    chosen = sys.argv[1]
    sys.argv[1] = "serve"
    run(chosen)
