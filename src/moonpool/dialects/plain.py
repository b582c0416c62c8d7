"""What does a whole answer of the usual form say? One candidate, a text, perhaps a thinking, a reason and a usage.

Most whole answers are such, and then one typed reading is all it takes. The records below let nothing else in: what
does not fit them, or is in doubt, is for the decoder that tolerates much (decode.py), which reads it anew and would
read what fits in the same way. Source: PROVIDERS 1.4.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from moonpool.dialects.runs import Malformed
from moonpool.dialects.usage import Tokens, read_tokens
from moonpool.words import Event, Finished, Metered, Reasoning, Started, Text

CANDIDATES_MAX: Final = 128
GIVEN_UP: Final = frozenset(("insufficient_system_resource", "abort"))
"""Why a host ended an answer that it gave up."""

_Nothing = Annotated[list[None], Meta(max_length=0)] | None


class _Message(Struct, gc=False):
    content: str
    reasoning_content: str | None = None
    reasoning: None = None
    tool_calls: _Nothing = None
    search_results: None = None


class _Choice(Struct, gc=False):
    message: _Message
    finish_reason: str
    index: Annotated[int, Meta(ge=0, lt=CANDIDATES_MAX)] = 0
    logprobs: Any = None
    delta: None = None
    text: None = None


class _Plain(Struct, gc=False):
    choices: tuple[_Choice]
    id: str | None = None
    model: str | None = None
    created: int | None = None
    system_fingerprint: str | None = None
    usage: Tokens | None = None
    error: None = None


_decode: Final = msgspec.json.Decoder(_Plain).decode


def read_plain(body: bytes) -> tuple[Event, ...] | None:
    """What it says, the second event being what was said first; None where it has another form."""
    try:
        if not body.isascii():
            body.decode()  # also members that nobody reads are handed on, and have to be text
        plain = _decode(body)
    except Malformed:
        return None
    (choice,) = plain.choices
    content, reasoning = choice.message.content, choice.message.reasoning_content
    reason, index = choice.finish_reason, choice.index
    if not content or not reason or reason in GIVEN_UP:
        return None
    started = Started(plain.id or None, plain.model or None, plain.created, plain.system_fingerprint or None)
    text, finished = Text(content, index, choice.logprobs), Finished(reason, index)
    if plain.usage is None:
        used: tuple[Event, ...] = (finished,)
    else:
        usage = read_tokens(plain.usage)
        if usage is None:
            return None
        used = (finished, Metered(usage))
    return (started, text, *used) if reasoning is None else (started, Reasoning(reasoning, index), text, *used)
