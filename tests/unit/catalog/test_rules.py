"""What the rules of each model make of a request: tables of (model, fields) -> what is sent, receipts, refusals."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.catalog.catalog import build
from moonpool.catalog.rules import apply
from moonpool.dialects import DIALECTS
from moonpool.errors import Problem
from moonpool.settings import Settings
from moonpool.words import Call, Target

CATALOGUE = build(Settings(home="/nowhere"), {})
HOSTED = build(
    Settings(home="/nowhere"),
    dict.fromkeys(("DEEPSEEK_API_KEY", "LKEAP_API_KEY", "TOKENHUB_API_KEY"), "key-of-a-host"),
)
S0 = ("deepseek-r1", "deepseek-v3", "deepseek-v3-0324", "deepseek-prover-v2")
V4 = ("deepseek-v4-flash", "deepseek-v4-pro", "deepseek-flash")
REASONER, CHAT = "deepseek-reasoner", "deepseek-chat"
ALL = (*S0, *V4, REASONER, CHAT)

USER = {"role": "user", "content": "Answer in json: how are you?"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "f"}}
JSON = {"type": "json_object"}


def parse(model: str, fields: dict[str, Any]) -> Call:
    fields = {"model": model, **fields}
    operation: Any = "completion" if "prompt" in fields else "chat"
    if operation == "chat":
        fields.setdefault("messages", [USER])
    return DIALECTS["deepseek"].parse_call(operation, json.dumps(fields).encode(), "id")


def ruled(model: str, catalogue: Any = CATALOGUE, **fields: Any) -> Call:
    call = parse(model, fields)
    before = copy.deepcopy(call)
    done: Call = apply(call, catalogue.find(model))
    assert call == before, "a call is never changed"
    return done


def each(models: tuple[str, ...] | str, *row: Any) -> list[tuple[Any, ...]]:
    return [(model, *row) for model in ((models,) if isinstance(models, str) else models)]


SENT = [
    # model; what the client says; what is then sent of these fields (None: nothing); receipts
    *each(S0, {}, {"temperature": 0.6, "top_p": 0.6, "max_tokens": 4096}, ()),
    *each(S0, {"temperature": 1, "top_p": 0.9}, {"temperature": 1, "top_p": 0.9}, ()),
    *each((REASONER, CHAT), {}, {"temperature": None, "top_p": None, "max_tokens": 4096}, ()),
    *each(V4, {}, {"temperature": None, "top_p": None, "max_tokens": None, "thinking": None}, ()),
    *each(ALL, {"max_tokens": 1}, {"max_tokens": 1}, ()),
    *each(ALL, {"max_completion_tokens": 7}, {"max_tokens": 7}, ("max_completion_tokens->max_tokens",)),
    *each(ALL, {"some_new_field": {"a": [1]}}, {"some_new_field": {"a": [1]}}, ()),
    (CHAT, {"temperature": 2, "top_p": 0.1}, {"temperature": 2, "top_p": 0.1}, ()),
    *each(
        (*S0, *V4),
        {"presence_penalty": 1, "frequency_penalty": -1},
        {"presence_penalty": None, "frequency_penalty": None},
        ("presence_penalty:dropped", "frequency_penalty:dropped"),
    ),
    (CHAT, {"presence_penalty": 1, "frequency_penalty": -2}, {"presence_penalty": 1, "frequency_penalty": -2}, ()),
    (
        REASONER,
        {"temperature": 9, "top_p": 0, "presence_penalty": 5},
        {"temperature": None, "top_p": None, "presence_penalty": None},
        ("temperature:dropped", "top_p:dropped", "presence_penalty:dropped"),
    ),
    *each(
        S0,
        {"logprobs": True, "top_logprobs": 3},
        {"logprobs": None, "top_logprobs": None},
        ("logprobs:dropped", "top_logprobs:dropped"),
    ),
    *each((*S0, REASONER), {"logprobs": False}, {"logprobs": None}, ()),
    *each((CHAT, *V4), {"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 20}, ()),
    *each((CHAT, *V4), {"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "auto"}, ()),
    *each((CHAT, *V4), {"response_format": JSON}, {"response_format": JSON}, ()),
    *each(ALL, {"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}, ()),
    *each(ALL, {"stop": ["x"] * 16}, {"stop": ["x"] * 16}, ()),
    *each(ALL, {"enable_search": True}, {"enable_search": None}, ("enable_search:dropped",)),
    *each((CHAT, "deepseek-v4-flash", "deepseek-v4-pro"), {"n": 2}, {"n": 2}, ()),
    # Thinking: by the model's name, or by the switch and the effort.
    *each((CHAT, "deepseek-v3"), {"thinking": {"type": "enabled"}}, {"thinking": None}, ("thinking:dropped",)),
    *each((CHAT, "deepseek-v3"), {"thinking": {"type": "disabled"}}, {"thinking": None}, ()),
    *each(
        (CHAT, "deepseek-v3"), {"reasoning_effort": "low"}, {"reasoning_effort": None}, ("reasoning_effort:dropped",)
    ),
    *each((REASONER, "deepseek-r1"), {"thinking": {"type": "disabled"}}, {"thinking": None}, ("thinking:dropped",)),
    *each((REASONER, "deepseek-r1"), {"thinking": {"type": "enabled"}}, {"thinking": None}, ()),
    (REASONER, {"reasoning_effort": "none"}, {"reasoning_effort": None}, ("reasoning_effort:dropped",)),
    (REASONER, {"reasoning_effort": "medium"}, {"reasoning_effort": "high"}, ("reasoning_effort:medium->high",)),
    *each(V4, {"thinking": {"type": "enabled"}}, {"thinking": {"type": "enabled"}}, ()),
    *each(V4, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}, ()),
    *each(
        V4, {"thinking": {"type": "adaptive"}}, {"thinking": {"type": "enabled"}}, ("thinking.type:adaptive->enabled",)
    ),
    *each(
        V4,
        {"thinking": {"type": "disabled"}, "reasoning_effort": "max"},
        {"thinking": {"type": "disabled"}, "reasoning_effort": None},
        ("reasoning_effort:dropped",),
    ),
    *each(
        V4,
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}, "reasoning_effort": None},
        ("reasoning_effort:none->thinking.type:disabled",),
    ),
    *each(
        V4,
        {"thinking": {"type": "enabled"}, "reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}, "reasoning_effort": None},
        ("reasoning_effort:none->thinking.type:disabled",),
    ),
    *(
        row
        for said, sent in (("minimal", "low"), ("medium", "high"), ("xhigh", "high"), ("ultra", "max"))
        for row in each(
            V4, {"reasoning_effort": said}, {"reasoning_effort": sent}, (f"reasoning_effort:{said}->{sent}",)
        )
    ),
    *(
        row
        for same in ("low", "high", "max")
        for row in each(V4, {"reasoning_effort": same}, {"reasoning_effort": same}, ())
    ),
    *each(
        V4,
        {"thinking": {"type": "enabled", "reasoning_effort": "medium"}},
        {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        ("thinking.reasoning_effort->reasoning_effort", "reasoning_effort:medium->high"),
    ),
    *each(
        V4,
        {"thinking": {"type": "enabled", "reasoning_effort": "low"}, "reasoning_effort": "max"},
        {"thinking": {"type": "enabled"}, "reasoning_effort": "max"},
        ("thinking.reasoning_effort:dropped",),
    ),
    *each(
        V4,
        {"thinking": {"type": "disabled", "reasoning_effort": "low"}},
        {"thinking": {"type": "disabled"}, "reasoning_effort": None},
        ("thinking.reasoning_effort:dropped",),
    ),
    *each(
        V4,
        {"thinking": {"type": "enabled", "budget_tokens": 1000}},
        {"thinking": {"type": "enabled"}},
        ("thinking.budget_tokens:dropped",),
    ),
    # A forced tool call goes before thinking.
    *each(
        V4,
        {"tools": TOOLS, "tool_choice": "required"},
        {"thinking": {"type": "disabled"}, "tool_choice": "required"},
        ("thinking.type:disabled (tool_choice)",),
    ),
    *each(
        V4,
        {"tools": TOOLS, "tool_choice": NAMED, "reasoning_effort": "high"},
        {"thinking": {"type": "disabled"}, "tool_choice": NAMED, "reasoning_effort": None},
        ("thinking.type:disabled (tool_choice)", "reasoning_effort:dropped"),
    ),
    (CHAT, {"tools": TOOLS, "tool_choice": "required"}, {"thinking": None, "tool_choice": "required"}, ()),
    # A middle is filled in with 4K at most.
    (CHAT, {"prompt": "a", "suffix": "b"}, {"max_tokens": 4096, "suffix": "b"}, ()),
    (CHAT, {"prompt": "a", "max_tokens": 8192}, {"max_tokens": 4096}, ("max_tokens:8192->4096",)),
    *each(V4, {"prompt": "a", "max_tokens": 9}, {"max_tokens": 9, "thinking": None}, ()),
]


@pytest.mark.parametrize(("model", "said", "sent", "receipts"), SENT)
def test_what_is_sent(model: str, said: dict[str, Any], sent: dict[str, Any], receipts: tuple[str, ...]) -> None:
    """Defaults are filled in, what has no effect is taken out, and each change is named."""
    done = ruled(model, **said)
    assert {name: done.fields.get(name) for name in sent} == sent
    assert all((name in done.fields) == (sent[name] is not None) for name in sent)
    assert done.adjusted == receipts


RANGES = {
    "temperature": ("[0, 2]", (-0.1, 2.1)),
    "top_p": ("(0, 1.0]", (0, 1.01, -1)),
    "presence_penalty": ("[-2, 2]", (-2.5, 3)),
    "frequency_penalty": ("[-2, 2]", (-2.5, 3)),
}
REFUSED = [
    # model; what the client says; code; the field that is named; the message
    *(
        row
        for field, (text, values) in RANGES.items()
        for value in values
        for row in each(
            (*S0, *V4, CHAT),
            {field: value},
            "caller.invalid_value",
            field,
            f"Invalid {field} value, the valid range of {field} is {text}",
        )
    ),
    *(
        row
        for models, longest in ((S0, 16384), (V4, 393216), ((REASONER, CHAT), 8192))
        for value in (0, -1, longest + 1)
        for row in each(
            models,
            {"max_tokens": value},
            "caller.invalid_value",
            "max_tokens",
            f"Invalid max_tokens value, the valid range of max_tokens is [1, {longest}]",
        )
    ),
    *each((*S0, REASONER), {"tools": TOOLS}, "caller.unsupported", "tools", "{} does not support Function Calling."),
    *each(
        (*S0, REASONER), {"response_format": JSON}, "caller.unsupported", "response_format",
        "{} does not support Json Output.",
    ),
    *each(
        S0, {"messages": [USER, {"role": "assistant", "content": "a", "prefix": True}]}, "caller.unsupported",
        "messages", "{} does not support Chat Prefix Completion.",
    ),
    *each((*S0, REASONER), {"prompt": "a"}, "caller.unsupported", "model", "{} does not support FIM Completion."),
    (REASONER, {"logprobs": True}, "caller.unsupported", "logprobs", "{} does not support logprobs."),
    (
        REASONER, {"logprobs": True, "top_logprobs": 1}, "caller.unsupported", "logprobs",
        "{} does not support logprobs.",
    ),
    *each(
        (*S0, REASONER, "deepseek-flash"), {"n": 2}, "caller.unsupported", "n",
        "Invalid n value (currently only n = 1 is supported)",
    ),
    (CHAT, {"n": 9}, "caller.invalid_value", "n", "Invalid n value, the valid range of n is [1, 8]"),
    *each(
        CHAT, {"response_format": JSON, "messages": [{"role": "user", "content": "hi"}]},
        "caller.invalid_value", "response_format",
        "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
    ),
    *each(ALL, {"stop": ["x"] * 17}, "caller.invalid_value", "stop", "Stop string array too long: 17"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said", "code", "param", "message"), REFUSED)
def test_what_is_refused(model: str, said: dict[str, Any], code: str, param: str, message: str) -> None:
    """A value out of range, or something the model cannot do, is a 400 in the live service's words, its field named."""
    with pytest.raises(Problem) as refusal:
        ruled(model, **said)
    problem = refusal.value
    assert (problem.code, problem.param, problem.message) == (code, param, message.format(model))
    assert problem.status == 400


