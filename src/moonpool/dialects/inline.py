"""What does a host's answer say when its model wrote the thinking into the text? A decoder around the family's.

Only hosts with the option `inline_thinking` pay for it. What comes out has thinking and text apart, and no bytes of
the host's own, because those say it otherwise; log probabilities go with the part that their text became.
Source: PROVIDERS 6 (inline thinking, with and without its opening mark).
"""

from __future__ import annotations

from typing import Any

from moonpool.dialects.base import Decoder
from moonpool.dialects.think import ThinkSplitter
from moonpool.errors import Problem
from moonpool.words import Event, Failed, Finished, Frame, Headers, Outbound, Reasoning, Text, ToolCall


class InlineDecoder:
    """A decoder (dialects.base). `opened`: an answer begins inside the thinking, without a mark that opens it."""

    def __init__(self, inner: Decoder, *, opened: bool) -> None:
        self.next: Outbound | None = None
        self.done = False
        self._inner = inner
        self._opened = opened
        self._splitters: dict[int, ThinkSplitter] = {}
        self._odds: dict[int, list[Any]] = {}

    def start(self, status: int, headers: Headers) -> None:
        self._inner.start(status, headers)
        self.next, self.done = self._inner.next, self._inner.done

    def feed(self, data: bytes) -> list[Frame]:
        frames = self._told(self._inner.feed(data))
        self.done = self._inner.done
        return frames

    read = feed

    def finish(self) -> list[Frame]:
        try:
            frames = self._told(self._inner.finish())
        except Problem as problem:
            rest = self._rest()
            if not rest:
                raise
            return [*rest, Frame(b"", (Failed(problem),))]
        self.next, self.done = self._inner.next, self._inner.done
        # A stream may end with its mark alone, without a reason for any candidate.
        return frames + self._rest()

    def _told(self, frames: list[Frame]) -> list[Frame]:
        told: list[Frame] = []
        for frame in frames:
            events: list[Event] = []
            for event in frame.events:
                kind = type(event)
                if kind is Text:
                    events += self._split(event)  # type: ignore[arg-type]
                    continue
                if kind is Finished or kind is ToolCall:
                    events += self._flush(event.index)  # type: ignore[union-attr]
                elif kind is Failed:
                    # A frame that fails is not handed on: what was said goes before it.
                    told += self._rest()
                events.append(event)
            told.append(Frame(b"", tuple(events)))
        return told

    def _rest(self) -> list[Frame]:
        events = [event for index in list(self._splitters) for event in self._flush(index)]
        return [Frame(b"", tuple(events))] if events else []

    def _split(self, event: Text) -> list[Event]:
        splitter = self._splitters.get(event.index)
        if splitter is None:
            splitter = self._splitters[event.index] = ThinkSplitter(self._opened, first=True)
        if event.logprobs is not None:
            content = event.logprobs.get("content") if type(event.logprobs) is dict else None
            self._odds.setdefault(event.index, []).extend(content if type(content) is list else ())
        return self._events(event.index, splitter.feed(event.text))

    def _flush(self, index: int) -> list[Event]:
        splitter = self._splitters.get(index)
        return self._events(index, splitter.flush()) if splitter is not None else []

    def _events(self, index: int, parts: list[tuple[bool, str]]) -> list[Event]:
        events: list[Event] = []
        for thinking, text in parts:
            odds = self._odds.pop(index, None) or None
            if thinking:
                events.append(Reasoning(text, index, odds and {"reasoning_content": odds}))
            else:
                events.append(Text(text, index, odds and {"content": odds}))
        return events
