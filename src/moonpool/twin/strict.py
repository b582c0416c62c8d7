"""What does the provider refuse that the server forgives? One small function for each, found by its name.

The server adapts what programs get wrong, with a receipt; a program that leans on that fails at the provider, and must
fail here. Each check returns None, or the facts for its sentence (dialects' `sentences`, or `says` of providers.toml).
Which of them a provider runs is its row's `strict`, in that order. Sources: PROVIDERS 1.3, 1.6, 1.7, 1.10, 1.11, 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from moonpool.catalog.model import Model
from moonpool.words import CHAT, Call

Facts = Mapping[str, Any]
_USER_ID: Final = re.compile(r"[a-zA-Z0-9\-_]{1,512}", re.ASCII)


class Seen(Struct, frozen=True):
    """A request as it came: `fields` before the server changed anything, `call` as it was parsed and before the model's
    rules. `beta`: it came to a base address where what is in beta works. `prompt` counts its tokens, `completion` those
    that it asks for at most."""

    fields: Mapping[str, Any]
    call: Call
    model: Model
    beta: bool
    prompt: int = 0
    completion: int = 0
    stops_max: int = 16

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        return list(self.fields.get("messages") or ())

    @property
    def thinks(self) -> bool:
        """Whether the answer would be thought about, by what the client says or the model does by itself."""
        if self.call.operation != CHAT or self.model.thinking == "never":
            return False
        if self.model.thinking == "always":
            return True
        said, effort = self.fields.get("thinking"), self.fields.get("reasoning_effort")
        if said is not None:
            return bool(said["type"] != "disabled")
        return effort != "none" if effort is not None else self.model.thinking == "default_on"

    def after_last_user(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Assistant messages since the last user's, with their places."""
        messages = self.messages
        last = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=-1)
        for at in range(last + 1, len(messages)):
            if messages[at].get("role") == "assistant":
                yield at, messages[at]


def developer(seen: Seen) -> Facts | None:
    """The role that the server reads as `system`."""
    for at, message in enumerate(seen.messages):
        if message.get("role") == "developer":
            return {"path": f"messages[{at}].role", "role": "developer"}
    return None


def beta_prefix(seen: Seen) -> Facts | None:
    return {} if "prefix" in seen.call.needs and not seen.beta else None


def beta_strict(seen: Seen) -> Facts | None:
    functions = [tool.get("function") or {} for tool in seen.fields.get("tools") or ()]
    return {} if not seen.beta and any(function.get("strict") for function in functions) else None


def mixed_strict(seen: Seen) -> Facts | None:
    said = {bool((tool.get("function") or {}).get("strict")) for tool in seen.fields.get("tools") or ()}
    return {} if len(said) > 1 else None


def prefix_calls(seen: Seen) -> Facts | None:
    """A beginning is not continued where a tool was ever called."""
    return {} if "prefix" in seen.call.needs and any(each.get("tool_calls") for each in seen.messages) else None


def disabled_effort(seen: Seen) -> Facts | None:
    said = seen.fields.get("thinking")
    disabled = said is not None and said["type"] == "disabled"
    return {} if disabled and seen.fields.get("reasoning_effort") is not None else None


def forced_tool(seen: Seen) -> Facts | None:
    choice = seen.fields.get("tool_choice")
    return {} if seen.thinks and (choice == "required" or type(choice) is dict) else None


def tool_choice_r1(seen: Seen) -> Facts | None:
    choice = seen.fields.get("tool_choice")
    return {} if choice is not None and choice != "none" else None


def json_r1(seen: Seen) -> Facts | None:
    return {} if "json_object" in seen.call.needs else None


def format(seen: Seen) -> Facts | None:
    """Forms that are parsed and not served."""
    form = seen.fields.get("response_format")
    return {} if form is not None and form["type"] not in ("text", "json_object") else None


def user_id(seen: Seen) -> Facts | None:
    said = seen.fields.get("user_id")
    return {} if said is not None and not _USER_ID.fullmatch(said) else None


def stops(seen: Seen) -> Facts | None:
    said = seen.fields.get("stop")
    return {"count": len(said), "most": seen.stops_max} if type(said) is list and len(said) > seen.stops_max else None


def texts_only(seen: Seen) -> Facts | None:
    """Models from before images took lists from users and the system only."""
    for at, message in enumerate(seen.messages):
        if message.get("role") in ("assistant", "tool") and type(message.get("content")) is list:
            return {"path": f"messages[{at}]"}
    return None


def context(seen: Seen) -> Facts | None:
    total = seen.prompt + seen.completion
    if total <= seen.model.window:
        return None
    return {"window": seen.model.window, "total": total, "prompt": seen.prompt, "completion": seen.completion}


def reasoning_content(seen: Seen) -> Facts | None:
    """The current rule: since the last user message, each turn with tool calls, and with `tools` each turn at all. An
    empty text passes, a missing one does not; without thinking nobody asks."""
    if not seen.thinks:
        return None
    every = bool(seen.fields.get("tools"))
    for at, message in seen.after_last_user():
        if (every or message.get("tool_calls")) and message.get("reasoning_content") is None:
            return {"at": at}
    return None


def reasoning_content_v3_2(seen: Seen) -> Facts | None:
    if not seen.thinks:
        return None
    for at, message in seen.after_last_user():
        if message.get("tool_calls") and message.get("reasoning_content") is None:
            return {"at": at}
    return None


def successive_r1(seen: Seen) -> Facts | None:
    roles = [message.get("role") for message in seen.messages]
    for at in range(len(roles) - 1):
        if roles[at] == roles[at + 1] and roles[at] in ("user", "assistant"):
            return {"at": at, "next": at + 1, "model": seen.model.name}
    return None


def last_r1(seen: Seen) -> Facts | None:
    messages = seen.messages
    ends = bool(messages) and (messages[-1].get("role") == "user" or "prefix" in seen.call.needs)
    return None if ends else {"model": seen.model.name}


CHECKS: Final[Mapping[str, Callable[[Seen], Facts | None]]] = {
    check.__name__: check
    for check in (
        developer, beta_prefix, beta_strict, mixed_strict, prefix_calls, disabled_effort, forced_tool,
        tool_choice_r1, json_r1, format, user_id, stops, texts_only, context, reasoning_content,
        reasoning_content_v3_2, successive_r1, last_r1,
    )
}  # fmt: skip


def first_broken(seen: Seen, names: tuple[str, ...]) -> tuple[str, Facts] | None:
    """The first of these rules that the request breaks, with the facts for its sentence."""
    for name in names:
        facts = CHECKS[name](seen)
        if facts is not None:
            return name, facts
    return None
