"""What a key's switch `conflicts` does over the wire, and that no host hears of a request that was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import chat, good, records, stage

THINKS = {
    "can": ["tools", "thinking", "json_object"],
    "thinking": "default_on",
    "thinking_forced_tools": "thinking_off",
    "rules": ["common", "v4"],
}
LIST = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CONFLICTS: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": 0.5}, "temperature", "temperature:dropped"),
    ({"thinking": {"type": "disabled"}, "reasoning_effort": "low"}, "reasoning_effort", "reasoning_effort:dropped"),
    ({"messages": LIST}, "messages[0].content", "list->text"),
    (
        {"tools": TOOLS, "tool_choice": "required", "thinking": {"type": "enabled"}}, "tool_choice",
        "thinking.type:disabled (tool_choice)",
    ),
]  # fmt: skip


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_key_that_refuses_reads_a_400(tmp_path: Path, stream: bool) -> None:
    """`conflicts = refuse`: a 400 that names the field, and nothing was asked or booked; any other key is served, with
    the receipt."""

    async def act() -> tuple[list[Any], list[Any], int, Path]:
        async with stage(tmp_path, good, model=THINKS) as here:
            strict = await here.key("a-key-that-refuses", conflicts="refuse")
            refused = [await here.ask(chat(stream, **fields), key=strict) for fields, _, _ in CONFLICTS]
            plain = (await here.ask(chat(stream, max_completion_tokens=5), key=strict)).fields["x-moonpool-adjusted"]
            assert plain == "max_completion_tokens->max_tokens"
            adapted = [await here.ask(chat(stream, **fields)) for fields, _, _ in CONFLICTS]
            return refused, adapted, len(here.host.requests), here.path

    refused, adapted, asked, path = uvloop.run(act())
    for (_, param, receipt), no, yes in zip(CONFLICTS, refused, adapted, strict=True):
        assert (no.status, no.error["type"], no.error["param"]) == (400, "invalid_request_error", param)
        assert no.fields["x-should-retry"] == "false"
        assert yes.status == 200, yes.body
        assert receipt in yes.fields["x-moonpool-adjusted"]
    assert asked == len(CONFLICTS) + 1
    assert len(records(path)) == asked
