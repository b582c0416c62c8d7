"""Where a broken stream goes on: what may be continued, what is asked of the next host, and how the two parts join.

The next host gets the conversation with what was said so far as the beginning of its answer (prefix completion): in the
thinking with empty content, in the answer with the thinking beside it. Never within tool calls, JSON, several
candidates or log probabilities: half of those cannot be gone on from. What the next host says is joined without a
seam: its names and thoughts that come too late are dropped, an overlap with what the client has is taken off, and its
usage becomes that of one answer.

Sources: PROVIDERS 1.11 (what prefix takes), PEERS C.1 and B1 rows 33 to 35 (why no instruction is ever added).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.relay.said import Said
from moonpool.words import CHAT, Call, Event, Finished, Frame, Metered, Reasoning, Started, Text, Usage

CONTINUATIONS_MAX: Final = 3
OVERLAP_CHARS_MIN: Final = 16
OVERLAP_KINDS_MIN: Final = 6
"""Fewer different characters than this are a rule of dashes, not a repetition."""
OVERLAP_CHARS_MAX: Final = 400
RESTART_CHARS_MIN: Final = 64
"""Who repeats so much of the beginning and then says something else has begun another answer."""

_NEVER: Final = frozenset(("tools", "json_object", "logprobs", "n", "fim"))


def may_continue(call: Call) -> bool:
    """Whether an answer to this call can be gone on with at all."""
    return (
        call.stream
        and call.operation == CHAT
        and not call.emulated
        and not (call.needs & _NEVER)
        and not call.fields.get("tools")
    )


def continuation(call: Call, said: Said, tokens: int) -> Call | None:
    """The call that asks for the rest, None where nothing can be gone on from; `tokens` were said."""
    text, reasoning = said.text, said.reasoning
    if said.calls or said.finished or not said.whole or not (text or reasoning):
        return None
    messages = list(call.fields["messages"])
    if any(message.get("tool_calls") for message in messages):
        return None  # prefix completion refuses a conversation in which a tool was ever called
    message: dict[str, Any] = {"role": "assistant", "content": text, "prefix": True}
    needs = call.needs | {"prefix"}
    if "prefix" in call.needs:
        own = messages.pop()
        message = {**own, "content": (own.get("content") or "") + text}
        reasoning = (own.get("reasoning_content") or "") + reasoning
    if reasoning:
        message["reasoning_content"] = reasoning
        if not message["content"]:
            needs |= {"prefix_thinking"}
    fields = {**call.fields, "messages": [*messages, message]}
    if "max_tokens" in fields:
        fields["max_tokens"] = max(1, fields["max_tokens"] - tokens)
    return replace(call, fields=fields, needs=needs)


def joined(first: Usage, second: Usage) -> Usage:
    """What the client used, of an answer in two parts: `first` is our count of the question and of what was said then,
    `second` the next host's, whose prompt holds both. Their sum is kept; how it divides is ours, so it is estimated."""
    prompt = second.prompt_hit + second.prompt_miss
    before = min(first.completion, prompt)
    hit = min(second.prompt_hit, prompt - before)
    return Usage(
        prompt - before - hit,
        hit,
        before + second.completion,
        min(first.reasoning, before) + second.reasoning,
        True,
        second.searches,
    )


class Seam:
    """Frames of a later part, as the client is to read them. `usage` is the host's own, once it said it."""

    __slots__ = ("_first", "_in_text", "_reasoning", "_text", "usage")

    def __init__(self, said: Said, first: Usage) -> None:
        self._first = first
        self._reasoning: _Overlap | None = None if said.text else _Overlap(said.reasoning)
        self._text: _Overlap | None = _Overlap(said.text) if said.text else None
        self._in_text = bool(said.text)
        self.usage: Usage | None = None

    def feed(self, frames: list[Frame]) -> list[Frame]:
        events: list[Event] = []
        for frame in frames:
            for event in frame.events:
                self._add(event, events)
        return [Frame(b"", tuple(events))] if events else []

    def finish(self) -> list[Frame]:
        """What was held back, at the end."""
        events: list[Event] = []
        self._flush(events)
        return [Frame(b"", tuple(events))] if events else []

    def _add(self, event: Event, events: list[Event]) -> None:
        kind = type(event)
        if kind is Started:
            return
        if kind is Reasoning:
            if not self._in_text:
                text = event.text if self._reasoning is None else self._reasoning.take(event.text)  # type: ignore[union-attr]
                if text:
                    events.append(Reasoning(text))
            return
        if kind is Text:
            self._enter_text(events)
            text = event.text if self._text is None else self._text.take(event.text)  # type: ignore[union-attr]
            if text:
                events.append(Text(text))
            return
        if kind is Metered:
            self.usage = event.usage  # type: ignore[union-attr]
            events.append(Metered(joined(self._first, self.usage)))
            return
        if kind is Finished:
            self._flush(events)
        events.append(event)

    def _enter_text(self, events: list[Event]) -> None:
        if not self._in_text:
            self._flush(events)
            self._in_text = True

    def _flush(self, events: list[Event]) -> None:
        if self._reasoning is not None:
            rest, self._reasoning = self._reasoning.rest(), None
            if rest:
                events.append(Reasoning(rest))
        if self._text is not None:
            rest, self._text = self._text.rest(), None
            if rest:
                events.append(Text(rest))


class _Overlap:
    """Takes off the beginning of a text what `before` ended with, or all of `before` where it is said again. Raises
    Problem where the text is another answer from its start."""

    __slots__ = ("_before", "_held", "_open")

    def __init__(self, before: str) -> None:
        self._before = before
        self._held = ""
        self._open = bool(before)

    def take(self, text: str) -> str:
        """What of the text is new; "" while that is not sure."""
        if not self._open:
            return text
        self._held += text
        held, before = self._held, self._before
        if held.startswith(before) and len(before) >= OVERLAP_CHARS_MIN:
            return self._close(held[len(before) :])
        if before.startswith(held) and len(held) < len(before):
            return ""
        if _common(before, held) >= RESTART_CHARS_MIN:
            raise Problem("upstream.cut", detail="the next host began anew instead of going on")
        tail = before[-OVERLAP_CHARS_MAX:]
        return "" if held in tail else self._close(held[_overlap(tail, held) :])

    def rest(self) -> str:
        """The text is over: what was held back."""
        if not self._open:
            return ""
        held, before = self._held, self._before
        if held == before and len(before) >= OVERLAP_CHARS_MIN:
            return self._close("")
        return self._close(held[_overlap(before[-OVERLAP_CHARS_MAX:], held) :])

    def _close(self, text: str) -> str:
        self._open = False
        self._before = self._held = ""
        return text


def _common(one: str, other: str) -> int:
    """Characters that both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _overlap(tail: str, text: str) -> int:
    """Characters at the beginning of `text` that are the end of `tail`; too few, or too few different ones, are 0."""
    for size in range(min(len(tail), len(text)), OVERLAP_CHARS_MIN - 1, -1):
        if tail.endswith(text[:size]):
            return size if len(set(text[:size])) >= OVERLAP_KINDS_MIN else 0
    return 0
