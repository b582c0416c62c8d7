"""How many wrong guesses somebody may make."""

from __future__ import annotations

import pytest

from moonpool.ledger.guesses import SPAN_S, Guesses, network_of


def test_so_many_in_an_hour() -> None:
    """Ten wrong ones, then a wait until an hour after the first; then ten again. Others are not concerned."""
    guesses, begun = Guesses(), 1e6
    for turn in range(10):
        assert guesses.wait_s("a", begun + turn) == 0.0
        assert guesses.missed("a", begun + turn) is (turn == 9)
    assert guesses.wait_s("a", begun + 10) == SPAN_S - 10.0
    assert guesses.wait_s("b", begun + 10) == 0.0
    for turn in range(10):
        assert guesses.wait_s("a", begun + SPAN_S) == 0.0
        assert guesses.missed("a", begun + SPAN_S) is (turn == 9)
    assert guesses.wait_s("a", begun + SPAN_S) == SPAN_S


def test_another_number_in_another_span() -> None:
    """A single one in a minute, and one again when the minute is over, not before."""
    guesses = Guesses(1, 60.0)
    for begun in (5.0, 65.0, 200.0):
        assert guesses.wait_s("a", begun) == 0.0
        assert guesses.missed("a", begun)
        assert guesses.wait_s("a", begun + 59.5) == 0.5


def test_the_same_guess_again_is_none() -> None:
    """A few programs that go on with what they have use up one guess each, however often they ask; what is not among
    the last four is a guess, and what has no digest always is."""
    guesses = Guesses(6, 60.0)
    old = [bytes([number]) * 32 for number in range(4)]
    for _ in range(100):
        assert not any(guesses.missed("a", 1.0, digest) for digest in old)
    assert not guesses.missed("a", 1.0, b"5" * 32)
    assert guesses.wait_s("a", 1.0) == 0.0
    assert guesses.missed("a", 1.0, old[0])
    assert not guesses.missed("a", 1.0, old[0])
    assert guesses.wait_s("a", 1.0) == 60.0
    assert [guesses.missed("b", 1.0) for _ in range(7)] == [False] * 5 + [True, False]


def test_memory_is_bounded() -> None:
    """Case 105: a million guessers are not remembered: the oldest goes."""
    guesses = Guesses()
    for number in range(10_500):
        guesses.missed(f"peer {number}", 1.0)
    assert len(guesses) == len(guesses._missed) == 10_000
    assert "peer 0" not in guesses._missed


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unix", "unix"),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_counts_as(peer: str, network: str) -> None:
    """An address of IPv4 as itself, also where the socket speaks IPv6; of IPv6 its 64 bits."""
    assert network_of(peer) == network
