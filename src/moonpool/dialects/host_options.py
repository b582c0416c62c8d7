"""What must one host be told in another way? A chat's fields, in the words of the host, by options that are data.

Options of a target come before those of its host, and those before what `[dialects]` of hosts.toml says. They are
explained and checked where they are read (catalog/options.py). How a host is told to think is one of five:

- `thinking`: `thinking.type` and `reasoning_effort` beside each other, as DeepSeek has it. Said when the client did.
- `nested`: the effort inside, `thinking.reasoning_effort`.
- `template`: members of `chat_template_kwargs`, true or false, and one for the effort.
- `effort`: `reasoning_effort` alone, where `none` is off.
- `none`: not at all; what the client asked for is lost, and a receipt says so.

Sources: PROVIDERS 1.3, 1.11, 3 and 7; DESIGN 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moonpool.words import Call, Target

Options = Mapping[str, Any]
Body = dict[str, Any]

_NOTHING: Final[Options] = {}
_MEMBERS: Final = ("thinking", "enable_thinking")
EFFORT: Final = "high"
"""What is said where a host knows only efforts and the client wants some thinking."""


def options_of(target: Target) -> Options:
    host, own = target.host.options, target.options
    if not host:
        return own
    return {**host, **own} if own else host


def say_thinking(call: Call, body: Body, options: Options) -> tuple[str, ...]:
    """Put the switch of the thinking where the host looks for it. Gives the receipts of what is lost."""
    style = options.get("thinking", "thinking")
    always = options.get("thinking_said") == "always"
    asked = "thinking" in body or "reasoning_effort" in body
    if not (asked or always):
        return ()
    if style == "thinking" and not always:
        return _spell_effort(body, options)
    thinks = call.thinking
    receipts = _spell_effort(body, options)
    switch, effort = body.pop("thinking", None), body.pop("reasoning_effort", None)
    if style == "none":
        lost = (("thinking", switch), ("reasoning_effort", effort))
        return (*receipts, *(f"{name}:dropped" for name, value in lost if value is not None))
    if not thinks:
        effort = None
    kind = "enabled" if thinks else "disabled"
    if style == "effort":
        body["reasoning_effort"] = (effort or _word(EFFORT, options) or EFFORT) if thinks else "none"
    elif style == "nested":
        body["thinking"] = {"type": kind} if effort is None else {"type": kind, "reasoning_effort": effort}
    elif style == "template":
        receipts += _fill_template(thinks, effort, body, options)
    else:
        body["thinking"] = {"type": kind}
        if effort is not None:
            body["reasoning_effort"] = effort
    return receipts


def _word(effort: str, options: Options) -> str:
    """The host's own word for an effort, "" where it has none."""
    return str(options.get("efforts", _NOTHING).get(effort, effort))


def _spell_effort(body: Body, options: Options) -> tuple[str, ...]:
    effort = body.get("reasoning_effort")
    if effort is None or "efforts" not in options:
        return ()
    word = _word(effort, options)
    if word == effort:
        return ()
    if not word:
        del body["reasoning_effort"]
        return ("reasoning_effort:dropped",)
    body["reasoning_effort"] = word
    return (f"reasoning_effort:{effort}->{word}",)


def _fill_template(thinks: bool, effort: str | None, body: Body, options: Options) -> tuple[str, ...]:
    """Members for the chat template; what the client set there itself stays."""
    own = body.get("chat_template_kwargs")
    members: Body = dict.fromkeys((options.get("template") or _MEMBERS), thinks)
    receipts: tuple[str, ...] = ()
    if effort is not None:
        name = options.get("template_effort", "reasoning_effort")
        if name:
            members[name] = effort
        else:
            receipts = ("reasoning_effort:dropped",)
    body["chat_template_kwargs"] = members | own if isinstance(own, dict) else members
    return receipts


def say_prefix(call: Call, body: Body, options: Options) -> tuple[str, ...]:
    """A last message that is to be continued, for engines that take that as fields of the request.

    Their parsers take an answer that does not close a thinking for one, so it is switched off.
    """
    if "prefix" not in call.needs or options.get("prefix") != "continue":
        return ()
    *before, last = body["messages"]
    body["messages"] = [*before, {name: value for name, value in last.items() if name != "prefix"}]
    body["continue_final_message"], body["add_generation_prompt"] = True, False
    members = body.get("chat_template_kwargs")
    if not isinstance(members, dict) or options.get("thinking") != "template":
        return ()
    body["chat_template_kwargs"] = {**members, **dict.fromkeys((options.get("template") or _MEMBERS), False)}
    return ("thinking.type:disabled (prefix)",) if call.thinking else ()


def spell(body: Body, options: Options) -> None:
    """The fields and values that are set, added to, called otherwise and left out."""
    for name, value in options.get("set", _NOTHING).items():
        body[name] = value
    for name, more in options.get("add", _NOTHING).items():
        if name in body:
            body[name] += more
    for name, other in options.get("rename", _NOTHING).items():
        if name in body:
            body[other] = body.pop(name)
