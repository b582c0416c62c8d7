"""Programs with the official Node SDK: whole, in two rounds, streamed, with thinking, refused (S0, S1)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from journeys.server import Server
from journeys.shapes import check_answer, check_chunks

PROGRAMS = Path(__file__).with_name("node")

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (PROGRAMS / "node_modules" / "openai").is_dir(), reason="npm ci was not run (make test does)"
    ),
]


def _run(server: Server, program: str, base: str = "/v1", **words: str) -> Any:
    """What the program printed, read as JSON."""
    env = {"PATH": os.environ["PATH"], "BASE_URL": server.root + base, "API_KEY": words.pop("API_KEY", server.key)}
    command = ["node", str(PROGRAMS / f"{program}.mjs")]
    done = subprocess.run(command, env={**env, **words}, capture_output=True, text=True, timeout=130, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_whole_answer_that_was_thought_about(server: Server) -> None:
    """S0's first program in JavaScript: `reasoning_content` and `content` of R1."""
    answer = _run(server, "whole", MODEL="deepseek-r1", QUESTION="6.9和6.13谁大？")
    check_answer(answer, "deepseek-r1", thinking=True)


@pytest.mark.parametrize("thinking", ["disabled", "enabled"])
def test_thinking_by_a_field_of_its_own(server: Server, thinking: str) -> None:
    """S1's program in JavaScript: `thinking` stands beside the SDK's own fields."""
    answer = _run(
        server,
        "whole",
        "/gateway/v1",
        MODEL="deepseek-v4-flash",
        QUESTION="In one sentence: what is a proxy?",
        THINKING=thinking,
    )
    check_answer(answer, "deepseek-v4-flash", thinking=thinking == "enabled")


def test_two_rounds(server: Server) -> None:
    """S0's conversation in JavaScript."""
    rounds = _run(server, "conversation", MODEL="deepseek-r1")
    assert len(rounds) == 2
    for answer in rounds:
        check_answer(answer, "deepseek-r1", thinking=True)


def test_a_stream(server: Server) -> None:
    """S0's loop in JavaScript, with DeepSeek's form of the usage."""
    seen = _run(server, "stream", MODEL="deepseek-r1", QUESTION="6.9和6.13谁大？")
    assert seen["order"] == ["thinking", "answer"]
    assert (seen["thinking"], seen["answer"]) == check_chunks(seen["chunks"], "deepseek-r1", thinking=True)


def test_a_stream_with_usage_in_a_chunk_of_its_own(server: Server) -> None:
    """The same loop with a key that is switched to OpenAI's form of the usage."""
    seen = _run(
        server,
        "stream",
        API_KEY=server.new_key(usage="chunk"),
        MODEL="deepseek-chat",
        QUESTION="Say hello.",
        INCLUDE_USAGE="yes",
    )
    assert seen["order"] == ["answer"]
    assert seen["usage"]["total_tokens"] == seen["usage"]["prompt_tokens"] + seen["usage"]["completion_tokens"]


def test_refusals(server: Server) -> None:
    """The Node SDK's own error classes, and one request each."""
    said = _run(server, "refused")
    assert said["key"] == {
        "is": "AuthenticationError",
        "status": 401,
        "code": "invalid_api_key",
        "type": "authentication_error",
        "requests": 1,
    }
    assert said["field"]["is"] in {"BadRequestError", "UnprocessableEntityError"}
    assert said["field"]["type"] == "invalid_request_error"
    assert said["field"]["requests"] == 1
