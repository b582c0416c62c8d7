"""Messages: who may say what, in which parts, and that each tool call is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moonpool.dialects import DIALECTS, messages
from moonpool.errors import Problem

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "1"}
PREFIX = {"role": "assistant", "content": "x", "prefix": True}
MUST_FOLLOW = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'"
)


def calling(*calls: Any, **members: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **members}


def parts(*values: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(values)}


def image(url: Any, **members: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **members}}


def function(**members: Any) -> dict[str, Any]:
    return {"id": "c1", "function": members}


ASSISTANT_NEEDS = "Invalid assistant message: content or tool_calls must be set"
NO_CALLS = (
    "Invalid 'messages[1].tool_calls': empty array. Expected an array with minimum length 1, "
    "but got an empty array instead."
)
ROLES = "unknown variant `function`, expected one of `system`, `user`, `assistant`, `tool`, `latest_reminder`"
TOO_FEW = MUST_FOLLOW + ". (insufficient tool messages following tool_calls message)"
UNANSWERED = MUST_FOLLOW + ", The following tool_call_ids did not have response messages: zz"
TWICE = "Duplicate value for 'tool_call_id' of c1 in message[{}]"
ALONE = "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
NOT_LAST = (
    "Invalid completion message: prefix set true with message which is not final message "
    "or message role is not assistant"
)

WRONG: list[tuple[list[Any], str, str]] = [
    (["hi"], "[0]", 'invalid type: string "hi", expected a map'),
    ([{"content": "x"}], "[0].role", "missing field `role`"),
    ([{"role": "function", "content": "x"}], "[0].role", ROLES),
    ([{"role": None, "content": "x"}], "[0].role", "invalid type: null"),
    ([{"role": ["user"], "content": "x"}], "[0].role", "invalid type: sequence"),
    ([USER, {"role": "user"}], "[1].content", "missing field `content`"),
    ([{"role": "user", "content": None}], "[0].content", "content should be a string or a list"),
    ([{"role": "user", "content": 5}], "[0].content", "content should be a string or a list"),
    ([{"role": "tool", "content": None, "tool_call_id": "c1"}], "[0].content", "content should be a string or a list"),
    ([{**USER, "name": 5}], "[0].name", "expected a string"),
    ([{"role": "assistant", "content": None}], "[0].content", ASSISTANT_NEEDS),
    ([{"role": "assistant"}], "[0].content", ASSISTANT_NEEDS),
    ([USER, calling(content="x")], "[1].tool_calls", NO_CALLS),
    ([{"role": "assistant", "content": "x", "tool_calls": {}}], "[0].tool_calls", "expected a sequence"),
    ([{"role": "assistant", "content": "x", "reasoning_content": 1}], "[0].reasoning_content", "expected a string"),
    ([parts({"type": "input_audio"})], "[0].content[0].type", "expected one of `text`, `image_url`, `file`"),
    ([parts({"text": "x"})], "[0].content[0].type", "missing field `type`"),
    ([parts({"type": "text"})], "[0].content[0].text", "missing field `text`"),
    ([parts({"type": "text", "text": 1})], "[0].content[0].text", "expected a string"),
    ([parts("x")], "[0].content[0]", "expected a map"),
    ([parts(image("file:///etc/passwd"))], "[0].content[0].image_url.url", "Unsupported image_url format"),
    ([parts(image(None))], "[0].content[0].image_url.url", "expected a string"),
    ([parts(image("data:x", detail="fine"))], "[0].content[0].image_url.detail", "unknown variant `fine`"),
    ([parts({"type": "image_url", "image_url": "https://x/"})], "[0].content[0].image_url", "expected a map"),
    (
        [parts(image("https://x/"), role="assistant")],
        "[0].content[0].image_url",
        "Image in assistant message is not supported",
    ),
    ([parts({"type": "file"})], "[0].content[0].file", "expected a map"),
    ([USER, ANSWER], "[1].role", ALONE),
    ([USER, calling(CALL), ANSWER, USER, ANSWER], "[4].role", ALONE),
    ([{"role": "tool", "content": "x"}], "[0].tool_call_id", "missing field `tool_call_id`"),
    ([calling(CALL)], "[0].tool_calls", TOO_FEW),
    ([calling(CALL), USER, ANSWER], "[0].tool_calls", TOO_FEW),
    ([calling(CALL, {**CALL, "id": "zz"}), ANSWER], "[0].tool_calls", TOO_FEW),
    ([calling(CALL, {**CALL, "id": "zz"}), ANSWER, USER], "[0].tool_calls", TOO_FEW),
    ([calling(CALL), {**ANSWER, "tool_call_id": "zz"}, ANSWER], "[1].tool_call_id", UNANSWERED),
    ([calling(CALL, {**CALL, "id": "c2"}), ANSWER, ANSWER], "[2].tool_call_id", TWICE.format(2)),
    ([calling(CALL, CALL), ANSWER, ANSWER], "[0].tool_calls[1].id", TWICE.format(0)),
    ([calling(CALL), ANSWER, ANSWER], "[2].role", ALONE),
    ([calling("x")], "[0].tool_calls[0]", "expected a map"),
    ([calling(function(name="f", arguments={})), ANSWER], "[0].tool_calls[0].function.arguments", "expected a string"),
    ([calling(function(name="f")), ANSWER], "[0].tool_calls[0].function.arguments", "missing field `arguments`"),
    ([calling({"function": {}}), ANSWER], "[0].tool_calls[0].id", "missing field `id`"),
    ([calling({"id": "c1"}), ANSWER], "[0].tool_calls[0].function", "missing field `function`"),
    ([calling({**CALL, "type": "custom"}), ANSWER], "[0].tool_calls[0].type", "unknown variant `custom`"),
    ([PREFIX, USER], "[0].prefix", NOT_LAST),
    ([USER, {**PREFIX, "prefix": 1}], "[1].prefix", "expected a boolean"),
    ([USER, calling(CALL, prefix=True)], "[1].prefix", "Function call should not be used with prefix"),
]


@pytest.mark.parametrize(("said", "param", "message"), WRONG, ids=[f"{row[1]}-{at}" for at, row in enumerate(WRONG)])
def test_wrong_messages(said: list[Any], param: str, message: str) -> None:
    """A 400 that names the message and the member, in the live service's words where they are known."""
    body = json.dumps({"model": "m", "messages": said}).encode()
    with pytest.raises(Problem, match=r"caller\.invalid_value") as caught:
        DIALECTS["deepseek"].parse_call("chat", body, "x")
    assert caught.value.param == "messages" + param
    assert message in caught.value.message


