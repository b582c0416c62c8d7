"""Who guesses at keys or tokens? An address from where too many wrong ones came is braked for the rest of a minute.

Rules:
- The address is the one that connects to us, as `ledger.guesses.network_of` says it. Many people may be behind it, so
  what is in use passes: a secret that was used from there before, and one too long to be guessed, as all that we make
  are, that was used from anywhere in LATELY_S. That is for people who move, and for a process that has just started.
- Everything else gets one answer, be it right or wrong: a guesser would go on by the difference. What is short is not
  even looked up.
- Who is in use pays nothing: the place where it is found out (`digests`) saves a digest, brake or no brake.
- Nothing grows with guesses: addresses are bounded, and only what was found is remembered.

Each process counts for itself. Source: RELIABILITY case 105.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from moonpool.errors import Problem
from moonpool.ledger.guesses import Guesses, network_of

SPAN_S: Final = 60.0
LATELY_S: Final = 30 * 86_400.0
LONG: Final = 32
"""Characters of a secret that nobody guesses, as for the other secrets that an operator chooses."""
DIGESTS_MAX: Final = 4096
FIELD_LENGTH_MAX: Final = 512
KNOWN_MAX: Final = 16_384


class Brake:
    """For one kind of secret; `most` wrong ones a minute from each address, 0 for any number. `now` is of a clock that
    only goes forward (s); `peer` an address as the socket says it."""

    __slots__ = ("_guesses", "_kind", "_known", "_most", "_note", "braked", "digests", "wrong")

    def __init__(self, kind: Literal["key", "token"], most: int, note: Callable[..., None]) -> None:
        self._kind = kind
        self._most = most
        self._note = note
        self._guesses = Guesses(most, SPAN_S)
        self._known: dict[tuple[str, bytes], None] = {}
        self.digests: dict[tuple[str, str], bytes] = {}
        """By address and `Authorization` field, of what was used from there: to digest takes longer than to find.
        Whether it still stands is asked each time."""
        self.wrong = 0
        self.braked = 0

    def wait_s(self, peer: str, digest: bytes, now: float) -> float:
        """How long what comes from there is not looked at; 0.0 for not at all, as for what was used from there."""
        if not self._most:
            return 0.0
        network = network_of(peer)
        return 0.0 if (network, digest) in self._known else self._guesses.wait_s(network, now)

    def refusal(self, wait_s: float) -> Problem:
        """What it gets instead."""
        self.braked += 1
        return Problem("account.guesses", retry_after_s=wait_s)

    def missed(self, peer: str, digest: bytes, now: float) -> None:
        """There is no such secret, or no longer."""
        self.wrong += 1
        network = network_of(peer)
        self._known.pop((network, digest), None)
        if self._most and self._guesses.missed(network, now, digest):
            self._note("address braked", address=network, kind=self._kind, wrong=self._most)

    def remember(self, peer: str, field: str, digest: bytes) -> None:
        """It was found, and is in use there."""
        if len(field) <= FIELD_LENGTH_MAX:  # spaces are free, and so many texts are one secret
            if len(self.digests) >= DIGESTS_MAX:
                self.digests.clear()
            self.digests[peer, field] = digest
        place = network_of(peer), digest
        self._known.pop(place, None)
        self._known[place] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def sizes(self) -> tuple[int, int, int]:
        """How many fields, secrets in use and addresses are remembered."""
        return len(self.digests), len(self._known), len(self._guesses)


def lately(used_at: float | None, now: float) -> bool:
    """Both in Unix seconds; None for never."""
    return used_at is not None and now - used_at < LATELY_S
