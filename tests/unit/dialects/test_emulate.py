"""Emulated functions and JSON: what a host is told; what of its text is a call, text, a second try, or a failure."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from moonpool.dialects import DIALECTS
from moonpool.dialects.emulate import TEXT_MAX, bytes_max, dialect_for
from moonpool.dialects.json_scan import Scan
from moonpool.words import (
    Call,
    Failed,
    Finished,
    Host,
    Metered,
    Outbound,
    Reasoning,
    Started,
    Target,
    Text,
    ToolCall,
    Usage,
)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}
JSON = {"type": "json_object"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "p", "schema": CITY}}
USER = {"role": "user", "content": "How is Paris?"}
PARIS = '{"city": "Paris"}'
GOOD = f'<tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n</tool_call>'
TARGET = Target(Host("h", "openai"), "m")
BEGINS = Target(Host("h", "openai"), "m", can=frozenset({"prefix"}))
TOLD = frozenset({"tools"})
AS_JSON = frozenset({"json_object"})


def asked(stream: bool = True, emulated: frozenset[str] = TOLD, thinking: bool = False, **fields: Any) -> Call:
    body = {"model": "m", "messages": [USER], "stream": stream, **fields}
    if "tools" in emulated:
        body.setdefault("tools", TOOLS)
    else:
        body.setdefault("response_format", JSON)
    call = DIALECTS["openai"].parse_call("chat", json.dumps(body).encode(), "id")
    return replace(call, needs=call.needs - emulated, emulated=emulated, thinking=thinking)


def usage(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}


def body(pieces: list[str], *, thought: str = "", reason: str = "stop", stream: bool = True) -> bytes:
    """What a host answers."""
    if not stream:
        message = {"role": "assistant", "content": "".join(pieces), "reasoning_content": thought or None}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage(7)}).encode()
    deltas: list[dict[str, Any]] = [{"reasoning_content": thought}] if thought else []
    deltas += [{"content": piece} for piece in pieces]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage(7)})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


class Answer:
    """What a client is told, and what a host was asked."""

    def __init__(self, call: Call, target: Target, *bodies: bytes, cuts: tuple[int, ...] = ()) -> None:
        dialect = dialect_for(DIALECTS["openai"], call)
        self.asked: list[Outbound] = [dialect.render_call(call, target)]
        self.events: list[Any] = []
        decoder = dialect.decoder(call, target)
        for at, raw in enumerate(bodies):
            decoder.start(200, {})
            edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
            for start, end in pairwise(edges):
                self._take(decoder.feed(raw[start:end]))
            self._take(decoder.finish())
            if decoder.next is None:
                assert at == len(bodies) - 1, "not as many passes as there are answers"
                break
            assert not decoder.done
            self.asked.append(decoder.next)
        self.more = decoder.next is not None

    def _take(self, frames: list[Any]) -> None:
        for frame in frames:
            assert frame.raw == b""
            self.events += frame.events

    def joined(self, kind: type) -> str:
        return "".join(event.text for event in self.events if type(event) is kind)

    @property
    def calls(self) -> list[tuple[str, str]]:
        found: list[list[str]] = []
        for part in (event for event in self.events if type(event) is ToolCall):
            if part.name is not None:
                assert part.slot == len(found)
                assert part.id
                found.append([part.name, ""])
            found[part.slot][1] += part.arguments
        return [(name, arguments) for name, arguments in found]

    @property
    def ends(self) -> list[str]:
        """How it ended: one reason, or one problem's code."""
        return [event.reason for event in self.events if type(event) is Finished] + [
            event.problem.code for event in self.events if type(event) is Failed
        ]

    @property
    def told(self) -> list[Any]:
        return [event.problem.code if type(event) is Failed else event for event in self.events]

    @property
    def usage(self) -> Usage:
        (metered,) = [event for event in self.events if type(event) is Metered]
        assert isinstance(metered.usage, Usage)
        return metered.usage

    def said(self) -> tuple[str, str, list[tuple[str, str]], list[str]]:
        return self.joined(Reasoning), self.joined(Text), self.calls, self.ends

    def sent(self, at: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.asked[at].body))


