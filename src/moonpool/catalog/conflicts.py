"""What cannot be had together, or not in this form, by this model: fields and messages that are adapted to it.

Each function has one conflict, is only called where it may be there, and leaves a receipt of what it changed (draft.py
says which changes a key can refuse). What the model is like stands in its row.

Sources: PROVIDERS 1.3 (sampling and thinking, forced calls, parts), 1.10 (the word json), 5.3 rows 13 and 18;
CONTRACT 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moonpool.catalog.draft import Draft
from moonpool.catalog.model import Bound, Model
from moonpool.errors import Problem, conflict

DISABLED: Final = {"type": "disabled"}
EMULATED: Final[Mapping[str, str]] = {"tools": "tools", "json": "json_object", "json_object": "json_object"}
"""What the header `x-moonpool-emulate` may list, and the need that is meant."""

_RECEIPTS: Final = {"tools": "tools:emulated", "json_object": "response_format:emulated"}
_WAYS: Final = (frozenset(("tools",)), frozenset(("json_object",)), frozenset(("tools", "json_object")))
_FORCED: Final = "Thinking mode does not support this tool_choice"
_NO_JSON_WORD: Final = (
    "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
)
_JSON_SENTENCE: Final = "Answer in JSON."
_SENTENCES: Final = {
    "reasoning_effort:dropped": "thinking options type cannot be disabled when reasoning_effort is set",
}


def refuse_what_was_read(adjusted: Sequence[str]) -> None:
    """The parser takes out fields that contradict others, before anybody knows of the key."""
    for receipt in adjusted:
        field, _, what = receipt.rpartition(":")
        if what == "dropped":
            raise conflict(receipt, field, _SENTENCES.get(receipt))


def forced_call(draft: Draft) -> bool:
    """Hosts refuse to think when a tool call is forced: the call goes before the thinking."""
    choice = draft.fields["tool_choice"]
    if choice != "required" and type(choice) is not dict:
        return True
    draft.set("thinking", DISABLED)
    draft.adapt("thinking.type:disabled (tool_choice)", "tool_choice", _FORCED)
    if "reasoning_effort" in draft.fields:
        draft.drop("reasoning_effort")
        draft.adapt("reasoning_effort:dropped", "reasoning_effort")
    return False


def bounded(bounds: Sequence[Bound], thinking: bool, draft: Draft) -> None:
    """Sampling that the thinking, or its absence, leaves without effect."""
    for bound in bounds:
        name = bound.field
        ends = bound.thinking if thinking else bound.plain
        if ends is None or name not in draft.fields:
            continue
        value = draft.fields[name]
        low, high = ends
        if low <= value <= high:
            continue
        if low == high:
            draft.drop(name)
            draft.adapt(f"{name}:dropped", name)
        else:
            nearest = low if value < low else high
            draft.set(name, nearest)
            draft.adapt(f"{name}:{value}->{nearest}", name)


# Messages


def peculiar(messages: list[Any], model: Model, draft: Draft) -> None:
    """Messages of which one is more than a role and a text, or a system's: what this model takes of them."""
    if model.replay != "keep" and any("reasoning_content" in message for message in messages):
        messages = _replayed(messages, model, draft)
    if model.text_only and any(type(message.get("content")) is list for message in messages):
        messages = _flattened(messages, model, draft)
    if model.system == "merge" and any(message["role"] == "system" for message in messages):
        messages = _merged(messages, draft)
    if messages is not draft.fields["messages"]:
        draft.set("messages", messages)


def _replayed(messages: list[Any], model: Model, draft: Draft) -> list[Any]:
    """Reasoning that comes back: refused or taken out, but for a last message that wants it continued."""
    kept = []
    dropped = ""
    last = len(messages) - 1
    continues = "prefix" in model.can
    for at, message in enumerate(messages):
        if "reasoning_content" in message and not (continues and at == last and message.get("prefix") is True):
            if message["reasoning_content"]:
                dropped = dropped or f"messages[{at}].reasoning_content"
                if model.replay == "reject":
                    raise Problem(
                        "caller.invalid_value",
                        f"{model.name} does not take reasoning_content back: remove it, "
                        "or set prefix to true on a last assistant message to continue it.",
                        param=dropped,
                    )
            message = {name: value for name, value in message.items() if name != "reasoning_content"}  # noqa: PLW2901
        kept.append(message)
    if dropped:
        draft.adapt("messages.reasoning_content:dropped", dropped)
    return kept


