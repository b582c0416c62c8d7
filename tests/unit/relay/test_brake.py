"""What an address may send from where too many wrong keys came: by a clock of the test."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import pytest

from moonpool.relay.brake import DIGESTS_MAX, FIELD_LENGTH_MAX, KNOWN_MAX, LATELY_S, Brake, lately

_noted: list[dict[str, Any]] = []


def _note(event: str, **facts: Any) -> None:
    _noted.append({"event": event, **facts})


def _brake(most: int = 5) -> Brake:
    _noted.clear()
    return Brake("key", most, _note)


def _digest(text: object) -> bytes:
    return sha256(str(text).encode()).digest()


def _guess(brake: Brake, peer: str, number: int, now: float) -> bool:
    """As a server does with a wrong key. False: it was not looked at."""
    if brake.wait_s(peer, _digest(number), now):
        brake.refusal(1.0)
        return False
    brake.missed(peer, _digest(number), now)
    return True


def test_five_wrong_ones_a_minute() -> None:
    """Case 105: so many wrong keys are looked at, further ones are not until the minute is over; then so many again.
    Each time the log has one line. Other addresses are not concerned."""
    brake = _brake()
    for minute in range(3):
        begun = 100.0 + 60.0 * minute
        assert [_guess(brake, "a", number, begun + number) for number in range(40)] == [True] * 5 + [False] * 35
        assert brake.wait_s("a", _digest("new"), begun + 45.0) == 15.0
        assert brake.wait_s("b", _digest("new"), begun + 45.0) == 0.0
        assert _noted == [{"event": "address braked", "address": "a", "kind": "key", "wrong": 5}] * (minute + 1)
    assert (brake.wrong, brake.braked) == (15, 105)


def test_refusal_says_how_long() -> None:
    """With the time for Retry-After."""
    problem = _brake().refusal(12.5)
    assert (problem.code, problem.status, problem.retry_after_s) == ("account.guesses", 429, 12.5)
    assert "Retry-After" in problem.message


def test_what_is_in_use_passes() -> None:
    """A key that was used from a braked address passes, in whatever form it is written; from another braked address it
    is like a wrong one, and so it is where it was used once it is found to be dead."""
    brake, mine = _brake(), _digest("mine")
    brake.remember("a", "Bearer mine", mine)
    for peer in ("a", "b"):
        for number in range(5):
            _guess(brake, peer, number, 1.0)
    assert brake.wait_s("a", mine, 2.0) == 0.0
    assert brake.wait_s("b", mine, 2.0) == 59.0
    assert brake.digests == {("a", "Bearer mine"): mine}
    brake.missed("a", mine, 2.0)
    assert brake.wait_s("a", mine, 2.0) == 59.0


def test_a_network_of_ipv6_is_one_address() -> None:
    """Whoever has all of its addresses guesses no more often, and is known in all of them."""
    brake, mine = _brake(), _digest("mine")
    brake.remember("2001:db8::1", "Bearer mine", mine)
    assert [_guess(brake, f"2001:db8::{number + 1}", number, 1.0) for number in range(6)] == [True] * 5 + [False]
    assert brake.wait_s("2001:db8::77", mine, 1.0) == 0.0
    assert brake.wait_s("2001:db8:0:1::1", _digest("new"), 1.0) == 0.0
    assert _noted[0]["address"] == "2001:db8::/64"


def test_zero_switches_it_off() -> None:
    """Any number of wrong keys is looked at, and counted."""
    brake = _brake(0)
    assert all(_guess(brake, "a", number, 1.0) for number in range(1_000))
    assert (brake.wrong, brake.sizes(), _noted) == (1_000, (0, 0, 0), [])


def test_a_dead_key_does_not_brake() -> None:
    """A program that goes on with a deleted key, at any rate, shuts out nobody at its address."""
    brake = _brake()
    assert all(_guess(brake, "a", 7, number / 100) for number in range(5_000))
    assert brake.wait_s("a", _digest("new"), 50.0) == 0.0


def test_guesses_grow_nothing() -> None:
    """Case 105: 24,000 guesses in ten minutes, half of them from one address, half from ever new ones. Of the one's so
    many are looked at as the minutes allow; what is remembered stays as small as it was, and what is in use is not
    forgotten."""
    brake, chance = _brake(60), random.Random(105)
    brake.remember("10.0.0.1", "Bearer mine", _digest("mine"))
    seen = 0
    for number in range(12_000):
        now = number * 600.0 / 12_000
        seen += _guess(brake, "10.0.0.1", number, now)
        _guess(brake, f"198.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}", number, now)
    assert seen == 600
    assert brake.sizes() == (1, 1, 10_000)
    assert brake.wait_s("10.0.0.1", _digest("mine"), 600.0) == 0.0
    assert len(_noted) == 10


def test_what_is_known_is_bounded() -> None:
    """A key that is used from ever new places, in ever new writings, crowds out what was used longest ago, and nothing
    else; long writings are not kept."""
    brake, mine = _brake(), _digest("mine")
    for number in range(KNOWN_MAX + 1):
        brake.remember(f"10.1.{number >> 8}.{number & 255}", "Bearer mine", mine)
        if number == KNOWN_MAX - 1:
            brake.remember("10.1.0.0", "Bearer mine", mine)
    for number in range(FIELD_LENGTH_MAX, FIELD_LENGTH_MAX + 10):
        brake.remember("10.1.0.0", f"Bearer {' ' * number}mine", mine)
    fields, known, addresses = brake.sizes()
    assert (known, addresses) == (KNOWN_MAX, 0)
    assert 0 < fields <= DIGESTS_MAX
    assert max(len(field) for _, field in brake.digests) <= FIELD_LENGTH_MAX
    for peer in ("10.1.0.0", "10.1.0.1"):
        for number in range(5):
            _guess(brake, peer, number, 1.0)
    assert brake.wait_s("10.1.0.0", mine, 1.0) == 0.0
    assert brake.wait_s("10.1.0.1", mine, 1.0) == 60.0


@pytest.mark.parametrize(("used_at", "is_lately"), [(None, False), (0.0, False), (1.0, True), (LATELY_S + 9, True)])
def test_lately_is_a_month(used_at: float | None, is_lately: bool) -> None:
    """Never is not lately; a clock that was set back does no harm."""
    assert lately(used_at, LATELY_S) is is_lately
