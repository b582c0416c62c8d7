"""How many wrong guesses somebody may make."""

from __future__ import annotations

from moonpool.ledger.guesses import SPAN_S, Guesses


def test_so_many_in_an_hour() -> None:
    """Ten wrong ones, then a wait until an hour after the first; then ten again. Others are not concerned."""
    guesses, begun = Guesses(), 1e6
    for turn in range(10):
        assert guesses.wait_s("a", begun + turn) == 0.0
        guesses.missed("a", begun + turn)
    assert guesses.wait_s("a", begun + 10) == SPAN_S - 10.0
    assert guesses.wait_s("b", begun + 10) == 0.0
    for _ in range(10):
        assert guesses.wait_s("a", begun + SPAN_S) == 0.0
        guesses.missed("a", begun + SPAN_S)
    assert guesses.wait_s("a", begun + SPAN_S) == SPAN_S


def test_memory_is_bounded() -> None:
    """Case 105: a million guessers are not remembered: the oldest goes."""
    guesses = Guesses()
    for number in range(10_500):
        guesses.missed(f"peer {number}", 1.0)
    assert len(guesses._missed) == 10_000
    assert "peer 0" not in guesses._missed
