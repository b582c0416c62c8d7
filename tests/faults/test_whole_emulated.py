"""Emulated functions through a whole Moonpool: two passes to one host, one answer, one booking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import DONE, ROLE, chat, event, last, only, stage, streamed, whole_body
from faults.upstream import answer

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["a"]}}}]
ROW = {"can": [], "emulate": ["tools"]}
RIGHT = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
WRONG = RIGHT.replace('"f"', '"g"')


def host(*texts: str) -> Any:
    """Answers the n-th request with the n-th text."""
    left = list(texts)

    def script(request: Any) -> Any:
        text = left.pop(0)
        if json.loads(request.body).get("stream"):
            return streamed(
                ROLE, *(event({"content": text[at : at + 5]}) for at in range(0, len(text), 5)), last(), DONE
            )
        return [answer(whole_body(text))]

    return script


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_second_try_is_one_answer(tmp_path: Path, stream: bool) -> None:
    """What was wrong is asked again at the same host; the client reads one answer, marked, with the usage of both
    passes, and is charged for it once."""

    async def act() -> tuple[Any, list[Any], Path]:
        async with stage(tmp_path, host(WRONG, RIGHT), model=ROW) as here:
            got = await here.ask(chat(stream, tools=TOOLS))
            return got, [json.loads(request.body) for request in here.host.requests], here.path

    got, asked, path = uvloop.run(act())
    assert got.status == 200, got.body
    assert got.fields["x-moonpool-adjusted"] == "tools:emulated"
    assert ["tools" in body for body in asked] == [False, False]
    assert "no function 'g'" in asked[1]["messages"][-1]["content"]
    chunks = got.events[:-1] if stream else [got.json]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"]["completion_tokens"] == 14
    assert chunks[-1]["usage"]["prompt_tokens"] == 22
    parts = [
        part["function"]
        for chunk in chunks
        for part in chunk["choices"][0].get("delta", chunk["choices"][0].get("message")).get("tool_calls", ())
    ]
    assert "".join(part.get("name", "") for part in parts) == "f"
    assert json.loads("".join(part["arguments"] for part in parts)) == {"a": 1}
    record = only(path)
    assert (record.kind, record.attempts, record.completion) == ("posted", 1, 14)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_wrong_twice_is_a_failure_and_another_host_may_answer(tmp_path: Path, stream: bool) -> None:
    """Nothing wrong was handed out, so the next host is asked; without one it is a 502 that costs nothing."""

    async def act() -> tuple[Any, Any]:
        async with stage(tmp_path / "two", host(WRONG, WRONG), host(RIGHT), model=ROW) as here:
            mended = await here.ask(chat(stream, tools=TOOLS))
        async with stage(tmp_path / "one", host(WRONG, WRONG), model=ROW) as here:
            return mended, await here.ask(chat(stream, tools=TOOLS))

    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    mended, failed = uvloop.run(act())
    assert (mended.status, mended.fields["x-moonpool-host"]) == (200, "host1")
    assert failed.status == 502
    assert failed.error["message"] == "The model did not call a function in the form it was told."


def test_by_header_and_not_without(tmp_path: Path) -> None:
    """A request can ask for it; without that, the 400 stays and no host hears of it."""

    async def act() -> None:
        async with stage(tmp_path, host(RIGHT), model={"can": []}) as here:
            refused = await here.ask(chat(False, tools=TOOLS))
            assert (refused.status, refused.error["param"]) == (400, "tools")
            assert not here.host.requests
            client = await here.connect()
            fields = {"Authorization": "Bearer key-of-the-stage", "X-Moonpool-Emulate": "tools"}
            client.send("POST", "/v1/chat/completions", json.dumps(chat(False, tools=TOOLS)).encode(), fields)
            got = await client.rest()
            assert got.status == 200, got.body
            assert got.json["choices"][0]["finish_reason"] == "tool_calls"
            client.close()

    uvloop.run(act())
