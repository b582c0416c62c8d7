"""What do a model's rules make of a call? Ranges, defaults, what is dropped, refused, mapped. Pure, one pass.

The rules are data (models.toml), compiled when the catalogue is built (model.py). What they did to what the client
said stands in `Call.adjusted`, in the words of the header `x-moonpool-adjusted`: `field:dropped`,
`field:value->value`, `old->new`; defaults that are filled in leave no receipt. The input is never changed. A key can
refuse to be adapted (draft.py); what contradicts what is in conflicts.py.

Sources: contract sections 2 and 3; PROVIDERS 1.3 (ranges, efforts, conflicts) and 1.7 (replay of reasoning).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moonpool.catalog import conflicts
from moonpool.catalog.conflicts import DISABLED
from moonpool.catalog.draft import Draft
from moonpool.catalog.model import Check, Model
from moonpool.errors import Problem
from moonpool.words import CHAT, Call

_NOTHING: Final[frozenset[str]] = frozenset()
_THINKING: Final = frozenset(("thinking",))
_ON: Final = frozenset(("always", "default_on"))
_FIXED: Final = frozenset(("always", "never"))
_ENABLED: Final = {"type": "enabled"}
_PARAM: Final = {
    "tools": "tools",
    "json_object": "response_format",
    "prefix": "messages",
    "prefix_thinking": "messages",
    "fim": "model",
    "logprobs": "logprobs",
    "n": "n",
    "thinking": "thinking",
}


def apply(call: Call, model: Model, refuse: bool = False, emulate: str = "") -> Call:
    """The call as this model takes it, `output_max` and `thinking` decided.

    `refuse`: the key wants no adaptation; `emulate`: what the request asks us to see to (`x-moonpool-emulate`).
    Raises Problem (`caller.invalid_value`, `caller.unsupported`), its `param` naming the field.
    """
    fields = call.fields
    needs = call.needs
    draft = Draft(fields, call.adjusted, refuse)
    if refuse and call.adjusted:
        conflicts.refuse_what_was_read(call.adjusted)
    checks = model.checks
    for name in fields:
        if name in checks:
            value, check = fields[name], checks[name]
            low = check.low
            # Most fields have a range and no more; `low` itself is for `_check` to judge.
            if low is not None and low < value <= check.high and not check.refuse and not check.drop:
                continue
            if _check(name, value, check, draft):
                needs = needs - {name}
    if call.operation == CHAT:
        thinking, needs = _chat(model, needs, draft)
    else:
        thinking = False
        _lower_middle(model, draft)
    emulated = call.emulated
    allowed = model.emulate | conflicts.wanted(emulate) if emulate else model.emulate
    if needs and (not needs <= model.can or (model.mixed and not model.targets_for(needs))):
        seen_to = conflicts.emulation(needs, allowed, model, draft) if allowed else _NOTHING
        if not seen_to:
            missing = needs - model.can or needs - model.targets[0].can
            raise _unsupported(missing - allowed or missing, model)
        needs, emulated = needs - seen_to, emulated | seen_to
    if "json_object" in needs:
        conflicts.json_word(model, draft)
    for name, value in model.defaults:
        if name not in fields:
            draft.set(name, value)
    output_max = draft.fields.get("max_tokens")
    if output_max is None:
        output_max = _output_default(call, model, thinking, draft)
    return Call(
        call.id,
        call.operation,
        call.model,
        call.stream,
        draft.fields,
        call.raw,
        call.include_usage,
        output_max,
        thinking,
        needs,
        draft.adjusted,
        refuse,
        emulated,
    )


def _chat(model: Model, needs: frozenset[str], draft: Draft) -> tuple[bool, frozenset[str]]:
    """Messages as the model takes them, and whether it thinks."""
    fields = draft.fields
    if model.peculiar:
        merge = model.system == "merge"
        messages = fields["messages"]
        for message in messages:
            if len(message) > 2 or type(message.get("content")) is not str or (merge and message["role"] == "system"):
                conflicts.peculiar(messages, model, draft)
                break
    if "thinking" in fields or "reasoning_effort" in fields:
        thinking = _thinking(model, draft)
    else:
        thinking = model.thinking in _ON
    if thinking:
        if "tool_choice" in fields and model.thinking_forced_tools == "thinking_off":
            thinking = conflicts.forced_call(draft)
        needs = needs | _THINKING if thinking else needs - _THINKING
    elif needs:
        needs = needs - _THINKING
    if model.bounds:
        conflicts.bounded(model.bounds, thinking, draft)
    return thinking, needs


def _check(name: str, value: Any, check: Check, draft: Draft) -> bool:
    """Whether the field was taken out."""
    low = check.low
    if (
        low is not None
        and type(value) is not bool
        and not (low <= value <= check.high and not (check.above and value == low))
    ):
        raise Problem("caller.invalid_value", check.message, param=name)
    if check.refuse and value is not False:
        raise Problem("caller.unsupported", check.refuse, param=name)
    if check.drop or check.refuse:
        draft.drop(name)
        if value is not False:
            draft.adapt(f"{name}:dropped", name)
        return True
    return False


def _output_default(call: Call, model: Model, thinking: bool, draft: Draft) -> int:
    """The longest answer where the client named none; said to the host if its own default is another."""
    if not thinking:
        tokens = model.output_default
        if call.operation != CHAT:
            tokens = min(tokens, model.fim_output_max)
    elif draft.fields.get("reasoning_effort") == "max":
        tokens = model.output_default_effort_max
    else:
        tokens = model.output_default_thinking
    if model.output_default_sent:
        draft.set("max_tokens", tokens)
    return tokens


def _lower_middle(model: Model, draft: Draft) -> None:
    """A middle is shorter than an answer; what is asked beyond that is lowered."""
    wanted = draft.fields.get("max_tokens")
    if wanted is not None and wanted > model.fim_output_max:
        draft.set("max_tokens", model.fim_output_max)
        draft.adapt(f"max_tokens:{wanted}->{model.fim_output_max}", "max_tokens")


# Thinking


def _thinking(model: Model, draft: Draft) -> bool:
    """Whether the answer is thought about, when the client says something of it; the fields then say so plainly."""
    said = draft.fields.get("thinking")
    effort = draft.fields.get("reasoning_effort")
    if said is not None:
        effort = _plain_type(said, effort, draft)
    if effort is not None:
        effort = _plain_effort(effort, model.efforts, draft)
    wanted = None if said is None else said["type"] != "disabled"
    if effort is not None:
        wanted = effort != "none" and wanted is not False
    mode = model.thinking
    if mode in _FIXED:
        return _settled(mode == "always", said, effort, wanted, draft)
    if effort == "none":
        draft.drop("reasoning_effort")
        draft.set("thinking", DISABLED)
        draft.receipt("reasoning_effort:none->thinking.type:disabled")
        return False
    return mode == "default_on" if wanted is None else wanted


def _plain_type(said: Mapping[str, Any], effort: str | None, draft: Draft) -> str | None:
    """`thinking` reduced to its type; what else is in it is moved or dropped. Returns the effort."""
    kind = said["type"]
    nested = said.get("reasoning_effort")
    for name in said:
        if name not in ("type", "reasoning_effort"):
            plain = name.isascii() and name.isidentifier()
            where = f"thinking.{name[:64]}" if plain else "thinking"
            draft.adapt(f"{where}:dropped" if plain else "thinking:mapped", where)
    if nested is not None:
        if effort is None and kind != "disabled":
            effort = nested
            draft.set("reasoning_effort", nested)
            draft.receipt("thinking.reasoning_effort->reasoning_effort")
        else:
            draft.adapt("thinking.reasoning_effort:dropped", "thinking.reasoning_effort")
    if kind == "adaptive":
        draft.receipt("thinking.type:adaptive->enabled")
    if len(said) > 1 or kind == "adaptive":
        draft.set("thinking", DISABLED if kind == "disabled" else _ENABLED)
    return effort


def _plain_effort(effort: str, efforts: Mapping[str, str], draft: Draft) -> str:
    """The effort in the words that hosts know. Raises Problem for one that no host does."""
    mapped = efforts.get(effort)
    if mapped is None:
        known = ", ".join(f"`{name}`" for name in efforts)
        raise Problem(
            "caller.invalid_value",
            f"Failed to deserialize the JSON body into the target type: reasoning_effort: unknown variant "
            f"`{effort[:64]}`, expected one of {known}",
            param="reasoning_effort",
        )
    if mapped != effort:
        draft.set("reasoning_effort", mapped)
        draft.receipt(f"reasoning_effort:{effort}->{mapped}")
    return mapped


def _settled(thinks: bool, said: Any, effort: str | None, wanted: bool | None, draft: Draft) -> bool:
    """The model always thinks, or never does: the switch goes, with a receipt where it said otherwise."""
    if said is not None:
        draft.drop("thinking")
        if wanted is not thinks:
            draft.adapt("thinking:dropped", "thinking")
    if effort is not None and (not thinks or effort == "none"):
        draft.drop("reasoning_effort")
        draft.adapt("reasoning_effort:dropped", "reasoning_effort")
    return thinks


# Needs


def _unsupported(missing: frozenset[str], model: Model) -> Problem:
    need = next(need for need in _PARAM if need in missing)
    return Problem("caller.unsupported", model.unsupported[need], param=_PARAM[need])
