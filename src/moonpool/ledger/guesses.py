"""How many wrong guesses somebody may make: some in a span of time, then none until the span is over. In memory; what
is lost gives a guesser a few more tries."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final

GUESSES_MAX: Final = 10
SPAN_S: Final = 3600.0
NAMES_MAX: Final = 10_000
AGAIN_MAX: Final = 4
"""So many of the last guesses are remembered of each name, 8 bytes of each."""

_NETWORK_BITS: Final = 64


class Guesses:
    """Wrong guesses by name (an account, an address): `most` in `span_s`. Bounded: beyond NAMES_MAX the oldest is
    forgotten."""

    def __init__(self, most: int = GUESSES_MAX, span_s: float = SPAN_S) -> None:
        self._most = most
        self._span_s = span_s
        self._missed: dict[str, tuple[int, float, tuple[bytes, ...]]] = {}

    def __len__(self) -> int:
        return len(self._missed)

    def wait_s(self, name: str, now: float) -> float:
        """How long `name` has to wait for its next guess; 0.0 for not at all."""
        count, since, _ = self._missed.get(name, (0, now, ()))
        return max(0.0, since + self._span_s - now) if count >= self._most else 0.0

    def missed(self, name: str, now: float, digest: bytes = b"") -> bool:
        """Count a wrong guess. True where it was the last that `name` had.

        One of the same `digest` as one of the last few is none: a program that goes on with a deleted key learns
        nothing by it, and must not use up the guesses of all who share its address.
        """
        count, since, last = self._missed.pop(name, (0, now, ()))
        if now - since >= self._span_s:
            count, since = 0, now
        guess = digest[:8]
        again = guess in last
        if guess and not again:
            last = (*last, guess)[-AGAIN_MAX:]
        self._missed[name] = (count + (not again), since, last)
        while len(self._missed) > NAMES_MAX:
            del self._missed[next(iter(self._missed))]
        return not again and count + 1 == self._most


def network_of(peer: str) -> str:
    """What a client's address counts as: itself, but of IPv6 the network of 64 bits, since a single customer has all
    of them; of IPv4 inside IPv6 that. What is no address (a UNIX socket) is itself."""
    if ":" not in peer:
        return peer
    try:
        address = IPv6Address(peer)
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"
