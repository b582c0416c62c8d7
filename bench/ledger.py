"""What a request pays for its durable hold and resolution: CPU in a closed loop, and time until a hold is durable.

Run it on one core: `taskset -c 1 python bench/ledger.py`. Options: --loops N (clients, 64), --requests N, --paid (with
amounts above zero, so that transfers and balances are written too), --home DIR (where the database goes: its disk is
measured), --store URL (a PostgreSQL database of its own instead).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from moonpool.later import Later, drive
from moonpool.state.base import Hold, Resolution, Store
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Usage


def _hold(request: int, paid: bool) -> Hold:
    amount = 123_456_789 if paid else 0
    return Hold(f"0193abcdef01a1b2c3d4e5{request:010x}", "default", "AbCdEfGhIjKl", "m", "h", amount, "CNY", 1.0, 99.0)


def _resolution(request: int, paid: bool) -> Resolution:
    owed, cost = (98_765_432, 87_654_321) if paid else (0, 0)
    usage = Usage(1200, 64, 50, 0)
    return Resolution(f"0193abcdef01a1b2c3d4e5{request:010x}", "posted", usage, owed, cost, "h", "", 1, 2.0)


async def closed_loop(store: Store, loops: int, requests: int, paid: bool, first: int) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of `requests` holds and resolutions by `loops` clients without any pause."""
    ended: Later[None] = Later()
    next_request = first
    last = first + requests
    running = loops

    async def client() -> None:
        nonlocal next_request, running
        books = store.books
        while next_request < last:
            request = next_request
            next_request += 1
            if await books.hold(_hold(request, paid)) != "held":
                raise RuntimeError("not held")
            books.resolve(_resolution(request, paid))
        running -= 1
        if not running:
            ended.set(None)

    def lost(error: BaseException) -> None:
        ended.fail(error)

    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(loops):
        drive(client(), lost)
    await ended
    return time.process_time() - cpu, time.perf_counter() - wall


async def alone(store: Store, requests: int, paid: bool, first: int) -> list[float]:
    """Seconds until each of `requests` holds was durable, one after another."""
    spans = []
    for request in range(first, first + requests):
        start = time.perf_counter()
        await store.books.hold(_hold(request, paid))
        spans.append(time.perf_counter() - start)
        store.books.resolve(_resolution(request, paid))
    return sorted(spans)


def _sync_s(folder: str) -> float:
    """Median seconds of one fdatasync of 4 KiB here: the floor of any durable answer."""
    spans = []
    file = os.open(Path(folder) / "sync", os.O_WRONLY | os.O_CREAT)
    for _ in range(200):
        os.write(file, b"x" * 4096)
        start = time.perf_counter()
        os.fdatasync(file)
        spans.append(time.perf_counter() - start)
    os.close(file)
    return sorted(spans)[100]


async def _run(options: argparse.Namespace, folder: str) -> None:
    store: Store = SqliteStore(Path(folder) / "ledger.db")
    if options.store:
        from moonpool.state.postgres import PostgresStore

        store = PostgresStore(options.store)
    await store.start()
    gc.collect()
    gc.freeze()
    await closed_loop(store, options.loops, options.requests // 10, options.paid, 0)
    cpu, wall = await closed_loop(store, options.loops, options.requests, options.paid, options.requests)
    print(f"closed loop of {options.loops}: {cpu / options.requests * 1e6:.1f} us of CPU a request, ", end="")
    print(f"{options.requests / wall:,.0f} requests/s")
    spans = await alone(store, 2000, options.paid, 3 * options.requests)
    print(f"alone: durable after {spans[1000] * 1e3:.3f} ms (p50), {spans[1980] * 1e3:.3f} ms (p99); ", end="")
    print(f"one fdatasync here takes {_sync_s(folder) * 1e3:.3f} ms")
    await store.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, default=64)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--paid", action="store_true")
    parser.add_argument("--home", default=None)
    parser.add_argument("--store", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.home) as folder:
        uvloop.run(_run(options, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
