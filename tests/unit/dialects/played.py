"""Plays an answer through a decoder and an encoder as the relay does, in any slicing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.base import Identity
from moonpool.errors import Problem
from moonpool.words import (
    Call,
    Event,
    Failed,
    Finished,
    Frame,
    Host,
    Metered,
    Reasoning,
    Started,
    Target,
    Text,
    ToolCall,
    Usage,
)
from transcripts.loader import Transcript

OURS = Identity("00000000-0000-4000-8000-000000000001", 1700000000, "", None)


class Played(msgspec.Struct):
    """What came out: the events, the client's bytes, the last usage, and the problem that ended it."""

    events: list[Event]
    client: bytes
    usage: Usage | None
    problem: Problem | None


def call_of(transcript: Transcript) -> Call:
    return CLIENT.parse_call(transcript.operation, transcript.request, "call-1")  # type: ignore[arg-type]


def play(
    transcript: Transcript, pieces: Iterable[bytes], *, verbatim: bool = True, identity: Identity | None = None
) -> Played:
    call = call_of(transcript)
    host = DIALECTS[transcript.dialect]
    target = Target(Host("host", transcript.dialect), call.model)
    identity = identity or msgspec.structs.replace(OURS, model=call.model)
    encoder = CLIENT.encoder(call, identity, verbatim, {})
    out: list[bytes] = []
    begun = False
    events: list[Event] = []
    problem: Problem | None = None
    if transcript.status != 200:
        problem = host.parse_problem(transcript.status, transcript.headers, b"".join(pieces))
    else:
        decoder = host.decoder(call, target)
        decoder.start(transcript.status, transcript.headers)

        def take(frames: list[Frame]) -> None:
            nonlocal begun, problem
            for frame in frames:
                events.extend(frame.events)
                for event in frame.events:
                    if type(event) is Failed:
                        problem = event.problem
                    begun |= _is_meaningful(event)
                if problem is None:
                    out.append(encoder.feed(frame))

        try:
            for piece in pieces:
                take(decoder.feed(piece))
            if problem is None:
                take(decoder.finish())
        except Problem as broken:
            problem = broken
    sent = b"".join(out)
    if problem is None:
        sent += encoder.finish()
    elif call.stream and begun:
        sent += CLIENT.render_problem(problem, in_stream=True)
    else:
        # Until something was said the relay holds the first bytes back, and the client reads an HTTP error.
        sent = CLIENT.render_problem(problem, in_stream=False)
    usages = [event.usage for event in events if type(event) is Metered]
    return Played(events, sent, usages[-1] if usages else None, problem)


def _is_meaningful(event: Event) -> bool:
    return (type(event) in (Text, Reasoning) and bool(event.text)) or type(event) in (ToolCall, Finished)  # type: ignore[union-attr]


def names_of(events: list[Event]) -> Identity:
    """The host's own names, as if they were ours."""
    started = next(event for event in events if type(event) is Started)
    return Identity(started.id or "", started.created or 0, started.model or "", started.fingerprint)


def plain(events: list[Event], problem: Problem | None) -> list[Any]:
    """Events as `events.json` holds them: a name and the members that say something."""
    found: list[Any] = []
    for event in events:
        if type(event) is not Failed:
            members = msgspec.json.decode(msgspec.json.encode(event))
            if type(event) is Metered and not event.usage.searches:
                del members["usage"]["searches"]
            quiet = {
                field.name: field.default
                for field in msgspec.structs.fields(type(event))
                if field.default is not msgspec.NODEFAULT
            }
            found.append([type(event).__name__, {k: v for k, v in members.items() if k not in quiet or v != quiet[k]}])
    if problem is not None:
        members = {"code": problem.code, "message": problem.message}
        if problem.param is not None:
            members["param"] = problem.param
        if problem.retry_after_s is not None:
            members["retry_after_s"] = problem.retry_after_s
        found.append(["Problem", members])
    return found
