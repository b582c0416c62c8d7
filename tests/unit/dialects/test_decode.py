"""The decoder where transcripts do not reach: the fast lane, odd hosts, bounds, and bytes that mean nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonpool.dialects.decode import BODY_BYTES_MAX, Decoder
from moonpool.dialects.plain import read_plain
from moonpool.dialects.problems import read_problem
from moonpool.dialects.runs import Run
from moonpool.dialects.usage import read_usage, write_usage
from moonpool.errors import Problem
from moonpool.words import Event, Failed, Finished, Frame, Metered, Reasoning, Started, Text, ToolCall, Usage
from strategies import json_data, slicings


def decoder(*, lane: bool = True) -> Decoder:
    made = Decoder(read_problem)
    if not lane:
        made._lessons = 1 << 30
    return made


def run(pieces: list[bytes], *, lane: bool = True) -> tuple[list[Frame], str]:
    """The frames, and the code of the problem it ended with ("" for none)."""
    made = decoder(lane=lane)
    frames: list[Frame] = []
    try:
        for piece in pieces:
            frames += made.feed(piece)
        frames += made.finish()
    except Problem as problem:
        return frames, problem.code
    failed = [event.problem.code for frame in frames for event in frame.events if type(event) is Failed]
    return [frame for frame in frames if not _fails(frame)], failed[0] if failed else ""


def _fails(frame: Frame) -> bool:
    return any(type(event) is Failed for event in frame.events)


def chunk(delta: Any, finish: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"id": "i", "created": 1, "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


def sse(*values: Any) -> bytes:
    return b"".join(b"data: " + (v if type(v) is bytes else json.dumps(v).encode()) + b"\n\n" for v in values)


def events(*values: Any) -> list[Event]:
    frames, code = run([sse(*values, b"[DONE]")])
    assert code == ""
    return [event for frame in frames for event in frame.events if type(event) is not Started]


_texts = st.text(st.sampled_from('ab"\\ \n你🎉\u2028:{}') | st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def deltas(draw: st.DrawFn) -> bytes:
    """Events that look alike: same candidate or not, text or thinking, escapes or not, now and then a trap."""
    kind = draw(st.sampled_from(["content", "content", "reasoning_content", "reasoning", "both", "text"]))
    text = draw(_texts)
    choice: dict[str, Any] = {"index": draw(st.sampled_from([0, 0, 0, 1])), "finish_reason": None, "logprobs": None}
    if kind == "text":
        choice["text"] = text
    elif kind == "both":
        choice["delta"] = {"content": text, "reasoning_content": draw(_texts)}
    else:
        choice["delta"] = {kind: text}
    if draw(st.integers(0, 9)) == 0:
        choice["finish_reason"] = "stop"
    value: dict[str, Any] = {"id": draw(st.sampled_from(["i", "i", text])), "choices": [choice]}
    if draw(st.integers(0, 9)) == 0:
        value["usage"] = {"prompt_tokens": 1, "completion_tokens": 1}
    written = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.integers(0, 19)) == 0:
        written = written.replace(b'"index"', b'"content":"x","index"')
    return written


@settings(max_examples=300)
@given(st.lists(deltas(), max_size=12), st.data())
def test_the_fast_lane_reads_what_the_full_reading_reads(values: list[bytes], data: st.DataObject) -> None:
    """Comparing the bytes around a text never gives other frames than decoding every event."""
    body = sse(*values, b"[DONE]")
    assert run(data.draw(slicings(body))) == run([body], lane=False)


def test_the_fast_lane_is_taken() -> None:
    """After one event of a kind the next ones are read without decoding them; else speed would be lost unseen."""
    made = decoder()
    made.feed(sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"})))
    assert made._lessons == 1
    made.feed(sse(*(chunk({"content": text}) for text in ('"', "\\", "你", "a" * 99))))
    assert made._lessons == 1
    made.feed(sse(chunk({"reasoning_content": "Hm"}), chunk({"reasoning_content": "m"})))
    assert made._lessons == 2


def test_a_lane_of_empty_thoughts() -> None:
    """What is said in the form of an event that said nothing counts as said: the answer is whole with its mark."""
    thoughts = [chunk({"role": "assistant"}), chunk({"reasoning_content": ""}), chunk({"reasoning_content": "r"})]
    assert run([sse(*thoughts, b"[DONE]")]) == run([sse(*thoughts, b"[DONE]")], lane=False)
    assert run([sse(*thoughts, b"[DONE]")])[1] == ""


def test_texts_that_come_alike_are_one_run() -> None:
    """One read of many such events is one run, also where others stand before and behind; an empty text ends it."""
    made = decoder()
    made.feed(sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"})))
    same = [chunk({"content": text}) for text in ("a", "你", "\u2028", '"')]
    (found,) = made.read(sse(*same))
    assert isinstance(found, Run)
    assert (found.texts, len(found.frames())) == (["a", "你", "\u2028", '"'], 4)
    items = made.read(sse(*same, chunk({"content": ""}), *same, chunk({}, "stop"), b"[DONE]"))
    assert [type(item) for item in items] == [Run, Frame, Run, Frame]
    many = sse(*(chunk({"content": "x" * 500}) for _ in range(300)))
    made = decoder()
    made.feed(sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"})))
    runs = made.read(many)
    assert {type(run) for run in runs} == {Run}
    assert b"".join(run.raw for run in runs) == many
    assert len(runs) < 10


def test_a_text_that_closes_its_chunk_is_no_text() -> None:
    """Bytes that end the string and go on with members of their own are read in full."""
    trap = b'{"choices":[{"index":0,"delta":{"content":"a"},"x":"","delta":{"content":"b"}}]}'
    plain = b'{"choices":[{"index":0,"delta":{"content":"b"}}]}'
    longer = b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop","y":{"content":"b"}}]}'
    body = sse(plain, plain, trap, longer, b"[DONE]")
    assert run([body]) == run([body], lane=False)
    assert Finished("stop") in [event for frame in run([body])[0] for event in frame.events]


BROKEN_TEXTS = [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\n"', b'"\x01"', b'"a"b"', b'"a']


@pytest.mark.parametrize("text", BROKEN_TEXTS)
def test_no_text_that_is_no_json(text: bytes) -> None:
    """Bytes that are no JSON string do not pass because their surroundings are known."""
    one = b'{"choices":[{"index":0,"delta":{"content":%b}}]}'
    frames, code = run([sse(one % b'"first"', one % b'"second"', one % text)])
    assert code == "upstream.nonsense"
    assert [event for frame in frames for event in frame.events][1:] == [Text("first"), Text("second")]


@pytest.mark.parametrize(
    "value",
    [
        {"id": "i"}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"choices": [{"delta": None}]},
        chunk({}), chunk({"content": None}), chunk({"content": ""}), chunk({"content": 5}), chunk({"role": None}),
        chunk({"tool_calls": None}), chunk({"tool_calls": []}), chunk({"tool_calls": "x"}),
        chunk({"tool_calls": [None]}),
        chunk({}, finish=""), chunk({}, usage=None), chunk({}, error=None), chunk({}, error={}), b"", b": note",
    ],
)  # fmt: skip
def test_what_says_nothing(value: Any) -> None:
    """Null, empty and missing members are tolerated and mean nothing."""
    assert events(chunk({"content": "a"}), value, chunk({"content": "b"}, "stop")) == [
        Text("a"), Text("b"), Finished("stop"),
    ]  # fmt: skip


def test_odd_hosts() -> None:
    """Two spellings of the thinking, content in parts, a finish_reason twice, candidates of any number."""
    assert events(chunk({"reasoning": "a"}), chunk({"reasoning_content": "b"}), chunk({}, "stop")) == [
        Reasoning("a"), Reasoning("b"), Finished("stop"),
    ]  # fmt: skip
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]
    assert events(chunk({"content": parts}), chunk({}, "stop")) == [Text("ab"), Finished("stop")]
    assert events(chunk({}, "length"), chunk({"content": "a"}), chunk({}, "stop")) == [Finished("length"), Text("a")]
    assert events(chunk({"content": "a"}, index=-1), chunk({}, "stop", index=None)) == [Text("a"), Finished("stop")]
    assert events(chunk({"content": "a"}), b"[DONE]", chunk({"content": "b"})) == [Text("a")]


def tool(**members: Any) -> dict[str, Any]:
    function = {name: members.pop(name) for name in ("name", "arguments") if name in members}
    return {**members, "function": function}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            [
                tool(index=3, id="a", name="f", arguments=""),
                tool(index=3, arguments="{}"),
                tool(index=7, id="b", name="g", arguments="1"),
            ],
            [(0, "a", "f", ""), (0, None, None, "{}"), (1, "b", "g", "1")],
        ),
        (
            [tool(id="a", name="f", arguments="{"), tool(id="b", name="g", arguments=""), tool(id="a", arguments="}")],
            [(0, "a", "f", "{"), (1, "b", "g", ""), (0, None, None, "}")],
        ),
        (
            [tool(name="f", arguments="{"), tool(arguments="}"), tool(name="f", arguments="[]")],
            [(0, None, "f", "{"), (0, None, None, "}"), (1, None, "f", "[]")],
        ),
        (
            [
                tool(index=0, id="a"),
                tool(index=0, arguments="{"),
                tool(index=0, name="f"),
                tool(index=0, arguments="}"),
            ],
            [(0, "a", "f", "{"), (0, None, None, "}")],
        ),
        ([tool(index=0, id="a", name="f", arguments={"x": "é"})], [(0, "a", "f", '{"x": "é"}')]),
        (
            [tool(index=0, id="a", name="f"), tool(index=0, id="a", name="f", arguments="1")],
            [(0, "a", "f", ""), (0, None, None, "1")],
        ),
        (
            [tool(index=0, id="a", name="f"), tool(index=0, id="b", name="f", arguments="1")],
            [(0, "a", "f", ""), (1, "b", "f", "1")],
        ),
    ],
)
def test_tool_deltas(parts: list[Any], expected: list[Any]) -> None:
    """Keyed by index, else id, else order; id and name once, with the call's first part (PROVIDERS 6)."""
    found = events(*(chunk({"tool_calls": [part]}) for part in parts), chunk({}, "tool_calls"))
    assert found[:-1] == [ToolCall(*row) for row in expected]
    together = events(chunk({"tool_calls": parts}), chunk({}, "tool_calls"))
    assert together == found


