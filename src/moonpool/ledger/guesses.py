"""How many wrong guesses somebody may make: a few in an hour, then none until the hour is over. In memory; what is lost
gives a guesser a few more tries at secrets of 256 bits."""

from __future__ import annotations

from typing import Final

GUESSES_MAX: Final = 10
SPAN_S: Final = 3600.0
NAMES_MAX: Final = 10_000


class Guesses:
    """Wrong guesses by name (an account, an address). Bounded: beyond NAMES_MAX the oldest is forgotten."""

    def __init__(self) -> None:
        self._missed: dict[str, tuple[int, float]] = {}

    def wait_s(self, name: str, now: float) -> float:
        """How long `name` has to wait for its next guess; 0.0 for not at all."""
        count, since = self._missed.get(name, (0, now))
        return max(0.0, since + SPAN_S - now) if count >= GUESSES_MAX else 0.0

    def missed(self, name: str, now: float) -> None:
        count, since = self._missed.pop(name, (0, now))
        if now - since >= SPAN_S:
            count, since = 0, now
        self._missed[name] = (count + 1, since)
        while len(self._missed) > NAMES_MAX:
            del self._missed[next(iter(self._missed))]
