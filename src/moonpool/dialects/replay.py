"""What becomes of reasoning that a client sends back? Kept, stripped, refused or filled in, as one host needs it.

`fill` gives "" to assistant messages that lack their reasoning: with tools in the request to each of them, without to
those with tool calls since the last user's message; never when the call does not think. That is what DeepSeek's own
library does, and hosts that insist take it. A last message that is to be continued keeps what it has.

A host that turns out to insist is found by its refusal (problems.py), and asked again (relay/fleet.py).
Sources: PROVIDERS 1.7, 7 (spelling), 8 rule 2.
"""

from __future__ import annotations

from typing import Any, Final

from moonpool.errors import Problem
from moonpool.words import Call

FIELD: Final = "reasoning_content"
Messages = list[Any]


def replay(call: Call, rule: str, field: str, messages: Messages) -> tuple[Messages, tuple[str, ...]]:
    """The messages as the host takes them (the same list where nothing changes), and receipts.

    `field` is how the host spells it. Raises Problem("caller.invalid_value") where the rule is `reject`.
    """
    receipts: tuple[str, ...] = ()
    if rule == "fill":
        if call.thinking:
            messages, receipts = _filled(call, messages)
    elif rule != "keep":
        messages, receipts = _without(rule, messages)
    if field != FIELD:
        messages = [_spelled(message, field) if FIELD in message else message for message in messages]
    return messages, receipts


def _without(rule: str, messages: Messages) -> tuple[Messages, tuple[str, ...]]:
    kept: Messages = []
    changed = said = False
    last = len(messages) - 1
    for at, message in enumerate(messages):
        if FIELD in message and not (at == last and message.get("prefix") is True):
            changed = True
            if message[FIELD]:
                if rule == "reject":
                    raise Problem(
                        "caller.invalid_value",
                        "This model does not take reasoning_content back: remove it.",
                        param=f"messages[{at}].{FIELD}",
                    )
                said = True
            kept.append({name: value for name, value in message.items() if name != FIELD})
        else:
            kept.append(message)
    return kept if changed else messages, (f"messages.{FIELD}:dropped",) if said else ()


def _filled(call: Call, messages: Messages) -> tuple[Messages, tuple[str, ...]]:
    every = bool(call.fields.get("tools"))
    filled = messages
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        role = message["role"]
        if role == "user" and not every:
            break
        if (
            role == "assistant"
            and message.get(FIELD) is None
            and (every or message.get("tool_calls"))
            and message.get("prefix") is not True
        ):
            if filled is messages:
                filled = list(messages)
            filled[at] = {**message, FIELD: ""}
    return filled, () if filled is messages else (f"messages.{FIELD}:filled",)


def _spelled(message: dict[str, Any], field: str) -> dict[str, Any]:
    return {field if name == FIELD else name: value for name, value in message.items()}