THINKS = [
    *each(("deepseek-r1", REASONER), {}, True),
    *each((CHAT, "deepseek-v3", "deepseek-v3-0324", "deepseek-prover-v2"), {}, False),
    *each(V4, {}, True),
    *each(V4, {"thinking": {"type": "disabled"}}, False),
    *each(V4, {"thinking": {"type": "adaptive"}}, True),
    *each(V4, {"reasoning_effort": "none"}, False),
    *each(V4, {"tools": TOOLS, "tool_choice": "auto"}, True),
    *each(V4, {"tools": TOOLS, "tool_choice": "required"}, False),
    *each(V4, {"prompt": "a"}, False),
    *each(("deepseek-r1", REASONER), {"thinking": {"type": "disabled"}}, True),
    (CHAT, {"thinking": {"type": "enabled"}}, False),
]


@pytest.mark.parametrize(("model", "said", "thinks"), THINKS)
def test_thinking_is_decided(model: str, said: dict[str, Any], thinks: bool) -> None:
    """`thinking` and the need of that name say the same, whatever the client said."""
    done = ruled(model, **said)
    assert done.thinking is thinks
    assert ("thinking" in done.needs) is thinks


@pytest.mark.parametrize(
    ("model", "said", "longest"),
    [
        *each((*S0, REASONER, CHAT), {}, 4096),
        *each(V4, {}, 65536),
        *each(V4, {"thinking": {"type": "disabled"}}, 8192),
        *each(V4, {"reasoning_effort": "ultra"}, 131072),
        *each(V4, {"prompt": "a"}, 4096),
        *each(ALL, {"max_tokens": 17}, 17),
    ],
)
def test_the_longest_answer_is_known(model: str, said: dict[str, Any], longest: int) -> None:
    """`output_max` is what the client asked for, else the model's default."""
    assert ruled(model, **said).output_max == longest


