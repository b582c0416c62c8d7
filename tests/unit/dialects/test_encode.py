"""The encoder where transcripts do not reach: the other form of usage, streams made whole, ends without an end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import DIALECTS
from moonpool.dialects.base import Identity
from moonpool.dialects.runs import Run, lane
from moonpool.words import Call, Event, Finished, Found, Frame, Metered, Reasoning, Started, Text, ToolCall, Usage

CLIENT = DIALECTS["deepseek"]
OURS = Identity("ours", 7, "asked-for", "fp_ours")
USAGE = Usage(12, 8, 5)
APART = {"usage": "chunk"}


def call(**fields: Any) -> Call:
    body = {"model": "asked-for", "messages": [{"role": "user", "content": "x"}], **fields}
    return CLIENT.parse_call("chat", json.dumps(body).encode(), "id")


STREAM = call(stream=True)
STREAM_USAGE = call(stream=True, stream_options={"include_usage": True})
WHOLE = call()


LANES = [
    (b'{"id":"h","model":"MODEL","choices":[{"index":0,"delta":{"content":', b"}}]}", True),
    (b'{"id":"h","model":"MODEL","choices":[{"index":0,"delta":{"content":', b'}}],"usage":null}', True),
    (b'{"id":"h","choices":[{"index":0,"delta":{"content":', b'}}],"model":"MODEL"}', True),
    (b'{"id":"h","choices":[{"index":0,"delta":{"content":', b"}}]}", True),
    (b'{"id":"h","model":"MODEL","choices":[{"index":0,"delta":{"text":', b"}}]}", False),
]
"""What may stand around the texts of a run, and whether it can be handed on."""


def encode(
    asked: Call, frames: Sequence[Frame | Run], *, verbatim: bool = False, switches: dict[str, str] | None = None
) -> bytes:
    encoder = CLIENT.encoder(asked, OURS, verbatim, switches or {})
    return b"".join([encoder.feed(frame) for frame in frames] + [encoder.finish()])


def built(asked: Call, *events: Event, **more: Any) -> bytes:
    return encode(asked, [Frame(b"", (event,)) for event in events], **more)


def chunks(raw: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    events = raw.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def deltas(raw: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(raw)]


def test_usage_apart() -> None:
    """The switch gives OpenAI's form to those who asked for usage: null everywhere, then a chunk without choices."""
    events = [Started(), Text("a"), Finished("stop"), Metered(USAGE)]
    found = chunks(built(STREAM_USAGE, *events, switches=APART))
    assert [chunk["usage"] for chunk in found[:-1]] == [None] * (len(found) - 1)
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 25)
    found = chunks(built(STREAM, *events, switches=APART))
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["usage"]["total_tokens"] == 25
    assert all("usage" not in chunk for chunk in found[:-1])


def test_usage_apart_from_handed_on_bytes() -> None:
    """The same switch where the host's own bytes go on, whichever form the host has."""

    def own(usage: Any, *choices: Any) -> bytes:
        return b"data: " + json.dumps({"id": "h", "choices": choices, "usage": usage, "x": 1}).encode() + b"\n\n"

    theirs = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    text = Frame(own(None, {"index": 0, "delta": {"content": "a"}}), (Started("h"), Text("a")))
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    on_finish = [text, Frame(own(theirs, last), (Finished("stop"), Metered(Usage(20, 0, 5))))]
    behind = [text, Frame(own(None, last), (Finished("stop"),)), Frame(own(theirs), (Metered(Usage(20, 0, 5)),))]
    for frames in (on_finish, behind):
        found = chunks(encode(STREAM_USAGE, frames, verbatim=True, switches=APART))
        assert [chunk["usage"] is None for chunk in found] == [True, True, False]
        assert found[-1]["choices"] == []
        assert found[1]["x"] == 1
        found = chunks(encode(STREAM_USAGE, frames, verbatim=True))
        assert [chunk["usage"] is None for chunk in found] == [True, False]
        assert found[-1]["usage"]["total_tokens"] == 25
        assert found[-1]["x"] == 1


def test_names() -> None:
    """Built answers carry our names, and who spoke: our word for it first, else the host's."""
    started = Started("theirs", "their-model", 1, "fp_theirs")
    head = chunks(built(STREAM, started, Text("a"), Finished("stop")))[0]
    assert (head["id"], head["created"], head["model"], head["system_fingerprint"]) == (
        "ours",
        7,
        "asked-for",
        "fp_ours",
    )
    silent = msgspec.structs.replace(OURS, fingerprint=None)
    encoder = CLIENT.encoder(WHOLE, silent, False, {})
    encoder.feed(Frame(b"", (started, Text("a"), Finished("stop"))))
    assert json.loads(encoder.finish())["system_fingerprint"] == "fp_theirs"