WEATHER = [("weather", PARIS)]
READ = [
    # what the model wrote; the text; the calls
    (GOOD, "", WEATHER),
    ("Let me see.\n\n" + GOOD, "Let me see.", WEATHER),
    ("It is fine < 3 <tool", "It is fine < 3 <tool", []),
    ("Sunny.\n", "Sunny.\n", []),
    (GOOD + "\n" + GOOD.replace("Paris", "Rome"), "", [*WEATHER, ("weather", '{"city": "Rome"}')]),
    (GOOD + "\n<tool_response>made up</tool_response>\n" + GOOD, "", WEATHER),
    (GOOD + "The weather is", "", WEATHER),
    (GOOD.removesuffix("\n</tool_call>"), "", WEATHER),
    (GOOD.replace("}}", "}"), "", WEATHER),  # a last brace that was forgotten
    (GOOD.replace("<tool_call>\n", "<tool_call>```json\n").replace("\n</", "\n```</"), "", WEATHER),
    (GOOD.replace("arguments", "parameters"), "", WEATHER),
    (f'<tool_call>{{"arguments": {PARIS}, "name": "weather"}}</tool_call>', "", WEATHER),
    (f'<tool_call>{{"name": "weather", "arguments": {json.dumps(PARIS)}}}</tool_call>', "", WEATHER),
    ('<tool_call>{"name": "now"}</tool_call>', "", [("now", "{}")]),
    ('<tool_call>{"name": "now", "arguments": null}</tool_call>', "", [("now", "{}")]),
    ('<tool_call>{"name":"weather","arguments":{"city":"a\nb"}}</tool_call>', "", [("weather", '{"city":"a\\nb"}')]),
    ('<tool_call>{name: "weather", arguments: {city : "Paris"}}', "", [("weather", '{"city" : "Paris"}')]),
    (f'{{"name": "weather", "arguments": {PARIS}}}', "", WEATHER),
    (f'```json\n{{"name": "weather", "arguments": {PARIS}}}\n```', "", WEATHER),
    ('{"name": "else", "arguments": {}}', '{"name": "else", "arguments": {}}', []),
    ('{"city": "Paris"}', '{"city": "Paris"}', []),
    ("```python\nprint(1)\n```", "```python\nprint(1)\n```", []),
]


@pytest.mark.parametrize(("text", "answer", "calls"), READ)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_is_read(text: str, answer: str, calls: list[tuple[str, str]], stream: bool) -> None:
    """The agreed form, and the ways in which models miss it a little, become calls; what is no call stays text."""
    raw = body(list(text) if stream else [text], thought="Hm.", stream=stream)
    got = Answer(asked(stream), TARGET, raw)
    assert got.said() == ("Hm.", answer, calls, ["tool_calls" if calls else "stop"])
    assert got.usage == Usage(10, 0, 7)
    assert type(got.events[0]) is Started


OTHER = GOOD.replace("weather", "forecast")
BROKEN = GOOD.replace('"Paris"', "Paris")
SHORT = GOOD.replace(PARIS, '{"town": "Paris"}')
WRONG = [
    # what the model wrote first; what it is told; whether that can still be mended in a stream
    (OTHER, "there is no function 'forecast', only weather, now", True),
    ("Well.\n" + OTHER, "there is no function 'forecast', only weather, now", True),
    (BROKEN, "the call is no valid JSON", False),
    (SHORT, "the call of weather lacks city", False),
    (GOOD[:40], "the call breaks off before its end", True),
    (GOOD[:50], "the call breaks off before its end", False),
    ("<tool_call>weather(Paris)</tool_call>", "behind <tool_call> stands no JSON object", True),
    ('<tool_call>{"arguments": {}}</tool_call>', "the call has no name", True),
    ('<tool_call>{"name": "weather", "arguments": [1]}</tool_call>', "the call is no valid JSON", True),
]


