"""What the store tells people of its books, as a protocol; a part of base.py."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from moonpool.ledger.reports import CallsAsk, CallsPage, Movement, Statement, UsageAsk, UsagePage
from moonpool.state.base import Balance


class Reports(Protocol):
    """What was used and what became of money, for people and their programs. `account` is an id; None, where it may
    be that, asks about all accounts and is for operators only. Pages follow each other by their `next`; a wrong one
    raises Problem("caller.invalid_value")."""

    def usage(self, account: str | None, ask: UsageAsk, limit: int, after: str | None = None) -> Awaitable[UsagePage]:
        """Sums, in the order of ledger.reports.GROUPS, then by currency."""

    def calls(self, account: str | None, ask: CallsAsk, limit: int, after: str | None = None) -> Awaitable[CallsPage]:
        """Calls that have ended, newest first."""

    def movements(self, account: str, start: float, end: float) -> Awaitable[Sequence[Movement]]:
        """Deposits, packs and settlements within [start, end)."""

    def statement(self, account: str, month: int) -> Awaitable[Statement]:
        """`month` is its first second in Beijing (ledger.spans.month_of)."""

    def balances(self, account: str) -> Awaitable[Sequence[Balance]]:
        """Each currency this account ever had or used, as it is on disk."""
