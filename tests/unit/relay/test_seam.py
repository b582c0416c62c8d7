"""relay/seam.py: what can be gone on with, and how two parts become one answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import CLIENT
from moonpool.errors import Problem
from moonpool.relay.said import Said
from moonpool.relay.seam import OVERLAP_CHARS_MIN, Seam, continuation, joined, may_continue
from moonpool.words import Call, Finished, Frame, Metered, Reasoning, Started, Text, ToolCall, Usage


def call(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Say json"}], "stream": True, **fields}
    return CLIENT.parse_call("chat", json.dumps(body).encode(), "id")


def said(reasoning: str = "", text: str = "") -> Said:
    found = Said()
    found.thoughts += [reasoning] if reasoning else []
    found.texts += [text] if text else []
    return found


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({}, True),
        ({"max_tokens": 5, "temperature": 0.1, "stop": ["x"], "n": 1}, True),
        ({"stream": False}, False),
        ({"tools": TOOLS}, False),
        ({"tools": TOOLS, "tool_choice": "none"}, False),
        ({"response_format": {"type": "json_object"}}, False),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
    ],
)
def test_what_can_be_gone_on_with(fields: dict[str, Any], may: bool) -> None:
    """Streams of one plain answer; never tools, JSON, candidates or log probabilities."""
    assert may_continue(call(**fields)) is may


def test_the_thinking_is_gone_on_with() -> None:
    """Empty content, and the thinking so far beside it (PROVIDERS 1.11)."""
    asked = continuation(call(), said(reasoning="First, "), 2)
    assert asked is not None
    assert asked.fields["messages"][-1] == {
        "role": "assistant",
        "content": "",
        "prefix": True,
        "reasoning_content": "First, ",
    }
    assert {"prefix", "prefix_thinking"} <= asked.needs


def test_the_answer_is_gone_on_with() -> None:
    """What was answered as content, the whole thinking beside it, and what is left of the limit."""
    asked = continuation(call(max_tokens=100), said("Hm.", "It is"), 40)
    assert asked is not None
    assert asked.fields["messages"][-1]["content"] == "It is"
    assert asked.fields["messages"][-1]["reasoning_content"] == "Hm."
    assert "prefix_thinking" not in asked.needs
    assert asked.fields["max_tokens"] == 60


def test_a_prefix_of_the_clients_own_grows() -> None:
    """There is one last message, and it begins with what the client had written."""
    messages = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "Once ", "prefix": True}]
    asked = continuation(call(messages=messages), said(text="upon "), 1)
    assert asked is not None
    assert [message["content"] for message in asked.fields["messages"]] == ["Go", "Once upon "]


def test_what_cannot_be_gone_on_with() -> None:
    """Nothing was said, a call has begun, it is over, or it was too long to keep."""
    assert continuation(call(), said(), 0) is None
    calling, over, long = said(text="x"), said(text="x"), said(text="x")
    calling.call(ToolCall(0, "id", "f"))
    over.finished = True
    long.give_up()
    assert [continuation(call(), each, 0) for each in (calling, over, long)] == [None, None, None]


def test_a_conversation_with_tool_calls_is_not_gone_on_with() -> None:
    """Prefix completion refuses it, even where the request has no tools any more: nobody is asked in vain."""
    messages = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "4"},
    ]
    assert continuation(call(messages=messages), said(text="x"), 0) is None


def read(seam: Seam, *events: Any) -> list[Any]:
    frames = [frame for event in events for frame in seam.feed([Frame(b"raw", (event,))])]
    frames += seam.finish()
    assert all(frame.raw == b"" for frame in frames), "the bytes of another answer are never handed on"
    return [event for frame in frames for event in frame.events]


def text_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if type(event) is Text)


def test_names_and_late_thoughts_are_dropped() -> None:
    """The client has a name for this answer, and is past its thinking."""
    events = read(
        Seam(said("Hm.", "It is"), Usage()), Started("other"), Reasoning("Again"), Text(" late."), Finished("stop")
    )
    assert events == [Text(" late."), Finished("stop")]


def test_thinking_goes_on_and_becomes_an_answer() -> None:
    """In this order, with nothing held back for good."""
    events = read(Seam(said("First, "), Usage()), Reasoning("look"), Reasoning("."), Text("Yes"), Finished("stop"))
    assert "".join(event.text for event in events if type(event) is Reasoning) == "look."
    assert text_of(events) == "Yes"


BEFORE = "The tide comes in twice a day, and goes out "
AFTER = "as often; sailors know it well."


@pytest.mark.parametrize("repeated", [0, 20, len(BEFORE)])
@given(data=st.data())
def test_an_overlap_is_taken_off(repeated: int, data: st.DataObject) -> None:
    """None, some of the end, or all of it said again; in any slicing."""
    text = BEFORE[len(BEFORE) - repeated :] + AFTER
    pieces, at = [], 0
    while at < len(text):
        size = data.draw(st.integers(1, 12))
        pieces.append(Text(text[at : at + size]))
        at += size
    assert text_of(read(Seam(said(text=BEFORE), Usage()), *pieces, Finished("stop"))) == AFTER


@given(
    before=st.text(alphabet="ab \n", min_size=1, max_size=60), after=st.text(alphabet="ab \n", min_size=0, max_size=40)
)
def test_what_only_looks_repeated_is_kept(before: str, after: str) -> None:
    """Of few different characters, as rules of dashes and laughter are: nothing is taken off but a whole repetition."""
    got = text_of(read(Seam(said(text=before), Usage()), *(Text(char) for char in after), Finished("stop")))
    assert got == after or (len(before) >= OVERLAP_CHARS_MIN and before + got == after)


def test_another_answer_is_not_spliced_in() -> None:
    """A host that begins anew, and then says something else, has not gone on."""
    seam = Seam(said(text="abcdefghij" * 10), Usage())
    with pytest.raises(Problem, match="broke off"):
        read(seam, Text("abcdefghij" * 8), Text("and now something else"))


def test_usage_is_that_of_one_answer() -> None:
    """The sum is the second host's; what was said before moves from its question to the answer."""
    first, second = Usage(100, 0, 30, 10, estimated=True), Usage(60, 80, 50, 20)
    assert joined(first, second) == Usage(30, 80, 80, 30, estimated=True)
    seam = Seam(said(text=BEFORE), first)
    assert read(seam, Metered(second)) == [Metered(joined(first, second))]
    assert seam.usage == second


@given(st.builds(Usage, *[st.integers(0, 1000)] * 4), st.builds(Usage, *[st.integers(0, 1000)] * 4))
def test_no_token_is_lost_or_made(first: Usage, second: Usage) -> None:
    """Whatever is counted: prompt and answer sum up to what the second host counted, nothing is negative."""
    both = joined(first, second)
    assert both.prompt_miss + both.prompt_hit + both.completion == (
        second.prompt_miss + second.prompt_hit + second.completion
    )
    assert min(both.prompt_miss, both.prompt_hit, both.completion, both.reasoning) >= 0