def _own(model: str, blank: str = "", **choice: Any) -> bytes:
    """A host's own chunk with a member that nobody knows; `blank` stands between its name's key and value."""
    head = f'{{"id":"h","model":{blank}{json.dumps(model)},"x":1,"choices":['
    return f"data: {head}{json.dumps({'index': 0, **choice})}]}}\n\n".encode()


def _their_stream(model: str, blank: str = "") -> list[Frame]:
    """Three chunks of a host that calls the model `model`, whose text speaks of it too."""
    says = f'"model":"{model}"'
    return [
        Frame(_own(model, blank, delta={"content": says}), (Started("h", model), Text(says))),
        Frame(_own(model, blank, delta={"content": says}), (Text(says),)),
        Frame(_own(model, blank, delta={}, finish_reason="stop"), (Finished("stop"), Metered(USAGE))),
    ]


@pytest.mark.parametrize("blank", ["", " "])
def test_the_name_that_was_asked_for(blank: str) -> None:
    """A host's own bytes go on under the client's name for the model, and nothing else in them changes."""
    raw = encode(STREAM, _their_stream("their-model", blank), verbatim=True)
    found = chunks(raw)
    assert {(chunk["id"], chunk["model"], chunk["x"]) for chunk in found} == {("h", "asked-for", 1)}
    assert deltas(raw)[1] == {"content": '"model":"their-model"'}
    body = b'{"id":"h","model":%b"their-model","x":1,"choices":[]}' % blank.encode()
    assert encode(WHOLE, [Frame(body, (Started("h", "their-model"), Text("a")))], verbatim=True) == body.replace(
        b"their-model", b"asked-for"
    )


def test_frames_that_do_not_begin_alike() -> None:
    """The name is found wherever it stands, in each frame anew: behind another time, or behind the text."""
    name = b'"model":"their-model"'
    tail = b'"choices":[{"index":0,"delta":{"content":"a"}}]'
    heads = [b'{"created":%d,' % at + name + b"," + tail + b"}" for at in range(20)]
    raws = [*heads, b"{" + tail + b"," + name + b"}", heads[0], heads[19]]
    frames = [Frame(b"data: " + raw + b"\n\n", (Text("a"),)) for raw in raws]
    frames[0] = Frame(frames[0].raw, (Started("h", "their-model"), Text("a")))
    raw = encode(STREAM, [*frames, _their_stream("their-model")[2]], verbatim=True)
    expected = b"".join(frame.raw for frame in frames).replace(b"their-model", b"asked-for")
    assert raw.startswith(expected)


def test_one_name_costs_nothing() -> None:
    """Where host and client call the model alike a frame goes on as the very bytes that came."""
    encoder = CLIENT.encoder(STREAM, OURS, True, {})
    frames = _their_stream("asked-for")
    encoder.feed(frames[0])
    assert encoder.feed(frames[1]) is frames[1].raw
    body = b'{"model":"asked-for"}'
    whole = CLIENT.encoder(WHOLE, OURS, True, {})
    whole.feed(Frame(body, (Started("h", "asked-for"), Text("a"))))
    assert whole.finish() is body


def test_a_name_that_stands_elsewhere() -> None:
    """Where the host's name is not found as it should stand, the bytes are built: our name, and no unknown members."""
    for frames in (
        _their_stream("their-model", "  "),
        [_their_stream("their-model")[0], *_their_stream("m", "  ")[1:]],
    ):
        found = chunks(encode(STREAM, frames, verbatim=True))
        assert {chunk["model"] for chunk in found} == {"asked-for"}
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found).count("model") >= 2
        assert (found[-1]["choices"][0]["finish_reason"], found[-1]["usage"]["total_tokens"]) == ("stop", 25)
    whole = Frame(b'{"model" :"their-model","x":1}', (Started("h", "their-model"), Text("a"), Finished("stop")))
    value = json.loads(encode(WHOLE, [whole], verbatim=True))
    assert (value["model"], value["choices"][0]["message"]["content"]) == ("asked-for", "a")
    assert "x" not in value


