"""A host that thinks and answers, always the same, and goes on with whatever a client says it had said already."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from faults.stage import DONE, event, streamed
from faults.upstream import Request, Step, rst

THOUGHTS = ["Two ", "and two: ", "that is ", "four, ", "surely."]
ANSWER = ["The ", "sum ", "is ", "four; ", "nothing ", "else ", "could ", "it ", "be."]


class Speaker:
    """A host that always says THOUGHTS and ANSWER. Where the last message is a prefix it says the rest of them. `fault`
    strikes after so many events of an answer, `at(request)`; None: never. `say` writes an event."""

    def __init__(
        self,
        at: Callable[[Request], int | None],
        fault: Step = rst,
        thinks: bool = True,
        say: Callable[..., bytes] = event,
        unit: str = "events",
    ) -> None:
        """`unit`: what `at` counts, `events` or `bytes` of the whole answer, its head among them."""
        self.at, self.fault, self.thinks, self.say, self.unit = at, fault, thinks, say, unit
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> list[Step]:
        body = json.loads(request.body)
        self.asked.append(body)
        last = body["messages"][-1]
        thoughts, answer = list(THOUGHTS if self.thinks else []), list(ANSWER)
        if last.get("prefix"):
            assert request.target == "/beta/chat/completions"
            thoughts = rest(thoughts, last.get("reasoning_content") or "")
            answer = rest(answer, last["content"])
            assert not (last["content"] and thoughts), "whoever answers has thought to the end"
        usage = {"prompt_tokens": 20, "completion_tokens": len(thoughts) + len(answer), "total_tokens": 0}
        say = self.say
        events = [say({"role": "assistant", "content": None if thoughts else "", "reasoning_content": ""})]
        events += [say({"content": None, "reasoning_content": part}) for part in thoughts]
        events += [say({"content": part, "reasoning_content": None}) for part in answer]
        events += [say({"content": ""}, finish="stop", usage=usage), DONE]
        at = self.at(request)
        if at is None:
            return streamed(*events)
        if self.unit == "events":
            return [*streamed(*events[:at], end=False), self.fault]
        return [b"".join(raw for raw in streamed(*events) if isinstance(raw, bytes))[:at], self.fault]


def rest(parts: list[str], said: str) -> list[str]:
    """What is left of the parts when `said` was said: it ends between two of them."""
    while said:
        assert said.startswith(parts[0])
        said = said.removeprefix(parts.pop(0))
    return parts
