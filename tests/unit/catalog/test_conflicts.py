"""What cannot be had together: each conflict under both policies of a key, adapted with a receipt or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moonpool.catalog.catalog import build
from moonpool.catalog.rules import apply
from moonpool.dialects import DIALECTS
from moonpool.errors import Problem
from moonpool.settings import Settings
from moonpool.words import Call

OWN: dict[str, Any] = {
    "models": {
        "plain": {"hosts": ["mine"], "can": ["logprobs", "n"]},
        "told": {"hosts": ["mine"], "can": [], "emulate": ["tools", "json_object"]},
        "mixed": {"hosts": ["poor", "mine"], "can": ["tools", "json_object"]},
        "merging": {"hosts": ["mine"], "system": "merge"},
        "pictures": {"hosts": ["mine"]},
        "blind": {"hosts": ["mine", "texts"]},
    },
    "hosts": {
        "mine": {"base_url": "http://127.0.0.1:1"},
        "poor": {"base_url": "http://127.0.0.1:1", "cannot": ["tools"]},
        "texts": {"base_url": "http://127.0.0.1:1", "text_only": True},
    },
}
CATALOGUE = build(Settings(home="/nowhere", **OWN), {})
R1, V3, CHAT, REASONER, FLASH, PRO = (
    "deepseek-r1", "deepseek-v3", "deepseek-chat", "deepseek-reasoner", "deepseek-flash", "deepseek-v4-pro",
)  # fmt: skip

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "f"}}
JSON = {"type": "json_object"}
OFF, ON = {"type": "disabled"}, {"type": "enabled"}
PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
NO_WORD = "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."


def asked(model: str, refuse: bool = False, emulate: str = "", **fields: Any) -> Call:
    fields = {"model": model, **fields}
    operation: Any = "completion" if "prompt" in fields else "chat"
    if operation == "chat":
        fields.setdefault("messages", [USER])
    call = DIALECTS["deepseek"].parse_call(operation, json.dumps(fields).encode(), "id")
    done: Call = apply(call, CATALOGUE.find(model), refuse, emulate)
    return done


def each(models: tuple[str, ...], *row: Any) -> list[tuple[Any, ...]]:
    return [(model, *row) for model in models]


def says(*contents: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for content in contents]}


CONFLICTS = [
    # model; what the client says; what is then sent of these fields (None: nothing); receipts; the field that is
    # named where the key refuses
    # Thinking and sampling.
    *each((FLASH, PRO), {"temperature": 0.5}, {"temperature": None}, ("temperature:dropped",), "temperature"),
    (FLASH, {"top_p": 0.5}, {"top_p": 0.95}, ("top_p:0.5->0.95",), "top_p"),
    (FLASH, {"thinking": OFF, "top_p": 0.97}, {"top_p": None}, ("top_p:dropped",), "top_p"),
    (PRO, {"top_p": 0.97}, {"top_p": None}, ("top_p:dropped",), "top_p"),
    (REASONER, {"temperature": 0.5}, {"temperature": None}, ("temperature:dropped",), "temperature"),
    *each((FLASH, V3), {"presence_penalty": 1}, {"presence_penalty": None}, ("presence_penalty:dropped",),
          "presence_penalty"),
    # Thinking and a forced call.
    *each((FLASH, PRO), {"tools": TOOLS, "tool_choice": "required"}, {"thinking": OFF},
          ("thinking.type:disabled (tool_choice)",), "tool_choice"),
    (FLASH, {"tools": TOOLS, "tool_choice": NAMED, "thinking": ON}, {"thinking": OFF},
     ("thinking.type:disabled (tool_choice)",), "tool_choice"),
    # No thinking, and how much of it.
    (FLASH, {"thinking": OFF, "reasoning_effort": "high"}, {"reasoning_effort": None}, ("reasoning_effort:dropped",),
     "reasoning_effort"),
    (FLASH, {"thinking": {**OFF, "reasoning_effort": "high"}}, {"thinking": OFF, "reasoning_effort": None},
     ("thinking.reasoning_effort:dropped",), "thinking.reasoning_effort"),
    (FLASH, {"thinking": {**ON, "budget_tokens": 5}}, {"thinking": ON}, ("thinking.budget_tokens:dropped",),
     "thinking.budget_tokens"),
    (V3, {"thinking": ON}, {"thinking": None}, ("thinking:dropped",), "thinking"),
    (R1, {"thinking": OFF}, {"thinking": None}, ("thinking:dropped",), "thinking"),
    (V3, {"reasoning_effort": "low"}, {"reasoning_effort": None}, ("reasoning_effort:dropped",), "reasoning_effort"),
    # What has no effect, or none beyond a limit.
    (R1, {"logprobs": True}, {"logprobs": None}, ("logprobs:dropped",), "logprobs"),
    (FLASH, {"enable_search": True}, {"enable_search": None}, ("enable_search:dropped",), "enable_search"),
    (FLASH, {"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 5}, ("max_completion_tokens:dropped",),
     "max_completion_tokens"),
    (CHAT, {"prompt": "a", "max_tokens": 8000}, {"max_tokens": 4096}, ("max_tokens:8000->4096",), "max_tokens"),
    # Messages.
    (R1, {"messages": [SYSTEM, USER]}, says("Be brief.\n\nHi"), ("messages[0].role:system->user",), "messages[0].role"),
    ("merging", {"messages": [SYSTEM, {"role": "user", "content": [IMAGE]}]},
     says([{"type": "text", "text": "Be brief."}, IMAGE]), ("messages[0].role:system->user",), "messages[0].role"),
    (R1, {"messages": [USER, SYSTEM]}, says("Hi", "Be brief."), ("messages[1].role:system->user",),
     "messages[1].role"),
    *each((R1, V3, CHAT, REASONER, "blind"), says(PARTS), says("a\nb"), ("messages[0].content:list->text",),
          "messages[0].content"),
    (V3, {"messages": [USER, {"role": "assistant", "content": "4", "reasoning_content": "2+2"}, USER]},
     {"messages": [USER, {"role": "assistant", "content": "4"}, USER]}, ("messages.reasoning_content:dropped",),
     "messages[1].reasoning_content"),
    *each((FLASH, PRO), {"response_format": JSON},
          {"messages": [{"role": "system", "content": "Answer in JSON."}, USER]},
          ("messages:json_word_added",), "response_format"),
    (FLASH, {"response_format": JSON, "messages": [SYSTEM, USER]},
     {"messages": [{"role": "system", "content": "Be brief.\n\nAnswer in JSON."}, USER]},
     ("messages:json_word_added",), "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said", "sent", "receipts", "param"), CONFLICTS)
def test_adapted_or_refused(
    model: str, said: dict[str, Any], sent: dict[str, Any], receipts: tuple[str, ...], param: str
) -> None:
    """A conflict is adapted with a receipt; a key that refuses reads a 400 with the field instead."""
    done = asked(model, **said)
    assert {name: done.fields.get(name) for name in sent} == sent
    assert done.adjusted == receipts
    assert not done.refuse
    with pytest.raises(Problem) as refusal:
        asked(model, refuse=True, **said)
    assert (refusal.value.status, refusal.value.param) == (400, param)
    assert refusal.value.code == ("caller.invalid_value" if param == "response_format" else "caller.unsupported")


SAME = [
    # What says the same in other words is no adaptation: model; fields; what is sent; receipts
    (FLASH, {"max_completion_tokens": 5}, {"max_tokens": 5}, ("max_completion_tokens->max_tokens",)),
    (FLASH, {"reasoning_effort": "medium"}, {"reasoning_effort": "high"}, ("reasoning_effort:medium->high",)),
    (FLASH, {"reasoning_effort": "none"}, {"thinking": OFF}, ("reasoning_effort:none->thinking.type:disabled",)),
    (FLASH, {"thinking": {"type": "adaptive"}}, {"thinking": ON}, ("thinking.type:adaptive->enabled",)),
    (FLASH, {"thinking": {**ON, "reasoning_effort": "low"}}, {"reasoning_effort": "low"},
     ("thinking.reasoning_effort->reasoning_effort",)),
    (FLASH, {"messages": [{"role": "developer", "content": "a"}, USER]},
     {"messages": [{"role": "system", "content": "a"}, USER]}, ("messages[0].role:developer->system",)),
    (V3, {}, {"temperature": 0.6}, ()),
    *each((FLASH, PRO), {"temperature": 1, "top_p": 1.0}, {"temperature": 1, "top_p": 1.0}, ()),
    (FLASH, {"thinking": OFF, "temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}, ()),
    (FLASH, {"top_p": 0.97}, {"top_p": 0.97}, ()),
    (PRO, {"thinking": OFF, "temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}, ()),
    (V3, {"thinking": OFF, "logprobs": False}, {"thinking": None, "logprobs": None}, ()),
    (FLASH, {"tools": TOOLS, "tool_choice": "required", "thinking": OFF}, {"tool_choice": "required"}, ()),
    (CHAT, {"tools": TOOLS, "tool_choice": "required"}, {"tool_choice": "required"}, ()),
    *each((FLASH, CHAT, REASONER), {"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, USER]}, ()),
    *each((FLASH, "pictures"), says([*PARTS, IMAGE]), says([*PARTS, IMAGE]), ()),
    (V3, {"messages": [USER, {"role": "assistant", "content": "4", "reasoning_content": ""}, USER]},
     {"messages": [USER, {"role": "assistant", "content": "4"}, USER]}, ()),
    (FLASH, {"response_format": JSON, **says([{"type": "text", "text": "Some JSON"}])},
     says([{"type": "text", "text": "Some JSON"}]), ()),
    (FLASH, {"response_format": {"type": "json_schema", "json_schema": {}}}, says("Hi"), ()),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said", "sent", "receipts"), SAME)
@pytest.mark.parametrize("refuse", [False, True], ids=["adapt", "refuse"])
def test_the_same_in_other_words(
    model: str, said: dict[str, Any], sent: dict[str, Any], receipts: tuple[str, ...], refuse: bool
) -> None:
    """Defaults, renames, synonyms and values that agree are no conflict, whatever the policy."""
    done = asked(model, refuse, **said)
    assert {name: done.fields.get(name) for name in sent} == sent
    assert done.adjusted == receipts
    assert done.refuse is refuse


REFUSED = [
    # What nothing can be made of, whatever the policy: model; fields; code; param; sentence
    (REASONER, {"logprobs": True}, "caller.unsupported", "logprobs", "deepseek-reasoner does not support logprobs."),
    (CHAT, {"response_format": JSON}, "caller.invalid_value", "response_format", NO_WORD),
    *each((CHAT, "blind"), says([*PARTS, IMAGE]), "caller.unsupported", "messages[0].content[2].image_url",
          "{} takes texts only: neither images nor files."),
    (CHAT, says([{"type": "file", "file": {}}]), "caller.unsupported", "messages[0].content[0].file",
     "{} takes texts only: neither images nor files."),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said", "code", "param", "sentence"), REFUSED)
@pytest.mark.parametrize("refuse", [False, True], ids=["adapt", "refuse"])
def test_refused_either_way(
    model: str, said: dict[str, Any], code: str, param: str, sentence: str, refuse: bool
) -> None:
    """What cannot be adapted is the same 400 under both policies."""
    with pytest.raises(Problem) as refusal:
        asked(model, refuse, **said)
    problem = refusal.value
    assert (problem.code, problem.param, problem.message) == (code, param, sentence.format(model))


BOTH = {"tools": TOOLS, "response_format": JSON}
EMULATED = [
    # model; header; fields; what we see to; receipts
    ("told", "", {"tools": TOOLS}, {"tools"}, ("tools:emulated",)),
    ("told", "", {"response_format": JSON}, {"json_object"}, ("response_format:emulated",)),
    ("told", "", BOTH, {"tools", "json_object"}, ("tools:emulated", "response_format:emulated")),
    ("told", "", {"tools": TOOLS, "tool_choice": "none"}, set(), ()),
    ("plain", "tools", {"tools": TOOLS}, {"tools"}, ("tools:emulated",)),
    ("plain", "JSON , tools", BOTH, {"tools", "json_object"}, ("tools:emulated", "response_format:emulated")),
    ("plain", "json_object", {"response_format": JSON}, {"json_object"}, ("response_format:emulated",)),
    (R1, "tools, json", {"tools": TOOLS}, {"tools"}, ("tools:emulated",)),
    (CHAT, "tools, json", {"tools": TOOLS}, set(), ()),
    ("mixed", "tools", {"tools": TOOLS}, set(), ()),
]  # fmt: skip


@pytest.mark.parametrize(("model", "header", "said", "needs", "receipts"), EMULATED)
@pytest.mark.parametrize("refuse", [False, True], ids=["adapt", "refuse"])
def test_what_is_emulated(
    model: str, header: str, said: dict[str, Any], needs: set[str], receipts: tuple[str, ...], refuse: bool
) -> None:
    """What was opted into and no host can; never where one can. It is asked for, so no adaptation that is refused."""
    done = asked(model, refuse, header, **said)
    assert done.emulated == needs
    assert not done.needs & needs
    assert done.adjusted == receipts
    assert CATALOGUE.find(model).targets_for(done.needs)


def test_a_hold_covers_both_passes() -> None:
    """An emulated answer may be asked for twice."""
    plain, told = (asked("told", max_tokens=10, **fields) for fields in ({}, {"tools": TOOLS}))
    assert CATALOGUE.find("told").tokens_max(plain) == 10
    assert CATALOGUE.find("told").tokens_max(told) == 20


NOT_EMULATED = [
    # model; header; fields; param
    ("plain", "", {"tools": TOOLS}, "tools"),
    ("plain", "json", {"tools": TOOLS}, "tools"),
    ("plain", "tools", BOTH, "response_format"),
    ("plain", "tools", {"tools": TOOLS, "n": 2}, "n"),
    ("plain", "tools", {"tools": TOOLS, "logprobs": True}, "logprobs"),
    ("plain", "tools", {"tools": [*TOOLS, {"type": "deepseek_web_search"}]}, "tools[1].type"),
    ("plain", "json", {"response_format": {"type": "regex"}}, "response_format.type"),
    ("plain", "tools, images", {}, "x-moonpool-emulate"),
    (REASONER, "tools", {"prompt": "a"}, "model"),
]


@pytest.mark.parametrize(("model", "header", "said", "param"), NOT_EMULATED)
def test_what_is_not_emulated(model: str, header: str, said: dict[str, Any], param: str) -> None:
    """Without an opt-in, or where an emulation does not go so far, the 400 stays."""
    with pytest.raises(Problem) as refusal:
        asked(model, False, header, **said)
    assert (refusal.value.status, refusal.value.param) == (400, param)
