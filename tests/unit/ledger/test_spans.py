"""ledger/spans.py: the hours, days and months that money is counted in."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger import spans

_BEIJING = datetime.timezone(datetime.timedelta(hours=8))


def _at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=_BEIJING).timestamp()


@pytest.mark.parametrize(
    "moment,day,month",
    [
        ("2026-11-27 00:00:00", "2026-11-27 00:00:00", "2026-11-01 00:00:00"),
        ("2026-11-27 23:59:59.999", "2026-11-27 00:00:00", "2026-11-01 00:00:00"),
        ("2026-12-01 00:00:00", "2026-12-01 00:00:00", "2026-12-01 00:00:00"),
        ("2024-02-29 12:00:00", "2024-02-29 00:00:00", "2024-02-01 00:00:00"),
        ("2026-12-31 23:59:59.999", "2026-12-31 00:00:00", "2026-12-01 00:00:00"),
    ],
)
def test_edges(moment: str, day: str, month: str) -> None:
    """A day ends where the next begins, in Beijing, and so does a month (case 181)."""
    assert spans.day_of(_at(moment)) == _at(day)
    assert spans.month_of(_at(moment)) == _at(month)
    assert datetime.datetime.fromtimestamp(_at(moment), spans.ZONE).isoformat(" ").startswith(moment)


@given(st.floats(0, 4e9))
def test_spans_hold_their_moments(at: float) -> None:
    """Every moment lies in exactly one hour, day and month, and these in each other."""
    hour, day, month = spans.hour_of(at), spans.day_of(at), spans.month_of(at)
    assert month <= day <= hour <= at < hour + spans.HOUR_S
    assert at < day + spans.DAY_S
    assert spans.day_of(hour) == day
    assert spans.month_of(day) == month