@pytest.mark.parametrize(
    "said",
    [
        [USER] * 300,
        [{"role": "latest_reminder", "content": "x"}, {**USER, "name": None}, {**USER, "prefix": True}],
        [{"role": "system", "content": ""}, {"role": "assistant", "content": ""}, {"role": "assistant", "content": []}],
        [USER, calling(CALL, {**CALL, "id": "c2"}), {**ANSWER, "tool_call_id": "c2"}, ANSWER, USER],
        [USER, calling(CALL, reasoning_content=""), {**ANSWER, "content": [{"type": "text", "text": "1"}]}],
        [calling(CALL), ANSWER, calling({**CALL, "function": {"name": "f", "arguments": "no JSON"}}), ANSWER],
        [{"role": "assistant", "tool_calls": [CALL]}, ANSWER, PREFIX],
        [USER, {**PREFIX, "content": "", "reasoning_content": "So"}],
        [parts({"type": "text", "text": "x"}, image("data:x", detail="low"), {"type": "file", "file": {}})],
        [parts({"type": "text", "text": "x"}, role=role) for role in ("system", "user", "assistant")],
    ],
)  # fmt: skip
def test_conversations(said: list[Any]) -> None:
    """What the documents allow is let through, untouched."""
    before = json.loads(json.dumps(said))
    assert messages.check(said) == ()
    assert said == before


def test_developers_are_systems() -> None:
    """The newer name of a role is mapped, wherever it stands, and each mapping is named."""
    said = [{"role": "developer", "content": "Be brief."}, USER, {"role": "developer", "content": [], "name": "d"}]
    assert messages.check(said) == (
        "messages[0].role:developer->system",
        "messages[2].role:developer->system",
    )
    assert [message["role"] for message in said] == ["system", "user", "system"]