GOOD = {"prompt_tokens": 20, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        (GOOD, Usage(20, 0, 5)),
        ({**GOOD, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 12}, Usage(12, 8, 5)),
        ({**GOOD, "prompt_tokens_details": {"cached_tokens": 8}}, Usage(12, 8, 5)),
        ({**GOOD, "prompt_tokens_details": None, "completion_tokens_details": None}, Usage(20, 0, 5)),
        ({**GOOD, "completion_tokens_details": {"reasoning_tokens": 3}}, Usage(20, 0, 5, 3)),
        ({**GOOD, "completion_tokens_details": {"reasoning_tokens": 30}}, Usage(20, 0, 5, 5)),
        ({"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 12, "completion_tokens": 5}, Usage(12, 8, 5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        ({**GOOD, "prompt_tokens": -1}, None),
        ({**GOOD, "completion_tokens": 10**18}, None),
        ({**GOOD, "completion_tokens": 5.0}, None),
        ({**GOOD, "completion_tokens": "5"}, None),
        ({**GOOD, "completion_tokens": True}, None),
        ({**GOOD, "prompt_cache_hit_tokens": 21}, None),
        ({"prompt_tokens": 20}, None),
        ({}, None),
        ([], None),
        (5, None),
    ],
)
def test_usage(value: Any, usage: Usage | None) -> None:
    """Read into four numbers; what cannot be right is none at all (RELIABILITY case 20)."""
    assert read_usage(value) == usage
    if usage is not None:
        assert read_usage(write_usage(usage, thinking=True)) == usage
    metered = [event for event in events(chunk({"content": "a"}, "stop", usage=value)) if type(event) is Metered]
    assert metered == ([Metered(usage)] if usage is not None else [])


@pytest.mark.parametrize(
    ("said", "searches"),
    [
        ({"web_search_requests": 3}, 3),
        ({"web_search_requests": 0}, 0),
        ({"web_search_requests": -1}, 0),
        ({"web_search_requests": True}, 0),
        ({"web_search_requests": 10**9}, 0),
        ({"web_fetch_requests": 2}, 0),
        (None, 0),
        ([3], 0),
    ],
)
def test_searches_that_a_host_counts(said: Any, searches: int) -> None:
    """As Anthropic's API counts them; what cannot be right is no search, and the tokens stand all the same."""
    assert read_usage({**GOOD, "server_tool_use": said}) == Usage(20, 0, 5, searches=searches)


@given(json_data)
def test_any_usage(value: Any) -> None:
    """Whatever stands there, it is a usage of sane numbers or none."""
    usage = read_usage(value)
    assert usage is None or min(usage.prompt_hit, usage.prompt_miss, usage.completion, usage.reasoning) >= 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "upstream.nonsense"),
        (b"\n\n \n", "upstream.nonsense"),
        (b"<html>", "upstream.nonsense"),
        (b"Internal Server Error", "upstream.nonsense"),
        (b"{", "upstream.nonsense"),
        (b"[]", "upstream.nonsense"),
        (b"{}", "upstream.nonsense"),
        (b'{"choices":[]}', "upstream.nonsense"),
        (b'{"choices":5}', "upstream.nonsense"),
        (b'{"choices":[{"message":{"content":"cut', "upstream.nonsense"),
        (b'{"choices":[{"finish_reason":"stop"}]}', "upstream.nonsense"),
        (
            b'{"nobody reads this":"\xff","choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}',
            "upstream.nonsense",
        ),
        (b'data: {"nobody reads \xe4":1,"choices":[{"delta":{"content":"x"}}]}\n\n', "upstream.nonsense"),
        (b'{"error":{"message":"x","code":429}}', "upstream.busy"),
        (b": keep-alive\n\n", "upstream.cut"),
        (b"data: [DONE]\n\n", "upstream.cut"),
        (b"data: {}\n\ndata: [DONE]\n\n", "upstream.cut"),
        (b"data: nonsense\n\n", "upstream.nonsense"),
        (b'data: {"choices":[{"delta":{"content":"a"}', "upstream.cut"),
        (sse(chunk({"content": "a"})), "upstream.cut"),
        (sse(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop")), "upstream.cut"),
        (sse(chunk({"content": "a"}), chunk({}, "stop")), ""),
        (sse(chunk({"content": "a"}), b"[DONE]"), ""),
        (sse(chunk({"content": "a"}), b"x" * (1 << 20), b"[DONE]"), "upstream.too_large"),
    ],
)
def test_ends(body: bytes, code: str) -> None:
    """An answer that broke off, is empty or is nothing we know never passes for one; a whole one does."""
    assert run([body])[1] == code
    assert run([body[at : at + 4096] for at in range(0, len(body), 4096)])[1] == code


