"""Programs with the official Python SDK: chat, conversations, JSON, filling in the middle, models (S0, S1, S3)."""

from __future__ import annotations

import json

import openai
import pytest

from journeys.server import Server
from journeys.shapes import check_answer, check_chunks, check_usage

pytestmark = pytest.mark.model


def test_a_whole_answer(client: openai.OpenAI) -> None:
    """The first program anybody runs: a system text, a question, an answer to print."""
    response = client.chat.completions.create(
        model="deepseek-chat",
        messages=[
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": "用一句话说明什么是网关。"},
        ],
        max_tokens=24,
        temperature=0.7,
        stream=False,
    )
    assert response.choices[0].message.content
    check_answer(response.to_dict(), "deepseek-chat")


def test_a_streamed_answer(client: openai.OpenAI) -> None:
    """Pieces come one by one, and together they are an answer."""
    stream = client.chat.completions.create(
        model="deepseek-chat",
        messages=[{"role": "user", "content": "Name three colours of the rainbow."}],
        max_tokens=24,
        stream=True,
    )
    chunks = [chunk.to_dict() for chunk in stream]
    check_chunks(chunks, "deepseek-chat")
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_usage_is_asked_for_in_a_stream(client: openai.OpenAI) -> None:
    """With include_usage every chunk before the last says null, and the last one has a choice and the usage."""
    stream = client.chat.completions.create(
        model="deepseek-v4-flash",
        messages=[{"role": "user", "content": "Say hello to the harbour."}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"thinking": {"type": "disabled"}},
    )
    chunks = [chunk.to_dict() for chunk in stream]
    check_chunks(chunks, "deepseek-v4-flash")
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_a_conversation_that_appends_the_message_itself(client: openai.OpenAI) -> None:
    """The SDK's own message object may be sent back as the history, as S3's program does."""
    messages: list = [{"role": "user", "content": "Which river flows through Vienna?"}]
    first = client.chat.completions.create(model="deepseek-chat", messages=messages, max_tokens=20)
    messages.append(first.choices[0].message)
    messages.append({"role": "user", "content": "And where does it end?"})
    second = client.chat.completions.create(model="deepseek-chat", messages=messages, max_tokens=20)
    messages.append(second.choices[0].message)
    assert [m["role"] if isinstance(m, dict) else m.role for m in messages] == ["user", "assistant"] * 2
    check_answer(second.to_dict(), "deepseek-chat")
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_the_history_is_read(client: openai.OpenAI) -> None:
    """What was said before is known to the model, for the platform itself remembers nothing (S1's conversation)."""
    response = client.chat.completions.create(
        model="deepseek-v4-flash",
        messages=[
            {"role": "system", "content": "You are a friendly assistant."},
            {"role": "user", "content": "My name is Zebedee and I play chess."},
            {"role": "assistant", "content": "Nice to meet you, Zebedee! Chess is a fine game."},
            {"role": "user", "content": "What is my name? Answer with the name only."},
        ],
        max_tokens=16,
        temperature=0,
        extra_body={"thinking": {"type": "disabled"}},
    )
    check_answer(response.to_dict(), "deepseek-v4-flash")
    assert "zebedee" in response.choices[0].message.content.lower()


def test_json_output(client: openai.OpenAI) -> None:
    """With json_object the content is JSON, whatever the model would have liked to say."""
    ask = """Read the sentence and give its parts as JSON.
EXAMPLE SENTENCE: Who wrote Faust? Goethe.
EXAMPLE JSON OUTPUT: {"question": "Who wrote Faust?", "answer": "Goethe"}"""
    response = client.chat.completions.create(
        model="deepseek-chat",
        messages=[
            {"role": "system", "content": ask},
            {"role": "user", "content": "Which planet is the largest? Jupiter."},
        ],
        response_format={"type": "json_object"},
        max_tokens=128,
        temperature=0,
    )
    check_answer(response.to_dict(), "deepseek-chat")
    assert response.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(response.choices[0].message.content), dict)


def test_prefix_completion(server: Server) -> None:
    """On /beta the answer goes on from the assistant's own beginning and does not repeat it."""
    with server.client("/beta") as beta:
        response = beta.chat.completions.create(
            model="deepseek-chat",
            messages=[
                {"role": "user", "content": "Write a Python function that doubles a number."},
                {"role": "assistant", "content": "```python\ndef double(", "prefix": True},
            ],
            stop=["```"],
            max_tokens=32,
            temperature=0,
        )
    content = check_answer(response.to_dict(), "deepseek-chat")["content"]
    assert "def double(" not in content
    assert "```" not in content
    assert ")" in content


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_filling_in_the_middle(server: Server, stream: bool) -> None:
    """FIM on /beta: text between a beginning and an end."""
    with server.client("/beta") as beta:
        asked = {
            "model": "deepseek-chat",
            "prompt": "def triangle(n):\n    if n <= 1:\n",
            "suffix": "\n    return n + triangle(n - 1)\n",
            "max_tokens": 16,
            "temperature": 0,
        }
        if not stream:
            response = beta.completions.create(**asked)
            text, usage = response.choices[0].text, response.usage.to_dict()
            assert response.object == "text_completion"
            assert response.choices[0].finish_reason in {"stop", "length"}
        else:
            parts = list(beta.completions.create(**asked, stream=True))
            text = "".join(part.choices[0].text for part in parts if part.choices)
            usage = parts[-1].usage.to_dict()
            assert [part.choices[0].finish_reason for part in parts][-1] in {"stop", "length"}
    assert "return" in text
    check_usage(usage)


def test_models(client: openai.OpenAI) -> None:
    """All public names of the four documents are there, and one can be asked for by name."""
    names = {model.id for model in client.models.list()}
    assert {
        *("deepseek-chat", "deepseek-reasoner", "deepseek-r1", "deepseek-v3", "deepseek-v3-0324"),
        *("deepseek-prover-v2", "deepseek-v4-flash", "deepseek-v4-pro"),
    } <= names
    one = client.models.retrieve("deepseek-chat")
    assert one.id == "deepseek-chat"
    assert one.object == "model"
    assert one.owned_by


@pytest.mark.parametrize("model", ["deepseek-v3", "deepseek-v3-0324", "deepseek-prover-v2"])
def test_the_other_models_of_the_first_document(client: openai.OpenAI, model: str) -> None:
    """Only the model's name is another."""
    response = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "2 + 2 = ?"}], max_tokens=8
    )
    check_answer(response.to_dict(), model)


def test_a_program_that_wants_web_search_is_answered(client: openai.OpenAI) -> None:
    """S0's field `enable_search` goes through extra_body and does not harm."""
    response = client.chat.completions.create(
        model="deepseek-v3",
        messages=[{"role": "user", "content": "今天适合散步吗？"}],
        max_tokens=12,
        extra_body={"enable_search": True},
    )
    assert response.choices[0].message.content


@pytest.mark.parametrize("base", ["/v1", "", "/beta", "/gateway/v1"], ids=["v1", "root", "beta", "gateway"])
def test_every_base_url(server: Server, base: str) -> None:
    """A client may use any of the documents' base URLs, with and without a slash at its end."""
    for address in (base, base + "/"):
        with server.client(address) as client:
            assert "deepseek-chat" in {model.id for model in client.models.list()}
    with server.client(base) as client:
        response = client.chat.completions.create(
            model="deepseek-chat", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
    check_answer(response.to_dict(), "deepseek-chat")
