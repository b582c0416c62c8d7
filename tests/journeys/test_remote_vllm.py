"""vLLM on this machine's processor as a host, the official SDK in front of us. Optional: MOONPOOL_TEST_VLLM names the
command of an installation (tests/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from journeys.engines import serving, vllm_command, vllm_server
from journeys.server import Server
from journeys.shapes import check_answer, check_chunks

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not vllm_command(), reason="vLLM: MOONPOOL_TEST_VLLM names no vllm command"),
]

QUESTION = {"role": "user", "content": "Name a colour."}
MODELS = {
    "deepseek-chat": {"hosts": [{"name": "engine", "model": "served"}]},
    "deepseek-v4-flash": {"hosts": [{"name": "engine", "model": "served"}]},
}
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
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_server(folder) as url, serving(folder, url, {"dialect": "vllm"}, MODELS) as server:
        yield server


@pytest.fixture
def client(engine: Server) -> Iterator[openai.OpenAI]:
    with engine.client() as made:
        yield made


def test_whole_and_streamed(client: openai.OpenAI) -> None:
    """In DeepSeek's shapes, under the name that was asked for."""
    asked = {"model": "deepseek-chat", "messages": [QUESTION], "max_tokens": 6}
    check_answer(client.chat.completions.create(**asked).to_dict(), "deepseek-chat")
    chunks = [chunk.to_dict() for chunk in client.chat.completions.create(**asked, stream=True)]
    check_chunks(chunks, "deepseek-chat")


def test_the_switch_of_the_thinking(client: openai.OpenAI) -> None:
    """On by default for this name though the engine's default is off; off where the client says so. The engine counts
    no tokens of the thinking where it did not end."""
    asked = {"model": "deepseek-v4-flash", "messages": [QUESTION], "max_tokens": 6}
    thought = client.chat.completions.create(**asked).choices[0].message
    assert thought.reasoning_content
    assert not thought.content
    streamed = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.reasoning_content or "" for chunk in list(streamed)[1:])
    plain = client.chat.completions.create(**asked, extra_body={"thinking": {"type": "disabled"}}).choices[0].message
    assert plain.content
    assert not getattr(plain, "reasoning_content", None)


def test_a_message_is_continued(engine: Server) -> None:
    """Only what is new comes back, and thinking is switched off for it."""
    begun = {"role": "assistant", "content": "The colour is", "prefix": True}
    with engine.client("/beta") as beta:
        raw = beta.chat.completions.with_raw_response.create(
            model="deepseek-v4-flash", messages=[QUESTION, begun], max_tokens=6
        )
    assert raw.parse().choices[0].message.content.strip()
    assert "The colour is" not in raw.parse().choices[0].message.content
    assert raw.headers["x-moonpool-adjusted"] == "thinking.type:disabled (prefix)"


def test_tools_and_json(client: openai.OpenAI) -> None:
    """A named tool is called, and the reason says so; JSON is JSON."""
    answer = client.chat.completions.create(
        model="deepseek-chat",
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=60,
        temperature=0,
    ).choices[0]
    (call,) = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls"
    assert "city" in json.loads(call.function.arguments)
    ask = {"role": "user", "content": 'Give the colour of the sky as JSON like {"colour": "green"}.'}
    answer = client.chat.completions.create(
        model="deepseek-chat", messages=[ask], response_format={"type": "json_object"}, max_tokens=60, temperature=0
    ).choices[0]
    assert isinstance(json.loads(answer.message.content), dict)


def test_refusals(engine: Server, client: openai.OpenAI) -> None:
    """What is too long is told as ours; a middle is not filled in, and the engine is not asked."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="deepseek-chat", messages=[{"role": "user", "content": "word " * 4000}], max_tokens=8
        )
    assert refused.value.code == "20059"
    with engine.client("/beta") as beta, pytest.raises(openai.BadRequestError) as refused:
        beta.completions.create(model="deepseek-chat", prompt="a", suffix="b", max_tokens=4)
    assert "FIM" in refused.value.message
