"""`moonpool serve` whose event loop stands still for STALL_S at SIGUSR1: `python stall_child.py --home … --port 0`."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from moonpool import app
from moonpool.cli.main import main

STALL_S = 2.0


def hold_everything_up() -> None:
    until = time.monotonic() + STALL_S
    while time.monotonic() < until:
        pass


if __name__ == "__main__":
    start = app.App.start

    async def start_all(self: app.App) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, hold_everything_up)
        await start(self)

    app.App.start = start_all  # type: ignore[method-assign]
    sys.argv.insert(1, "serve")
    main()
