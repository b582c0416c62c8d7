"""A llama.cpp server elsewhere as a host: `moonpool serve` without its own model, the official SDK in front of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from journeys.engines import llama_server, serving
from journeys.server import Server
from journeys.shapes import check_answer, check_chunks

pytestmark = pytest.mark.model

THINKING = {"thinking": {"type": "enabled"}}
QUESTION = {"role": "user", "content": "Name a colour."}
HOSTS = [{"name": "engine", "model": "some.gguf", "options": {"budget": 40}}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("engine")
    models = {name: {"hosts": HOSTS} for name in ("deepseek-chat", "deepseek-v4-flash")}
    with llama_server() as url, serving(folder, url, {"dialect": "llamacpp"}, models) as server:
        yield server


@pytest.fixture
def client(engine: Server) -> Iterator[openai.OpenAI]:
    with engine.client() as made:
        yield made


def test_only_its_models_are_served(client: openai.OpenAI) -> None:
    """The other names have no host, and no embedded model takes them."""
    assert sorted(model.id for model in client.models.list()) == ["deepseek-chat", "deepseek-v4-flash"]


def test_whole_and_streamed(client: openai.OpenAI) -> None:
    """Both forms, under the name that was asked for; the host's own stands in the header."""
    raw = client.chat.completions.with_raw_response.create(model="deepseek-chat", messages=[QUESTION], max_tokens=12)
    answer = raw.parse().to_dict()
    check_answer(answer, "deepseek-chat")
    assert answer["system_fingerprint"] == "fp_llamacpp_some.gguf"
    assert (raw.headers["x-moonpool-host"], raw.headers["x-moonpool-model"]) == ("engine", "some.gguf")
    chunks = client.chat.completions.create(model="deepseek-chat", messages=[QUESTION], max_tokens=12, stream=True)
    check_chunks([chunk.to_dict() for chunk in chunks], "deepseek-chat")


def test_thinking(client: openai.OpenAI) -> None:
    """Thinking and answer apart, whole and streamed."""
    asked = {"model": "deepseek-v4-flash", "messages": [QUESTION], "max_tokens": 60, "extra_body": THINKING}
    check_answer(client.chat.completions.create(**asked).to_dict(), "deepseek-v4-flash", thinking=True)
    chunks = client.chat.completions.create(**asked, stream=True)
    check_chunks([chunk.to_dict() for chunk in chunks], "deepseek-v4-flash", thinking=True)


def test_json(client: openai.OpenAI) -> None:
    """The grammar of the engine makes it JSON."""
    ask = {"role": "user", "content": 'Give the colour of the sky as JSON like {"colour": "green"}.'}
    answer = client.chat.completions.create(
        model="deepseek-chat", messages=[ask], response_format={"type": "json_object"}, max_tokens=64, temperature=0
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_tool_call(client: openai.OpenAI) -> None:
    """A named tool is called, though the engine's own API would make `auto` of it."""
    answer = client.chat.completions.create(
        model="deepseek-chat",
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=64,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_prefix_and_fim(engine: Server) -> None:
    """An answer that is begun goes on; a middle is filled in."""
    with engine.client("/beta") as beta:
        begun = {"role": "assistant", "content": "The colour is", "prefix": True}
        answer = beta.chat.completions.create(model="deepseek-chat", messages=[QUESTION, begun], max_tokens=8)
        assert answer.choices[0].message.content.strip()
        middle = beta.completions.create(
            model="deepseek-chat", prompt="def add(a, b):\n    ", suffix="\n\n\nprint(add(1, 2))\n", max_tokens=24
        )
    assert middle.choices[0].text.strip()
    assert middle.usage.total_tokens == middle.usage.prompt_tokens + middle.usage.completion_tokens


def test_too_long(client: openai.OpenAI) -> None:
    """What the engine refuses is told as ours."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="deepseek-chat", messages=[{"role": "user", "content": "word " * 4000}])
    assert refused.value.code == "20059"
