"""What does the client read? Frames in, bytes out, in DeepSeek's live shapes: whole answers and streams.

A frame's own bytes are handed on where they can be (`verbatim`), so that unknown fields survive, under the name that
was asked for (names.py); else the bytes are built from its events. Either way a client sees one order: role, thinking,
answer, tool calls, then one last chunk with `finish_reason` and usage on it, then `[DONE]`. A host that says its usage
elsewhere is brought into that form, which is why the last chunk waits until usage, another chunk or the end has come.

Whether the client streams is the call's; whether the host did does not matter here. Sources: PROVIDERS 1.4, 1.5, 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moonpool.dialects.base import Encoder, Identity
from moonpool.dialects.chunks import Chunks
from moonpool.dialects.names import name_of, settle, swap
from moonpool.dialects.runs import Lane, Run
from moonpool.dialects.sse import DONE, event, safe
from moonpool.dialects.usage import CACHE_MEMBER, complete_usage
from moonpool.dialects.whole import Whole
from moonpool.words import (
    Call,
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

_NULL_USAGE: Final = b',"usage":null}\n\n'
_read: Final = msgspec.json.Decoder(dict[str, Any]).decode


def make_encoder(call: Call, identity: Identity, verbatim: bool, switches: Mapping[str, str]) -> Encoder:
    if not call.stream:
        return Whole(call.operation, identity, verbatim)
    apart = call.include_usage and switches.get("usage") == "chunk"
    return _Stream(call.operation, identity, verbatim, call.include_usage, apart)


class _Stream:
    """An encoder (dialects.base) for a client that reads events.

    `apart`: the client wants OpenAI's form, usage in a chunk of its own after the last one.
    """

    __slots__ = (
        "_apart", "_around", "_chunks", "_finished", "_held", "_identity", "_include", "_lane", "_old", "_operation",
        "_ours", "_running", "_sent", "_thinking", "_usage", "_usage_sent", "_verbatim",
    )  # fmt: skip

    def __init__(self, operation: Operation, identity: Identity, verbatim: bool, include: bool, apart: bool) -> None:
        self._operation = operation
        self._identity = identity
        self._verbatim = verbatim
        self._include = include
        self._apart = apart
        self._chunks: Chunks | None = None
        self._old = self._ours = b""  # the host's name for the model as it stands in its bytes, and what goes there
        self._lane: Lane | None = None  # of the last run that was handed on; and what our bytes have around its texts
        self._around: tuple[bytes, bytes] | None = None
        self._sent = False  # whether bytes of the host's own went out
        self._thinking = False
        self._finished = False
        self._held: bytes | Finished | None = None  # the last chunk, waiting for its usage: as bytes or to be built
        self._usage: Usage | None = None
        self._usage_sent = False
        self._running = False  # the host sends running totals, so the one on its last chunk may not be the last

    def feed(self, frame: Frame | Run) -> bytes:
        return self._feed_run(frame) if type(frame) is Run else self._feed(frame)  # type: ignore[arg-type]

    def _feed_run(self, run: Run) -> bytes:
        lane = run.lane
        if self._held is not None or (lane is not self._lane and not self._enter(lane)):
            return b"".join([self._feed(frame) for frame in run.frames()])
        raw, around = run.raw, self._around
        if around is not None:
            head, tail = around
            raw = head + raw[len(lane.head) : -len(lane.tail)].replace(lane.between, tail + head) + tail
        return raw if raw.isascii() else safe(raw)

    def _feed(self, frame: Frame) -> bytes:
        raw = frame.raw
        if self._verbatim and raw:
            events = frame.events
            if len(events) == 1 and self._held is None:
                kind = type(events[0])
                if kind is Text or kind is Reasoning or kind is ToolCall:
                    if kind is Reasoning:
                        self._thinking = True
                    if self._old:
                        raw = raw.replace(self._old, self._ours, 1)
                        if raw == frame.raw:
                            return self._build(frame)
                    self._sent = True
                    if not self._include and raw.endswith(_NULL_USAGE):
                        raw = raw[: -len(_NULL_USAGE)] + b"}\n\n"
                    return raw if raw.isascii() else safe(raw)
            if raw.startswith(b"data: "):
                return self._hand_on(frame)
            if raw.startswith((b":", b"data:")):
                return b""
            self._start(frame)
            self._verbatim = False  # the host answered as a whole
        return self._build(frame)

    def _enter(self, lane: Lane) -> bool:
        """See what is to be changed in the bytes around the texts of a lane. False where that is not known once and for
        all."""
        if not (self._verbatim and lane.as_is):
            return False
        head, tail = lane.head, lane.tail
        if self._old:
            head = head.replace(self._old, self._ours, 1)
            if head == lane.head:
                return False
        if not self._include and tail.endswith(_NULL_USAGE):
            tail = tail[: -len(_NULL_USAGE)] + b"}\n\n"
        self._around = None if head == lane.head and tail == lane.tail else (head, tail)
        self._lane = lane
        self._sent = True
        self._thinking |= lane.kind is Reasoning
        return True

    def finish(self) -> bytes:
        chunks = self._chunks or self._start(None)
        out = self._release(self._usage)
        if not self._finished:
            # The host said [DONE] without a finish_reason; clients wait for one.
            out += chunks.finish("stop", 0, None if self._apart else self._usage)
        if self._apart and self._usage is not None and not self._usage_sent:
            out += chunks.usage_only(self._usage)
        return out + DONE

    def _start(self, frame: Frame | None) -> Chunks:
        """Names are settled with the first frame."""
        if self._chunks is None:
            first = frame.events[0] if frame is not None and frame.events else None
            started = first if type(first) is Started else None
            names = settle(self._identity, started, self._verbatim)
            self._chunks = Chunks(self._operation, names, self._include, self._identity.id)
            if self._verbatim and frame is not None:
                self._old, self._ours = swap(frame.raw, name_of(started), names.model)
                self._lane = None
        return self._chunks

    def _hand_on(self, frame: Frame) -> bytes:
        """A frame's own bytes, with the usage moved to where it belongs."""
        chunks = self._start(frame)
        raw, events = frame.raw, frame.events
        if not events and raw.startswith(DONE):
            return b""
        if self._old:
            raw = raw.replace(self._old, self._ours, 1)
            if raw == frame.raw:
                return self._build(frame)
        usage: Usage | None = None
        finished = says = False
        for piece in events:
            kind = type(piece)
            if kind is Metered:
                usage = piece.usage  # type: ignore[union-attr]
            elif kind is Finished:
                finished = True
            elif kind is not Started:
                says = True
                self._thinking |= kind is Reasoning
        if usage is not None:
            self._usage = usage
            if not finished and not says and len(events) == 1:
                return self._meter(raw)
            self._running |= not finished
        out = self._release(None) if events else b""
        if not self._sent:
            self._sent = True
            chunks.role_was_sent()
        if finished:
            self._finished = True
            if usage is not None and not self._apart and not self._running:
                self._usage_sent = True
                return out + safe(raw if CACHE_MEMBER in raw else self._with_usage(raw, usage))
            raw = self._with_usage(raw, None) if usage is not None else raw
            if self._apart:
                return out + safe(raw)
            self._held = raw
            return out
        if usage is not None or (not self._include and raw.endswith(_NULL_USAGE)):
            raw = self._with_usage(raw, None)
        return out + safe(raw)

    def _meter(self, raw: bytes) -> bytes:
        """A chunk that says nothing but the usage: it goes onto the last chunk, or on its own where that was asked."""
        if self._apart:
            if not self._finished or self._usage_sent:
                return b""
            self._usage_sent = True
            return safe(raw)
        return self._release(self._usage) if self._held is not None else b""

    def _release(self, usage: Usage | None) -> bytes:
        """The last chunk, with `usage` on it if that is known."""
        held, self._held = self._held, None
        if held is None:
            return b""
        self._usage_sent |= usage is not None
        if type(held) is Finished:
            assert self._chunks is not None
            return self._chunks.finish(held.reason, held.index, usage)
        assert type(held) is bytes
        return safe(self._with_usage(held, usage))

    def _with_usage(self, raw: bytes, usage: Usage | None) -> bytes:
        """The host's own chunk with another `usage`; without one, the member is null or absent as was asked."""
        if usage is None and not self._include and raw.endswith(_NULL_USAGE):
            return raw[: -len(_NULL_USAGE)] + b"}\n\n"
        value = _read(raw[6:])
        said = value.pop("usage", None)
        if usage is not None:
            value["usage"] = complete_usage(said, usage, self._thinking)
        elif self._include:
            value["usage"] = None
        return event(value)

    def _build(self, frame: Frame) -> bytes:
        chunks = self._start(frame)
        out = []
        metered = finished = False
        for piece in frame.events:
            kind = type(piece)
            if kind is Text:
                out.append(self._release(None) if self._held is not None else b"")
                out.append(chunks.text(piece))  # type: ignore[arg-type]
            elif kind is Reasoning:
                out.append(self._release(None))
                out.append(chunks.reasoning(piece))  # type: ignore[arg-type]
            elif kind is ToolCall:
                out.append(self._release(None))
                out.append(chunks.tool_call(piece))  # type: ignore[arg-type]
            elif kind is Found:
                out.append(self._release(None))
                out.append(chunks.found(piece, self._verbatim))  # type: ignore[arg-type]
            elif kind is Metered:
                self._usage = piece.usage  # type: ignore[union-attr]
                metered = True
            elif kind is Finished:
                out.append(self._release(None))
                self._finished = finished = True
                self._held = piece  # type: ignore[assignment]
        self._running |= metered and not self._finished
        if self._held is not None and (self._apart or (metered and not (finished and self._running))):
            out.append(self._release(None if self._apart else self._usage))
        return b"".join(out)
