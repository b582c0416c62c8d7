"""How is a model told of functions, or of JSON, that its host has no fields for? A call becomes one of plain messages.

The functions and how to call them stand before what is said first, where they stand in every turn (hosts cache by
prefix); what must be done now stands behind what was said last. Earlier calls and their results are retold in the same
marks. Where the host can go on with an answer that was begun, and nothing is thought first, it is begun for the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from moonpool.words import Call, Target

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
SAID_MAX: Final = 16_000
_FIELDS: Final = {
    "tools": ("tools", "tool_choice", "parallel_tool_calls"),
    "json_object": ("response_format",),
}


def functions(call: Call) -> dict[str, tuple[str, ...]]:
    """The functions that may be called now, each with the arguments it needs."""
    name = _named(call)
    found = {}
    for tool in call.fields["tools"] if "tools" in call.emulated else ():
        function = tool["function"]
        if name in ("", function["name"]):
            found[function["name"]] = required(function.get("parameters"))
    return found


def required(schema: Any) -> tuple[str, ...]:
    names = schema.get("required") if isinstance(schema, Mapping) else None
    return tuple(name for name in names if type(name) is str) if type(names) is list else ()


def schema_of(call: Call) -> Any:
    """The schema that the JSON must fit, if one was given."""
    form = call.fields["response_format"].get("json_schema") if "json_object" in call.emulated else None
    return form.get("schema") if isinstance(form, Mapping) else None


def is_forced(call: Call) -> bool:
    """Whether a function must be called."""
    choice = call.fields.get("tool_choice")
    return "tools" in call.emulated and (choice == "required" or type(choice) is dict)


def is_parallel(call: Call) -> bool:
    return call.fields.get("parallel_tool_calls") is not False


def _named(call: Call) -> str:
    choice = call.fields.get("tool_choice")
    return str(choice["function"]["name"]) if type(choice) is dict else ""


def opening(call: Call, target: Target) -> str:
    """How the answer is begun for the model; "" where it begins it. It is begun as far as a word of its own would go:
    a model that has to go on behind a lonely brace forgets the quotes."""
    if call.thinking or "prefix" not in target.can:
        return ""
    if is_forced(call):
        names = list(functions(call))
        name = f' "{names[0]}", "arguments":' if len(names) == 1 else ""
        return f'{OPEN}\n{{"name":{name}'
    return "{" if "tools" not in call.emulated else ""


def told(call: Call, begun: str, wrong: str = "", said: str = "") -> Call:
    """The call in plain messages, with its answer `begun`. For a second try: what was `said` and is `wrong` of it."""
    gone = {name for need in call.emulated for name in _FIELDS[need]}
    fields = {name: value for name, value in call.fields.items() if name not in gone}
    messages = list(call.fields["messages"])
    if "tools" in call.emulated:
        messages = _retold(messages)
    _say_first(messages, _lesson(call))
    if wrong:
        messages.append({"role": "assistant", "content": said[:SAID_MAX] or "(nothing)"})
        messages.append({"role": "user", "content": f"That cannot be used: {wrong}. Answer again, in the right form."})
    _say_last(messages, _duty(call))
    needs = call.needs
    if begun:
        messages.append({"role": "assistant", "content": begun, "prefix": True})
        needs = needs | {"prefix"}
    return replace(call, fields={**fields, "messages": messages}, needs=needs, emulated=frozenset())


def _lesson(call: Call) -> str:
    parts = []
    if "tools" in call.emulated:
        listed = "\n".join(
            json.dumps(
                {name: tool["function"][name] for name in ("name", "description", "parameters") if
                 tool["function"].get(name) is not None},
                ensure_ascii=False,
            )
            for tool in call.fields["tools"]
        )  # fmt: skip
        several = "one such block for each call" if is_parallel(call) else "one block, never more"
        parts.append(
            f"# Functions\n\nThese functions can be called:\n<tools>\n{listed}\n</tools>\n\n"
            f"A call is written as one JSON object between two marks, {several}:\n"
            f'{OPEN}\n{{"name": "…", "arguments": {{…}}}}\n{CLOSE}\n\n'
            "Call a function when it helps to answer, then stop and wait for its result. "
            "Otherwise answer without any marks."
        )
    if "json_object" in call.emulated:
        schema = schema_of(call)
        fit = "" if schema is None else f" It fits this JSON schema:\n{json.dumps(schema, ensure_ascii=False)}"
        parts.append(f"# Form\n\nThe answer is one JSON object, without any text or code fence around it.{fit}")
    return "\n\n".join(parts)


def _duty(call: Call) -> str:
    """What must be done now."""
    if is_forced(call):
        names = list(functions(call))
        what = f"the function {names[0]}" if len(names) == 1 else "a function"
        return f"(Call {what} now: a {OPEN} block and nothing else.)"
    if "tools" not in call.emulated:
        return "(Answer with one JSON object and nothing else.)"
    return ""


def _say_first(messages: list[Any], text: str) -> None:
    """Behind the system's own words, else before the user's first."""
    at = next((at for at, message in enumerate(messages) if message["role"] in ("system", "user")), None)
    if at is None:
        messages.insert(0, {"role": "user", "content": text})
    elif messages[at]["role"] == "system":
        messages[at] = _joined(messages[at], text, last=True)
    else:
        messages[at] = _joined(messages[at], text, last=False)


def _say_last(messages: list[Any], text: str) -> None:
    if not text:
        return
    if messages[-1]["role"] == "user":
        messages[-1] = _joined(messages[-1], text, last=True)
    else:
        messages.append({"role": "user", "content": text})


def _joined(message: dict[str, Any], text: str, *, last: bool) -> dict[str, Any]:
    content = message.get("content") or ""
    if type(content) is list:
        part = {"type": "text", "text": text}
        return {**message, "content": [*content, part] if last else [part, *content]}
    return {**message, "content": f"{content}\n\n{text}" if last else f"{text}\n\n{content}"}


def _retold(messages: list[Any]) -> list[Any]:
    """Calls and their results in marks; results, and what the user says after them, are one message."""
    retold: list[Any] = []
    names: dict[str, str] = {}
    results = False  # the last message holds results
    for message in messages:
        role = message["role"]
        if role == "tool":
            name = names.get(message["tool_call_id"], "")
            said = f'<tool_response name="{name}">\n{_plain(message.get("content"))}\n</tool_response>'
            if results:
                retold[-1] = _joined(retold[-1], said, last=True)
            else:
                retold.append({"role": "user", "content": said})
            results = True
            continue
        if role == "user" and results:
            content = message["content"]
            if type(content) is str:
                retold[-1] = _joined(retold[-1], content, last=True)
            else:
                before = {"type": "text", "text": retold[-1]["content"]}
                retold[-1] = {**message, "content": [before, *content]}
        elif message.get("tool_calls"):
            names |= {one["id"]: one["function"]["name"] for one in message["tool_calls"]}
            calls = "\n".join(_marked(one["function"]) for one in message["tool_calls"])
            bare = {name: value for name, value in message.items() if name != "tool_calls"}
            retold.append(_joined(bare, calls, last=True) if message.get("content") else {**bare, "content": calls})
        else:
            retold.append(message)
        results = False
    return retold


def _marked(function: Mapping[str, Any]) -> str:
    return f'{OPEN}\n{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"] or "{}"}}}\n{CLOSE}'


def _plain(content: Any) -> str:
    return "".join(part.get("text", "") for part in content) if type(content) is list else content or ""
