"""Requests: every field's type and structure, the live service's wording, receipts for what is mapped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonpool.dialects import DIALECTS
from moonpool.errors import Problem
from moonpool.words import Call
from strategies import json_data, json_objects

CLIENT = DIALECTS["deepseek"]
HELLO = [{"role": "user", "content": "Hello"}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> Call:
    body = {"model": "deepseek-chat", "messages": HELLO, **fields}
    return CLIENT.parse_call("chat", json.dumps(body).encode(), "id-1")


def fim(**fields: Any) -> Call:
    body = {"model": "deepseek-chat", "prompt": "def fib(a):", **fields}
    return CLIENT.parse_call("completion", json.dumps(body).encode(), "id-1")


def refused(build: Any, **fields: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        build(**fields)
    assert caught.value.status == 400
    return caught.value


def outcome(operation: Any, raw: bytes) -> Call | Problem:
    """A Call, or a Problem of the caller's; anything else is a fault."""
    try:
        return CLIENT.parse_call(operation, raw, "x")
    except Problem as problem:
        return problem


def test_the_programs_of_the_documents() -> None:
    """Explicit nulls mean absent, `tool_choice` none and `logprobs` false ask for nothing: the seeds' programs."""
    call = chat(
        frequency_penalty=0, max_tokens=2048, presence_penalty=0, response_format={"type": "text"}, stop=None,
        stream=False, stream_options=None, temperature=1, top_p=1, tools=None, tool_choice="none", logprobs=False,
        top_logprobs=None,
    )  # fmt: skip
    assert call.needs == frozenset()
    assert call.output_max == 2048
    assert not {"stop", "stream_options", "tools", "top_logprobs"} & set(call.fields)
    call = fim(
        echo=False, frequency_penalty=0, logprobs=0, max_tokens=128, stop=None, stream=False, stream_options=None,
        suffix=" return fib(a-1) + fib(a-2)", temperature=1, top_p=1,
    )  # fmt: skip
    assert (call.operation, call.needs, call.fields["logprobs"]) == ("completion", frozenset({"fim"}), 0)


def test_messages_of_the_sdk_are_taken_back() -> None:
    """An assistant message dumped by the SDK, with null members of every kind, is a message."""
    answer = {
        "role": "assistant", "content": "Hi", "refusal": None, "annotations": None, "audio": None,
        "function_call": None, "tool_calls": None, "reasoning_content": None,
    }  # fmt: skip
    call = chat(messages=[*HELLO, answer, *HELLO])
    assert call.fields["messages"][1] == answer


def test_what_nobody_knows_is_kept() -> None:
    """Unknown fields pass through, nulls in them too."""
    call = chat(metadata={"a": None}, user=None, x_new=[1])
    assert call.fields["metadata"] == {"a": None}
    assert call.fields["user"] is None
    assert call.fields["x_new"] == [1]


def test_stream_and_usage() -> None:
    """`stream_options` is read, and belongs to a stream only."""
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream=True, stream_options={"include_usage": None}).include_usage
    problem = refused(chat, stream_options={"include_usage": True})
    assert (problem.param, problem.message) == (
        "stream_options", "stream_options should be set along with stream = true",
    )  # fmt: skip


def test_receipts() -> None:
    """What is mapped or dropped is named."""
    call = chat(max_completion_tokens=7, messages=[{"role": "developer", "content": "Be brief."}, *HELLO])
    assert call.adjusted == ("messages[0].role:developer->system", "max_completion_tokens->max_tokens")
    assert call.fields["messages"][0]["role"] == "system"
    assert (call.output_max, call.fields["max_tokens"]) == (7, 7)
    assert "max_completion_tokens" not in call.fields
    call = chat(max_completion_tokens=7, max_tokens=5)
    assert (call.output_max, call.adjusted) == (5, ("max_completion_tokens:dropped",))
    call = chat(thinking={"type": "disabled"}, reasoning_effort="high")
    assert (call.thinking, call.adjusted) == (False, ("reasoning_effort:dropped",))
    assert "reasoning_effort" not in call.fields


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "adaptive", "budget_tokens": 10}}, True),
        ({"thinking": {"type": "enabled", "reasoning_effort": "high"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "none"}, False),
    ],
)
def test_thinking_only_when_asked(fields: dict[str, Any], thinking: bool) -> None:
    """`Call.thinking` says what was asked in so many words; defaults are the catalogue's."""
    call = chat(**fields)
    assert call.thinking is thinking
    assert ("thinking" in call.needs) is thinking
    assert call.fields.get("thinking") == fields.get("thinking")


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [TOOL]}, {"tools"}),
        ({"tools": [TOOL], "tool_choice": "none"}, set()),
        ({"tools": []}, set()),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tools"}),
        ({"tools": [TOOL, {"type": "deepseek_web_search"}], "tool_choice": "required"}, {"tools"}),
        (
            {"response_format": {"type": "json_object"}, "messages": [{"role": "user", "content": "As JSON"}]},
            {"json_object"},
        ),
        ({"messages": [*HELLO, {"role": "assistant", "content": "He", "prefix": True}]}, {"prefix"}),
        ({"messages": [{"role": "user", "content": "He", "prefix": True}]}, set()),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs"}),
        ({"n": 1}, set()),
        ({"n": 2}, {"n"}),
    ],
)
def test_needs(fields: dict[str, Any], needs: set[str]) -> None:
    """What a model has to be able to do is read off the fields."""
    assert chat(**fields).needs == needs


