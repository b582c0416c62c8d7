"""Answers as the provider's own library writes them, beside ours of the same events: streamed and whole.

Compared are the members of every chunk, their order, the order of the chunks, where the end and the usage stand, the
ids and places of tool calls. The library is fed with what a model says in its own markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest

from conformance.recipe import differences, library, server
from conformance.recipe.answers import CASES, Case
from conformance.recipe.library import Fed
from moonpool.dialects import DIALECTS
from moonpool.dialects.base import Encoder, Identity
from moonpool.words import Event, Finished, Frame, Metered, Reasoning, Started, Text, ToolCall, Usage

LISTED: Final = differences.read().answer
USAGE: Final = library.Usage()
ID: Final = "3f0c7c1e-0000-4000-8000-000000000000"
DIALECT: Final = DIALECTS[server.HOST]
cases: Final = pytest.mark.parametrize("name", CASES)
ways: Final = pytest.mark.parametrize("fed", ["texts", "tokens", "scores"])
includes: Final = pytest.mark.parametrize("include", [True, False], ids=["usage asked for", "usage not asked for"])


def _body(case: Case, include: bool = True, fed: Fed = "texts") -> dict[str, Any]:
    more = {"stream_options": {"include_usage": True}} if include else {}
    scores = {"logprobs": True, "top_logprobs": 2} if fed == "scores" else {}
    return case.body | {"stream": True} | more | scores


def _chunks(case: Case, include: bool = True, fed: Fed = "texts") -> list[Any]:
    return library.chunks(_body(case, include, fed), case.said, case.finish, ID, USAGE, fed)


def _event(chunk: Any) -> bytes:
    return b"data: " + chunk.to_json().encode() + b"\n\n"


def _frames(body: dict[str, Any], data: Iterable[bytes]) -> list[Frame]:
    """What we understand of them."""
    decoder = DIALECT.decoder(server.call(body), server.target(body["model"]))
    kind = "text/event-stream" if body.get("stream") else "application/json"
    decoder.start(200, {"content-type": kind})
    return [*(frame for piece in data for frame in decoder.feed(piece)), *decoder.finish()]


def _encoder(body: dict[str, Any], started: dict[str, Any], verbatim: bool) -> Encoder:
    identity = Identity(started["id"], started["created"], started["model"], started["system_fingerprint"])
    return DIALECT.encoder(server.call(body), identity, verbatim, {})


def _written(encoder: Encoder, frames: Iterable[Frame]) -> bytes:
    return b"".join([*(encoder.feed(frame) for frame in frames), encoder.finish()])


def _read(stream: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    *events, last, nothing = stream.split(b"\n\n")
    assert (last, nothing) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: ") for event in events)
    return [json.loads(event[6:]) for event in events]


def _allowed(fed: Fed) -> set[str]:
    """What may differ, by the list: nothing where the library counts tokens itself."""
    return set(LISTED) if fed == "texts" else set()


def _differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Where two values differ: members only one has, in another order, of another value. Places of lists are left
    out."""
    if type(theirs) is not type(ours):
        yield f"{path}: {type(theirs).__name__}, {type(ours).__name__}"
    elif isinstance(theirs, dict):
        yield from (f"{path}.{name}: only the library" for name in theirs if name not in ours)
        yield from (f"{path}.{name}: only ours" for name in ours if name not in theirs)
        both = [name for name in theirs if name in ours]
        if both != [name for name in ours if name in theirs]:
            yield f"{path}: in another order"
        for name in both:
            yield from _differences(theirs[name], ours[name], f"{path}.{name}")
    elif isinstance(theirs, list):
        if len(theirs) != len(ours):
            yield f"{path}: {len(theirs)}, {len(ours)}"
        for one, other in zip(theirs, ours, strict=False):
            yield from _differences(one, other, f"{path}[]")
    elif theirs != ours:
        yield f"{path}: {theirs!r}, {ours!r}"


def _streamed(case: Case, fed: Fed, include: bool, verbatim: bool) -> set[str]:
    body, chunks = _body(case, include, fed), _chunks(case, include, fed)
    data = [*map(_event, chunks), b"data: [DONE]\n\n"]
    theirs = _read(b"".join(data))
    frames = _frames(body, data)
    ours = _read(_written(_encoder(body, theirs[0], verbatim), frames))
    return set(_differences(theirs, ours, "chunks"))


