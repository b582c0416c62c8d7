"""How many requests of an account run now: leases in the memory of one process.

A lease is (account, request, until when), never a number that goes up and down: what is forgotten ends by itself,
LEASE_S after it was taken or renewed, and giving it back twice gives it back once. All leases here belong to this
process, so one `renew` renews them all, in constant time: it moves the moment from which every living lease counts.

Times are seconds of a clock that only goes forward.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

LEASE_S: Final = 15.0


class MemoryLimiter:
    """Limiter."""

    __slots__ = ("_leases", "_renewed_at")

    def __init__(self) -> None:
        # account -> request -> when it was taken, oldest first
        self._leases: dict[str, OrderedDict[str, float]] = {}
        self._renewed_at = float("-inf")

    def take(self, account: str, request_id: str, limit: int, now: float) -> bool:
        """Taking what one holds already succeeds and takes nothing more."""
        leases = self._leases.get(account)
        if leases is None:
            leases = self._leases[account] = OrderedDict()
        if now >= self._renewed_at + LEASE_S:
            _drop_ended(leases, now)
        if request_id in leases:
            return True
        if len(leases) >= limit:
            return False
        leases[request_id] = now
        return True

    def renew(self, now: float) -> None:
        if now >= self._renewed_at + LEASE_S:
            # Only what still lives can be renewed.
            for leases in self._leases.values():
                _drop_ended(leases, now)
        self._renewed_at = now

    def give(self, account: str, request_id: str) -> None:
        leases = self._leases.get(account)
        if leases is not None:
            leases.pop(request_id, None)

    def held(self, account: str, now: float) -> int:
        leases = self._leases.get(account)
        if leases is None:
            return 0
        if now >= self._renewed_at + LEASE_S:
            _drop_ended(leases, now)
        return len(leases)


def _drop_ended(leases: OrderedDict[str, float], now: float) -> None:
    """Forget leases that were taken too long ago; the oldest are first, so each is looked at once."""
    while leases:
        request_id, taken_at = next(iter(leases.items()))
        if taken_at + LEASE_S > now:
            return
        del leases[request_id]
