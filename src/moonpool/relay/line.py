"""Who waits for a host to have room, and whose turn is it? One line for each model, fair between accounts.

Rules: an account that sends a thousand requests waits behind itself, not before others: turns go round the accounts,
and within one in the order they came. Whether a free place may be had by the one whose turn it is says places.py. A
line is bounded in number and in time; who would wait longer than allowed is told so at once, with when to come back.
Sources: PEERS C.11, B1 rows 27 to 29; RELIABILITY 1.7 (limiters).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from moonpool.errors import Problem
from moonpool.later import Later


class Waiter:
    """One request in a line. For the reply it is the source of the answer: what is told to it ends the waiting."""

    __slots__ = ("_line", "account", "again", "since", "turn")

    def __init__(self, line: Line, account: str, again: Callable[[], Any], since: float) -> None:
        """`again` tries to get a place: None while there is none."""
        self._line = line
        self.account = account
        self.again = again
        self.since = since
        self.turn: Later[Any] = Later()

    def gone(self) -> None:
        self.stop(Problem("caller.gone"))

    def stop(self, problem: Problem) -> None:
        if not self.turn.done():
            self._line.leave(self)
            self.turn.set(problem)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Line:
    """`left` is told of each who waits no more."""

    __slots__ = ("_by_account", "_left", "_serving", "waiting")

    def __init__(self, left: Callable[[], object] = lambda: None) -> None:
        self._left = left
        self._by_account: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._serving = False
        self.waiting = 0

    def join(self, account: str, again: Callable[[], Any], now: float) -> Waiter:
        waiter = Waiter(self, account, again, now)
        self._by_account.setdefault(account, deque()).append(waiter)
        self.waiting += 1
        return waiter

    def before(self, account: str) -> int:
        """How many have their turn before one of this account who joins now."""
        own = len(self._by_account.get(account, ()))
        return own + sum(min(len(queue), own + 1) for name, queue in self._by_account.items() if name != account)

    def leave(self, waiter: Waiter) -> None:
        queue = self._by_account.get(waiter.account)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self._took(waiter.account, queue)

    def serve(self) -> None:
        """Somewhere there is room again: let them have it, one account after the other."""
        if self._serving:
            return  # the one who is being served gave it back at once; the loop below goes on
        self._serving = True
        try:
            while any(self._serve_one(account) for account in list(self._by_account)):
                pass
        finally:
            self._serving = False

    def _serve_one(self, account: str) -> bool:
        """Whether the first of this account got a place. Another account's may need another, so each is asked."""
        queue = self._by_account.get(account)
        if queue is None:
            return False
        found = queue[0].again()
        if found is None:
            return False
        waiter = queue.popleft()
        self._by_account.move_to_end(account)
        self._took(account, queue)
        waiter.turn.set(found)
        return True

    def late(self, now: float, wait_s: float, problem: Callable[[], Problem]) -> None:
        """End the waiting of those who have waited long enough."""
        late = [each for queue in self._by_account.values() for each in queue if now - each.since >= wait_s]
        for waiter in late:
            waiter.stop(problem())

    def _took(self, account: str, queue: deque[Waiter]) -> None:
        self.waiting -= 1
        self._left()
        if not queue:
            del self._by_account[account]
