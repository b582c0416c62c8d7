"""A process whose files may not grow for a while, as on a full disk: `python store_full.py DATABASE`.

The operating system itself refuses its writes (RLIMIT_FSIZE). It says on its output how many holds it took before, how
many it refused meanwhile, and how its resolutions were answered once there was room again.
"""

from __future__ import annotations

import resource
import sys

import uvloop

from moonpool.errors import Problem
from moonpool.state.base import Hold, Resolution
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Usage


def _hold(name: str) -> Hold:
    return Hold(name, "default", "key", "model" * 50, "host", 10, "CNY", 1.0, 99.0)


async def _run(path: str) -> None:
    store = SqliteStore(path)
    await store.start()
    books = store.books
    before = [f"before{each}" for each in range(30)]
    for name in before:
        await books.hold(_hold(name))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, most))
    waiting = [books.resolve(Resolution(name, "posted", Usage(1), 3, 2, "host", "", 1, 2.0)) for name in before]
    refused = 0
    for each in range(5):
        try:
            await books.hold(_hold(f"during{each}"))
        except Problem as problem:
            refused += problem.code == "platform.storage"
    pending = sum(not later.done() for later in waiting)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    answers = [await later for later in waiting]
    after = await books.hold(_hold("after"))
    print(len(before), refused, pending, answers.count("resolved"), after, store.trouble())
    await store.stop()


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1]))
