"""Who says the answer? Fixed texts at once, or the embedded model as it goes; either way events for one taker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from moonpool.catalog.catalog import build
from moonpool.catalog.model import Model
from moonpool.dialects import DIALECTS
from moonpool.errors import Problem
from moonpool.settings import Settings
from moonpool.transports.base import Inbound
from moonpool.transports.http import HttpTransport
from moonpool.transports.llama import Embedded, LlamaTransport
from moonpool.twin.answers import Answers, speak
from moonpool.words import Call, Event, Failed, Finished, Headers, Metered, Outbound, Started, Usage


class Taker(Protocol):
    """Whom an answer is said to. Exactly one `over`, the last call."""

    def say(self, events: tuple[Event, ...], tokens: int) -> None:
        """Some of the answer, and how many tokens it took."""

    def over(self, usage: Usage | None, problem: Problem | None) -> None:
        """All was said; `usage` is what the model counted itself, None where the pieces are the count."""


class Source(Protocol):
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def answer(self, call: Call, taker: Taker) -> Source | None: ...


class Transcripts:
    """Answers from files."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def answer(self, call: Call, taker: Taker) -> Source | None:
        chosen = self._answers.choose(call)
        count = call.fields.get("n") or 1
        completion = reasoning = 0
        for index in range(count):
            spoken = speak(chosen, call, index)
            completion += len(spoken.events)
            reasoning += spoken.reasoning
            for event in spoken.events:
                taker.say((event,), 1)
            taker.say((Finished(spoken.finish, index),), 0)
        taker.over(Usage(completion=completion, reasoning=reasoning), None)
        return None


class EmbeddedModel:
    """The model that the server brings along, in a child process as the server runs it."""

    def __init__(self, weights: Path, folder: Path, settings: Settings) -> None:
        own = settings.embedded
        self._http = HttpTransport()
        self._llama = LlamaTransport(
            self._http,
            Embedded(
                weights=weights,
                log=folder / "twin-embedded.log",
                context=own.context,
                parallel=own.parallel,
                threads=own.threads,
                start_s=own.start_s,
            ),
        )
        # Without any key of the environment, every name is the embedded model's.
        self._models = build(Settings(embedded=own), {}).by_name

    async def start(self) -> None:
        await self._http.start()
        await self._llama.start()

    async def stop(self) -> None:
        await self._llama.stop()
        await self._http.stop()

    def answer(self, call: Call, taker: Taker) -> Source | None:
        model: Model = self._models.get(call.model) or next(iter(self._models.values()))
        return _Speech(call, model, taker, self._llama)


class _Speech:
    """One answer of the embedded model: a transport's sink, over as many passes as the decoder wants."""

    def __init__(self, call: Call, model: Model, taker: Taker, llama: LlamaTransport) -> None:
        self._target = model.targets[0]
        self._dialect = DIALECTS[self._target.host.dialect]
        self._decoder = self._dialect.decoder(call, self._target)
        self._taker: Taker | None = taker
        self._llama = llama
        self._usage: Usage | None = None
        self._refusal: bytearray | None = None
        self._status = 0
        self._headers: Headers = {}
        self._paused = False
        self._inbound = self._send(self._dialect.render_call(call, self._target))

    def _send(self, outbound: Outbound) -> Inbound:
        self._refusal = None
        inbound = self._llama.send(self._target.host, outbound, self)
        if self._paused:
            inbound.pause()
        return inbound

    # What the transport tells.

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers
        if status == 200:
            self._decoder.start(status, headers)
        else:
            self._refusal = bytearray()

    def alive(self) -> None:
        """It is at work."""

    def data(self, chunk: bytes) -> None:
        if self._refusal is not None:
            self._refusal += chunk
            return
        try:
            self._pass(self._decoder.feed(chunk))
        except Problem as problem:
            self._inbound.close()
            self._over(problem)
            return
        if self._decoder.done:
            self.end(None)

    def end(self, problem: Problem | None) -> None:
        if self._taker is None:
            return
        try:
            if problem is None and self._refusal is not None:
                problem = self._dialect.parse_problem(self._status, self._headers, bytes(self._refusal))
            if problem is None:
                self._pass(self._decoder.finish())
                if self._decoder.next is not None:
                    self._inbound = self._send(self._decoder.next)
                    return
        except Problem as broken:
            problem = broken
        self._over(problem)

    def _pass(self, frames: list[Any]) -> None:
        for frame in frames:
            said: list[Event] = []
            for event in frame.events:
                if type(event) is Failed:
                    raise event.problem
                if type(event) is Metered:
                    self._usage = event.usage
                elif type(event) is not Started:
                    said.append(event)
            if said and self._taker is not None:
                self._taker.say(tuple(said), sum(type(event) is not Finished for event in said))

    def _over(self, problem: Problem | None) -> None:
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.over(self._usage, problem)

    # What the outlet tells.

    def pause(self) -> None:
        self._paused = True
        self._inbound.pause()

    def resume(self) -> None:
        self._paused = False
        self._inbound.resume()

    def close(self) -> None:
        self._taker = None
        self._inbound.close()
