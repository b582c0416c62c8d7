"""How one host is told what a client said: where the switch of the thinking goes, and what a host calls things."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.errors import Problem
from moonpool.words import Call, Host, Outbound, Target

OPENAI = DIALECTS["openai"]
HELLO = [{"role": "user", "content": "Hello"}]
ON, OFF = {"type": "enabled"}, {"type": "disabled"}
TEMPLATE = {"thinking": "template", "thinking_said": "always"}


def call(operation: Any = "chat", **fields: Any) -> Call:
    start = {"model": "m", "messages": HELLO} if operation == "chat" else {"model": "m", "prompt": "p"}
    return CLIENT.parse_call(operation, json.dumps({**start, **fields}).encode(), "id-1")


def sent(asked: Call, **options: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the host is sent beside the model and the messages, and the receipts."""
    outbound: Outbound = OPENAI.render_call(asked, Target(Host("h", "openai"), "m", options=options))
    body = json.loads(outbound.body)
    return {name: value for name, value in body.items() if name not in ("model", "messages")}, outbound.adjusted


KWARGS_ON = {"thinking": True, "enable_thinking": True}
KWARGS_OFF = {"thinking": False, "enable_thinking": False}
SWITCHES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    # options, what the client said, what the host is told, receipts
    ({}, {"thinking": ON, "reasoning_effort": "max"}, {"thinking": ON, "reasoning_effort": "max"}, ()),
    ({"thinking_said": "always"}, {}, {"thinking": OFF}, ()),
    ({"thinking_said": "always"}, {"reasoning_effort": "low"}, {"thinking": ON, "reasoning_effort": "low"}, ()),
    ({"thinking": "nested"}, {}, {}, ()),
    ({"thinking": "nested"}, {"thinking": OFF}, {"thinking": OFF}, ()),
    ({"thinking": "nested"}, {"reasoning_effort": "low"}, {"thinking": {**ON, "reasoning_effort": "low"}}, ()),
    ({"thinking": "template"}, {}, {}, ()),
    (TEMPLATE, {}, {"chat_template_kwargs": KWARGS_OFF}, ()),
    (TEMPLATE, {"thinking": ON}, {"chat_template_kwargs": KWARGS_ON}, ()),
    (
        TEMPLATE,
        {"thinking": ON, "reasoning_effort": "max"},
        {"chat_template_kwargs": {**KWARGS_ON, "reasoning_effort": "max"}},
        (),
    ),
    (
        {**TEMPLATE, "template": ["think"], "template_effort": ""},
        {"thinking": ON, "reasoning_effort": "max"},
        {"chat_template_kwargs": {"think": True}},
        ("reasoning_effort:dropped",),
    ),
    (
        TEMPLATE,
        {"thinking": ON, "chat_template_kwargs": {"thinking": False, "x": 1}},
        {"chat_template_kwargs": {"thinking": False, "enable_thinking": True, "x": 1}},
        (),
    ),
    ({"thinking": "effort"}, {"thinking": ON}, {"reasoning_effort": "high"}, ()),
    ({"thinking": "effort"}, {"thinking": ON, "reasoning_effort": "low"}, {"reasoning_effort": "low"}, ()),
    ({"thinking": "effort"}, {"thinking": OFF}, {"reasoning_effort": "none"}, ()),
    ({"thinking": "effort", "thinking_said": "always"}, {}, {"reasoning_effort": "none"}, ()),
    ({"thinking": "none"}, {}, {}, ()),
    (
        {"thinking": "none"},
        {"thinking": ON, "reasoning_effort": "low"},
        {},
        ("thinking:dropped", "reasoning_effort:dropped"),
    ),
    (
        {"efforts": {"max": "xhigh"}},
        {"reasoning_effort": "max"},
        {"reasoning_effort": "xhigh"},
        ("reasoning_effort:max->xhigh",),
    ),
    ({"efforts": {"max": ""}}, {"reasoning_effort": "max"}, {}, ("reasoning_effort:dropped",)),
    (
        {"thinking": "effort", "efforts": {"max": "", "high": "medium"}},
        {"thinking": ON, "reasoning_effort": "max"},
        {"reasoning_effort": "medium"},
        ("reasoning_effort:dropped",),
    ),
]


