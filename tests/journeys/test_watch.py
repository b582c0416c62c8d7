"""Nothing that journeys start outlives them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

WATCH = Path(__file__).with_name("watch.py")
DEADLINE_S = 30


def test_a_server_ends_with_its_tests() -> None:
    """Tests that are killed leave no server behind; while they live it is left alone, and the watch ends by itself."""
    idle = [sys.executable, "-c", "print('begun', flush=True); input()"]

    def start(own_group: bool) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            idle, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=own_group
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        return process

    with (
        start(False) as owner,
        start(True) as server,
        subprocess.Popen([sys.executable, str(WATCH), str(owner.pid), str(server.pid)]) as watch,
    ):
        assert watch.poll() is None
        assert server.poll() is None
        owner.kill()
        owner.wait(DEADLINE_S)
        assert server.wait(DEADLINE_S) == -signal.SIGTERM
        assert watch.wait(DEADLINE_S) == 0