def test_a_choice_without_a_delta_is_written_anew() -> None:
    """Its own bytes would leave a client without what it looks for."""
    (frame,) = decoder().feed(b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n')
    assert (frame.raw, frame.events[-1]) == (b"", Finished("stop", 0))


def test_done_ends_the_reading() -> None:
    """`done` tells the relay that it need not wait for the connection's end."""
    made = decoder()
    made.feed(sse(chunk({"content": "a"}, "stop")))
    assert not made.done
    made.feed(b"data: [DONE]\n\n" + sse(chunk({"content": "more"})))
    assert made.done
    assert made.feed(b"data: anything\n\n") == []
    assert made.finish() == []


def test_a_new_pass_begins_anew() -> None:
    """After `start` another body may have another form; what was begun stays begun."""
    made = decoder()
    made.start(200, {})
    made.feed(sse(chunk({"content": "a"}), b"[DONE]"))
    made.start(200, {})
    assert made.feed(sse(chunk({"content": "b"}, "stop")))[0].events == (Text("b"), Finished("stop"))


_odd = st.sampled_from(
    [None, "", "x", 0, 5, -1, 5.0, True, [], {}, [None], {"cached_tokens": 3}, 10**9, "stop", "abort"]
)
_usual = st.fixed_dictionaries(
    {"prompt_tokens": st.sampled_from([0, 5, 20]) | _odd, "completion_tokens": st.sampled_from([0, 5]) | _odd},
    optional={
        "prompt_cache_hit_tokens": st.sampled_from([None, 5, 21]) | _odd,
        "prompt_cache_miss_tokens": st.just(7) | _odd,
        "prompt_tokens_details": st.just({"cached_tokens": 4}) | st.fixed_dictionaries({"cached_tokens": _odd}) | _odd,
        "completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": st.just(3) | _odd}) | _odd,
        "reasoning_tokens": st.just(2) | _odd,
        "server_tool_use": st.none() | st.just({"web_search_requests": 1}),
    },
)


