"""PostgreSQL and Redis for the contestant `many`, from the wheels that tests use: durable (`fsync` on), pinned to the
core of the load generator, so that the gateway has its core to itself. And what CPU each program took.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateways import LOAD_CORE, ROOT, pinned

sys.path.insert(0, str(ROOT / "tests"))


class Services:
    """Both, started; `stop` ends them by their ids."""

    def __init__(self) -> None:
        from postgres import Postgres
        from valkey_server import valkey_server

        with pinned(LOAD_CORE):
            self._postgres = Postgres(durable=True)
            self._valkey = valkey_server("redis")  # as in all figures so far
            self._redis = self._valkey.__enter__()
        self.store = self._postgres.empty()
        self.limits = self._redis.url

    def pids(self) -> dict[str, int]:
        return {"postgres": self._postgres.pid, "redis": self._redis.pid}

    def stop(self) -> None:
        self._valkey.__exit__(None, None, None)
        self._postgres.end()


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its living children took, its dead children too."""
    ticks = os.sysconf("SC_CLK_TCK")
    total, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            children = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15] if each == pid else fields[11:13]))
        waiting += map(int, children)
    return total / ticks
