"""What every answer must look like, whoever asked for it and in whichever language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REASONS = {"stop", "length"}


def check_usage(usage: Mapping[str, Any], *, thinking: bool = False) -> None:
    """The sums of CONTRACT 4 hold; thinking is counted within the completion."""
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"]
    if thinking:
        assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


def check_answer(answer: Mapping[str, Any], model: str, *, thinking: bool = False) -> Mapping[str, Any]:
    """A whole chat completion; returns its message."""
    assert answer["object"] == "chat.completion"
    assert answer["id"]
    assert answer["created"] > 1_700_000_000
    assert answer["model"] == model
    assert answer["system_fingerprint"]
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] in REASONS
    assert choice["logprobs"] is None
    message = choice["message"]
    assert message["role"] == "assistant"
    assert message["content"].strip()
    assert bool(message.get("reasoning_content")) is thinking
    check_usage(answer["usage"], thinking=thinking)
    return dict(message)


def check_chunks(chunks: list[Mapping[str, Any]], model: str, *, thinking: bool = False) -> tuple[str, str]:
    """A stream in DeepSeek's form; returns the thinking and the answer.

    One id, the role first, all thinking before the first answer, and one last chunk with the reason and the usage.
    """
    assert len(chunks) > 2
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {model}
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    kinds = ["thinking" if d.get("reasoning_content") else "answer" if d.get("content") else "" for d in deltas]
    told = [kind for kind in kinds if kind]
    assert told == sorted(told, key=lambda kind: kind == "answer"), "an answer came before the thinking was over"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] in REASONS
    assert not any(reasons[:-1])
    check_usage(chunks[-1]["usage"], thinking=thinking)
    assert not any(chunk.get("usage") for chunk in chunks[:-1])
    thought = "".join(d.get("reasoning_content") or "" for d in deltas)
    answer = "".join(d.get("content") or "" for d in deltas)
    assert bool(thought) is thinking
    assert answer.strip()
    return thought, answer
