"""The decoder of llama.cpp's dialect: runs a generator of passes (llamacpp_answers.py) behind the protocol of base.py.

Rules: any slicing of the bytes gives the same frames; after the last pass, or a failure, nothing more is said.
"""

from __future__ import annotations

from typing import Any, Final

from moonpool.dialects.llamacpp_answers import chat, completion
from moonpool.dialects.llamacpp_passes import Events, Flow
from moonpool.dialects.llamacpp_plan import Plan
from moonpool.dialects.llamacpp_wire import Lines, problem_of, whole
from moonpool.errors import Problem
from moonpool.words import COMPLETION, Failed, Frame, Headers, Outbound, Started

_BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class PassDecoder:
    """Runs a flow behind the protocol of a decoder (dialects/base.py). Lives for one answer."""

    def __init__(self, plan: Plan) -> None:
        self.next: Outbound | None = None
        self.done = False
        self._flow: Flow = completion(plan) if plan.call.operation == COMPLETION else chat(plan)
        self._started: Events = (Started(model=None, fingerprint=plan.fingerprint),)
        self._over = False
        first = next(self._flow)
        assert isinstance(first, Outbound)  # a flow begins with what it asks
        self.first = first
        self._current = self.first
        self._following: Outbound | None = self.first
        self._reset()

    def _reset(self) -> None:
        self._status = 200
        self._headers: Headers = {}
        self._lines = Lines()
        self._body = bytearray()
        self._passed = False

    def start(self, status: int, headers: Headers) -> None:
        self._reset()
        self._status, self._headers = status, headers
        if self._following is not None:
            self._current = self._following
        self.next = None

    def feed(self, data: bytes) -> list[Frame]:
        if self._over:
            return []
        if self._status != 200 or not self._current.stream:
            self._body += data
            if len(self._body) > _BODY_BYTES_MAX:
                raise Problem("upstream.too_large", detail="a body of llama.cpp's server")
            return []
        frames: list[Frame] = []
        for raw, piece in self._lines.feed(data):
            if self._passed or self._over:
                break
            frames += self._take(raw, piece, last=piece.stop)
        return frames

    read = feed

    def finish(self) -> list[Frame]:
        self.next = None
        if self._over:
            return []
        frames: list[Frame] = []
        if self._status != 200:
            return self._failed(problem_of(self._status, self._headers, bytes(self._body)))
        if not self._current.stream:
            frames = self._take(b"", whole(bytes(self._body)), last=True)
        if not self._passed and not self._over:
            raise Problem("upstream.cut")
        if not self._over:
            self.next = self._following
        return frames

    def _take(self, raw: bytes, piece: Any, *, last: bool) -> list[Frame]:
        """Send a piece into the flow. After the last one of a pass it goes on until it asks for the next pass."""
        events: Events = ()
        try:
            told, asked = self._step(piece)
            events += told
            while last and asked is None and not self._over:
                told, asked = self._step(None)
                events += told
        except Problem as problem:
            return self._failed(problem, raw, events)
        if last:
            self._passed = True
            self._following = asked
        if not events:
            return []
        events, self._started = self._started + events, ()
        return [Frame(raw, events)]

    def _failed(self, problem: Problem, raw: bytes = b"", events: Events = ()) -> list[Frame]:
        self._over = True
        self.next = None
        return [Frame(raw, (*events, Failed(problem)))]

    def _step(self, piece: Any) -> tuple[Events, Outbound | None]:
        try:
            step = self._flow.send(piece)
        except StopIteration:
            self._over = True
            return (), None
        return ((), step) if isinstance(step, Outbound) else (step, None)
