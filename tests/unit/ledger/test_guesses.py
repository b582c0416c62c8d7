"""How many wrong guesses somebody may make."""

from __future__ import annotations

from moonpool.ledger.guesses import GUESSES_MAX, NAMES_MAX, SPAN_S, Guesses


def test_so_many_in_an_hour() -> None:
    """Ten wrong ones, then a wait until an hour after the first; then ten again. Others are not concerned."""
    guesses = Guesses()
    for turn in range(GUESSES_MAX):
        assert guesses.wait_s("a", 100.0 + turn) == 0.0
        guesses.missed("a", 100.0 + turn)
    assert guesses.wait_s("a", 110.0) == SPAN_S - 10.0
    assert guesses.wait_s("b", 110.0) == 0.0
    assert guesses.wait_s("a", 100.0 + SPAN_S) == 0.0
    guesses.missed("a", 100.0 + SPAN_S)
    assert guesses.wait_s("a", 100.0 + SPAN_S) == 0.0


def test_memory_is_bounded() -> None:
    """Case 105: a million guessers are not remembered: the oldest goes."""
    guesses = Guesses()
    for number in range(NAMES_MAX + 500):
        guesses.missed(f"peer {number}", 1.0)
    assert len(guesses._missed) == NAMES_MAX
    assert "peer 0" not in guesses._missed
