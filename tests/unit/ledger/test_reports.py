"""ledger/reports.py: what reports are made of."""

from __future__ import annotations

from moonpool.ledger.reports import Standing


def test_what_an_account_has_in_all() -> None:
    """All funds of a currency in one sum; what is owed on credit lowers it."""
    assert Standing("CNY", 5, 7, -20).total_pico() == -8
