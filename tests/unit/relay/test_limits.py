"""What a client reads of its limits."""

from __future__ import annotations

import pytest

from moonpool.relay.limits import fields, has_token_rate, refusal, span
from moonpool.state.base_limits import Room, Verdict
from moonpool.words import Account, Key, Limits

SPANS = [
    (0.0, "0ms"),
    (0.001, "1ms"),
    (0.12, "120ms"),
    (0.9999, "1s"),
    (1.0, "1s"),
    (8.64, "8.64s"),
    (59.999, "59.999s"),
    (60.0, "1m0s"),
    (360.0, "6m0s"),
    (3661.5, "61m1.5s"),
]


@pytest.mark.parametrize(("seconds", "written"), SPANS)
def test_spans_as_openai_writes_them(seconds: float, written: str) -> None:
    """Milliseconds, seconds, minutes and seconds."""
    assert span(seconds) == written


def test_fields_only_where_there_is_a_rate() -> None:
    """Nothing for nothing."""
    assert fields(Verdict()) == []
    assert fields(Verdict(tokens=Room(10, 3, 42.0))) == [
        ("x-ratelimit-limit-tokens", "10"),
        ("x-ratelimit-remaining-tokens", "3"),
        ("x-ratelimit-reset-tokens", "42s"),
    ]


REFUSALS = [
    (Verdict("concurrency", "key", 1.0), "account.concurrency", "concurrency exceeded"),
    (Verdict("requests", "key", 2.5), "account.rate", "The key's requests for a minute are used up."),
    (Verdict("tokens", "account", 2.5), "account.rate", "The account's tokens for a minute are used up."),
    (Verdict("unavailable", "account", 5.0), "platform.limits", "Limits cannot be checked now."),
]


@pytest.mark.parametrize(("verdict", "code", "message"), REFUSALS)
def test_each_refusal_is_an_error_of_its_own(verdict: Verdict, code: str, message: str) -> None:
    """With when to come back."""
    problem = refusal(verdict)
    assert (problem.code, problem.message, problem.retry_after_s) == (code, message, verdict.retry_after_s)


def test_who_has_a_rate_of_tokens() -> None:
    """The account or the key: only then is a call's length guessed."""
    plain, rated = Account("a", "a"), Account("a", "a", tokens_per_minute=1)
    assert not has_token_rate(plain, Key("k", "a"))
    assert not has_token_rate(plain, Key("k", "a", limits=Limits(requests_per_minute=1)))
    assert has_token_rate(rated, Key("k", "a"))
    assert has_token_rate(plain, Key("k", "a", limits=Limits(tokens_per_minute=1)))