@pytest.mark.parametrize(("options", "said", "told", "receipts"), SWITCHES, ids=[str(n) for n in range(len(SWITCHES))])
def test_where_the_switch_goes(
    options: dict[str, Any], said: dict[str, Any], told: dict[str, Any], receipts: tuple[str, ...]
) -> None:
    """Each host is told to think in its own way, and what it cannot be told has a receipt; the call stays as it is."""
    asked = call(**said)
    assert sent(asked, **options) == (told, receipts)
    assert {name: asked.fields[name] for name in said} == said


def test_a_completion_has_no_thinking() -> None:
    """Nothing of it is said where text is only continued."""
    assert sent(call("completion"), **TEMPLATE)[0] == {"prompt": "p"}


def test_names_of_fields() -> None:
    """A host's own name for a field; what is set and dropped is under the host's names."""
    body, receipts = sent(
        call(max_tokens=5, seed=1, user_id="u"),
        rename={"max_tokens": "max_completion_tokens", "user_id": "user"},
        add={"max_tokens": 2},
        drop=["seed"],
        set={"x": 1},
    )
    assert body == {"max_completion_tokens": 7, "user": "u", "x": 1}
    assert receipts == ()


def test_a_message_that_is_continued() -> None:
    """Engines take it as fields of the request; without its flag, and with the thinking off, or they would take what
    comes for thinking."""
    last = {"role": "assistant", "content": "A", "prefix": True}
    asked = call(messages=[*HELLO, last], thinking=ON)
    target = Target(Host("h", "vllm"), "m", options={**TEMPLATE, "prefix": "continue"})
    outbound = DIALECTS["vllm"].render_call(asked, target)
    body = json.loads(outbound.body)
    assert body["messages"][-1] == {"role": "assistant", "content": "A"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["chat_template_kwargs"] == KWARGS_OFF
    assert outbound.adjusted == ("thinking.type:disabled (prefix)",)
    assert asked.fields["messages"][-1] == last
    assert json.loads(OPENAI.render_call(asked, Target(Host("h", "openai"), "m")).body)["messages"][-1] == last


def test_options_of_the_host_are_beneath_those_of_the_model() -> None:
    """One by one, not as a whole."""
    target = Target(Host("h", "openai", options={**TEMPLATE, "drop": ["x"]}), "m", options={"thinking": "effort"})
    body = json.loads(OPENAI.render_call(call(x=1), target).body)
    assert body == {"model": "m", "messages": HELLO, "reasoning_effort": "none"}


LOST = [
    ({"thinking": "none"}, {"thinking": ON}, "thinking"),
    ({"thinking": "none"}, {"reasoning_effort": "low"}, "reasoning_effort"),
    ({**TEMPLATE, "prefix": "continue"}, {"thinking": ON, "messages": [*HELLO, {"role": "assistant", "content": "A",
      "prefix": True}]}, "thinking.type"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said", "param"), LOST)
def test_a_key_may_want_an_error(options: dict[str, Any], said: dict[str, Any], param: str) -> None:
    """Where something would be lost, a key that wants no adaptations reads which field it is; what is only spelled
    otherwise goes on."""
    asked = replace(call(**said), refuse=True)
    with pytest.raises(Problem) as refused:
        sent(asked, **options)
    assert (refused.value.code, refused.value.param) == ("caller.unsupported", param)
    spelled = replace(call(reasoning_effort="max"), refuse=True)
    assert sent(spelled, efforts={"max": "xhigh"})[0] == {"reasoning_effort": "xhigh"}
