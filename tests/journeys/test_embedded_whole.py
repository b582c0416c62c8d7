"""The embedded model behind a whole server: asked while it loads, killed while it answers, left while it speaks."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from embedded import weights_path
from journeys.test_commands import DEADLINE_S, Running, serving
from moonpool.cli.desk import ask
from moonpool.settings import Settings, load

pytestmark = pytest.mark.model

CONFIG = """
[streams]
keepalive_s = 1
[embedded]
context = 2048
parallel = 2
"""
STORY = {
    "model": "deepseek-chat",
    "messages": [{"role": "user", "content": "Tell me a very long story about a lighthouse."}],
    "max_tokens": 1200,
    "stream": True,
}


def opened(server: Running, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection, connection.getresponse()


def until(settings: Settings, wanted: Any) -> dict[str, int]:
    """The ledger's totals, once `wanted(totals)` holds."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        totals: dict[str, int] = ask(settings, "GET", "/totals")
        if wanted(totals):
            return totals
        threading.Event().wait(0.05)
    raise AssertionError(f"never came: {totals}")


def test_a_life_behind_the_server(tmp_path: Path) -> None:
    """A stream that is asked for while the model loads waits and is answered. When the child is killed in the middle of
    an answer, the client reads an error event, what was delivered is booked, and the next request is answered. A client
    that leaves stops the model, and its hold is resolved within seconds."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "moonpool.toml").write_text(CONFIG)
    with serving(home, MOONPOOL_WEIGHTS=str(weights_path().parent)) as server:
        settings = load(home / "moonpool.toml", os.environ, {"home": str(home)})

        connection, answer = opened(server, {**STORY, "max_tokens": 4})
        text = answer.read().decode()
        assert answer.status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in text
        connection.close()

        connection, answer = opened(server, STORY)
        seen = b""
        while seen.count(b'"content"') < 4:
            seen += answer.read1()
        child = ask(settings, "GET", "/status")["embedded"]["pid"]
        os.kill(child, signal.SIGKILL)
        seen += answer.read()
        last = seen.decode().strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_unavailable"
        assert b"[DONE]" not in seen
        connection.close()

        connection, answer = opened(server, {**STORY, "max_tokens": 4})
        assert answer.read().endswith(b"data: [DONE]\n\n")
        assert ask(settings, "GET", "/status")["embedded"]["pid"] != child
        connection.close()

        connection, answer = opened(server, STORY)
        while b'"content"' not in answer.read1():
            pass
        connection.sock.close()
        answer.close()
        began = time.monotonic()
        totals = until(settings, lambda found: not found["open"])
        assert time.monotonic() - began < 5
        assert (totals["holds"], totals["posted"], totals["voided"]) == (4, 4, 0)
