"""What has a client lost of its conversation, and what did its program put in the wrong place? Pure.

An answer is found again by *marks*: one under each of its tool calls (the id as the client saw it, with the function
and its arguments, because some hosts count their ids from 0 in every answer), and one under the visible turn: what the
user had said last, the text, the calls without their ids. Arguments are compared by value, a content that is null or a
list by its text. Marks hold the `user_id` of the request, so that a client's own users are kept apart.

What a program put in the wrong place: tool results in another order than their calls, and text in the name of the user
between a tool result and the answer to it, which hosts take for a new turn and forget the thinking of the loop
(PROVIDERS 1.7, item 5). Such text goes into the tool result. A person may have typed it, though, and what a person says
weighs more than what a tool says; so only text that is wholly made of tags ("<environment_details>...") is moved
unless the operator or the key says `all`. It is moved wherever it stands, not at the end alone: the same conversation
must read the same one turn later, or the host's cache forgets it. Where an assistant's answer stands between, nothing
is ever moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, Literal

from msgspec import Struct

UserText = Literal["tagged", "all", "off"]
RECEIPTS_MAX: Final = 8
CHARS_MAX: Final = 4_000_000
"""So much reasoning is put back into one request at most; the newest goes first."""

_OPENING: Final = re.compile(r"\s*<[A-Za-z][\w:.-]*(?:\s[^<>]{0,1000})?/?>")
_CLOSING: Final = re.compile(r"</[A-Za-z][\w:.-]*>")


class Asked(Struct, frozen=True, gc=False):
    """What an answer belongs to: the end user (`user_id` of the request) and what was said last in the user's name."""

    user: str
    text: str


class Marks(Struct, frozen=True, gc=False):
    """By what an answer is found again: under each tool call, and as a whole."""

    calls: tuple[bytes, ...]
    turn: bytes


class Lost(Struct, frozen=True):
    """An assistant's message, `messages[at]`, whose reasoning did not come back, and the marks of what it was."""

    at: int
    marks: Marks


class PutBack(Struct, frozen=True):
    """Messages with what was known of them, how many were changed, and by how many bytes they grew."""

    messages: list[Any]
    receipts: tuple[str, ...]
    count: int
    bytes: int


def asked(messages: Sequence[Any], user: str) -> Asked:
    """What the answer to these messages will belong to."""
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    return Asked(user, "" if last is None else _said(last.get("content")))


def marks_of(belongs: Asked, text: str, calls: Sequence[tuple[str, str, str]]) -> Marks:
    """The marks of an answer; `calls` are (id, name, arguments)."""
    by_value = [[name, _by_value(arguments)] for _, name, arguments in calls]
    return Marks(
        tuple(
            _mark("call", belongs.user, call_id, *named)
            for (call_id, _, _), named in zip(calls, by_value, strict=True)
            if call_id
        ),
        _mark("turn", belongs.user, belongs.text, text.strip(), by_value),
    )


