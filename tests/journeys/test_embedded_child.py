"""The life of the embedded model's process: waiting for it, losing it, ending with it."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import embedded
from embedded import Model

pytestmark = pytest.mark.model

HELLO = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
STORY = {"messages": [{"role": "user", "content": "Tell me a very long story."}], "max_tokens": 400}


def wait_gone(pid: int) -> bool:
    """Whether a process that is not our child ends before the deadline."""
    deadline = time.monotonic() + embedded.DEADLINE_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        threading.Event().wait(0.01)
    return False


def test_a_life(tmp_path: Path) -> None:
    """Asked while it loads: the answer waits and comes. Killed: what ran ends with a proper error, what comes next is
    answered by the next child. Stopped: no process is left, its words are in a bounded file."""
    with Model(tmp_path) as model:
        assert model.transport.state == "loading"
        assert model.ask(HELLO).text()
        assert model.transport.state == "ready"
        first = model.transport.pid
        assert first is not None

        base_url, key = model.transport.address()
        for wrong in ("", "Bearer wrong"):
            asked = urllib.request.Request(f"{base_url}/props", headers={"Authorization": wrong})
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(asked)
        command = Path(f"/proc/{first}/cmdline")
        if command.exists():
            assert key not in command.read_text()

        began = threading.Event()
        running = model.begin(STORY, began=began)
        assert began.wait(embedded.DEADLINE_S)
        os.kill(first, signal.SIGKILL)
        after = model.ask(HELLO)
        assert after.problem is None
        assert after.text()
        broken = running.result(embedded.DEADLINE_S)
        assert broken.problem is not None
        assert broken.problem.code == "platform.model_failed"
        second = model.transport.pid
        assert second not in (None, first)
        assert model.transport.status()["starts"] == 2
    assert model.transport.state == "stopped"
    assert second is not None
    assert wait_gone(second)
    log = tmp_path / "embedded.log"
    assert not stat.S_IMODE(log.stat().st_mode) & 0o077
    assert "Tell me" not in log.read_text()


def test_who_gives_up_is_forgotten(tmp_path: Path) -> None:
    """A request that was closed while it waited is never sent, and its sink hears nothing."""
    with Model(tmp_path) as model:
        heard: list[str] = []

        class Silent:
            def head(self, *_: object) -> None:
                heard.append("head")

            def data(self, *_: object) -> None:
                heard.append("data")

            def alive(self) -> None:
                heard.append("alive")

            def end(self, *_: object) -> None:
                heard.append("end")

        async def give_up() -> None:
            from moonpool.words import Outbound

            inbound = model.transport.send(embedded.HOST, Outbound("/tokenize", b'{"content": "x"}'), Silent())
            assert model.transport.status()["waiting"] == 1
            inbound.close()
            assert model.transport.status()["waiting"] == 0

        model.run(give_up())
        assert model.ask(HELLO).text()
        assert heard == []