@st.composite
def wholes(draw: st.DrawFn) -> bytes:
    """Whole answers of the usual form, but for one member or two."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.just("a 你") | _texts)}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    value: dict[str, Any] = {"id": "i", "created": 1, "model": "m", "choices": [choice]}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(_texts)
    if draw(st.integers(0, 3)):
        value["usage"] = draw(st.just(GOOD) | _usual)
    names = (
        [(message, name) for name in ("content", "reasoning_content", "reasoning", "tool_calls", "search_results")]
        + [(choice, name) for name in ("index", "message", "delta", "text", "logprobs", "finish_reason")]
        + [(value, name) for name in ("id", "created", "model", "system_fingerprint", "usage", "error", "choices")]
    )
    for _ in range(draw(st.integers(0, 2))):
        inside, name = draw(st.sampled_from(names))
        inside[name] = draw(_odd)
    written = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
    return written[: draw(st.integers(1, len(written)))] if draw(st.integers(0, 9)) == 0 else written


def whole(body: bytes, *, plain: bool) -> tuple[list[Frame], str]:
    """What is read of a whole answer, by the records of the usual form or without them."""
    made = decoder()
    made._started = not plain
    frames: list[Frame] = []
    try:
        made.feed(body)
        frames = made.finish()
    except Problem as problem:
        return [], f"{problem.code} {problem.detail}"
    failed = [event.problem.code for frame in frames for event in frame.events if type(event) is Failed]
    return [frame for frame in frames if not _fails(frame)], failed[0] if failed else ""


@settings(max_examples=1000)
@given(wholes())
def test_a_usual_answer_is_read_as_any_other(body: bytes) -> None:
    """The quick reading of whole answers gives what the tolerant one gives, its problems too, or leaves it to that."""
    assert whole(body, plain=True) == whole(body, plain=False)


def test_the_quick_reading_of_whole_answers_is_taken() -> None:
    """What DeepSeek's service answers, and what engines add to it that means nothing; else speed would be lost."""
    message: dict[str, Any] = {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    body = json.dumps({"id": "i", "model": "m", "created": 1, "choices": [choice], "usage": GOOD}).encode()
    assert read_plain(body) == (
        Started("i", "m", 1), Reasoning("r"), Text("a"), Finished("stop"), Metered(Usage(20, 0, 5)),
    )  # fmt: skip


def test_a_whole_answer_is_bounded() -> None:
    """A body without end is refused at the bound."""
    made = decoder()
    made.feed(b"{")
    piece = b" " * (8 << 20)
    for _ in range(BODY_BYTES_MAX // len(piece) - 1):
        assert made.feed(piece) == []
    with pytest.raises(Problem, match=r"upstream\.too_large"):
        made.feed(piece)


@given(st.binary(max_size=200), st.data())
def test_any_bytes(body: bytes, data: st.DataObject) -> None:
    """Any bytes in any slicing: the same frames and the same end, and no exception but Problem."""
    assert run(data.draw(slicings(body))) == run([body])


@settings(max_examples=300)
@given(
    st.lists(json_data | st.builds(chunk, json_data, json_data, json_data, usage=json_data), max_size=5), st.booleans()
)
def test_any_json(values: list[Any], whole: bool) -> None:
    """Any JSON where chunks are expected: frames or a Problem of the host's."""
    body = json.dumps(values[0]).encode() if whole and values else sse(*values, b"[DONE]")
    code = run([body])[1]
    assert code == "" or code.startswith(("upstream.", "caller.too_long"))


def test_a_forced_call_ends_as_a_call() -> None:
    """Hosts that say `stop` where the tool was named are read as `tool_calls`: programs look for it."""
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    assert events(chunk(call), chunk({}, "stop"))[-1] == Finished("tool_calls")
    assert events(chunk(call), chunk({}, "length"))[-1] == Finished("length")


def test_an_aborted_answer_is_none() -> None:
    """An engine that gave up: before it said anything another host may answer, after it the answer broke off."""
    assert run([sse(chunk({"role": "assistant", "content": ""}), chunk({}, "abort"))])[1] == "upstream.busy"
    frames, code = run([sse(chunk({"content": "a"}), chunk({}, "abort"), b"[DONE]")])
    assert [event for frame in frames for event in frame.events][1:] == [Text("a")]
    assert code == "upstream.cut"
