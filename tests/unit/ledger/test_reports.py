"""ledger/reports.py: what reports are made of."""

from __future__ import annotations

import pytest

from moonpool.ledger.reports import Standing, segments
from moonpool.ledger.spans import DAY_S, HOUR_S, day_of

_DAY = day_of(1_800_000_000)


def test_what_an_account_has_in_all() -> None:
    """All funds of a currency in one sum; what is owed on credit lowers it."""
    assert Standing("CNY", 5, 7, -20).total_pico() == -8


# from, to (seconds of a day), by hour, by day -> what is added up
_SEGMENTS = [
    (0, 0, True, False, []),
    (HOUR_S, HOUR_S, False, True, []),
    (HOUR_S, 0, True, False, []),
    (1, 2, True, False, [("hour", 0, HOUR_S, None)]),
    (0, HOUR_S, False, True, [("hour", 0, HOUR_S, 0)]),
    (0, DAY_S, False, False, [("day", 0, DAY_S, None)]),
    (0, DAY_S, True, False, [("hour", 0, DAY_S, None)]),
    (HOUR_S, DAY_S + HOUR_S, False, True, [("hour", HOUR_S, DAY_S, 0), ("hour", DAY_S, DAY_S + HOUR_S, DAY_S)]),
    (0, 2 * DAY_S + 1, False, False, [("day", 0, 2 * DAY_S, None), ("hour", 2 * DAY_S, 2 * DAY_S + HOUR_S, None)]),
    (
        -1,
        DAY_S + 1,
        False,
        True,
        [("hour", -HOUR_S, 0, -DAY_S), ("day", 0, DAY_S, None), ("hour", DAY_S, DAY_S + HOUR_S, DAY_S)],
    ),
]


@pytest.mark.parametrize("start,end,by_hour,by_day,expected", _SEGMENTS)
def test_what_is_added_up(
    start: int, end: int, by_hour: bool, by_day: bool, expected: list[tuple[str, int, int, int | None]]
) -> None:
    """Whole days as days, what is left at both ends as hours, and nothing where there is nothing."""
    found = [
        (each.span, each.start - _DAY, each.end - _DAY, None if each.at is None else each.at - _DAY)
        for each in segments(_DAY + start, _DAY + end, by_hour, by_day)
    ]
    assert found == expected
