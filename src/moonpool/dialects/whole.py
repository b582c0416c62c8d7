"""What does a client read that does not stream? One JSON body in DeepSeek's live shape (PROVIDERS 1.4).

A host's own body is handed on where it can be, under the name that was asked for; else the body is built from events.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.dialects.base import Identity
from moonpool.dialects.chunks import tool_call_id
from moonpool.dialects.names import asked_for, name_of, settle, swap
from moonpool.dialects.runs import Run
from moonpool.dialects.sse import dumps
from moonpool.dialects.usage import CACHE_MEMBER, complete_usage, write_usage
from moonpool.words import (
    CHAT,
    Failed,
    Finished,
    Found,
    Frame,
    Metered,
    Operation,
    Reasoning,
    Started,
    Text,
    ToolCall,
    Usage,
)

_read: Final = msgspec.json.Decoder(dict[str, Any]).decode


class _Candidate(Struct):
    """What one candidate has said so far. `reasoning` None: nothing was thought."""

    content: list[str]
    reasoning: list[str] | None = None
    tool_calls: list[list[str]] = []
    found: list[dict[str, Any]] = []
    logprobs: Any = None
    reason: str = ""


class Whole:
    """An encoder (dialects.base) for a client that reads one JSON body."""

    __slots__ = (
        "_body",
        "_candidates",
        "_fresh",
        "_identity",
        "_operation",
        "_started",
        "_unread",
        "_usage",
        "_verbatim",
    )

    def __init__(self, operation: Operation, identity: Identity, verbatim: bool) -> None:
        self._operation = operation
        self._identity = identity
        self._verbatim = verbatim
        self._candidates: dict[int, _Candidate] = {}
        self._started: Started | None = None
        self._usage: Usage | None = None
        self._body = b""
        self._fresh = True
        self._unread: Frame | None = None

    def feed(self, frame: Frame | Run) -> bytes:
        raw = frame.raw
        if self._fresh and self._verbatim and raw and not raw.startswith((b"data:", b":")):
            # All of a host's whole answer, as a rule: what it says is looked at when something else comes too.
            self._fresh, self._unread = False, frame  # type: ignore[assignment]
            events = frame.events  # type: ignore[union-attr]
            started = events[0] if events and type(events[0]) is Started else None
            if started is not None and started.model == self._identity.model:
                self._body = raw
                return b""
            old, ours = swap(raw, name_of(started), asked_for(self._identity, started))
            self._body = raw.replace(old, ours, 1) if old else raw
            if not old or self._body != raw:
                return b""
            self._body = b""
        if type(frame) is Run:
            return b"".join([self.feed(each) for each in frame.frames()])
        assert type(frame) is Frame
        self._fresh = False
        if self._unread is not None:
            unread, self._unread = self._unread, None
            self._read(unread)
            if unread is frame:
                return b""
        self._read(frame)
        if self._body:
            metered = all(type(piece) is Metered for piece in frame.events)
            self._body = self._metered_body() if metered and self._usage is not None else b""
        return b""

    def _read(self, frame: Frame) -> None:
        for piece in frame.events:
            kind = type(piece)
            if kind is Started:
                self._started = self._started or piece  # type: ignore[assignment]
            elif kind is Metered:
                self._usage = piece.usage  # type: ignore[union-attr]
            elif kind is not Failed:
                self._add(piece)  # type: ignore[arg-type]

    def finish(self) -> bytes:
        if self._body:
            return self._body if CACHE_MEMBER in self._body else self._completed_body()
        chat = self._operation == CHAT
        names = settle(self._identity, self._started, self._verbatim)
        choices = [
            self._chat_choice(index, said) if chat else _completion_choice(index, said)
            for index, said in sorted((self._candidates or {0: _Candidate([])}).items())
        ]
        usage = None if self._usage is None else write_usage(self._usage, self._has_thought())
        return dumps(
            {
                "id": names.id,
                "object": "chat.completion" if chat else "text_completion",
                "created": names.created,
                "model": names.model,
                "choices": choices,
                "usage": usage,
                "system_fingerprint": names.fingerprint,
            }
        )

    def _has_thought(self) -> bool:
        return any(said.reasoning is not None for said in self._candidates.values())

    def _metered_body(self) -> bytes:
        """The host's own body with a usage that was found out afterwards."""
        assert self._usage is not None
        return dumps({**_read(self._body), "usage": write_usage(self._usage, self._has_thought())})

    def _completed_body(self) -> bytes:
        """The host's own body, its usage with the members that DeepSeek's clients add up."""
        if self._unread is not None:
            self._read(self._unread)
        if self._usage is None:
            return self._body
        value = _read(self._body)
        return dumps({**value, "usage": complete_usage(value.get("usage"), self._usage, self._has_thought())})

    def _add(self, piece: Text | Reasoning | ToolCall | Found | Finished) -> None:
        said = self._candidates.get(piece.index)
        if said is None:
            said = self._candidates[piece.index] = _Candidate([])
        if type(piece) is Text:
            said.content.append(piece.text)
            said.logprobs = _joined(said.logprobs, piece.logprobs)
        elif type(piece) is Reasoning:
            if said.reasoning is None:
                said.reasoning = []
            said.reasoning.append(piece.text)
            said.logprobs = _joined(said.logprobs, piece.logprobs)
        elif type(piece) is Finished:
            said.reason = piece.reason
        elif type(piece) is Found:
            said.found += piece.results
        elif type(piece) is ToolCall:
            calls = said.tool_calls
            while len(calls) <= piece.slot:
                calls.append(["", "", ""])
            call = calls[piece.slot]
            call[0] = call[0] or piece.id or ""
            call[1] = call[1] or piece.name or ""
            call[2] += piece.arguments

    def _chat_choice(self, index: int, said: _Candidate) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.content)}
        if said.reasoning is not None:
            message["reasoning_content"] = "".join(said.reasoning)
        if said.tool_calls:
            message["tool_calls"] = [
                {
                    "index": slot,
                    "id": call_id or tool_call_id(self._identity.id, slot),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for slot, (call_id, name, arguments) in enumerate(said.tool_calls)
            ]
        if said.found:
            message["search_results"] = said.found
        reason = said.reason or ("tool_calls" if said.tool_calls else "stop")
        scores = said.logprobs
        if type(scores) is dict and len(scores) > 1:
            scores = dict(sorted(scores.items()))  # the answer's before those of the thinking, as the live service does
        return {"index": index, "message": message, "logprobs": scores, "finish_reason": reason}


def _completion_choice(index: int, said: _Candidate) -> dict[str, Any]:
    return {
        "text": "".join(said.content),
        "index": index,
        "logprobs": said.logprobs,
        "finish_reason": said.reason or "stop",
    }


def _joined(logprobs: Any, more: Any) -> Any:
    """Log probabilities of one candidate: lists are joined, member by member."""
    if logprobs is None or more is None:
        return more if logprobs is None else logprobs
    if type(logprobs) is not dict or type(more) is not dict:
        return more
    joined = dict(logprobs)
    for name, value in more.items():
        before = joined.get(name)
        joined[name] = before + value if type(before) is list and type(value) is list else value
    return joined
