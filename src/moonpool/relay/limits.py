"""What a client reads of its limits, and what becomes of an answer whose lease is lost.

`x-ratelimit-*` as OpenAI writes them: only where there is a rate, on answers and on refusals alike.
"""

from __future__ import annotations

from typing import Final

from moonpool.errors import Problem
from moonpool.relay.platform import Platform
from moonpool.relay.writer import Fields
from moonpool.state.base_limits import Room, Verdict
from moonpool.words import Account, Key

_USED_UP: Final = {
    "requests": "The {}'s requests for a minute are used up.",
    "tokens": "The {}'s tokens for a minute are used up.",
}


def refusal(verdict: Verdict) -> Problem:
    """The error for what was refused."""
    if verdict.refused == "unavailable":
        return Problem("platform.limits", retry_after_s=verdict.retry_after_s)
    if verdict.refused == "concurrency":
        return Problem("account.concurrency", retry_after_s=verdict.retry_after_s)
    sentence = _USED_UP[verdict.refused].format(verdict.whose)
    return Problem("account.rate", sentence, retry_after_s=verdict.retry_after_s)


def has_token_rate(account: Account, key: Key) -> bool:
    return bool(account.tokens_per_minute or (key.limits is not None and key.limits.tokens_per_minute))


def fields(verdict: Verdict) -> Fields:
    """The header fields of the rates there are."""
    return _of("requests", verdict.requests) + _of("tokens", verdict.tokens)


def _of(kind: str, room: Room | None) -> Fields:
    if room is None:
        return []
    return [
        (f"x-ratelimit-limit-{kind}", str(room.limit)),
        (f"x-ratelimit-remaining-{kind}", str(room.remaining)),
        (f"x-ratelimit-reset-{kind}", span(room.reset_s)),
    ]


def span(seconds: float) -> str:
    """A span as OpenAI writes it: 120ms, 8.64s, 6m0s."""
    ms = round(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    rest = f"{ms / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest


def lose(platform: Platform, request_id: str) -> None:
    """The lease of this request ended while it ran, and its place is another's now: end its answer. What was delivered
    is charged, as for any answer that breaks off."""
    for reply in platform.active:
        if reply.id == request_id:
            try:
                reply.stop(Problem("platform.limits", detail="the lease ended: this process stood still too long"))
            except Exception as error:  # whoever told us has others to tell
                platform.journal.fault(f"request {request_id}, lease", error)
            return
