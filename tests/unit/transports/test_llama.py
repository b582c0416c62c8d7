"""The supervised child where there is no model: what is refused, how often it is tried, what is left of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.transports.http import HttpTransport
from moonpool.transports.llama import Embedded, LlamaTransport
from moonpool.transports.weights_gguf import read_facts
from moonpool.words import Headers, Host, Outbound

HOST = Host(name="embedded", dialect="llamacpp", transport="llama")
DEADLINE_S = 60.0


class Ending:
    """A sink that keeps how the answer ended."""

    def __init__(self) -> None:
        self.ended: Later[Problem | None] = Later()

    def head(self, status: int, headers: Headers) -> None: ...

    def data(self, chunk: bytes) -> None: ...

    def alive(self) -> None: ...

    def end(self, problem: Problem | None) -> None:
        self.ended.set(problem)


def refused(
    weights: Path, folder: Path, *, stop: bool = False, start_s: float = DEADLINE_S
) -> tuple[Problem | None, LlamaTransport]:
    """How a request ends that is sent right after the start."""

    async def run() -> tuple[Problem | None, LlamaTransport]:
        embedded = Embedded(weights, folder / "embedded.log", backoff_s=0.001, start_s=start_s)
        transport = LlamaTransport(HttpTransport(), embedded)
        await transport.start()
        sink = Ending()
        transport.send(HOST, Outbound("/completion"), sink)
        assert not sink.ended.done(), "an end within send"
        if stop:
            await transport.stop()
        problem = await asyncio.wait_for(_ended(sink), DEADLINE_S)
        await transport.stop()
        return problem, transport

    return asyncio.run(run())


async def _ended(sink: Ending) -> Problem | None:
    return await sink.ended


def test_weights_that_are_not_here(tmp_path: Path) -> None:
    """Without weights a request is refused at once, with what to do in the log's detail."""
    problem, transport = refused(tmp_path / "none.gguf", tmp_path)
    assert problem is not None
    assert problem.code == "platform.model_failed"
    assert "models pull" in problem.detail
    assert transport.status()["starts"] == 0


def test_weights_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A file that is no model: tried several times, then refused; the child's last words say why."""
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"this is no model")
    problem, transport = refused(weights, tmp_path)
    assert problem is not None
    assert problem.code == "platform.model_failed"
    assert "could not be loaded" in problem.detail
    assert transport.status()["starts"] >= 5
    assert any("GGUF" in line for line in transport.last_lines())
    assert "GGUF" in (tmp_path / "embedded.log").read_text()


def test_stopping_ends_what_waits(tmp_path: Path) -> None:
    """A request that waits for the model ends with `platform.stopping` when we stop."""
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"this is no model")
    problem, transport = refused(weights, tmp_path, stop=True)
    assert problem is not None
    assert problem.code == "platform.stopping"
    assert transport.pid is None


def test_a_load_that_never_ends(tmp_path: Path) -> None:
    """A child that does not serve within `start_s` is ended, counts as a failed start, and the log says so."""
    weights = tmp_path / "endless.gguf"
    os.mkfifo(weights)
    problem, transport = refused(weights, tmp_path, start_s=0.05)
    assert problem is not None
    assert problem.code == "platform.model_failed"
    assert transport.status()["starts"] >= 5
    assert transport.pid is None
    assert transport.last_lines()[-1] == "the model had not loaded after 0.05 s"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGML" + bytes(100), b"GGUF\x03\0\0\0" + b"\xff" * 64])
def test_what_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    """Any other file is refused with a sentence, never with a traceback of another kind."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.gguf|header"):
        read_facts(path)