@pytest.mark.parametrize(
    ("model", "said", "tokens"),
    [
        (CHAT, {"max_tokens": 10}, 10),
        (CHAT, {"max_tokens": 10, "n": 3}, 30),
        (REASONER, {"max_tokens": 10}, 10 + 32768),
        ("deepseek-v4-pro", {"max_tokens": 10}, 10),
    ],
)
def test_a_hold_covers_thinking_and_candidates(model: str, said: dict[str, Any], tokens: int) -> None:
    """Thinking that the limit does not count, and every candidate, are in the bound."""
    assert CATALOGUE.find(model).tokens_max(ruled(model, **said)) == tokens


THOUGHT = {"role": "assistant", "content": "4", "reasoning_content": "2+2"}
ASKED_AGAIN = {"messages": [USER, THOUGHT, USER]}
CONTINUED = {"messages": [USER, {**THOUGHT, "prefix": True}]}


def test_reasoning_is_refused_by_the_reasoner() -> None:
    """S2: reasoning that comes back is an error that names the message, even in a last message without prefix."""
    for messages, at in (([USER, THOUGHT, USER], 1), ([USER, THOUGHT], 1)):
        with pytest.raises(Problem) as refusal:
            ruled(REASONER, messages=messages)
        assert refusal.value.status == 400
        assert refusal.value.param == f"messages[{at}].reasoning_content"