DESERIALIZE = "Failed to deserialize the JSON body into the target type: "
ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "1"}

PREFIXED = [*HELLO, {"role": "assistant", "content": "x", "prefix": True}]

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", DESERIALIZE + "missing field `model`"),
    ({"model": 1}, "model", DESERIALIZE + "model: invalid type: integer `1`, expected a string"),
    ({"model": ""}, "model", "Model Not Exist"),
    ({"messages": None}, "messages", DESERIALIZE + "messages: invalid type: null, expected a sequence"),
    ({"messages": []}, "messages", "Empty input messages"),
    ({"messages": {}}, "messages", "invalid type: map, expected a sequence"),
    ({"messages": PREFIXED, "tools": [TOOL]}, "tools", "Function call should not be used with prefix"),
    (
        {"messages": PREFIXED, "response_format": {"type": "json_object"}},
        "response_format",
        "response_format json_object should not be used with prefix",
    ),
    ({"response_format": {}}, "response_format.type", "missing field `type`"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "unknown variant `xml`"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing field `json_schema`"),
    ({"response_format": "json"}, "response_format", "expected a map"),
    ({"thinking": True}, "thinking", "boolean `true`"),
    ({"thinking": {}}, "thinking.type", "missing field `type`"),
    (
        {"thinking": {"type": "on"}},
        "thinking.type",
        "unknown variant `on`, expected one of `adaptive`, `enabled`, `disabled`",
    ),
    (
        {"reasoning_effort": "foo"},
        "reasoning_effort",
        "unknown variant `foo`, expected one of `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `ultra`, `max`",
    ),
    ({"max_tokens": "5"}, "max_tokens", "expected an integer"),
    ({"max_tokens": 1.0}, "max_tokens", "floating point `1.0`"),
    ({"max_tokens": True}, "max_tokens", "boolean `true`"),
    ({"max_tokens": 2**53 + 1}, "max_tokens", "2^53"),
    ({"max_completion_tokens": []}, "max_completion_tokens", "sequence"),
    ({"temperature": "1"}, "temperature", "expected a number"),
    ({"temperature": False}, "temperature", "expected a number"),
    ({"temperature": 2**60}, "temperature", "2^53"),
    ({"top_p": {}}, "top_p", "map"),
    ({"n": 0}, "n", "Invalid n value"),
    ({"n": 1.5}, "n", "integer"),
    ({"seed": -(2**60)}, "seed", "2^53"),
    (
        {"stop": ""},
        "stop",
        "Invalid 'stop': empty string. Expected a string with minimum length 1, but got an empty string",
    ),
    ({"stop": ["a", ""]}, "stop[1]", "empty string"),
    ({"stop": ["a"] * 17}, "stop", "Stop string array too long: 17"),
    ({"stop": [1]}, "stop[0]", "expected a string"),
    ({"stop": 1}, "stop", "expected a string or a list"),
    ({"stream": "true"}, "stream", "expected a boolean"),
    ({"stream": True, "stream_options": []}, "stream_options", "expected a map"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "expected a boolean"),
    ({"logprobs": 1}, "logprobs", "expected a boolean"),
    ({"top_logprobs": 1}, "top_logprobs", "logprobs must be set to true if top_logprobs is used."),
    (
        {"logprobs": True, "top_logprobs": 21},
        "top_logprobs",
        "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
    ),
    ({"tools": {}}, "tools", "expected a sequence"),
    ({"tools": [{}]}, "tools[0].type", "missing field `type`"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unknown variant `web_search`, expected `function`"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing field `function`"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing field `name`"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "Invalid 'tools[0].function.name': string does not match pattern. "
        "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
    ),
    ({"tools": [{"type": "function", "function": {"name": "f\n"}}]}, "tools[0].function.name", "pattern"),
    ({"tools": [{"type": "function", "function": {"name": "f" * 129}}]}, "tools[0].function.name", "too long"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "Tool names must be unique."),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools[0].function.parameters",
        "expected a map",
    ),
    ({"tool_choice": "any"}, "tool_choice", "expected one of `none`, `auto`, `required` or a tool"),
    ({"tool_choice": ["none"]}, "tool_choice", "or a tool"),
    ({"tool_choice": "required"}, "tool_choice", "tools"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "Invalid value for 'tool_call': no function named 'g' was specified in the 'tools' parameter.",
    ),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function", "expected a map"),
    ({"enable_search": "yes"}, "enable_search", "expected a boolean"),
    ({"user_id": 5}, "user_id", "expected a string"),
]