@pytest.mark.parametrize("asked", [STREAM, STREAM_USAGE, WHOLE])
@pytest.mark.parametrize("model", ["asked-for", "their-model"])
@pytest.mark.parametrize("verbatim", [True, False])
@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from(LANES))
def test_a_run_is_written_as_its_frames(
    asked: Call, model: str, verbatim: bool, texts: list[str], around: tuple[bytes, bytes, bool]
) -> None:
    """Many texts at once give the bytes that they give one by one: names, usage and line ends are changed alike."""
    before, after, as_is = around
    before, after = before.replace(b"MODEL", model.encode()), after.replace(b"MODEL", model.encode())
    of = lane(before, after, Text, 0, as_is)
    raw = b"".join(b"data: " + before + msgspec.json.encode(text) + after + b"\n\n" for text in texts)
    run = Run(of, texts, raw)
    assert [frame.events for frame in run.frames()] == [(Text(text),) for text in texts]
    first, _, ending = _their_stream(model)
    together = encode(asked, [first, run, run, ending, run], verbatim=verbatim)
    assert together == encode(asked, [first, *run.frames() * 2, ending, *run.frames()], verbatim=verbatim)


@pytest.mark.parametrize("verbatim", [True, False])
def test_a_searched_answer_says_so_in_its_name(verbatim: bool) -> None:
    """CONTRACT 4: the name ends in -aisearch when the host's does, under whichever name the host serves it."""
    found = chunks(encode(STREAM, _their_stream("their-model-0324-aisearch"), verbatim=verbatim))
    assert {chunk["model"] for chunk in found} == {"asked-for-aisearch"}


RESULT = {"index": 1, "url": "https://example.com/", "name": "Example", "published_time": 1700000000}


@pytest.mark.parametrize("events", [(Found((RESULT,)), Reasoning("r")), (Reasoning("r"), Found((RESULT,)))])
def test_search_results(events: tuple[Event, ...]) -> None:
    """In a stream a delta of their own behind the role, in a whole answer a member of the message (CONTRACT 4)."""
    said = (Started(), *events, Text("a"), Finished("stop"))
    found = deltas(built(STREAM, *said))
    assert found[0]["role"] == "assistant"
    assert [delta["search_results"] for delta in found if "search_results" in delta] == [[RESULT]]
    message = json.loads(built(WHOLE, *said))["choices"][0]["message"]
    assert message == {
        "role": "assistant", "content": "a", "reasoning_content": "r", "search_results": [RESULT],
    }  # fmt: skip


def test_search_results_before_handed_on_bytes() -> None:
    """Results that had to be built are not lost when the host's own bytes go on behind them."""
    frames = [Frame(b"", (Started("h", "asked-for"), Found((RESULT,)))), *_their_stream("asked-for")[1:]]
    found = deltas(encode(STREAM, frames, verbatim=True))
    assert found[0]["role"] == "assistant"
    assert found[1] == {"search_results": [RESULT]}


def test_the_form_waits_for_what_comes_first() -> None:
    """Whether an answer thinks is known with its first words, in whatever frames they come."""
    assert deltas(built(STREAM, Started(), Text("a"), Finished("stop")))[0] == {"role": "assistant", "content": ""}
    thinking = deltas(built(STREAM, Started(), Reasoning("r"), Text("a"), Finished("stop")))
    assert thinking == [
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {"content": None, "reasoning_content": "r"},
        {"content": "a", "reasoning_content": None},
        {"content": "", "reasoning_content": None},
    ]
    assert deltas(built(STREAM, Finished("stop"))) == [{"role": "assistant", "content": ""}, {"content": ""}]


def test_tool_calls_open_before_their_arguments() -> None:
    """A call that comes in one piece is opened and filled in two; one without an id gets a lasting one."""
    events = (Started(), ToolCall(0, None, "f", '{"a": 1}'), Finished("tool_calls"))
    found = deltas(built(STREAM, *events))
    opened, filled = found[1]["tool_calls"][0], found[2]["tool_calls"][0]
    assert opened["function"] == {"name": "f", "arguments": ""}
    assert opened["id"].startswith("call_00_")
    assert filled == {"index": 0, "function": {"arguments": '{"a": 1}'}}
    whole = json.loads(built(WHOLE, *events))["choices"][0]["message"]
    assert whole["content"] == ""
    assert whole["tool_calls"][0]["id"] == opened["id"]


