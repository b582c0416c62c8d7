"""Thinking that a model wrote into its text comes out apart, wherever the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.base import Identity
from moonpool.dialects.think import ThinkSplitter
from moonpool.words import Call, Event, Failed, Frame, Host, Reasoning, Target, Text
from strategies import slicings

HOST = DIALECTS["openai"]


def asked(**fields: Any) -> Call:
    start = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "thinking": {"type": "enabled"}}
    return CLIENT.parse_call("chat", json.dumps({**start, **fields}).encode(), "id-1")


def stream(*contents: str, reason: str | None = "stop") -> bytes:
    chunks: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
    chunks += [{"delta": {"content": content}} for content in contents]
    chunks += [{"delta": {}, "finish_reason": reason}] if reason else []
    return b"".join(
        b"data: " + json.dumps({"id": "x", "choices": [{"index": 0, **chunk}]}).encode() + b"\n\n" for chunk in chunks
    )


def read(pieces: list[bytes], inline: str, call: Call) -> list[Frame]:
    decoder = HOST.decoder(call, Target(Host("h", "openai"), "m", options={"inline_thinking": inline}))
    decoder.start(200, {})
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    return frames + decoder.finish()


def said(frames: list[Frame]) -> tuple[str, str]:
    """(thinking, answer)."""
    events = [event for frame in frames for event in frame.events]
    return (
        "".join(event.text for event in events if type(event) is Reasoning),
        "".join(event.text for event in events if type(event) is Text),
    )


TAGGED = [
    ("<think>\nWhy not?\n</think>\n\nYes.", ("Why not?\n", "Yes.")),
    ("\n<think>a</think>b", ("a", "b")),
    ("No thinking here.", ("", "No thinking here.")),
    ("The tag <think> is text here.", ("", "The tag <think> is text here.")),
    ("<think>a</think>The tags <think> and </think>.", ("a", "The tags <think> and </think>.")),
    ("<think>cut off", ("cut off", "")),
    ("<think>\n\n</think>\n\n    indented", ("", "    indented")),
    ("<thin", ("", "<thin")),
    ("<think>a < b </thin", ("a < b </thin", "")),
]
OPENED = [
    ("Why not?\n</think>\n\nYes.", ("Why not?\n", "Yes.")),
    ("<think>\nWhy not?</think>Yes.", ("Why not?", "Yes.")),
    ("never closed", ("never closed", "")),
    ("</think>at once", ("", "at once")),
]


@pytest.mark.parametrize(("text", "parts"), TAGGED)
def test_tagged(text: str, parts: tuple[str, str]) -> None:
    """Between its marks at the very start there is thinking; blank lines around it are nobody's; later marks are
    text. In one chunk, a chunk for each character, and as a whole answer."""
    body = json.dumps({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}).encode()
    for pieces in ([stream(text)], [stream(*text)], [body]):
        assert said(read(pieces, "tagged", asked(stream=True))) == parts


@pytest.mark.parametrize(("text", "parts"), OPENED)
def test_opened(text: str, parts: tuple[str, str]) -> None:
    """R1's answers begin inside the thinking, with the mark that opens it or without."""
    for pieces in ([stream(text)], [stream(*text)]):
        assert said(read(pieces, "opened", asked(stream=True))) == parts


def test_opened_only_where_there_is_thinking() -> None:
    """A call that does not think, or that continues an answer, begins with the answer; one that continues a thinking
    begins inside it."""
    plain = asked(thinking={"type": "disabled"})
    last = {"role": "assistant", "content": "A", "prefix": True}
    question = {"role": "user", "content": "Hello"}
    answer = asked(messages=[question, last])
    thought = asked(messages=[question, {**last, "content": "", "reasoning_content": "Hm"}])
    assert said(read([stream("Yes.")], "opened", plain)) == ("", "Yes.")
    assert said(read([stream("Yes.")], "opened", answer)) == ("", "Yes.")
    assert said(read([stream(", so</think>Yes.")], "opened", thought)) == (", so", "Yes.")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "\n", "a", "é "]), max_size=8),
    st.booleans(),
    st.data(),
)
def test_any_cut_means_the_same(parts: list[str], opened: bool, data: st.DataObject) -> None:
    """Cut anywhere, in a tag or in a character, the parts are the same."""
    text = "".join(parts)
    inline = "opened" if opened else "tagged"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    call = asked(stream=True)
    expected = said(read([stream(text)], inline, call))
    assert said(read(data.draw(slicings(stream(*chunks))), inline, call)) == expected


def test_nothing_is_held_longer_than_it_must_be() -> None:
    """Text that cannot become a mark is told at once."""
    splitter = ThinkSplitter(True, first=True)
    assert splitter.feed("a <") == [(True, "a ")]
    assert splitter.feed("b") == [(True, "<b")]
    assert splitter.feed("</think>\n") == []
    assert splitter.feed("yes <think") == [(False, "yes <think")]


def test_the_clients_bytes_are_built() -> None:
    """No bytes of the host's own go on: its content would hold the thinking. The client reads it where it belongs."""
    call = asked(stream=True)
    frames = read([stream("<think>why", "</think>yes")], "tagged", call)
    assert not any(frame.raw for frame in frames)
    encoder = CLIENT.encoder(call, Identity("id", 1, "m"), True, {})
    sent = b"".join(encoder.feed(frame) for frame in frames) + encoder.finish()
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in sent.decode().split("\n\n")[:-2]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "why"
    assert "".join(delta.get("content") or "" for delta in deltas) == "yes"


def test_logprobs_follow_their_text() -> None:
    """Log probabilities go where their text went, those of a text that was held back with what it became."""
    chunks = [
        {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text}]}}]}
        for text in ("<think>a", "</th", "ink>", "b")
    ]
    end = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in [*chunks, end])
    events: list[Event] = [
        event for frame in read([body], "tagged", asked(stream=True, logprobs=True)) for event in frame.events
    ]
    tokens = [
        (type(event).__name__, [odd["token"] for odds in event.logprobs.values() for odd in odds])
        for event in events
        if type(event) in (Text, Reasoning)
    ]
    assert tokens == [("Reasoning", ["<think>a"]), ("Text", ["</th", "ink>", "b"])]


def test_what_was_held_goes_before_a_failure() -> None:
    """A stream that breaks off gives what it had said, then fails."""
    frames = read([stream("<think>a </thi", reason=None)], "tagged", asked(stream=True))
    assert said(frames) == ("a </thi", "")
    assert [type(event) for event in frames[-1].events] == [Failed]


def test_hosts_without_the_option_are_not_asked() -> None:
    """The family's own decoder, with nothing around it."""
    plain = HOST.decoder(asked(), Target(Host("h", "openai"), "m"))
    assert type(plain).__module__ == "moonpool.dialects.decode"