def test_reasoning_is_continued_by_the_reasoner() -> None:
    """S3: a last assistant message with prefix may carry the thinking to go on with."""
    assert ruled(REASONER, **CONTINUED).fields["messages"] == CONTINUED["messages"]


def test_empty_reasoning_is_nothing() -> None:
    """SDKs that fill in an empty text are not refused for it."""
    done = ruled(REASONER, messages=[USER, {**THOUGHT, "reasoning_content": ""}, USER])
    assert "reasoning_content" not in done.fields["messages"][1]
    assert done.adjusted == ()


@pytest.mark.parametrize("model", [*S0, CHAT])
def test_reasoning_is_dropped_where_it_is_not_needed(model: str) -> None:
    """S0: old thinking is taken out, with one receipt; the rest of the message stays."""
    done = ruled(model, **ASKED_AGAIN)
    assert done.fields["messages"] == [USER, {"role": "assistant", "content": "4"}, USER]
    assert done.adjusted == ("messages.reasoning_content:dropped",)


@pytest.mark.parametrize("model", V4)
def test_reasoning_is_kept_where_it_is_wanted(model: str) -> None:
    """V4 wants every turn's thinking back, byte for byte."""
    done = ruled(model, **ASKED_AGAIN)
    assert done.fields["messages"] == ASKED_AGAIN["messages"]
    assert done.adjusted == ()


def test_an_unknown_effort_is_refused_wherever_it_stands() -> None:
    """The nested form is held to the same words as the plain one."""
    for fields in ({"reasoning_effort": "foo"}, {"thinking": {"type": "enabled", "reasoning_effort": "foo"}}):
        with pytest.raises(Problem, match="unknown variant `foo`") as refusal:
            ruled("deepseek-flash", **fields)
        assert refusal.value.status == 400


