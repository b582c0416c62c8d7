"""A process that works on a store until it is killed: `python store_child.py DATABASE PREFIX`.

It says on its output, one line each: O (open, before recovery), R n (recovered n), then `H id` for every hold and
`P id` for every resolution that it was told is durable. Deposits are `D id`. Nothing is said before it is durable.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

import uvloop

from moonpool.state.base import Deposit, Hold, Resolution
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account, Usage

CLIENTS = 8


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def _client(store: SqliteStore, prefix: str, chance: random.Random) -> None:
    number = 0
    while True:
        number += 1
        hold_id = f"{prefix}-{number}"
        account = chance.choice(("default", "acme"))
        amount = chance.choice((0, 500, 900))
        hold = Hold(hold_id, account, "key", "model", "host", amount, "CNY", time.time(), time.time() + 60)
        if await store.books.hold(hold) == "held":
            _say(f"H {hold_id}")
            if chance.random() < 0.1:
                continue  # left open: it runs on for ever
            kind = chance.choice(("posted", "posted", "voided"))
            owed = chance.randrange(1000) if kind == "posted" else 0
            usage = Usage(number % 50, 1, number % 70, 0)
            resolution = Resolution(hold_id, kind, usage, owed, owed // 2, "host", "", 1, time.time())  # type: ignore[arg-type]
            if chance.random() < 0.5:
                if await store.books.resolve(resolution) != "resolved":
                    raise RuntimeError("not resolved")
                _say(f"P {hold_id}")
            else:
                store.books.resolve(resolution)
        else:
            deposit = Deposit(hold_id, "acme", chance.choice(("granted", "topped_up")), 50_000, "CNY", "", time.time())  # type: ignore[arg-type]
            await store.books.deposit(deposit)
            _say(f"D {hold_id}")


async def _run(path: str, prefix: str) -> None:
    store = SqliteStore(path)
    await store.start()
    _say("O")
    _say(f"R {await store.books.recover(time.time())}")
    await store.keys.save_account(Account("acme", "acme"))
    await asyncio.gather(
        *(_client(store, f"{prefix}-{each}", random.Random(f"{prefix}-{each}")) for each in range(CLIENTS))
    )


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], sys.argv[2]))
