"""Programs with the official Python SDK that think: R1, the reasoner, V4 (S0, S1, S3)."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from journeys.server import Server
from journeys.shapes import check_answer, check_chunks

pytestmark = pytest.mark.model

QUESTION = "7.8和7.12哪个更大？"


def _read(chunks: Any) -> tuple[str, str, list[str], Any]:
    """S0's loop: thinking, answer, the order they began in, and the usage of a chunk that has no choices."""
    thought, answer, order, usage = "", "", [], None
    for chunk in chunks:
        if not getattr(chunk, "choices", None):
            usage = chunk.usage
            continue
        delta = chunk.choices[0].delta
        if not getattr(delta, "reasoning_content", None) and not getattr(delta, "content", None):
            continue
        if not getattr(delta, "reasoning_content", None) and "answer" not in order:
            order.append("answer")
        if getattr(delta, "reasoning_content", None):
            if "thinking" not in order:
                order.append("thinking")
            thought += delta.reasoning_content
        elif getattr(delta, "content", None):
            answer += delta.content
    return thought, answer, order, usage


def test_r1_in_two_rounds(client: openai.OpenAI) -> None:
    """The thinking and the answer are there; only the answer goes back into the history."""
    messages: list = [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！请说。"},
        {"role": "user", "content": QUESTION},
    ]
    first = client.chat.completions.create(model="deepseek-r1", messages=messages, max_tokens=16)
    message = check_answer(first.to_dict(), "deepseek-r1", thinking=True)
    messages.append({"role": "assistant", "content": message["content"]})
    messages.append({"role": "user", "content": "为什么？"})
    second = client.chat.completions.create(model="deepseek-r1", messages=messages, max_tokens=16)
    check_answer(second.to_dict(), "deepseek-r1", thinking=True)


def test_r1_drops_the_thinking_that_is_sent_back(client: openai.OpenAI) -> None:
    """On R1 the message object itself, thinking included, may go back: it is not needed and does not harm."""
    messages: list = [{"role": "user", "content": QUESTION}]
    first = client.chat.completions.create(model="deepseek-r1", messages=messages, max_tokens=8)
    messages += [first.choices[0].message, {"role": "user", "content": "再说一次。"}]
    second = client.chat.completions.create(model="deepseek-r1", messages=messages, max_tokens=8)
    check_answer(second.to_dict(), "deepseek-r1", thinking=True)


def test_r1_streamed(client: openai.OpenAI) -> None:
    """S0's loop prints the thinking, then the answer; DeepSeek's form of the usage does not disturb it."""
    stream = client.chat.completions.create(
        model="deepseek-r1", messages=[{"role": "user", "content": QUESTION}], max_tokens=16, stream=True
    )
    chunks = list(stream)
    thought, answer, order, _ = _read(chunks)
    assert order == ["thinking", "answer"]
    assert (thought, answer) == check_chunks([chunk.to_dict() for chunk in chunks], "deepseek-r1", thinking=True)


