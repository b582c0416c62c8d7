"""Functions and JSON that a model's host does not have, with the official SDK and the real model: its own are switched
off in the catalogue (`told-and-begun`, `told` in server.py).

How often the small model keeps to a form it is only told of is a figure, not a promise: what is promised is that what
comes as a call is one, and that anything else says so.
"""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from journeys.server import Server

pytestmark = pytest.mark.model

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": CITY}},
    {"type": "function", "function": {"name": "get_time", "description": "Time in a city", "parameters": CITY}},
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ASKED: Any = [{"role": "user", "content": "What is the weather like in Paris now?"}]
CITIES = ("Paris", "Rome", "Oslo", "Cairo")


def test_a_forced_call_and_its_result(client: openai.OpenAI) -> None:
    """A named function is called with its arguments, marked as emulated; its result is told back to the model."""
    got = client.chat.completions.with_raw_response.create(
        model="told-and-begun", messages=ASKED, tools=TOOLS, tool_choice=NAMED, seed=1, max_tokens=120
    )
    assert "tools:emulated" in got.headers["x-moonpool-adjusted"]
    choice = got.parse().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    call: Any = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"]
    told: Any = [
        *ASKED,
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "clear", "celsius": 31}'},
    ]
    after = client.chat.completions.create(
        model="told-and-begun", messages=told, tools=TOOLS, tool_choice="none", seed=1, max_tokens=60
    )
    assert after.choices[0].finish_reason in ("stop", "length")
    assert after.choices[0].message.content


def test_how_many_calls_come_out_right(client: openai.OpenAI) -> None:
    """Of forced calls, streamed and whole: each is a valid call of one of the functions, or a failure that says so."""
    valid = 0
    for seed, city in enumerate(CITIES):
        question: Any = [{"role": "user", "content": f"What is the weather like in {city} now?"}]
        options: Any = {"model": "told-and-begun", "messages": question, "tools": TOOLS, "tool_choice": "required"}
        try:
            calls = _streamed(client, options, seed) if seed % 2 else _whole(client, options, seed)
        except openai.APIError as error:
            assert "did not call a function" in str(error)  # noqa: PT017 - the only failure there may be
            continue
        assert calls
        for name, arguments in calls:
            assert name in ("get_weather", "get_time")
            assert json.loads(arguments)["city"]
        valid += 1
    print(f"emulated forced calls: {valid} of {len(CITIES)} valid")
    assert valid


def _whole(client: openai.OpenAI, options: Any, seed: int) -> list[tuple[str, str]]:
    answer = client.chat.completions.create(**options, seed=seed, max_tokens=120)
    if not answer.choices:  # a failure after a keep-alive
        raise openai.APIError(str(answer.model_dump()), request=None, body=None)  # type: ignore[arg-type]
    assert answer.choices[0].finish_reason == "tool_calls"
    return [(call.function.name, call.function.arguments) for call in answer.choices[0].message.tool_calls or ()]


def _streamed(client: openai.OpenAI, options: Any, seed: int) -> list[tuple[str, str]]:
    calls: dict[int, list[str]] = {}
    reason = None
    for chunk in client.chat.completions.create(**options, seed=seed, max_tokens=120, stream=True):
        assert not chunk.choices[0].delta.content
        for part in chunk.choices[0].delta.tool_calls or ():
            call = calls.setdefault(part.index, ["", ""])
            call[0] += part.function.name or ""
            call[1] += part.function.arguments or ""
        reason = chunk.choices[0].finish_reason or reason
    assert reason == "tool_calls"
    return [(name, arguments) for name, arguments in calls.values()]


def test_json_by_header(client: openai.OpenAI) -> None:
    """A request may ask for it itself; what comes is one object, without the prose around it."""
    got = client.chat.completions.with_raw_response.create(
        model="deepseek-v3",
        messages=[{"role": "user", "content": "Name the capital of France as json with the key capital."}],
        response_format={"type": "json_object"},
        seed=1,
        max_tokens=120,
        extra_headers={"x-moonpool-emulate": "json"},
    )
    assert got.headers["x-moonpool-adjusted"] == "response_format:emulated"
    assert type(json.loads(got.parse().choices[0].message.content or "")) is dict


def test_without_an_opt_in_nothing_is_emulated(server: Server, client: openai.OpenAI) -> None:
    """The 400 stays, and a word that means nothing is one too."""
    with pytest.raises(openai.BadRequestError, match="does not support Function Calling"):
        client.chat.completions.create(model="deepseek-v3", messages=ASKED, tools=TOOLS)
    with pytest.raises(openai.BadRequestError, match="x-moonpool-emulate"):
        client.chat.completions.create(
            model="deepseek-v3", messages=ASKED, tools=TOOLS, extra_headers={"x-moonpool-emulate": "magic"}
        )
