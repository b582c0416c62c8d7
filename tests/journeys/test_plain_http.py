"""Programs without an SDK: `requests` and `http.client`, chat, FIM, models and balance (S3)."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from journeys.server import CLIENT_S, Server
from journeys.shapes import check_answer, check_chunks, check_usage

pytestmark = pytest.mark.model

# Every field is written out, most of them null, as generated sample programs do.
CHAT: dict[str, Any] = {
    "messages": [
        {"content": "You answer in a few words.", "role": "system"},
        {"content": "潜水员在水下用什么呼吸？", "role": "user"},
    ],
    "model": "deepseek-chat",
    "frequency_penalty": 0,
    "max_tokens": 16,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "stop": None,
    "stream": False,
    "stream_options": None,
    "temperature": 1,
    "top_p": 1,
    "tools": None,
    "tool_choice": "none",
    "logprobs": False,
    "top_logprobs": None,
}
FIM: dict[str, Any] = {
    "model": "deepseek-chat",
    "prompt": "def mean(values):\n    total = ",
    "echo": False,
    "frequency_penalty": 0,
    "logprobs": 0,
    "max_tokens": 16,
    "presence_penalty": 0,
    "stop": None,
    "stream": False,
    "stream_options": None,
    "suffix": "\n    return total / len(values)\n",
    "temperature": 1,
    "top_p": 1,
}

Ask = Callable[..., tuple[int, str, str]]


def _headers(server: Server) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Authorization": f"Bearer {server.key}",
    }


def _with_requests(server: Server, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    data = json.dumps(body) if body is not None else {}
    answer = requests.request(method, server.root + path, headers=_headers(server), data=data, timeout=CLIENT_S)
    return answer.status_code, answer.headers["content-type"], answer.text


def _with_http_client(server: Server, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(server.host, timeout=CLIENT_S)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else "", _headers(server))
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode("utf-8")
    finally:
        connection.close()


@pytest.fixture(params=[_with_requests, _with_http_client], ids=["requests", "http.client"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Either library: (status, content type, text)."""
    made: Ask = request.param
    return made


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_chat_with_every_field_written_out(server: Server, ask: Ask, path: str) -> None:
    """Nulls are as good as absent fields."""
    status, kind, text = ask(server, "POST", path, CHAT)
    assert (status, kind.split(";")[0]) == (200, "application/json"), text
    check_answer(json.loads(text), "deepseek-chat")


def test_fim_with_every_field_written_out(server: Server, ask: Ask) -> None:
    """`logprobs: 0` and an end to reach: text in between, and its usage."""
    status, _, text = ask(server, "POST", "/beta/completions", FIM)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["object"] == "text_completion"
    assert answer["model"] == "deepseek-chat"
    assert answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
    check_usage(answer["usage"])


def test_models(server: Server, ask: Ask) -> None:
    """A GET that says it sends JSON and sends nothing is answered with the list."""
    status, _, text = ask(server, "GET", "/models")
    assert status == 200, text
    answer = json.loads(text)
    assert answer["object"] == "list"
    assert {"deepseek-chat", "deepseek-reasoner"} <= {row["id"] for row in answer["data"]}
    assert {row["object"] for row in answer["data"]} == {"model"}


@pytest.mark.parametrize("path", ["/user/balance", "/v1/user/balance"])
def test_balance(server: Server, ask: Ask, path: str) -> None:
    """Whether one may call, and what is left, in strings with two decimals at least, whose sum is right."""
    status, _, text = ask(server, "GET", path)
    assert status == 200, text
    answer = json.loads(text)
    assert answer["is_available"] is True
    assert answer["balance_infos"]
    for row in answer["balance_infos"]:
        assert row["currency"] in {"CNY", "USD"}
        amounts = [row[name] for name in ("total_balance", "granted_balance", "topped_up_balance")]
        assert all(isinstance(a, str) and re.fullmatch(r"-?\d+\.\d{2,}", a) for a in amounts)
        total, granted, topped_up = (float(a) for a in amounts)
        assert total == pytest.approx(granted + topped_up, abs=0.011)


def test_a_stream_read_line_by_line(server: Server) -> None:
    """Server-sent events as a program without an SDK sees them: data lines, and a mark at the end."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    with requests.post(
        server.root + "/chat/completions", headers=_headers(server), json=body, stream=True, timeout=CLIENT_S
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        assert "no-cache" in answer.headers["cache-control"]
        assert answer.headers["x-accel-buffering"] == "no"
        lines = [line for line in answer.iter_lines(decode_unicode=True) if line]
    told = [line for line in lines if not line.startswith(":")]
    assert all(line.startswith("data: ") for line in told)
    assert told[-1] == "data: [DONE]"
    check_chunks([json.loads(line.removeprefix("data: ")) for line in told[:-1]], "deepseek-chat")
