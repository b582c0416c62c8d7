"""Reasoning that is sent back becomes what the host's rule says (PROVIDERS 1.7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.replay import replay
from moonpool.errors import Problem
from moonpool.words import Call, Host, Outbound, Target

USER = {"role": "user", "content": "u"}
TOOL = {"role": "tool", "tool_call_id": "c", "content": "42"}
CALLS = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
PLAIN = {"role": "assistant", "content": "a"}
THOUGHT = {**PLAIN, "reasoning_content": "r"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
PREFIX = {"role": "assistant", "content": "", "reasoning_content": "r", "prefix": True}


def call(*messages: dict[str, Any], thinking: str = "enabled", **fields: Any) -> Call:
    body = {"model": "m", "messages": list(messages), "thinking": {"type": thinking}, **fields}
    return CLIENT.parse_call("chat", json.dumps(body).encode(), "id-1")


def rendered(asked: Call, rule: Any, **options: Any) -> Outbound:
    return DIALECTS["openai"].render_call(asked, Target(Host("h", "openai"), "m", options=options, replay=rule))


def sent(asked: Call, rule: str, **options: Any) -> list[Any]:
    """What each message says of its reasoning: "-" for nothing."""
    messages = json.loads(rendered(asked, rule, **options).body)["messages"]
    return [message.get("reasoning_content", message.get("reasoning", "-")) for message in messages]


def test_keep_and_strip() -> None:
    """Kept as it is by default; stripped with a receipt, an empty one without; a last one to be continued stays."""
    asked = call(USER, THOUGHT, USER, {**PLAIN, "reasoning_content": ""}, USER, PREFIX)
    assert sent(asked, "keep") == ["-", "r", "-", "", "-", "r"]
    assert sent(asked, "strip") == ["-", "-", "-", "-", "-", "r"]
    assert rendered(asked, "strip").adjusted == ("messages.reasoning_content:dropped",)
    assert rendered(call(USER, PLAIN, USER), "strip").adjusted == ()
    assert asked.fields["messages"][1] == THOUGHT


def test_reject() -> None:
    """A host that refuses it is not asked: the client reads which message it is."""
    with pytest.raises(Problem) as refused:
        rendered(call(USER, THOUGHT, USER), "reject")
    assert (refused.value.code, refused.value.param) == ("caller.invalid_value", "messages[1].reasoning_content")
    assert sent(call(USER, {**PLAIN, "reasoning_content": ""}, USER, PREFIX), "reject") == ["-", "-", "-", "r"]


FILLED: list[tuple[Call, list[Any]]] = [
    (call(USER, PLAIN, USER), ["-", "-", "-"]),
    (call(USER, CALLS, TOOL, USER, CALLS, TOOL), ["-", "-", "-", "-", "", "-"]),
    (call(USER, CALLS, TOOL, PLAIN, USER, CALLS, TOOL, tools=TOOLS), ["-", "", "-", "", "-", "", "-"]),
    (call(USER, THOUGHT, USER, PLAIN, USER, tools=TOOLS), ["-", "r", "-", "", "-"]),
    (call(USER, {**CALLS, "reasoning_content": None}, TOOL), ["-", "", "-"]),
    (call(USER, CALLS, TOOL, tools=TOOLS, thinking="disabled"), ["-", "-", "-"]),
]


@pytest.mark.parametrize(("asked", "expected"), FILLED, ids=[str(at) for at in range(len(FILLED))])
def test_fill(asked: Call, expected: list[Any]) -> None:
    """ "" where a thinking tool loop lost it, and with tools in every assistant message; never without thinking."""
    assert sent(asked, "fill") == expected
    changed = "" in expected
    assert rendered(asked, "fill").adjusted == (("messages.reasoning_content:filled",) if changed else ())


def test_the_hosts_spelling() -> None:
    """Some hosts read `reasoning`; what is filled in is spelled so too."""
    asked = call(USER, THOUGHT, USER, CALLS, TOOL, tools=TOOLS)
    messages = json.loads(rendered(asked, "fill", reasoning_field="reasoning").body)["messages"]
    assert [message.get("reasoning") for message in messages] == [None, "r", None, "", None]
    assert not any("reasoning_content" in message for message in messages)


def test_nothing_to_do_costs_nothing() -> None:
    """The same list goes on."""
    asked = call(USER, PLAIN, USER)
    for rule in ("keep", "strip", "reject", "fill"):
        messages, receipts = replay(asked, rule, "reasoning_content", asked.fields["messages"])
        assert messages is asked.fields["messages"]
        assert receipts == ()


INSISTS = [
    "The `reasoning_content` in the thinking mode must be passed back to the API.",
    "Missing `reasoning_content` field in the assistant message at message index 2. For more information, please …",
    "The `reasoning_text` in the thinking mode must be passed back to the API.",
    "The `content[].thinking` in the thinking mode must be passed back to the API.",
]


@pytest.mark.parametrize("text", INSISTS)
@pytest.mark.parametrize("dialect", ["openai", "deepseek", "vllm"])
def test_a_refusal_that_says_what_is_missing(dialect: str, text: str) -> None:
    """The known texts (PROVIDERS 1.7) are known from any host: it is asked again, with what is missing filled in."""
    body = json.dumps({"error": {"message": text, "code": "invalid_request_error"}}).encode()
    assert DIALECTS[dialect].parse_problem(400, {}, body).code == "upstream.reasoning_wanted"
    assert DIALECTS[dialect].parse_problem(500, {}, body).code == "upstream.failed"
