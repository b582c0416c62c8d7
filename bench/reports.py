"""What reading costs: sums over a month of ten million calls, and pages of calls out of many.

Run it on one core: `taskset -c 1 python bench/reports.py`. Options: --calls N (in sums, 10,000,000), --holds N (rows of
calls, 1,000,000), --keys N (100, over ten accounts), --home DIR (where the database goes). Each question is asked five
times; told are the median, and the longest time one job kept the thread that writes.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from moonpool.ledger.reports import CallsAsk, UsageAsk
from moonpool.state.sqlite import SqliteStore

HOUR, DAY, MONTH = 3600, 86_400, 1_793_462_400
HOURS, MODELS, ACCOUNTS = 720, 3, 10


def _usage(calls: int, keys: int) -> Iterator[tuple[Any, ...]]:
    each = calls // (HOURS * keys * MODELS)
    for span, length, count in (("hour", HOUR, HOURS), ("day", DAY, HOURS // 24)):
        some = each * length // HOUR
        for at in range(count):
            for key in range(keys):
                for model in range(MODELS):
                    place = (span, MONTH + at * length, f"a{key % ACCOUNTS}", f"key{key:09}", f"model-{model}", "host")
                    yield (*place, "CNY", "CNY", some, some, 0, *[some * 900] * 4, 0, 0, *[some * 10**9] * 4)


def _fill(path: Path, calls: int, holds: int, keys: int) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.executemany(f"INSERT INTO usage VALUES ({','.join('?' * 21)})", _usage(calls, keys))
        step = HOURS * HOUR / holds
        # One account has a hundred calls among all of these.
        connection.executemany(
            "INSERT INTO holds VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                (
                    seq,
                    f"{seq:032x}",
                    "rare" if seq % (holds // 100) == 0 else f"a{seq % ACCOUNTS}",
                    f"key{seq % keys:09}",
                    f"model-{seq % MODELS}",
                    "host",
                    10**9,
                    "CNY",
                    MONTH + seq * step,
                    MONTH + seq * step + 60,
                    1,
                )
                for seq in range(1, holds + 1)
            ),
        )
        connection.executemany(
            f"INSERT INTO resolutions VALUES ({','.join('?' * 15)})",
            (
                (seq, "posted", 900, 0, 90, 9, 0, 10**9, 10**9, "host", "stop", 1, MONTH + seq * step + 2, 0, "")
                for seq in range(1, holds + 1)
            ),
        )
    connection.close()


class _Jobs:
    """The store's thread, and how long the longest of its jobs took."""

    def __init__(self, thread: Any) -> None:
        self._thread = thread
        self.longest_s = 0.0

    def call(self, work: Callable[[Any], Any]) -> Any:
        def timed(database: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(database)
            finally:
                self.longest_s = max(self.longest_s, time.perf_counter() - began)

        return self._thread.call(timed)


async def _ask(store: SqliteStore) -> None:
    reports = store.reports
    jobs = reports._jobs = _Jobs(reports._jobs)
    month = (MONTH, MONTH + HOURS * HOUR)

    async def pages(account: str | None, ask: CallsAsk) -> int:
        after, found = None, 0
        while True:
            page = await reports.calls(account, ask, 100, after)
            found, after = found + len(page.rows), page.next
            if after is None:
                return found

    questions: dict[str, Callable[[], Awaitable[Any]]] = {
        "the month, one account, in one sum": lambda: reports.usage("a1", UsageAsk(*month), 100),
        "the month, one account, by key and model": lambda: reports.usage(
            "a1", UsageAsk(*month, ("key", "model")), 1000
        ),
        "the month, one account, by day": lambda: reports.usage("a1", UsageAsk(*month, ("day",)), 100),
        "the month, one account, by hour": lambda: reports.usage("a1", UsageAsk(*month, ("hour",)), 1000),
        "the month, everybody, in one sum": lambda: reports.usage(None, UsageAsk(*month, costs=True), 100),
        "the month, everybody, by account and model": lambda: reports.usage(
            None, UsageAsk(*month, ("account", "model"), costs=True), 1000
        ),
        "from the 3rd, 07:00, everybody, by day": lambda: reports.usage(
            None, UsageAsk(MONTH + 2 * DAY + 7 * HOUR, month[1] - 5 * HOUR, ("day",)), 1000
        ),
        "the month, everybody, by hour, one page": lambda: reports.usage(None, UsageAsk(*month, ("hour",)), 100),
        "statement of the month": lambda: reports.statement("a1", MONTH),
        "calls: the newest 100": lambda: reports.calls(None, CallsAsk(*month), 100),
        "calls: the newest 100 of an account": lambda: reports.calls("a1", CallsAsk(*month), 100),
        "calls: 100 of a key on one day": lambda: reports.calls(
            "a7", CallsAsk(MONTH + DAY, MONTH + 2 * DAY, "key000000007"), 100
        ),
        "calls: one page of an account that has few": lambda: reports.calls("rare", CallsAsk(*month), 100),
        "calls: all pages of an account that has few": lambda: pages("rare", CallsAsk(*month)),
    }
    for name, ask in questions.items():
        spans = []
        jobs.longest_s = 0.0
        for _ in range(5):
            began = time.perf_counter()
            await ask()
            spans.append(time.perf_counter() - began)
        print(f"{name}: {sorted(spans)[2] * 1e3:.1f} ms, longest job {jobs.longest_s * 1e3:.1f} ms", flush=True)


async def _run(options: argparse.Namespace, folder: str) -> None:
    path = Path(folder) / "ledger.db"
    store = SqliteStore(path)
    await store.start()
    await store.stop()
    _fill(path, options.calls, options.holds, options.keys)
    store = SqliteStore(path)
    await store.start()
    await _ask(store)
    await store.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--holds", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--home", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.home) as folder:
        asyncio.run(_run(options, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
