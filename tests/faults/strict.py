"""A host that thinks in tool loops and refuses a conversation whose thinking did not come back (PROVIDERS 1.7, the row
`Reject`): after the user's last message, every assistant's message with tool calls needs `reasoning_content`, and where
the request has tools, every one. An empty text passes; null, nothing, or another name for it does not.

It plays one agent: it asks for the weather of two cities at once, then for a coat, then answers. `Strict.seen` are the
requests it took.
"""

from __future__ import annotations

import json
from typing import Any

from faults.stage import DONE, event, failed, streamed
from faults.upstream import Request, Step, answer

MESSAGE = "The `reasoning_content` in the thinking mode must be passed back to the API."
USAGE = {
    "prompt_tokens": 50,
    "completion_tokens": 60,
    "total_tokens": 110,
    "prompt_cache_hit_tokens": 0,
    "prompt_cache_miss_tokens": 50,
    "completion_tokens_details": {"reasoning_tokens": 30},
}
# thinking, answer, calls (name, arguments)
TURNS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "The user wants a coat for 杭州 or Oslo.\nFirst the weather, of both.  ",
        "",
        (("weather", '{"city": "杭州", "days": 1.0}'), ("weather", '{"days": 1, "city": "Oslo"}')),
    ),
    ("It is cold in Oslo; I look for a coat.", "Let me see.", (("coat", '{"warm":true}'),)),
    ("Nothing is left to look up.", "Take the blue one.", ()),
)


class Strict:
    """`script` of an Upstream. `ids`: whether its tool calls have ids; `fixed`: whether they count from 0 each time."""

    def __init__(self, *, ids: bool = True, fixed: bool = False) -> None:
        self.seen: list[dict[str, Any]] = []
        self._ids, self._fixed = ids, fixed
        self._calls = 0

    def __call__(self, request: Request) -> list[Step]:
        body = json.loads(request.body)
        messages = body["messages"]
        if not accepts(body):
            return failed("400 Bad Request", MESSAGE)
        self.seen.append(body)
        after = messages[_after_user(messages) :]
        turn = TURNS[min(sum(message["role"] == "assistant" for message in after), len(TURNS) - 1)]
        return self._answer(*turn, stream=body.get("stream", False))

    def _answer(self, thought: str, text: str, calls: tuple[tuple[str, str], ...], *, stream: bool) -> list[Step]:
        made = []
        for slot, (name, arguments) in enumerate(calls):
            call: dict[str, Any] = {"index": slot, "type": "function"}
            if self._ids:
                call["id"] = f"call_{slot}" if self._fixed else f"call_00_{self._calls:016d}"
                self._calls += 1
            made.append({**call, "function": {"name": name, "arguments": arguments}})
        reason = "tool_calls" if made else "stop"
        if not stream:
            message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": thought}
            if made:
                message["tool_calls"] = made
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            value = {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": "a-model",
                "choices": [choice],
                "usage": USAGE,
                "system_fingerprint": "fp_1",
            }
            return [answer(json.dumps(value).encode())]
        events = [event({"role": "assistant", "content": None, "reasoning_content": ""})]
        events += [event({"content": None, "reasoning_content": piece}) for piece in _pieces(thought)]
        events += [event({"content": piece, "reasoning_content": None}) for piece in _pieces(text)]
        for call in made:
            function = call["function"]
            opening = {**call, "function": {"name": function["name"], "arguments": ""}}
            events.append(event({"tool_calls": [opening]}))
            events += [
                event({"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]})
                for piece in _pieces(function["arguments"])
            ]
        events.append(event({"content": "", "reasoning_content": None}, finish=reason, usage=USAGE))
        return streamed(*events, DONE)


def accepts(body: dict[str, Any]) -> bool:
    messages = body["messages"]
    if body.get("thinking", {}).get("type") == "disabled":
        return True
    return all(
        type(message.get("reasoning_content")) is str
        for message in messages[_after_user(messages) :]
        if message["role"] == "assistant" and (message.get("tool_calls") or body.get("tools"))
    )


def _after_user(messages: list[Any]) -> int:
    return max((at + 1 for at, message in enumerate(messages) if message["role"] == "user"), default=0)


def _pieces(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]