def test_r1_streamed_with_usage_in_a_chunk_of_its_own(server: Server) -> None:
    """A key that is switched to OpenAI's form gets the chunk without choices that S0's loop prints the usage of."""
    with server.client(key=server.new_key(usage="chunk")) as client:
        stream = client.chat.completions.create(
            model="deepseek-r1",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        thought, answer, order, usage = _read(stream)
    assert order == ["thinking", "answer"]
    assert thought
    assert answer
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_reasoner_in_two_rounds(client: openai.OpenAI) -> None:
    """S3's program: ask, keep the answer, ask again. `max_tokens` bounds the answer, not the thinking."""
    messages: list = [{"role": "user", "content": "Which is smaller, 3.4 or 3.12?"}]
    for question in ("How many letters has the word 'harbour'?", None):
        response = client.chat.completions.create(model="deepseek-reasoner", messages=messages, max_tokens=16)
        message = check_answer(response.to_dict(), "deepseek-reasoner", thinking=True)
        messages.append({"role": "assistant", "content": message["content"]})
        messages.append({"role": "user", "content": question or ""})


def test_the_reasoner_streamed_in_two_rounds(client: openai.OpenAI) -> None:
    """S3's loop looks at choices[0] of every chunk, so no chunk may come without one."""
    messages: list = [{"role": "user", "content": "Which is smaller, 3.4 or 3.12?"}]
    for question in ("How many letters has the word 'lantern'?", None):
        thought = answer = ""
        stream = client.chat.completions.create(
            model="deepseek-reasoner", messages=messages, max_tokens=16, stream=True
        )
        for chunk in stream:
            if chunk.choices[0].delta.reasoning_content:
                assert not answer
                thought += chunk.choices[0].delta.reasoning_content
            elif chunk.choices[0].delta.content:
                answer += chunk.choices[0].delta.content
        assert thought.strip()
        assert answer.strip()
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": question or ""})


def test_the_reasoner_refuses_its_own_thinking(client: openai.OpenAI) -> None:
    """Sending the message object back carries `reasoning_content`: a 400 on this model, as S2 and S3 say."""
    history: list = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!", "reasoning_content": "A greeting."},
        {"role": "user", "content": "Again"},
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="deepseek-reasoner", messages=history, max_tokens=8)
    assert "reasoning_content" in refused.value.message


def test_v4_without_thinking(server: Server) -> None:
    """S1's program: thinking is switched off through extra_body."""
    with server.client("/gateway/v1") as client:
        response = client.chat.completions.create(
            model="deepseek-v4-flash",
            messages=[{"role": "user", "content": "What does a reverse proxy do?"}],
            max_tokens=24,
            temperature=0.3,
            extra_body={"thinking": {"type": "disabled"}},
        )
    check_answer(response.to_dict(), "deepseek-v4-flash")


def test_v4_with_thinking(server: Server) -> None:
    """With thinking the limit is shared: both parts together stay within `max_tokens`."""
    with server.client("/gateway/v1") as client:
        response = client.chat.completions.create(
            model="deepseek-v4-pro",
            messages=[
                {"role": "system", "content": "First the conclusion, then the reasons."},
                {"role": "user", "content": "Why should a client retry with pauses that grow?"},
            ],
            max_tokens=48,
            temperature=0.3,
            extra_body={"thinking": {"type": "enabled"}},
        )
    check_answer(response.to_dict(), "deepseek-v4-pro", thinking=True)
    assert response.usage.completion_tokens <= 48


def test_v4_streamed_shows_only_the_answer(server: Server) -> None:
    """S1's loop skips what has no choices and prints content alone."""
    with server.client("/gateway/v1") as client:
        stream = client.chat.completions.create(
            model="deepseek-v4-pro",
            messages=[{"role": "user", "content": "What is a queue good for?"}],
            max_tokens=48,
            stream=True,
            extra_body={"thinking": {"type": "enabled"}},
        )
        chunks, shown = [], ""
        for chunk in stream:
            chunks.append(chunk.to_dict())
            if not chunk.choices:
                continue
            content = getattr(chunk.choices[0].delta, "content", None)
            if content:
                shown += content
    assert check_chunks(chunks, "deepseek-v4-pro", thinking=True)[1] == shown


def test_v4_takes_its_own_message_back(client: openai.OpenAI) -> None:
    """On V4 the message object, thinking included, is the history."""
    messages: list = [{"role": "user", "content": "Why is the sea salty?"}]
    extra = {"thinking": {"type": "enabled"}}
    for question in ("And why are rivers not?", ""):
        response = client.chat.completions.create(
            model="deepseek-v4-flash", messages=messages, max_tokens=24, extra_body=extra
        )
        check_answer(response.to_dict(), "deepseek-v4-flash", thinking=True)
        messages += [response.choices[0].message, {"role": "user", "content": question}]
