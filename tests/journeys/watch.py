"""Ends a server whose tests are gone, for tests that are interrupted or killed do not come to it themselves.

    python watch.py OWNER SERVER

Both are process ids; SERVER leads a process group. It looks twice a second, and ends when SERVER has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

LOOK_S = 0.5
PATIENCE = 60
"""So many looks may pass between asking it to end and insisting."""

_watchers: list[subprocess.Popen[bytes]] = []


def begin(server: int) -> None:
    """Watch over a server on behalf of the whole test run: of pytest itself, of which pytest-xdist's processes are
    children."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    watcher = subprocess.Popen(
        [sys.executable, __file__, str(owner), str(server)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _watchers.append(watcher)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def watch(owner: int, server: int) -> None:
    never = threading.Event()
    while lives(owner) and lives(server):
        never.wait(LOOK_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGTERM)
        for _ in range(PATIENCE):
            if not lives(server):
                return
            never.wait(LOOK_S)
        os.killpg(server, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]))