@pytest.mark.parametrize(("text", "wrong", "mended"), WRONG)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_is_wrong_is_asked_once_more(text: str, wrong: str, mended: bool, stream: bool) -> None:
    """The model hears what was wrong, once; where some of it was streamed already, or after a second miss, it fails."""
    first, second = body([text], stream=stream), body([GOOD], thought="Oh.", stream=stream)
    if stream and not mended:
        got = Answer(asked(stream), TARGET, first)
        assert got.ends == ["upstream.nonsense"]
        assert not got.more
        return
    got = Answer(asked(stream), TARGET, first, second)
    assert got.calls == WEATHER
    assert got.ends == ["tool_calls"]
    assert got.usage == Usage(20, 0, 14)
    before, after = got.sent()["messages"], got.sent(1)["messages"]
    assert after[: len(before)] == before
    assert [message["role"] for message in after[len(before) :]] == ["assistant", "user"]
    assert after[-2]["content"] == text
    assert wrong in after[-1]["content"]
    got = Answer(asked(stream), TARGET, first, body([OTHER], stream=stream))
    assert got.ends == ["upstream.nonsense"]
    assert not got.calls
    assert not got.more


def test_calls_that_are_out_are_not_made_twice() -> None:
    """A second call that is wrong is asked again without the first one, which the client has."""
    first = body([GOOD + "\n" + OTHER])
    mended = GOOD.replace("Paris", "Rome")
    got = Answer(asked(), TARGET, first, body([GOOD + "\n" + mended]))
    assert got.calls == [*WEATHER, ("weather", '{"city": "Rome"}')]
    assert got.ends == ["tool_calls"]
    assert "do not repeat" in got.sent(1)["messages"][-1]["content"]


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_forced_call_is_made(choice: Any, stream: bool) -> None:
    """Text is not handed out, and no call at all is wrong."""
    call = asked(stream, tool_choice=choice)
    got = Answer(call, TARGET, body(["I think it is sunny."], stream=stream), body(["Sure: " + GOOD], stream=stream))
    assert got.said() == ("", "", WEATHER, ["tool_calls"])
    assert "<tool_call>" in got.sent()["messages"][-1]["content"]
    got = Answer(call, TARGET, *[body(["No."], stream=stream)] * 2)
    assert got.said() == ("", "", [], ["upstream.nonsense"])


def test_only_the_named_function_is_called() -> None:
    """Another function than the named one is wrong, and all are told."""
    got = Answer(asked(tool_choice=NAMED), TARGET, body(['<tool_call>{"name": "now"}</tool_call>']), body([GOOD]))
    assert got.calls == WEATHER
    assert "only weather." in got.sent(1)["messages"][-1]["content"]
    assert '"now"' in got.sent()["messages"][0]["content"]


def test_one_call_where_one_is_wanted() -> None:
    """`parallel_tool_calls: false`: the first call counts."""
    two = body([GOOD, "\n", GOOD.replace("Paris", "Rome")])
    assert Answer(asked(parallel_tool_calls=False), TARGET, two).calls == WEATHER
    assert len(Answer(asked(), TARGET, two).calls) == 2


OBJECT = '{"city": "Paris", "n": [1, -2.5e3, {"a": null}], "é": "\\u00e9}"}'
OBJECTS = [
    (OBJECT, OBJECT),
    (f"Here it is:\n```json\n{OBJECT}\n```\nBye {{}}", OBJECT),
    (f"A set {{x}} and {{1}}: {OBJECT}", OBJECT),
    ('{"city": "a\nb"}', '{"city": "a\\nb"}'),
]


