"""The real embedded model for tests: its weights, fetched once per machine, and a loop as small as can be around it.

`weights_path()` gives the file. `Model` runs the transport in a thread of its own and asks it through the dialect,
pass by pass, as the relay does; an `Answer` holds what came of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from moonpool.catalog import weights_rows
from moonpool.dialects.emulate import dialect_for
from moonpool.dialects.llamacpp import LlamaCpp
from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.transports.http import HttpTransport
from moonpool.transports.llama import Embedded, LlamaTransport
from moonpool.transports.weights import pull
from moonpool.words import (
    Call,
    Event,
    Failed,
    Finished,
    Headers,
    Host,
    Metered,
    Outbound,
    Reasoning,
    Started,
    Target,
    Text,
    ToolCall,
    Usage,
)

MODEL = weights_rows()[0].name
DEADLINE_S = 120.0
HOST = Host(name="embedded", dialect="llamacpp", transport="llama")
CONTEXT = 1024
_DIALECT = LlamaCpp()
_ids = itertools.count(1)


def weights_folder() -> Path:
    """Where tests keep the weights: `MOONPOOL_WEIGHTS`, else the user's cache."""
    return Path(os.environ.get("MOONPOOL_WEIGHTS") or "~/.cache/moonpool/weights").expanduser()


def weights_path() -> Path:
    """The verified file; fetched when this machine has none. Processes that ask at once fetch it once."""
    return pull(weights_rows()[0], weights_folder())


def call(fields: dict[str, Any], operation: Any = "chat") -> Call:
    """A call as the relay would hand it on: `thinking` is what the fields say, the limit is `max_tokens`."""
    thinking = (fields.get("thinking") or {}).get("type") == "enabled"
    return Call(
        id=f"call{next(_ids)}",
        operation=operation,
        model="deepseek-chat",
        stream=True,
        fields=fields,
        raw=b"",
        output_max=fields.get("max_tokens"),
        thinking=thinking,
    )


def target(**options: Any) -> Target:
    return Target(HOST, MODEL, options={"budget": 48, "context": CONTEXT, **options})


class Answer:
    """What one call was answered with."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.problem: Problem | None = None

    def _of(self, kind: type, index: int = 0) -> list[Any]:
        return [event for event in self.events if type(event) is kind and getattr(event, "index", index) == index]

    def text(self, index: int = 0) -> str:
        return "".join(event.text for event in self._of(Text, index))

    def reasoning(self, index: int = 0) -> str:
        return "".join(event.text for event in self._of(Reasoning, index))

    def calls(self, index: int = 0) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of each tool call."""
        calls: dict[int, tuple[str, str, str]] = {}
        for part in self._of(ToolCall, index):
            if part.slot in calls:
                assert part.id is None
                assert part.name is None
            known = calls.get(part.slot, (part.id, part.name, ""))
            calls[part.slot] = (known[0], known[1], known[2] + part.arguments)
        return list(calls.values())

    def reason(self, index: int = 0) -> str:
        (finished,) = self._of(Finished, index)
        return str(finished.reason)

    @property
    def usage(self) -> Usage:
        (metered,) = [event for event in self.events if type(event) is Metered]
        return metered.usage

    @property
    def started(self) -> Started:
        (started,) = [event for event in self.events if type(event) is Started]
        return started

    def kinds(self) -> list[str]:
        """The kinds of events in order, repeats left out."""
        return [kind for kind, _ in itertools.groupby(type(event).__name__ for event in self.events)]


class _Sink:
    """Feeds one pass into a decoder; `ended` says how it ended."""

    def __init__(self, decoder: Any, answer: Answer, began: threading.Event | None) -> None:
        self.ended: Later[Problem | None] = Later()
        self._decoder = decoder
        self._answer = answer
        self._began = began
        self._status = 0
        self._refusal = b""

    def head(self, status: int, headers: Headers) -> None:
        self._status = status
        if status == 200:
            self._decoder.start(status, headers)

    def data(self, chunk: bytes) -> None:
        if self._status != 200:
            self._refusal += chunk
            return
        for frame in self._decoder.feed(chunk):
            self._answer.events += frame.events
        if self._began is not None and self._answer.events:
            self._began.set()

    def alive(self) -> None: ...

    def end(self, problem: Problem | None) -> None:
        if problem is None and self._status != 200:
            problem = _DIALECT.parse_problem(self._status, {}, self._refusal)
        if problem is None:
            try:
                for frame in self._decoder.finish():
                    self._answer.events += frame.events
            except Problem as broken:
                problem = broken
        self.ended.set(problem)


class Model:
    """The embedded model, running in a thread of its own. Use it as a context."""

    def __init__(self, folder: Path, weights: Path | None = None, *, parallel: int = 2) -> None:
        self._folder = folder
        self._weights = weights
        self._parallel = parallel
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.transport: LlamaTransport

    def __enter__(self) -> Model:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    async def _start(self) -> None:
        self._http = HttpTransport()
        await self._http.start()
        weights = self._weights or weights_path()
        options = Embedded(
            weights=weights, log=self._folder / "embedded.log", context=CONTEXT, parallel=self._parallel, threads=2
        )
        self.transport = LlamaTransport(self._http, options)
        await self.transport.start()

    async def _stop(self) -> None:
        await self.transport.stop()
        await self._http.stop()

    def begin(
        self, fields: dict[str, Any], operation: Any = "chat", began: threading.Event | None = None, **options: Any
    ) -> Future[Answer]:
        """Ask; the answer is in the future. `began` is set at its first event."""
        return self.put(call(fields, operation), target(**options), began)

    def put(self, asked: Call, at: Target, began: threading.Event | None = None) -> Future[Answer]:
        return asyncio.run_coroutine_threadsafe(self._ask(asked, at, began), self.loop)

    def ask(self, fields: dict[str, Any], operation: Any = "chat", **options: Any) -> Answer:
        """One whole answer; its problem, if any, is in it."""
        return self.begin(fields, operation, **options).result(DEADLINE_S)

    async def _ask(self, asked: Call, at: Target, began: threading.Event | None) -> Answer:
        answer = Answer()
        dialect = dialect_for(_DIALECT, asked)
        decoder = dialect.decoder(asked, at)
        outbound: Outbound | None = dialect.render_call(asked, at)
        while outbound is not None:
            sink = _Sink(decoder, answer, began)
            self.transport.send(HOST, outbound, sink)
            answer.problem = await sink.ended
            failed = [event for event in answer.events if type(event) is Failed]
            if failed:
                answer.problem = failed[0].problem
            if answer.problem is not None:
                return answer
            outbound = decoder.next
        return answer
