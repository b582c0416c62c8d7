"""A host that insists on reasoning which its row does not know of, through the whole App (PROVIDERS 8, rule 2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import uvloop

from faults.stage import chat, failed, good, stage
from moonpool.catalog.rows import NEEDS

THINKS = {"thinking": "default_on", "replay": "keep", "can": list(NEEDS), "rules": ["common"]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOOP = {
    "messages": [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
}
REFUSAL = "The `reasoning_content` in the thinking mode must be passed back to the API."


def sent(request: Any) -> Any:
    return json.loads(request.body)["messages"][1].get("reasoning_content", "-")


def test_it_is_asked_once_more_and_remembered(tmp_path: Path) -> None:
    """One corrected attempt at the same host, which the client does not notice; the next request is right at once."""
    seen: list[Any] = []

    def insists(request: Any) -> Any:
        seen.append(sent(request))
        return failed("400 Bad Request", REFUSAL) if seen[-1] == "-" else good(request)

    async def run() -> None:
        async with stage(tmp_path, insists, model=THINKS, host={"replay": "keep"}) as here:
            for _ in range(2):
                got = await here.ask(chat(**LOOP))
                assert got.status == 200
                assert b"[DONE]" in got.body

    uvloop.run(run())
    assert seen == ["-", "", ""]
