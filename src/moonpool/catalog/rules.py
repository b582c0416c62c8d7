"""What a model's rules make of a call: defaults, ranges, what is dropped, refused or mapped. Pure, one pass.

The rules are data (models.toml); what they did is said in `Call.adjusted`, in the words of the header
`x-moonpool-adjusted`: `field:dropped`, `field:value->value`, `old->new`. Sources: contract sections 2 and 3,
PROVIDERS 1.3 and 1.7.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from moonpool.catalog.model import Model
from moonpool.errors import Problem
from moonpool.words import CHAT, Call

_FIELD_OF: Final = {
    "tools": "tools",
    "json_object": "response_format",
    "prefix": "messages",
    "fim": "prompt",
    "logprobs": "logprobs",
    "n": "n",
}
_ENABLED: Final = {"type": "enabled"}
_DISABLED: Final = {"type": "disabled"}


class _Draft(Struct, gc=False):
    """A call while rules change it."""

    fields: dict[str, Any]
    adjusted: list[str]
    thinking: bool


def apply(call: Call, model: Model) -> Call:
    """The call as this model takes it. Raises Problem (`caller.invalid_value`, `caller.unsupported`), `param` naming
    the field. The input is left as it was."""
    fields = dict(call.fields)
    draft = _Draft(fields, list(call.adjusted), False)
    needs = _apply_rules(call, model, draft)
    if call.operation == CHAT:
        _decide_thinking(model, draft)
        if model.replay != "keep" and b"reasoning_content" in call.raw:
            _replay(model, draft)
    missing = needs - model.can
    if missing:
        _refuse_need(missing, model)
    limit = fields.get("max_tokens")
    if limit is None:
        limit = model.output_default_thinking if draft.thinking else model.output_default
        fields["max_tokens"] = limit
    elif not 1 <= limit <= model.output_max:
        raise Problem(
            "caller.invalid_value",
            f"Invalid max_tokens value, the valid range of max_tokens is [1, {model.output_max}]",
            param="max_tokens",
        )
    return Call(
        call.id,
        call.operation,
        call.model,
        call.stream,
        fields,
        call.raw,
        call.include_usage,
        limit,
        draft.thinking,
        needs,
        tuple(draft.adjusted),
    )


def _apply_rules(call: Call, model: Model, draft: _Draft) -> frozenset[str]:
    """Every field that has a rule; then the defaults. Returns what the call needs once things are dropped."""
    needs = call.needs - {"thinking"}
    fields = draft.fields
    rules = model.rules
    for name, value in call.fields.items():
        rule = rules.get(name)
        if rule is None:
            continue
        if rule.drop:
            del fields[name]
            needs -= {name}
            if value is not False:
                draft.adjusted.append(f"{name}:dropped")
        elif rule.refuse:
            if value is not False:
                raise Problem("caller.unsupported", rule.refuse, param=name)
            del fields[name]
        elif rule.range is not None and type(value) is not bool:
            low, high = rule.range
            if not low <= value <= high or (rule.above and value == low):
                raise Problem("caller.invalid_value", rule.message, param=name)
    for name, default in model.defaults:
        if name not in fields:
            fields[name] = default
    return needs


def _decide_thinking(model: Model, draft: _Draft) -> None:
    """Whether the answer is thought about, and how hard; says so in the fields where that is not the host's default."""
    fields, adjusted = draft.fields, draft.adjusted
    asked = fields.get("thinking")
    effort = fields.get("reasoning_effort")
    nested = asked.get("reasoning_effort") if asked else None
    if nested is not None:
        if effort is None:
            effort = nested
            adjusted.append("thinking.reasoning_effort->reasoning_effort")
        else:
            adjusted.append("thinking.reasoning_effort:dropped")
    mapped = model.efforts.get(effort, effort) if effort is not None else None
    wanted = None if asked is None else asked["type"] != "disabled"
    if wanted is None and mapped is not None:
        wanted = mapped != "none"
    mode = model.thinking
    if mode in ("always", "never"):
        draft.thinking = mode == "always"
        if wanted is not None and wanted != draft.thinking:
            adjusted.append("thinking:dropped" if asked is not None else "reasoning_effort:dropped")
    else:
        draft.thinking = (mode == "default_on") if wanted is None else wanted
        choice = fields.get("tool_choice")
        if draft.thinking and model.forced_tools == "thinking_off" and (choice == "required" or type(choice) is dict):
            draft.thinking = wanted = False
            adjusted.append("thinking:enabled->disabled (tool_choice)")
    if wanted is not None or mode in ("always", "never"):
        fields["thinking"] = _ENABLED if draft.thinking else _DISABLED
    if effort is not None:
        if draft.thinking and mapped != "none":
            fields["reasoning_effort"] = mapped
            if mapped != effort:
                adjusted.append(f"reasoning_effort:{effort}->{mapped}")
        else:
            fields.pop("reasoning_effort", None)


def _replay(model: Model, draft: _Draft) -> None:
    """What becomes of thinking that comes back in the messages (PROVIDERS 1.7)."""
    messages = list(draft.fields["messages"])
    last = len(messages) - 1
    for number, message in enumerate(messages):
        if message.get("reasoning_content") is None or (number == last and message.get("prefix") is True):
            continue
        name = f"messages[{number}].reasoning_content"
        if model.replay == "reject":
            raise Problem(
                "caller.invalid_value",
                f"{model.name} does not take reasoning_content in the messages: remove it, "
                "or set prefix on the last message to continue it.",
                param=name,
            )
        messages[number] = {key: value for key, value in message.items() if key != "reasoning_content"}
        draft.adjusted.append(f"{name}:dropped")
    draft.fields["messages"] = messages


def _refuse_need(missing: frozenset[str], model: Model) -> None:
    need = min(missing)
    field = _FIELD_OF[need]
    what = {"json_object": "response_format json_object", "fim": "completions"}.get(need, need)
    raise Problem("caller.unsupported", f"{model.name} does not support {what}.", param=field)