def body(model: str, said: dict[str, Any]) -> tuple[Target, dict[str, Any]]:
    """What the model's first host is sent."""
    target = HOSTED.find(model).targets[0]
    outbound = DIALECTS[target.host.dialect].render_call(ruled(model, HOSTED, **said), target)
    return target, json.loads(outbound.body)


def test_old_names_are_served_by_their_successor() -> None:
    """The host's model thinks by a switch and counts it in max_tokens: it is told, and only it."""
    _, chat = body(CHAT, {"max_tokens": 100})
    assert (chat["model"], chat["thinking"], chat["max_tokens"]) == ("deepseek-flash", {"type": "disabled"}, 100)
    _, reasoner = body(REASONER, {})
    assert (reasoner["model"], reasoner["thinking"]) == ("deepseek-flash", {"type": "enabled"})
    assert reasoner["max_tokens"] == 4096 + 32768
    _, middle = body(CHAT, {"prompt": "a", "suffix": "b"})
    assert "thinking" not in middle


def test_a_host_is_sent_nothing_it_does_not_know() -> None:
    """The S0 host decides on thinking by the model's name, and it can search."""
    target, sent = body(
        "deepseek-r1", {"enable_search": True, "thinking": {"type": "enabled"}, "reasoning_effort": "low"}
    )
    assert target.host.name == "lkeap"
    assert sent["enable_search"] is True
    assert not {"thinking", "reasoning_effort"} & set(sent)


def test_several_hosts_and_what_each_can() -> None:
    """What only one host of several can, goes to that one."""
    model = HOSTED.find("deepseek-v4-flash")
    assert [target.host.name for target in model.targets] == ["deepseek", "tokenhub"]
    several = ruled("deepseek-v4-flash", HOSTED, n=2)
    assert [target.host.name for target in model.targets_for(several.needs)] == ["tokenhub"]
    middle = ruled("deepseek-v4-flash", HOSTED, prompt="a")
    assert [target.host.name for target in model.targets_for(middle.needs)] == ["deepseek"]
    with pytest.raises(Problem, match="only n = 1"):
        ruled("deepseek-v4-flash", HOSTED, prompt="a", n=2)


ANYTHING: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.sampled_from([0, 1.5, 2, -1, 3]),
    "top_p": st.sampled_from([0, 0.5, 1]),
    "presence_penalty": st.sampled_from([0, -2.5, 2]),
    "max_tokens": st.sampled_from([0, 1, 8192, 8193, 10**6]),
    "n": st.sampled_from([1, 2, 99]),
    "logprobs": st.booleans(),
    "tools": st.just(TOOLS),
    "tool_choice": st.sampled_from(["none", "auto", "required", NAMED]),
    "response_format": st.sampled_from([JSON, {"type": "text"}]),
    "thinking": st.fixed_dictionaries(
        {"type": st.sampled_from(["enabled", "disabled", "adaptive"])},
        optional={"reasoning_effort": st.sampled_from(["none", "max", "foo"]), "budget_tokens": st.integers()},
    ),
    "reasoning_effort": st.sampled_from(["none", "minimal", "high", "ultra"]),
    "enable_search": st.booleans(),
    "messages": st.sampled_from([[USER], [USER, THOUGHT, USER], CONTINUED["messages"]]),
}


@given(st.sampled_from(ALL), st.fixed_dictionaries({}, optional=ANYTHING), st.sampled_from([CATALOGUE, HOSTED]))
def test_any_request_is_ruled_or_refused(model: str, fields: dict[str, Any], catalogue: Any) -> None:
    """Whatever fields meet: a 400 that names one, or a call that some host can answer, its limit known, and whose
    receipts fit in a header."""
    refused, done = None, None
    try:
        done = ruled(model, catalogue, **copy.deepcopy(fields))
    except Problem as problem:
        refused = problem
    if done is None:
        assert refused is not None
        assert (refused.status, bool(refused.param)) == (400, True)
        return
    found = catalogue.find(model)
    assert found.targets_for(done.needs)
    assert 1 <= (done.output_max or 0) <= found.output_max
    assert done.thinking is ("thinking" in done.needs)
    said = done.fields.get("thinking")
    assert said is None or (said["type"] == "enabled") is done.thinking
    assert "reasoning_effort" not in done.fields or done.thinking
    assert all(receipt.isascii() and "," not in receipt for receipt in done.adjusted)
    # What is ruled stays as it is, but for the switch of a model that has none.
    again = apply(done, found)
    assert (again.fields, again.thinking, again.output_max) == (done.fields, done.thinking, done.output_max)