def _whole(case: Case, fed: Fed, streamed: bool) -> set[str]:
    """The library's whole answer beside ours of the same events, which come from its chunks or from that answer."""
    chunks = _chunks(case, True, fed)
    data = [*map(_event, chunks), b"data: [DONE]\n\n"]
    theirs = library.whole(chunks, case.body["model"], ID, json.loads(data[0][6:])["created"], USAGE)
    frames = _frames(_body(case), data) if streamed else _frames(case.body, [json.dumps(theirs).encode()])
    ours = json.loads(_written(_encoder(case.body, theirs, False), frames))
    return set(_differences(theirs, ours, "answer"))


@ways
@cases
def test_what_was_said_is_understood(name: str, fed: Fed) -> None:
    """Our reading of the library's chunks is what the model said: thoughts, text, calls in their places, the end once,
    the usage once."""
    case = CASES[name]
    frames = _frames(_body(case, True, fed), [*map(_event, _chunks(case, True, fed)), b"data: [DONE]\n\n"])
    events: list[Event] = [event for frame in frames for event in frame.events]
    reasoning = [event.text for event in events if isinstance(event, Reasoning)]
    assert ("".join(reasoning) if reasoning else None) == case.reasoning
    assert "".join(event.text for event in events if isinstance(event, Text)) == case.text
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCall):
            call = calls.setdefault(event.slot, ["", "", ""])
            for at, part in enumerate((event.id or "", event.name or "", event.arguments)):
                call[at] += part
    assert [tuple(call[1:]) for _, call in sorted(calls.items())] == list(case.calls)
    assert all(call[0].startswith(f"call_{slot:02d}_") for slot, call in calls.items())
    assert [event.reason for event in events if isinstance(event, Finished)] == [case.reason]
    [usage] = [event.usage for event in events if isinstance(event, Metered)]
    assert (usage.prompt_miss, usage.prompt_hit) == (USAGE.prompt - USAGE.hit, USAGE.hit)
    assert (usage.reasoning > 0) == (fed != "texts" and bool(case.reasoning))


@includes
@ways
@cases
def test_a_stream_has_the_librarys_chunks(name: str, fed: Fed, include: bool) -> None:
    """Built from events alone: the same chunks in the same order, the end and the usage on the last one."""
    assert _streamed(CASES[name], fed, include, verbatim=False) <= _allowed(fed)


@includes
@ways
@cases
def test_a_stream_that_is_handed_on_stays_as_it_was(name: str, fed: Fed, include: bool) -> None:
    """Handed on from such a host, nothing of it changes."""
    assert _streamed(CASES[name], fed, include, verbatim=True) == set()


@pytest.mark.parametrize("streamed", [True, False], ids=["of a stream", "of a whole answer"])
@ways
@cases
def test_a_whole_answer_has_the_librarys_members(name: str, fed: Fed, streamed: bool) -> None:
    """Built from events, whether the host streamed or not: the same members in the same order."""
    assert _whole(CASES[name], fed, streamed) <= _allowed(fed)


@cases
def test_our_own_events_make_the_librarys_answer(name: str) -> None:
    """Events as a host of another kind gives them, where each thought, text and argument comes in one piece: what
    clients put together is the library's answer, and only the last chunk ends."""
    case = CASES[name]
    chunks = _chunks(case)
    first = json.loads(chunks[0].to_json())
    theirs = library.whole(chunks, case.body["model"], ID, first["created"], USAGE)
    ids = [call["id"] for call in theirs["choices"][0]["message"].get("tool_calls", ())]
    events: list[Event] = [Started(model="another")]
    events += [Reasoning(case.reasoning)] if case.reasoning is not None else []
    events += [Text(case.text)] if case.text else []
    events += [ToolCall(slot, ids[slot], *call) for slot, call in enumerate(case.calls)]
    usage = Usage(USAGE.prompt - USAGE.hit, USAGE.hit, theirs["usage"]["completion_tokens"])
    frames = [Frame(b"", (event,)) for event in (*events, Finished(case.reason), Metered(usage))]
    stream = _written(_encoder(_body(case), first, False), frames)
    *before, last = [chunk["choices"][0]["finish_reason"] for chunk in _read(stream)]
    assert (set(before), last) == ({None}, case.reason)
    for read in (frames, _frames(_body(case), [stream])):
        ours = json.loads(_written(_encoder(case.body, theirs, False), read))
        assert set(_differences(theirs, ours, "answer")) <= set(LISTED)


def test_what_is_listed_does_differ() -> None:
    """A difference between answers that is listed and no longer there must go."""
    found: set[str] = set()
    for case in CASES.values():
        found |= _streamed(case, "texts", True, verbatim=False) | _whole(case, "texts", True)
    assert found == set(LISTED)