def test_done_without_a_reason() -> None:
    """Clients wait for a finish_reason, so there always is one."""
    assert chunks(built(STREAM, Started(), Text("a"), Metered(USAGE)))[-1]["choices"][0]["finish_reason"] == "stop"
    assert json.loads(built(WHOLE, Started(), Text("a")))["choices"][0]["finish_reason"] == "stop"
    assert json.loads(built(WHOLE, ToolCall(0, "c", "f", "{}")))["choices"][0]["finish_reason"] == "tool_calls"


def test_comments_and_end_marks_of_a_host_are_not_handed_on() -> None:
    """We send our own, once (PROVIDERS 5.3 no. 4)."""
    frames = [Frame(b": keep-alive\n\n"), Frame(b"data: [DONE]\n\n")]
    text = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    raw = encode(STREAM, [*frames, Frame(text, (Started(), Text("a"), Finished("stop"))), *frames], verbatim=True)
    assert raw == text + b"data: [DONE]\n\n"


def test_usage_found_out_afterwards() -> None:
    """A frame with nothing but usage, from whoever counted, reaches the last chunk and the whole body."""
    body = b'{"id":"h","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"x":1}'
    frames = [Frame(body, (Started("h"), Text("a"), Finished("stop"))), Frame(b"", (Metered(USAGE),))]
    value = json.loads(encode(WHOLE, frames, verbatim=True))
    assert (value["x"], value["usage"]["total_tokens"]) == (1, 25)
    assert encode(WHOLE, frames[:1], verbatim=True) == body
    assert chunks(encode(STREAM, frames, verbatim=True))[-1]["usage"]["total_tokens"] == 25


_events = st.lists(
    st.one_of(
        st.builds(Text, st.text(max_size=5), st.sampled_from([0, 0, 1])),
        st.builds(Reasoning, st.text(max_size=5), st.sampled_from([0, 0, 1])),
        st.builds(ToolCall, st.just(0), st.just("c"), st.just("f"), st.text(max_size=5)),
        st.just(Metered(USAGE)),
    ),
    max_size=8,
)


@given(_events, st.booleans(), st.booleans())
def test_streamed_and_whole_say_the_same(events: list[Event], include: bool, apart: bool) -> None:
    """Joined, the pieces of a stream are the whole answer; usage stands in one chunk; every event is one line."""
    seen = {event.index for event in events if not isinstance(event, Metered | Started)}
    events = [Started("h"), *events, *(Finished("stop", index) for index in sorted(seen or {0})), Metered(USAGE)]
    streamed = built(STREAM_USAGE if include else STREAM, *events, switches=APART if apart else {})
    assert len(streamed.decode().splitlines()) == streamed.count(b"\n")
    found = chunks(streamed)
    assert sum(chunk.get("usage") is not None for chunk in found) == 1
    assert found[-1]["usage"]["total_tokens"] == 25
    joined: dict[int, tuple[str, str, str]] = {}
    for chunk in found:
        for choice in chunk["choices"]:
            text, thought, arguments = joined.get(choice["index"], ("", "", ""))
            delta = choice["delta"]
            for made in delta.get("tool_calls") or ():
                arguments += made["function"]["arguments"]
            text += delta.get("content") or ""
            joined[choice["index"]] = (text, thought + (delta.get("reasoning_content") or ""), arguments)
    whole = json.loads(built(WHOLE, *events))
    assert whole["usage"]["total_tokens"] == 25
    for choice in whole["choices"]:
        message = choice["message"]
        arguments = "".join(made["function"]["arguments"] for made in message.get("tool_calls", ()))
        assert joined[choice["index"]] == (message["content"], message.get("reasoning_content", ""), arguments)
    assert len(joined) == len(whole["choices"])


@pytest.mark.parametrize("asked", [STREAM, WHOLE])
def test_log_probabilities_of_pieces_are_joined(asked: Call) -> None:
    """They ride on their text in a stream; in a whole answer the lists are one after the other."""
    one = {"content": [{"token": "a", "logprob": -1.0}]}
    two = {"content": [{"token": "b", "logprob": -9999.0}], "reasoning_content": []}
    raw = built(asked, Started(), Text("a", 0, one), Text("b", 0, two), Finished("stop"))
    if asked.stream:
        assert [chunk["choices"][0]["logprobs"] for chunk in chunks(raw)] == [None, one, two, None]
    else:
        assert json.loads(raw)["choices"][0]["logprobs"] == {
            "content": [*one["content"], *two["content"]], "reasoning_content": [],
        }  # fmt: skip
