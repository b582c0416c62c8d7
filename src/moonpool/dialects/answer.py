"""The records that any answer of the family fits: chunks, whole answers, errors in one of their forms.

Hosts differ, so any type is let in, and looked at where it is used (decode.py); but JSON it must be, and text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.dialects.runs import Malformed


class Message(Struct, gc=False):
    """A delta or a message. Any type is let in, and looked at where it is used."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    search_results: Any = None


class Choice(Struct, gc=False):
    index: Any = 0
    delta: Message | None = None
    message: Message | None = None
    text: Any = None
    logprobs: Any = None
    finish_reason: Any = None


class Answer(Struct, gc=False):
    """A chunk, a whole answer, or an error in one of its forms."""

    id: Any = None
    object: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: Any = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    message: Any = None
    code: Any = None


_decode_answer: Final = msgspec.json.Decoder(Answer).decode


def read_answer(data: bytes) -> Answer:
    """Raises one of Malformed, also for bytes that are no UTF-8 in members that nobody reads: they would be handed
    on."""
    if not data.isascii():
        data.decode()
    return _decode_answer(data)


def parts_text(parts: list[Any]) -> str:
    texts = [part.get("text") for part in parts if type(part) is dict]
    return "".join(text for text in texts if type(text) is str)


def is_error(answer: Answer) -> bool:
    if answer.error:
        return True
    return not answer.choices and answer.usage is None and (
        answer.object == "error" or (type(answer.message) is str and answer.code is not None)
    )  # fmt: skip


def is_json(value: bytes) -> bool:
    data = value.strip()
    if data == b"[DONE]":
        return True
    try:
        read_answer(data)
    except Malformed:
        return False
    return True
