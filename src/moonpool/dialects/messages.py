"""Are these messages a conversation? Roles, contents, and tool calls that are each answered.

Most conversations are plain, each message a role and a text, and `check` sees so at a glance. In any other all messages
are looked at field by field. One is changed in one way only: role `developer` becomes `system`, with a receipt.

Sources: PROVIDERS 1.3 (roles, parts, tool results and their wording), 1.11 (prefix), CONTRACT 3.
"""

from __future__ import annotations

from typing import Any, Final

from moonpool.dialects.checks import (
    boolean,
    invalid_type,
    map_,
    missing,
    mistyped,
    one_of,
    string,
    unknown_variant,
    wrong,
)

_ROLES: Final = ("system", "user", "assistant", "tool", "latest_reminder")
# A tuple: what is looked for in it may be anything, and need not have a hash.
_PLAIN: Final = ("user", "assistant", "system", "latest_reminder")
_PARTS: Final = ("text", "image_url", "file")
_IMAGE_URLS: Final = ("data:", "http://", "https://")
_details: Final = one_of("low", "high", "original", "auto")

_MUST_FOLLOW: Final = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'"
)


def check(messages: Any) -> tuple[str, ...]:
    """The receipts of what was mapped. Raises Problem (`caller.invalid_value`) that names the field."""
    if type(messages) is not list:
        raise invalid_type(messages, "messages", "a sequence")
    if not messages:
        raise wrong("messages", "Empty input messages")
    try:
        for message in messages:
            if len(message) != 2 or type(message["content"]) is not str or message["role"] not in _PLAIN:
                break
        else:
            return ()
    except (KeyError, TypeError):
        pass  # no map, or one with other members
    return _check_each(messages)


def _check_each(messages: list[Any]) -> tuple[str, ...]:
    receipts: list[str] = []
    open_calls: dict[str, bool] | None = None  # ids of the last assistant's calls, and whether they still wait
    opened_at = 0
    last = len(messages) - 1
    for at, message in enumerate(messages):
        if type(message) is not dict:
            raise invalid_type(message, f"messages[{at}]", "a map")
        role = message.get("role")
        if open_calls is None and len(message) == 2 and type(message.get("content")) is str and role in _PLAIN:
            continue
        path = f"messages[{at}]"
        if role == "developer":
            message["role"] = role = "system"
            receipts.append(f"{path}.role:developer->system")
        if type(role) is not str or role not in _ROLES:
            if "role" not in message:
                raise missing(path, "role")
            raise unknown_variant(role, f"{path}.role", _ROLES)
        if role == "tool":
            _tool(message, at, open_calls)
            continue
        if open_calls and any(open_calls.values()):
            raise _unanswered(opened_at)
        open_calls = None
        if message.get("name") is not None:
            string(message["name"], f"{path}.name")
        if role == "assistant":
            open_calls = _assistant(message, at, at == last)
            opened_at = at
        else:
            _content(message, path, role)
    if open_calls and any(open_calls.values()):
        raise _unanswered(opened_at)
    return tuple(receipts)


def _assistant(message: dict[str, Any], place: int, last: bool) -> dict[str, bool] | None:
    """The ids of the message's tool calls, None if it makes none."""
    path = f"messages[{place}]"
    calls = message.get("tool_calls")
    if message.get("content") is not None:
        _content(message, path, "assistant")
    elif calls is None:
        raise wrong(f"{path}.content", "Invalid assistant message: content or tool_calls must be set")
    if message.get("reasoning_content") is not None:
        string(message["reasoning_content"], f"{path}.reasoning_content")
    if message.get("prefix") is not None:
        boolean(message["prefix"], f"{path}.prefix")
        if message["prefix"] and not last:
            raise wrong(
                f"{path}.prefix",
                "Invalid completion message: prefix set true with message which is not final message "
                "or message role is not assistant",
            )
        if message["prefix"] and calls:
            raise wrong(f"{path}.prefix", "Function call should not be used with prefix")
    if calls is None:
        return None
    if type(calls) is not list:
        raise invalid_type(calls, f"{path}.tool_calls", "a sequence")
    if not calls:
        raise wrong(
            f"{path}.tool_calls",
            f"Invalid '{path}.tool_calls': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
        )
    waiting: dict[str, bool] = {}
    for at, call in enumerate(calls):
        call_id = _call_id(call, f"{path}.tool_calls[{at}]")
        if call_id in waiting:
            raise _twice(call_id, f"{path}.tool_calls[{at}].id", place)
        waiting[call_id] = True
    return waiting


def _call_id(call: Any, path: str) -> str:
    map_(call, path)
    if call.get("type", "function") != "function":
        raise unknown_variant(call["type"], f"{path}.type", ("function",))
    for name in ("id", "function"):
        if call.get(name) is None:
            raise missing(path, name)
    string(call["id"], f"{path}.id")
    function = call["function"]
    map_(function, f"{path}.function")
    for name in ("name", "arguments"):
        if name not in function:
            raise missing(f"{path}.function", name)
        string(function[name], f"{path}.function.{name}")
    return str(call["id"])


def _tool(message: dict[str, Any], place: int, open_calls: dict[str, bool] | None) -> None:
    path = f"messages[{place}]"
    _content(message, path, "tool")
    call_id = message.get("tool_call_id")
    if call_id is None:
        raise missing(path, "tool_call_id")
    string(call_id, f"{path}.tool_call_id")
    if not open_calls or not any(open_calls.values()):
        raise wrong(
            f"{path}.role", "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
        )
    if call_id not in open_calls:
        # The live service names the id that no call has, whatever its sentence says.
        said = f"{_MUST_FOLLOW}, The following tool_call_ids did not have response messages: {call_id[:128]}"
        raise wrong(f"{path}.tool_call_id", said)
    if not open_calls[call_id]:
        raise _twice(call_id, f"{path}.tool_call_id", place)
    open_calls[call_id] = False


def _twice(call_id: str, param: str, place: int) -> Exception:
    return wrong(param, f"Duplicate value for 'tool_call_id' of {call_id[:128]} in message[{place}]")


def _unanswered(at: int) -> Exception:
    said = f"{_MUST_FOLLOW}. (insufficient tool messages following tool_calls message)"
    return wrong(f"messages[{at}].tool_calls", said)


def _content(message: dict[str, Any], path: str, role: str) -> None:
    content = message.get("content")
    if type(content) is str:
        return
    if "content" not in message:
        raise missing(path, "content")
    if type(content) is not list:
        raise mistyped(f"{path}.content", "content should be a string or a list")
    for at, part in enumerate(content):
        where = f"{path}.content[{at}]"
        map_(part, where)
        kind = part.get("type")
        if kind == "text":
            if "text" not in part:
                raise missing(where, "text")
            string(part["text"], f"{where}.text")
        elif kind == "image_url":
            _image(part.get("image_url"), f"{where}.image_url", role)
        elif kind == "file":
            map_(part.get("file"), f"{where}.file")
        elif "type" not in part:
            raise missing(where, "type")
        else:
            raise unknown_variant(kind, f"{where}.type", _PARTS)


def _image(value: Any, path: str, role: str) -> None:
    if role == "assistant":
        raise wrong(path, "Image in assistant message is not supported")
    map_(value, path)
    string(value.get("url"), f"{path}.url")
    if not value["url"].startswith(_IMAGE_URLS):
        raise wrong(f"{path}.url", "Unsupported image_url format")
    if value.get("detail") is not None:
        _details(value["detail"], f"{path}.detail")
