"""A real server whose event loop stands still."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import uvloop

from faults.cluster import eventually
from faults.stage import Served, served
from faults.stall_child import STALL_S

_NOBODY = "http://127.0.0.1:9/v1"


class _Stalled(Served):
    def program(self) -> list[str]:
        return [str(Path(__file__).with_name("stall_child.py"))]


async def _page(server: Served, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: moonpool\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_a_loop_that_stands_still_is_found_out(tmp_path: Path) -> None:
    """Case 74: the log has the place where it stood, written while it stood; then /ready says why it is not well, and
    after a while that it is well again; /metrics has counted it."""

    async def act() -> None:
        async with served(tmp_path, _NOBODY, made=_Stalled(tmp_path, _NOBODY)) as server:
            assert (await _page(server, "/ready"))[0] == 200
            server.signal(signal.SIGUSR1)
            assert (await _page(server, "/health"))[0] == 200  # asked while it stands still, answered after
            status, body = await _page(server, "/ready")
            assert status == 503
            assert "stood still" in json.loads(body)["reasons"]["loop"]
            assert b"moonpool_loop_stalls_total 1.0" in (await _page(server, "/metrics"))[1]

            async def is_well() -> bool:
                return (await _page(server, "/ready"))[0] == 200

            await eventually(is_well, "it is well again")
            server.signal(signal.SIGTERM)
            assert await server.ended() == 0
            lines: list[dict[str, Any]] = [
                json.loads(line) for line in server.said.splitlines() if line.startswith(b'{"at"')
            ]
            (stood,) = [line for line in lines if line["event"] == "loop stands still"]
            (turned,) = [line for line in lines if line["event"] == "loop turns again"]
            assert "hold_everything_up" in stood["trace"]
            assert stood["since_s"] < STALL_S
            assert turned["stood_s"] >= STALL_S - 0.3
            assert stood["at"] < turned["at"]

    uvloop.run(act())
