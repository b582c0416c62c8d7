"""What is otherwise about this provider's chunks? Small changes to bytes that the family's encoder made.

Where a dialect has an encoder of its own, nothing is left to do here. Sources: PROVIDERS 1.5, 4.6, 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from moonpool.dialects.sse import dumps, event

_PREFIX: Final = b"data: "
_THREE: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_OPENAI: Final = (*_THREE, "prompt_tokens_details", "completion_tokens_details")


def reshape(data: bytes, stream: bool, shape: Sequence[str], *, twice: bool = False) -> Iterator[bytes]:
    """`data` event by event (a whole answer is one piece), each in the shape that is asked for.

    `reasoning`: the thinking stands in a field of that name. `usage_apart`: usage is said where it was asked for, in a
    chunk without choices; `usage_openai`, `usage_three`: no members beyond OpenAI's, or but the three sums. `no_nulls`:
    members without a value are left out; `empty_finish`: a finish_reason that is not there yet is "". `stop_reason`:
    choices have that member. `no_index`: whole tool calls have none. `twice`: usage is said twice, and differently.
    """
    if not stream:
        value = msgspec.json.decode(data) if shape or twice else None
        if value is None:
            yield data
            return
        _change(value, shape)
        body = dumps(value)
        if twice and value.get("usage"):
            more = {**value["usage"], "completion_tokens": value["usage"]["completion_tokens"] + 1}
            body = body[:-1] + b',"usage":' + dumps(more) + b"}"
        yield body
        return
    for piece in _events(data):
        if not piece.startswith(b"data: {") or not (shape or (twice and b'"usage":{' in piece)):
            yield piece
            continue
        value = msgspec.json.decode(piece[len(_PREFIX) :])
        _change(value, shape)
        yield event(value)
        if twice and value.get("usage"):
            more = {**value["usage"], "completion_tokens": value["usage"]["completion_tokens"] + 1}
            yield event({**value, "choices": [], "usage": more})


def _events(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        cut = data.find(b"\n\n", start)
        cut = len(data) if cut < 0 else cut + 2
        yield data[start:cut]
        start = cut


def _change(value: dict[str, Any], shape: Sequence[str]) -> None:
    chunk = value.get("object") == "chat.completion.chunk"
    for choice in value.get("choices") or ():
        said = choice.get("delta") if chunk else choice.get("message")
        if said is not None:
            _change_said(said, shape, chunk)
        if "no_nulls" in shape and choice.get("logprobs") is None:
            choice.pop("logprobs", None)
        if "empty_finish" in shape and chunk and choice["finish_reason"] is None:
            choice["finish_reason"] = ""
        if "stop_reason" in shape:
            choice["stop_reason"] = None
    if "no_nulls" in shape and value.get("usage", 0) is None:
        del value["usage"]
    usage = value.get("usage")
    if usage and "usage_apart" in shape and chunk and value["choices"]:
        del value["usage"]
    elif usage and ("usage_three" in shape or "usage_openai" in shape):
        known = _THREE if "usage_three" in shape else _OPENAI
        value["usage"] = {name: usage[name] for name in known if name in usage}


def _change_said(said: dict[str, Any], shape: Sequence[str], chunk: bool) -> None:
    """A delta or a message."""
    if "reasoning" in shape and "reasoning_content" in said:
        thought = said.pop("reasoning_content")
        if thought is not None:
            said["reasoning"] = thought
    if "no_nulls" in shape:
        for name in [name for name, member in said.items() if member is None]:
            del said[name]
    if "no_index" in shape and not chunk:
        for call in said.get("tool_calls") or ():
            call.pop("index", None)
