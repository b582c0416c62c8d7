"""Who listens in tests of transports: writes down what it is told, and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from moonpool.errors import Problem
from moonpool.words import Headers, Host, Outbound


class Clock:
    """Time (s) that only passes when a test says so."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Recorder:
    """A Sink. `calls` are the names of what was told, in order; `on` maps such a name to what to do then."""

    def __init__(self, **on: Callable[[], Any]) -> None:
        self.on = on
        self.calls: list[str] = []
        self.status = 0
        self.headers: Headers = {}
        self.chunks: list[bytes] = []
        self.problem: Problem | None = None
        self._news = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def ends(self) -> int:
        return self.calls.count("end")

    @property
    def code(self) -> str:
        """How it ended: "" for whole."""
        assert self.ends == 1, self.calls
        assert self.calls[-1] == "end", self.calls
        return self.problem.code if self.problem is not None else ""

    @property
    def detail(self) -> str:
        assert self.problem is not None
        return self.problem.detail

    def head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self._told("head")

    def data(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._told("data")

    def alive(self) -> None:
        self._told("alive")

    def end(self, problem: Problem | None) -> None:
        self.problem = problem
        self._told("end")

    def _told(self, what: str) -> None:
        self.calls.append(what)
        self._news.set()
        if what in self.on:
            self.on[what]()

    async def until(self, seen: Callable[[Recorder], bool]) -> None:
        """Until what was told satisfies `seen`."""
        async with asyncio.timeout(10):
            while not seen(self):
                self._news.clear()
                await self._news.wait()

    async def over(self) -> Recorder:
        await self.until(lambda sink: sink.ends > 0)
        return self


async def turns(count: int = 20) -> None:
    """Give the loop some turns, for what must *not* happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(seen: Callable[[], bool]) -> None:
    """Until something is so, looked at every turn of the loop, for at most 10 s."""
    async with asyncio.timeout(10):
        while not seen():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0)


def host_at(base_url: str, **more: Any) -> Host:
    return Host("there", "openai", base_url=base_url, api_key=more.pop("api_key", "key-of-the-host"), **more)


CHAT = Outbound("/chat/completions", b'{"model":"m"}')
