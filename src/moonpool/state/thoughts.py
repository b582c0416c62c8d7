"""Thoughts in the memory of one process: bounded in bytes, the least used go first.

It is a vault by itself (nothing outlives the process), and what stands before the one in the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from sys import getsizeof
from typing import Final

from msgspec import Struct

from moonpool.later import Later
from moonpool.state.base import Thought, VaultBounds

_OVERHEAD_BYTES: Final = 500


class _Kept(Struct, gc=False, eq=False):
    number: int
    account: str
    marks: tuple[bytes, ...]
    reasoning: str
    bytes: int
    expires_at: float


class MemoryVault:
    """Vault."""

    def __init__(self, bounds: VaultBounds) -> None:
        self._bounds = bounds
        # account -> what is kept of it by its number, the least used first
        self._accounts: dict[str, OrderedDict[int, _Kept]] = {}
        self._all: OrderedDict[int, _Kept] = OrderedDict()
        self._account_bytes: dict[str, int] = {}
        self._by_mark: dict[tuple[str, bytes], _Kept] = {}
        self._shared: set[tuple[str, bytes]] = set()
        self._number = 0
        self.bytes = 0

    def find(self, account: str, marks: Collection[bytes], now: float) -> Later[dict[bytes, str]]:
        later: Later[dict[bytes, str]] = Later()
        later.set(self.look(account, marks, now)[0])
        return later

    def keep(self, thought: Thought, now: float) -> None:
        account = thought.account
        for mark in thought.calls:
            if (account, mark) in self._by_mark:
                self._shared.add((account, mark))
        self._put(
            account, tuple(dict.fromkeys((*thought.calls, thought.turn))), thought.reasoning, now + self._bounds.ttl_s
        )

    def sweep(self, now: float) -> None:
        for number in [number for number, kept in self._all.items() if kept.expires_at <= now]:
            self._forget(number)

    # What the vault in the database asks of the memory before it

    def look(self, account: str, marks: Collection[bytes], now: float) -> tuple[dict[bytes, str], list[bytes]]:
        """What is found, and the marks of which nothing is known here (not those that are known to be shared)."""
        found: dict[bytes, str] = {}
        unknown: list[bytes] = []
        for mark in marks:
            kept = self._by_mark.get((account, mark))
            if kept is None or kept.expires_at <= now:
                unknown.append(mark)
            elif (account, mark) not in self._shared:
                found[mark] = kept.reasoning
                self._all.move_to_end(kept.number)
                self._accounts[account].move_to_end(kept.number)
        return found, unknown

    def recall(self, account: str, marks: Iterable[bytes], reasoning: str, expires_at: float) -> None:
        """Take in what the database knew under these marks; what has come meanwhile is newer."""
        fresh = tuple(mark for mark in marks if (account, mark) not in self._by_mark)
        if fresh:
            self._put(account, fresh, reasoning, expires_at)

    def share(self, account: str, mark: bytes) -> None:
        """The database had another thought under this mark of a call."""
        if (account, mark) in self._by_mark:
            self._shared.add((account, mark))

    def _put(self, account: str, marks: tuple[bytes, ...], reasoning: str, expires_at: float) -> None:
        size = getsizeof(reasoning) + _OVERHEAD_BYTES * len(marks)
        bounds = self._bounds
        most = min(bounds.memory_bytes_max, bounds.account_bytes_max)
        if size > most:
            return
        self._number += 1
        kept = _Kept(self._number, account, marks, reasoning, size, expires_at)
        own = self._accounts.setdefault(account, OrderedDict())
        own[self._number] = self._all[self._number] = kept
        for mark in marks:
            self._by_mark[account, mark] = kept
        self.bytes += size
        self._account_bytes[account] = self._account_bytes.get(account, 0) + size
        while self._account_bytes[account] > most:
            self._forget(next(iter(own)))
        while self.bytes > bounds.memory_bytes_max:
            self._forget(next(iter(self._all)))

    def _forget(self, number: int) -> None:
        kept = self._all.pop(number)
        account = kept.account
        own = self._accounts[account]
        del own[number]
        self.bytes -= kept.bytes
        self._account_bytes[account] -= kept.bytes
        if not own:
            del self._accounts[account], self._account_bytes[account]
        for mark in kept.marks:
            if self._by_mark.get((account, mark)) is kept:
                del self._by_mark[account, mark]
                self._shared.discard((account, mark))
