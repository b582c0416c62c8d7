"""What is otherwise about this provider's chunks? Small changes to bytes that the family's encoder made.

Where a dialect has an encoder of its own, nothing is left to do here. Sources: PROVIDERS 1.5, 4.6, 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from moonpool.dialects.sse import dumps, event

_PREFIX: Final = b"data: "
_USAGE: Final = ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "completion_tokens_details")


def reshape(data: bytes, stream: bool, shape: Sequence[str], *, twice: bool = False) -> Iterator[bytes]:
    """`data` event by event (a whole answer is one piece), each in the shape that is asked for.

    `reasoning`: the thinking stands in a field of that name; `usage_plain`: usage without cache and thinking;
    `null_content`: content of a turn that only calls tools is null; `stop_reason`: choices have that field. `twice`:
    usage is said twice, and differently.
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
    for choice in value.get("choices") or ():
        said = choice.get("delta") if "delta" in choice else choice.get("message")
        if said is not None:
            if "reasoning" in shape and "reasoning_content" in said:
                thought = said.pop("reasoning_content")
                if thought is not None:
                    said["reasoning"] = thought
            if "null_content" in shape and said.get("tool_calls") and said.get("content") == "":
                said["content"] = None
        if "stop_reason" in shape:
            choice["stop_reason"] = None
    usage = value.get("usage")
    if usage and "usage_plain" in shape:
        for name in _USAGE:
            usage.pop(name, None)
        usage["prompt_tokens_details"] = None
