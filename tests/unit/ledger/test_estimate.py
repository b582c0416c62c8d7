"""ledger/estimate.py: how many tokens were used when nobody said."""

from __future__ import annotations

import pytest

from moonpool.ledger import estimate
from moonpool.words import Usage


@pytest.mark.parametrize(
    "text,tokens", [("", 0), ("a", 1), ("ten chars.", 3), ("四个汉字", 3), ("ab汉", 2), ("x" * 100, 30)]
)
def test_questions(text: str, tokens: int) -> None:
    """About 0.3 token for an ASCII character, 0.6 for another, rounded up at the end."""
    assert estimate.question(text.encode()) == tokens


def test_bytes_that_are_no_text() -> None:
    """Are counted as what they would be read as."""
    assert estimate.question(b"\xff\xfe") == 2


@pytest.mark.parametrize(
    "said,usage",
    [
        ((0, 0, 0), Usage(4, 0, 0, 0, estimated=True)),
        ((10, 0, 0), Usage(4, 0, 3, 0, estimated=True)),
        ((10, 10, 10), Usage(4, 0, 9, 4, estimated=True)),
    ],
)
def test_answers(said: tuple[int, int, int], usage: Usage) -> None:
    """What was delivered, with the share of it that was thinking, marked as our own count."""
    assert estimate.estimate(4, *said) == usage


def test_what_is_plausible() -> None:
    """A host's count is believed down to an eighth of ours."""
    assert estimate.is_plausible(Usage(completion=1), 26, 0)
    assert not estimate.is_plausible(Usage(completion=1), 27, 0)
    assert estimate.is_plausible(Usage(completion=3), 40, 20)
    assert not estimate.is_plausible(Usage(completion=3), 41, 20)


def test_what_a_rate_is_asked_for() -> None:
    """A token for four bytes of the question, and an answer of ordinary length unless less was asked for."""
    assert estimate.ahead(400, 7) == 107
    assert estimate.ahead(400, 10**9) == estimate.ahead(400, None) == 100 + 512