def _flattened(messages: list[Any], model: Model, draft: Draft) -> list[Any]:
    """Contents that are lists of texts, as texts."""
    flat = []
    for at, message in enumerate(messages):
        content = message.get("content")
        if type(content) is list:
            for place, part in enumerate(content):
                if part["type"] != "text":
                    raise Problem(
                        "caller.unsupported",
                        f"{model.name} takes texts only: neither images nor files.",
                        param=f"messages[{at}].content[{place}].{part['type']}",
                    )
            draft.adapt(f"messages[{at}].content:list->text", f"messages[{at}].content")
            message = {**message, "content": "\n".join(part["text"] for part in content)}  # noqa: PLW2901
        flat.append(message)
    return flat


def _merged(messages: list[Any], draft: Draft) -> list[Any]:
    """What systems say, before what the next user says: models that are not trained with system messages heed it
    more there."""
    merged: list[Any] = []
    waiting: list[Any] = []
    for at, message in enumerate(messages):
        if message["role"] == "system":
            draft.adapt(f"messages[{at}].role:system->user", f"messages[{at}].role")
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            merged.append({**message, "content": _together([*waiting, message["content"]])})
            waiting = []
        else:
            merged.append(message)
    if waiting:
        # Before an assistant's last message, if that is to be continued.
        place = len(merged) - 1 if merged and merged[-1].get("prefix") is True else len(merged)
        merged.insert(place, {"role": "user", "content": _together(waiting)})
    return merged


def _together(contents: list[Any]) -> Any:
    if all(type(content) is str for content in contents):
        return "\n\n".join(contents)
    parts: list[Any] = []
    for content in contents:
        parts += [{"type": "text", "text": content}] if type(content) is str else content
    return parts


def json_word(model: Model, draft: Draft) -> None:
    """JSON mode without the word json: hosts refuse it, because a model that is not told runs on in blanks."""
    if draft.fields["response_format"]["type"] != "json_object":
        return
    messages = draft.fields["messages"]
    if any("json" in text.lower() for text in _texts(messages)):
        return
    if model.json_word == "refuse" or draft.refuse:
        raise Problem("caller.invalid_value", _NO_JSON_WORD, param="response_format")
    first = messages[0]
    # At the beginning, where it stands in every turn of a conversation: hosts cache by prefix.
    if first["role"] == "system":
        told = [{**first, "content": _together([first["content"], _JSON_SENTENCE])}, *messages[1:]]
    else:
        told = [{"role": "system", "content": _JSON_SENTENCE}, *messages]
    draft.set("messages", told)
    draft.receipt("messages:json_word_added")


def _texts(messages: list[Any]) -> list[str]:
    """Every text that the messages' contents hold."""
    found = []
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            found.append(content)
        elif content:
            found += [part["text"] for part in content if part["type"] == "text"]
    return found


# Emulation


def wanted(header: str) -> frozenset[str]:
    """The needs that a request asks us to see to. Raises Problem for a word that means none."""
    needs = set()
    for word in header.split(","):
        word = word.strip().lower()  # noqa: PLW2901
        if word not in EMULATED:
            raise Problem(
                "caller.invalid_value",
                f"x-moonpool-emulate lists {' and '.join(('tools', 'json'))} only.",
                param="x-moonpool-emulate",
            )
        needs.add(EMULATED[word])
    return frozenset(needs)


def emulation(needs: frozenset[str], allowed: frozenset[str], model: Model, draft: Draft) -> frozenset[str]:
    """The fewest of the needs that we see to so that some host can do the rest; none where that does not help.

    Raises Problem for what an emulation does not have.
    """
    for way in _WAYS:
        rest = needs - way
        if "tools" in way and "json_object" in rest:
            continue  # a host's own JSON mode has no room for the marks of a call
        if way <= allowed and way <= needs and rest <= model.can and model.targets_for(rest):
            break
    else:
        return frozenset()
    for need in ("n", "logprobs"):
        if need in needs:
            raise Problem("caller.unsupported", f"{need} cannot be had together with what is emulated.", param=need)
    if "tools" in way:
        for at, tool in enumerate(draft.fields["tools"]):
            if tool["type"] != "function":
                raise Problem("caller.unsupported", "Only functions can be emulated.", param=f"tools[{at}].type")
    elif draft.fields["response_format"]["type"] == "regex":
        raise Problem("caller.unsupported", "A regex cannot be emulated.", param="response_format.type")
    for need in sorted(way, reverse=True):
        draft.receipt(_RECEIPTS[need])
    return way