@pytest.mark.parametrize(("text", "found"), OBJECTS)
@pytest.mark.parametrize("form", [JSON, SCHEMA], ids=["object", "schema"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_one_object_is_left(text: str, found: str, form: Any, stream: bool) -> None:
    """Prose and fences around the object go, nothing else does."""
    raw = body(list(text) if stream else [text], thought="Hm.", stream=stream)
    got = Answer(asked(stream, AS_JSON, response_format=form), TARGET, raw)
    assert got.said() == ("Hm.", found, [], ["stop"])
    assert json.loads(found)


NO_OBJECTS = [
    ("Paris.", "there is no JSON object in it", True),
    ("[1, 2]", "there is no JSON object in it", True),
    ("{oops}", "there is no JSON object in it", True),
    ('{"city": Paris}', "", False),
    ('{"city": "Par', "the object breaks off before its end", False),
    ('{"town": 1}', "the object lacks city", False),
]


@pytest.mark.parametrize(("text", "wrong", "mended"), NO_OBJECTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_no_object_is_asked_once_more(text: str, wrong: str, mended: bool, stream: bool) -> None:
    """As with calls: told once what is wrong, unless the wrong was streamed; then it fails."""
    call = asked(stream, AS_JSON, response_format=SCHEMA)
    first = body([text], stream=stream)
    if stream and not mended:
        assert Answer(call, TARGET, first).ends == ["upstream.nonsense"]
        return
    got = Answer(call, TARGET, first, body([PARIS], stream=stream))
    assert got.said() == ("", PARIS, [], ["stop"])
    assert wrong in got.sent(1)["messages"][-1]["content"]
    assert Answer(call, TARGET, first, first).ends == ["upstream.nonsense"]


def test_what_is_cut_is_no_mistake() -> None:
    """An answer at its limit ends as `length`, with what there is of it; a reviewed one with what the review says."""
    got = Answer(asked(), TARGET, body([GOOD[:-20]], reason="length"))
    assert (got.calls, got.ends) == ([("weather", '{"city": "P')], ["length"])
    got = Answer(asked(tool_choice="required"), TARGET, body(["Well"], reason="length"))
    assert got.said() == ("", "", [], ["length"])
    got = Answer(asked(False, AS_JSON), TARGET, body(['{"a": "b'], reason="length", stream=False))
    assert got.said() == ("", '{"a": "b', [], ["length"])
    for call in (asked(tool_choice="required"), asked(emulated=AS_JSON)):
        got = Answer(call, TARGET, body(["Not that."], reason="content_filter"))
        assert got.said() == ("", "Not that.", [], ["content_filter"])


def test_both_at_once() -> None:
    """Functions and JSON mode: calls, or else one object."""
    both = asked(emulated=TOLD | AS_JSON, response_format=JSON)
    assert Answer(both, TARGET, body(["So: ", GOOD])).said() == ("", "", WEATHER, ["tool_calls"])
    assert Answer(both, TARGET, body(["So: ", PARIS])).said() == ("", PARIS, [], ["stop"])
    got = Answer(both, TARGET, body(["No."]), body([PARIS]))
    assert got.said() == ("", PARIS, [], ["stop"])


def test_usage_of_a_silent_host_is_an_estimate() -> None:
    """Where one pass has no usage the sum is no host's word."""
    silent = body([OTHER]).replace(b'"usage"', b'"nothing"')
    assert Answer(asked(), TARGET, silent, body([GOOD])).usage == Usage(10, 0, 7, estimated=True)
    got = Answer(asked(), TARGET, body([GOOD]).replace(b'"usage"', b'"nothing"'))
    assert not [event for event in got.events if type(event) is Metered]


def test_an_endless_answer_fails() -> None:
    """More than can be read one by one is no answer; and all prompts are within the bound of the hold."""
    got = Answer(asked(), TARGET, body(["x" * (TEXT_MAX // 2)] * 3))
    assert got.ends == ["upstream.too_large"]
    got = Answer(asked(False), TARGET, body([OTHER + "é" * 20_000], stream=False), body([GOOD], stream=False))
    assert sum(len(outbound.body) for outbound in got.asked) <= bytes_max(asked(False))
    assert bytes_max(replace(asked(), emulated=frozenset())) == len(asked().raw)


# What the host is told.


@pytest.mark.parametrize(
    ("fields", "begun"),
    [
        ({"tool_choice": NAMED}, '<tool_call>\n{"name": "weather", "arguments":'),
        ({"tool_choice": "required"}, '<tool_call>\n{"name":'),
        ({"tool_choice": "required", "tools": TOOLS[:1]}, '<tool_call>\n{"name": "weather", "arguments":'),
        ({"emulated": AS_JSON}, "{"),
        ({}, ""),
        ({"tool_choice": NAMED, "thinking": True}, ""),
        ({"emulated": AS_JSON, "thinking": True}, ""),
    ],
)
def test_the_answer_is_begun_where_that_can_be(fields: dict[str, Any], begun: str) -> None:
    """A prefix forces the opening, without thinking; the host's answer goes on from there, and so does what is read."""
    call = asked(**fields)
    text = PARIS if "emulated" in fields else GOOD
    got = Answer(call, BEGINS, body([text.removeprefix(begun)]))
    assert got.calls == ([] if "emulated" in fields else WEATHER)
    assert got.joined(Text) == (PARIS if "emulated" in fields else "")
    last = got.sent()["messages"][-1]
    assert last == ({"role": "assistant", "content": begun, "prefix": True} if begun else last)
    assert (last["role"] == "assistant") is bool(begun)
    assert "prefix" not in Answer(call, TARGET, body([text])).sent()["messages"][-1]


def test_a_begun_answer_is_begun_again() -> None:
    """The second try starts as the first did, behind what was wrong with that."""
    call = asked(emulated=AS_JSON, response_format=SCHEMA)
    got = Answer(call, BEGINS, body(["oops"]), body([PARIS[1:]]))
    assert got.said() == ("", PARIS, [], ["stop"])
    assert [message["role"] for message in got.sent(1)["messages"]] == ["user", "assistant", "user", "assistant"]
    assert got.sent(1)["messages"][1]["content"] == "{oops"


def test_the_host_is_told_in_plain_messages() -> None:
    """No field that it does not have; functions stand first, what must be done last; calls and results are retold."""
    one = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    two = {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages = [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [one, two]},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "user", "content": "And Rome?"},
    ]
    call = asked(messages=messages, tool_choice="required", parallel_tool_calls=False, temperature=0.5)
    sent = Answer(call, TARGET, body([GOOD])).sent()
    assert not {"tools", "tool_choice", "parallel_tool_calls", "response_format"} & set(sent)
    assert sent["temperature"] == 0.5
    system, user, assistant, results = sent["messages"]
    assert system["content"].startswith("Be brief.\n\n# Functions")
    assert '{"name": "weather", "description": "Weather", "parameters": ' in system["content"]
    assert user == USER
    assert assistant == {
        "role": "assistant",
        "content": f'Let me see.\n\n{GOOD}\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call>',
        "reasoning_content": "Hm.",
    }
    assert results["role"] == "user"
    assert results["content"].startswith(
        '<tool_response name="now">\nnoon\n</tool_response>\n\n'
        '<tool_response name="weather">\nsunny\n</tool_response>\n\nAnd Rome?\n\n(Call a function now'
    )
    assert call.fields["messages"] == messages, "a call is never changed"


def test_without_a_system_message_the_user_tells_it() -> None:
    """Models that take no system message are the ones this is for; contents that are lists stay lists."""
    sent = Answer(asked(emulated=AS_JSON, response_format=SCHEMA), TARGET, body([PARIS])).sent()
    (only,) = sent["messages"]
    assert only["content"].startswith("# Form")
    assert json.dumps(CITY) in only["content"]
    parts = [{"type": "text", "text": "Hi"}]
    sent = Answer(asked(messages=[{"role": "user", "content": parts}]), TARGET, body(["Hi"])).sent()
    assert sent["messages"][0]["content"][1:] == parts


def test_nothing_is_wrapped_where_nothing_is_emulated() -> None:
    """The dialect is the host's own."""
    call = replace(asked(), emulated=frozenset())
    assert dialect_for(DIALECTS["openai"], call) is DIALECTS["openai"]


# Slicings.

ANSWERS = [
    (asked(), [body(["Let me ", "see.\n", *GOOD.split("a"), GOOD], thought="Hm.")]),
    (asked(), [body([OTHER[:30], OTHER[30:]]), body([GOOD], thought="Oh.")]),
    (asked(False), [body([SHORT], stream=False), body([GOOD], stream=False)]),
    (asked(emulated=AS_JSON), [body(["So: {x} ", OBJECT[:9], OBJECT[9:], "."], thought="é")]),
    (asked(tool_choice="required"), [body(["Well"]), body(["Well"])]),
]


@pytest.mark.parametrize(("call", "bodies"), ANSWERS)
def test_cut_at_every_byte(call: Call, bodies: list[bytes]) -> None:
    """Any slicing of a host's bytes gives the same events."""
    whole = Answer(call, TARGET, *bodies)
    for cut in range(max(len(raw) for raw in bodies)):
        assert Answer(call, TARGET, *bodies, cuts=(cut,)).told == whole.told
    assert Answer(call, TARGET, *bodies, cuts=tuple(range(10**4))).told == whole.told


TEXTS = st.one_of(
    st.sampled_from([text for text, *_ in [*READ, *WRONG, *OBJECTS, *NO_OBJECTS]]),
    st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "\n", "```", "```json\n", '{"name": "weather"', '"arguments": ', PARIS,
             "{", "}", ", ", '"', "\\", "é", "true", "0", "[", "]", "text"]
        ),
        max_size=12,
    ).map("".join),
)  # fmt: skip
CALLS = [
    asked(), asked(tool_choice="required"), asked(False), asked(emulated=AS_JSON), asked(False, AS_JSON),
    asked(emulated=TOLD | AS_JSON, response_format=SCHEMA),
]  # fmt: skip


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=300)
@given(st.sampled_from(CALLS), TEXTS, TEXTS, st.lists(st.integers(0, 999), max_size=6))
def test_any_text_in_any_pieces(call: Call, first: str, second: str, cuts: list[int]) -> None:
    """However a host cuts a text, the same is read of it; and it ends once, with an answer that keeps the promise or
    with a failure."""
    bodies = [body([text]) for text in (first, second)]
    probe = Answer(call, TARGET, bodies[0], bodies[1]) if _again(call, first) else Answer(call, TARGET, bodies[0])
    again = [body(pieces(text, cuts)) for text in (first, second)][: len(probe.asked)]
    got = Answer(call, TARGET, *again)
    assert got.said() == probe.said()
    assert len(got.ends) == 1
    assert not got.more
    if got.ends == ["tool_calls"]:
        assert got.calls
        for name, arguments in got.calls:
            assert set(json.loads(arguments)) >= ({"city"} if name == "weather" else set())
    elif got.ends == ["stop"]:
        assert not got.calls
        if "json_object" in call.emulated:
            assert type(json.loads(got.joined(Text))) is dict


def _again(call: Call, text: str) -> bool:
    dialect = dialect_for(DIALECTS["openai"], call)
    decoder = dialect.decoder(call, TARGET)
    decoder.start(200, {})
    decoder.feed(body([text]))
    decoder.finish()
    return decoder.next is not None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.booleans(), st.sampled_from([None, 1]))
def test_every_object_is_scanned(value: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    """Every JSON object is complete at its last character and not before, and comes back as it was."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    scan = Scan()
    out = ""
    for at, character in enumerate(text):
        added = scan.take(character)
        out += added
        assert not scan.broken
        assert scan.done is (at == len(text) - 1)
    assert json.loads(out) == value


@given(st.text(st.sampled_from('{}[]",:a_\\ntfue0-1. \n'), max_size=14).map(lambda text: "{" + text))
def test_nothing_else_is_scanned(text: str) -> None:
    """What is found complete has become JSON."""
    scan = Scan()
    out = ""
    for character in text:
        out += scan.take(character)
        if scan.broken:
            return
        if scan.done:
            json.loads(out)
            return
