"""A program that uses tools and loses the thinking, with the official Python SDK and the real model."""

from __future__ import annotations

import re
from typing import Any

import openai
import pytest
import requests

from journeys.server import Server

pytestmark = pytest.mark.model

_TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def test_it_is_put_back(server: Server, client: openai.OpenAI) -> None:
    """Two turns of a conversation with tools: the second one's receipt says that the first one's thinking is there
    again, though the program sent nothing of it; the metrics count it."""
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked: dict[str, Any] = {"model": "deepseek-v4-flash", "tools": _TOOLS, "max_tokens": 400}
    first = client.chat.completions.create(messages=messages, **asked).choices[0]
    thought = (first.message.model_extra or {})["reasoning_content"]
    assert thought
    message = first.message.to_dict()
    del message["reasoning_content"]
    messages.append(message)
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
        for call in first.message.tool_calls or ()
    ]
    if not first.message.tool_calls:
        messages.append({"role": "user", "content": "And in Rome?"})
    second = client.chat.completions.with_raw_response.create(messages=messages, **asked)
    assert second.headers["x-moonpool-adjusted"] == "messages[1].reasoning_content:restored"
    assert (second.parse().choices[0].message.model_extra or {})["reasoning_content"]
    metrics = requests.get(f"{server.root}/metrics", timeout=10).text
    restored = re.search(r'moonpool_thoughts_total\{what="restored"\} ([0-9.]+)', metrics)
    assert restored is not None
    assert float(restored[1]) >= 1
