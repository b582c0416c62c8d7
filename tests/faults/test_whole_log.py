"""What `moonpool serve` writes about its requests, read as an operator's program reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import HOST_KEY, KEY, ROLE, chat, failed, good, served, streamed, words
from faults.upstream import Upstream
from moonpool.state.sqlite import CHECK_BYTES_MAX, SqliteStore

PROMPT = "tell nobody of the lighthouse"


def lines_of(folder: Path, script: Any, *bodies: Any, keys: dict[int, str] | None = None) -> tuple[list[Any], bytes]:
    """The log's request lines, and all that was printed, after these requests one after the other."""

    async def run() -> bytes:
        async with Upstream(script) as host, served(folder, host.base_url) as server:
            for body in bodies:
                client = await server.open(body)
                await client.rest()
                client.close()
            server.signal(2)
            assert await server.ended() == 0
            return server.said

    said = uvloop.run(run())
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    return [line for line in lines if line["event"] == "request"], said


def test_each_request_is_one_line(tmp_path: Path) -> None:
    """Request id, key's public id, model, host, status, tokens, times and cause of end, for an answer and a refusal."""
    found, _ = lines_of(tmp_path, good, chat(), chat(False), chat(temperature=9))
    assert [(line["status"], line["cause"]) for line in found] == [
        (200, "stop"),
        (200, "stop"),
        (400, "caller.invalid_value"),
    ]
    assert len({line["request"] for line in found}) == 3
    assert len({line["key"] for line in found}) == 1
    assert found[0]["key"] not in {"", KEY}
    for line in found[:2]:
        assert (line["model"], line["host"], line["account"]) == ("deepseek-chat", "mine", "bench")
        assert (line["prompt_miss"], line["prompt_hit"], line["completion"]) == (8, 3, 7)
        assert 0 < line["first_s"] <= line["total_s"]


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "500 Internal Server Error"])
def test_no_prompt_and_no_secret_in_it(tmp_path: Path, status: str) -> None:
    """Not even where a host quotes them in its error, or where they stand in the wrong field."""
    quoted = f"cannot take {PROMPT!r} from {HOST_KEY}"

    def script(request: Any) -> Any:
        if request.number % 2:
            return failed(status, quoted)
        error = b"data: " + json.dumps({"error": {"message": quoted}}).encode() + b"\n\n"
        return streamed(ROLE, *words(1), error)

    asked = [{"role": "user", "content": PROMPT}]
    bodies: list[Any] = [
        chat(messages=asked),
        chat(messages=asked),
        chat(False, messages=asked),
        chat(False, messages=asked),
        chat(messages=[{"role": PROMPT, "content": PROMPT}]),
        chat(messages=asked, temperature=PROMPT),
        chat(messages=asked, response_format={"type": PROMPT}),
        {"model": PROMPT, "messages": asked},
        chat(messages=asked, metadata={"of": PROMPT}),
    ]
    found, said = lines_of(tmp_path, script, *bodies)
    assert len(found) == len(bodies)
    for secret in (PROMPT, KEY, HOST_KEY):
        at = said.find(secret.encode())
        assert at < 0, said[max(0, at - 300) : at + 60]


def test_a_file_that_is_not_checked_to_its_end(tmp_path: Path) -> None:
    """Case 51: a database that is too large to be checked at a start is served, and a line says who checks it."""
    (tmp_path / "home").mkdir(mode=0o700)
    path = tmp_path / "home" / "moonpool.db"

    async def first_start() -> None:
        store = SqliteStore(path)
        await store.start()
        await store.stop()

    uvloop.run(first_start())
    os.truncate(path, CHECK_BYTES_MAX + 1)
    found, said = lines_of(tmp_path, good, chat())
    assert [line["status"] for line in found] == [200]
    (line,) = [json.loads(line) for line in said.splitlines() if b'"event":"database"' in line]
    assert "moonpool doctor" in line["why"]