@pytest.mark.parametrize(("fields", "param", "message"), WRONG, ids=[f"{row[1]}-{at}" for at, row in enumerate(WRONG)])
def test_wrong_fields(fields: dict[str, Any], param: str, message: str) -> None:
    """A 400 that names the field and says, in the live service's words where they are known, what is wrong."""
    problem = refused(chat, **fields)
    assert problem.param == param
    assert message in problem.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"suffix": 1}, "suffix"),
        ({"echo": 0}, "echo"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
    ],
)
def test_wrong_fields_of_fim(fields: dict[str, Any], param: str) -> None:
    """The other table: prompt and suffix, and logprobs as a count."""
    assert refused(fim, **fields).param == param


@pytest.mark.parametrize(("operation", "field"), [("chat", "messages"), ("completion", "prompt"), ("chat", "model")])
def test_missing_fields(operation: Any, field: str) -> None:
    """What is required is asked for by name."""
    body = {"model": "m", "messages": HELLO, "prompt": "p"}
    del body[field]
    with pytest.raises(Problem) as caught:
        CLIENT.parse_call(operation, json.dumps(body).encode(), "x")
    assert (caught.value.param, caught.value.message) == (field, DESERIALIZE + f"missing field `{field}`")


KNOWN = [
    "model", "messages", "max_tokens", "temperature", "top_p", "n", "stop", "stream", "stream_options", "tools",
    "tool_choice", "response_format", "thinking", "reasoning_effort", "logprobs", "top_logprobs", "prompt", "suffix",
]  # fmt: skip


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KNOWN), json_data, max_size=4), st.sampled_from(["chat", "completion"]))
def test_wrong_types_everywhere(fields: dict[str, Any], operation: Any) -> None:
    """Any JSON in any field is a Call or a 400 that names a field (RELIABILITY case 159)."""
    body = {"model": "m", "messages": HELLO, "prompt": "p", **fields}
    found = outcome(operation, json.dumps(body).encode())
    if isinstance(found, Call):
        assert found.model == fields.get("model", "m")
    elif found.code == "caller.invalid_value":
        assert found.param
    else:
        assert found.code == "caller.malformed"


@given(json_data, st.sampled_from(["messages", "tools", "tool_choice", "response_format", "thinking"]), st.data())
def test_damaged_structures(value: Any, field: str, data: st.DataObject) -> None:
    """A good request with one value anywhere inside replaced by any other is a Call or a 400."""
    body = {
        "model": "m",
        "messages": [
            *HELLO, {"role": "assistant", "content": None, "tool_calls": CALLS}, ANSWER,
            {"role": "user", "content": [{"type": "text", "text": "json"}, IMAGE]},
        ],
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"}, "thinking": {"type": "enabled"},
    }  # fmt: skip
    place: Any = json.loads(json.dumps(body))
    changed, key = place, field
    while type(place[key]) in (dict, list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if type(place) is dict else list(range(len(place)))))
    place[key] = value
    found = outcome("chat", json.dumps(changed).encode())
    assert isinstance(found, Call) or found.code in ("caller.malformed", "caller.invalid_value")


@given(st.binary(max_size=200) | json_objects.map(str.encode), st.sampled_from(["chat", "completion"]))
def test_any_bytes(raw: bytes, operation: Any) -> None:
    """Any bytes as a body: a Call or a Problem of the caller's, nothing else."""
    found = outcome(operation, raw)
    assert isinstance(found, Call) or found.code in ("caller.malformed", "caller.invalid_value")
