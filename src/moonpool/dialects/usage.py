"""How do tokens stand on the wire? Five numbers of ours, eight of theirs, both ways.

A usage that cannot be right (negative, no integer, beyond any context, hits above the prompt) is none: the relay then
counts itself. Shapes: PROVIDERS 1.4; hosts without cache fields: section 7; absurd values: RELIABILITY case 20.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeGuard

from msgspec import Meta, Struct
from msgspec.structs import replace

from moonpool.words import Usage

TOKENS_MAX: Final = 100_000_000
SEARCHES_MAX: Final = 1_000
CACHE_MEMBER: Final = b'"prompt_cache_hit_tokens"'
"""Without it, bytes of a host's own do not hold a usage as clients read it."""


def read_usage(value: Any) -> Usage | None:
    if type(value) is not dict:
        return None
    details: Any = value.get("prompt_tokens_details")
    hit: Any = value.get("prompt_cache_hit_tokens")
    if hit is None:
        hit = details.get("cached_tokens") if type(details) is dict else None
    if hit is None:
        hit = 0
    prompt: Any = value.get("prompt_tokens")
    miss: Any = value.get("prompt_cache_miss_tokens")
    if prompt is None and _is_count(hit) and _is_count(miss):
        prompt = hit + miss
    completion: Any = value.get("completion_tokens")
    details = value.get("completion_tokens_details")
    reasoning: Any = details.get("reasoning_tokens") if type(details) is dict else None
    if reasoning is None:
        # Some engines have it beside the sums.
        reasoning = value.get("reasoning_tokens") or 0
    # Written out, because every answer comes by here: four whole numbers within bounds.
    if not (type(prompt) is type(hit) is type(completion) is type(reasoning) is int):
        return None
    if not (0 <= hit <= prompt <= TOKENS_MAX and 0 <= completion <= TOKENS_MAX and 0 <= reasoning <= TOKENS_MAX):
        return None
    used = Usage(prompt - hit, hit, completion, reasoning if reasoning < completion else completion)
    tools: Any = value.get("server_tool_use")
    return used if tools is None else _with_searches(used, tools)


Count = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]


class PromptDetails(Struct, gc=False):
    cached_tokens: Count | None = None


class CompletionDetails(Struct, gc=False):
    reasoning_tokens: Count | None = None


class Tokens(Struct, gc=False):
    """A usage of the usual form. What does not fit says as much or nothing, and is read by `read_usage`."""

    prompt_tokens: Count
    completion_tokens: Count
    prompt_cache_hit_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    reasoning_tokens: Count | None = None
    server_tool_use: None = None


def read_tokens(tokens: Tokens) -> Usage | None:
    """As `read_usage`."""
    hit, reasoning = tokens.prompt_cache_hit_tokens, None
    if hit is None:
        hit = 0 if tokens.prompt_tokens_details is None else tokens.prompt_tokens_details.cached_tokens or 0
    if tokens.completion_tokens_details is not None:
        reasoning = tokens.completion_tokens_details.reasoning_tokens
    if reasoning is None:
        reasoning = tokens.reasoning_tokens or 0
    prompt, completion = tokens.prompt_tokens, tokens.completion_tokens
    if hit > prompt:
        return None
    return Usage(prompt - hit, hit, completion, reasoning if reasoning < completion else completion)


def _with_searches(usage: Usage, tools: Any) -> Usage:
    """Searches that the model made itself, where a host counts them: as Anthropic's API does, and others after it."""
    searches: Any = tools.get("web_search_requests") if type(tools) is dict else None
    if type(searches) is int and 0 < searches <= SEARCHES_MAX:
        return replace(usage, searches=searches)
    return usage


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= TOKENS_MAX


def write_usage(usage: Usage, thinking: bool) -> dict[str, Any]:
    """DeepSeek's own members in its own order; those of the thinking only where there was some."""
    prompt = usage.prompt_hit + usage.prompt_miss
    value: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion,
        "total_tokens": prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.prompt_hit},
    }
    if thinking or usage.reasoning:
        value["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    value["prompt_cache_hit_tokens"] = usage.prompt_hit
    value["prompt_cache_miss_tokens"] = usage.prompt_miss
    return value


def complete_usage(said: Any, usage: Usage, thinking: bool) -> dict[str, Any]:
    """What the host said, members of its own too, with those that it lacks."""
    return {**(said if type(said) is dict else {}), **write_usage(usage, thinking)}