def find_lost(messages: Sequence[Any], user: str, since: int = 0) -> list[Lost]:
    """The assistant's messages from `since` on that come without their reasoning: it is missing, null or blank (some
    programs put a blank there to be let through)."""
    lost: list[Lost] = []
    if since == len(messages):
        return lost
    text = ""
    for at, message in enumerate(messages):
        role = message["role"]
        if role == "user":
            text = _said(message.get("content"))
        elif role == "assistant" and at >= since and not message.get("prefix") and not _reasoning_of(message):
            calls = [
                (call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls") or ()
            ]
            lost.append(Lost(at, marks_of(Asked(user, text), _said(message.get("content")), calls)))
    return lost


def since_user(messages: Sequence[Any]) -> int:
    """Where the messages after the user's last one begin."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at]["role"] == "user":
            return at + 1
    return 0


def put_back(messages: list[Any], lost: Sequence[Lost], found: Mapping[bytes, str]) -> PutBack:
    """The messages with what was found. The input is not changed."""
    out = list(messages)
    restored: list[int] = []
    added = 0
    for each in reversed(lost):
        mark = next((mark for mark in (*each.marks.calls, each.marks.turn) if mark in found), None)
        if mark is None:
            continue
        text = found[mark]
        if added + len(text) > CHARS_MAX:
            break
        if text == out[each.at].get("reasoning_content"):
            continue
        out[each.at] = {**out[each.at], "reasoning_content": text}
        added += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        restored.append(each.at)
    receipts = [f"messages[{at}].reasoning_content:restored" for at in reversed(restored)]
    return PutBack(out, _few(receipts, "messages.reasoning_content:restored"), len(receipts), added)


def rename(messages: list[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Reasoning that the client spells `reasoning` under the name that hosts check."""
    out = messages
    receipts = []
    for at, message in enumerate(messages):
        own = message.get("reasoning")
        if message["role"] == "assistant" and type(own) is str and own and not message.get("reasoning_content"):
            if out is messages:
                out = list(messages)
            out[at] = {name: value for name, value in message.items() if name != "reasoning"}
            out[at]["reasoning_content"] = own
            receipts.append(f"messages[{at}].reasoning->reasoning_content")
    return out, _few(receipts, "messages.reasoning->reasoning_content")


def repair(messages: list[Any], user_text: UserText) -> tuple[list[Any], tuple[str, ...]]:
    """Tool results in the order of their calls; the user's text behind them within them. Receipts name the client's
    own places. The messages were checked before, and are not changed."""
    out: list[Any] = []
    sorted_, moved = [], []
    at, end = 0, len(messages)
    while at < end:
        message = messages[at]
        out.append(message)
        at += 1
        if message["role"] != "assistant" or not message.get("tool_calls"):
            continue
        first = at
        while at < end and messages[at]["role"] == "tool":
            at += 1
        results = _in_order(message["tool_calls"], messages[first:at])
        if any(one is not other for one, other in zip(results, messages[first:at], strict=True)):
            sorted_.append(f"messages[{first}].tool_call_id:sorted")
        while results and at < end and _is_wedged(messages[at], user_text):
            results[-1] = _with_text(results[-1], _said(messages[at]["content"]))
            moved.append(f"messages[{at}]->messages[{at - 1}].content")
            at += 1
        out += results
    receipts = _few(sorted_, "messages.tool_call_id:sorted") + _few(moved, "messages:user->tool")
    return (out, receipts) if receipts else (messages, ())


def _in_order(calls: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    order: dict[str, int] = {}
    for place, call in enumerate(calls):
        order.setdefault(call["id"], place)
    return sorted(results, key=lambda result: order.get(result["tool_call_id"], len(order)))


def _is_wedged(message: Any, user_text: UserText) -> bool:
    if user_text == "off" or message["role"] != "user":
        return False
    content = message.get("content")
    if type(content) is list and any(part["type"] != "text" for part in content):
        return False
    text = _said(content)
    return bool(text) and (user_text == "all" or _is_tagged(text))


def _is_tagged(text: str) -> bool:
    """Does it begin with a tag and end with the end of one? Programs write so; people do not."""
    return _OPENING.match(text) is not None and _CLOSING.fullmatch(text, max(0, text.rfind("</"))) is not None


def _with_text(result: dict[str, Any], text: str) -> dict[str, Any]:
    content = result["content"]
    if type(content) is list:
        return {**result, "content": [*content, {"type": "text", "text": text}]}
    return {**result, "content": f"{content}\n\n{text}" if content else text}


def _reasoning_of(message: Mapping[str, Any]) -> str:
    text = message.get("reasoning_content")
    return text.strip() if type(text) is str else ""


def _said(content: Any) -> str:
    """A content as a text: that of its parts joined; what is no text by its JSON."""
    if type(content) is str:
        return content.strip()
    if not content:
        return ""
    parts = (part["text"] if part["type"] == "text" else json.dumps(part, sort_keys=True) for part in content)
    return "".join(parts).strip()


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _by_value(arguments: str) -> str:
    """Arguments so that two spellings of one value are one text; what is no JSON stays as it is."""
    try:
        value = json.loads(arguments or "{}", parse_float=_number)
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments.strip()


def _mark(*parts: Any) -> bytes:
    return blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _few(receipts: list[str], summary: str) -> tuple[str, ...]:
    """Each of a few, or how many: a header has an end."""
    return tuple(receipts) if len(receipts) <= RECEIPTS_MAX else (f"{summary} ({len(receipts)})",)
