"""What people paste into a shell: cURL, whole and streamed (S0, S1)."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from journeys.server import Server
from journeys.shapes import check_answer, check_chunks

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def _curl(server: Server, path: str, body: Any, *options: str) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", "120", "--noproxy", "*", *options]
    command += ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {server.key}"]
    command += ["-d", json.dumps(body, ensure_ascii=False, indent=1), server.root + path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=130, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _chunks(text: str) -> list[dict[str, Any]]:
    """The events of a stream, as they stand on the screen."""
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def test_a_greeting(server: Server) -> None:
    """S0's first call: R1, whole."""
    body = {
        "model": "deepseek-r1",
        "messages": [{"role": "user", "content": "早上好"}],
        "max_tokens": 12,
        "stream": False,
    }
    check_answer(json.loads(_curl(server, "/v1/chat/completions", body)), "deepseek-r1", thinking=True)


def test_a_conversation_as_a_stream(server: Server) -> None:
    """S0's conversation: history in the body, the answer as events."""
    body = {
        "model": "deepseek-r1",
        "messages": [
            {"role": "user", "content": "早上好"},
            {"role": "assistant", "content": "早上好！"},
            {"role": "user", "content": "5.6和5.11谁大？"},
        ],
        "max_tokens": 12,
        "stream": True,
    }
    check_chunks(_chunks(_curl(server, "/v1/chat/completions", body)), "deepseek-r1", thinking=True)


def test_without_thinking(server: Server) -> None:
    """S1's first call: V4 with thinking switched off."""
    body = {
        "model": "deepseek-v4-flash",
        "messages": [{"role": "user", "content": "What is a token?"}],
        "max_tokens": 16,
        "thinking": {"type": "disabled"},
    }
    answer = _curl(server, "/gateway/v1/chat/completions", body, "-X", "POST")
    check_answer(json.loads(answer), "deepseek-v4-flash")


def test_with_a_system_text_and_thinking(server: Server) -> None:
    """S1's second call: a system text, thinking switched on."""
    body = {
        "model": "deepseek-v4-pro",
        "messages": [
            {"role": "system", "content": "You are a careful analyst."},
            {"role": "user", "content": "Is one gateway enough?"},
        ],
        "temperature": 0.3,
        "max_tokens": 40,
        "thinking": {"type": "enabled"},
    }
    answer = _curl(server, "/gateway/v1/chat/completions", body, "-X", "POST")
    check_answer(json.loads(answer), "deepseek-v4-pro", thinking=True)


def test_unbuffered(server: Server) -> None:
    """S1's stream, with `curl -N`: effort within `thinking`, usage asked for."""
    body = {
        "model": "deepseek-v4-pro",
        "messages": [{"role": "user", "content": "List the steps of brewing tea."}],
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
        "thinking": {"type": "enabled", "reasoning_effort": "high"},
    }
    answer = _curl(server, "/gateway/v1/chat/completions", body, "-N", "-X", "POST")
    check_chunks(_chunks(answer), "deepseek-v4-pro", thinking=True)
