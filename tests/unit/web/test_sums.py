"""web/sums.py: how a question about usage is written."""

from __future__ import annotations

import pytest

from moonpool.errors import Problem
from moonpool.ledger.reports import GROUPS, LIMIT_MAX
from moonpool.web import sums

NOVEMBER = 1_793_462_400
DECEMBER = NOVEMBER + 30 * 86_400


@pytest.mark.parametrize(
    ("query", "span"),
    [
        ({}, (NOVEMBER, NOVEMBER + 1000)),
        ({"end": "2026-12-01"}, (NOVEMBER, DECEMBER)),
        (
            {"start": "2026-11-02", "end": "2026-11-03T01:30:00+00:00"},
            (NOVEMBER + 86_400, NOVEMBER + 2 * 86_400 + 34_200),
        ),
        ({"start": "2026-11-01T08:00"}, (NOVEMBER + 28_800, NOVEMBER + 28_800)),
        ({"start": "0", "end": "1793462400"}, (0, NOVEMBER)),
    ],
)
def test_times_are_those_of_beijing(query: dict[str, str], span: tuple[int, int]) -> None:
    """Case 181: a day, a time without zone and a month mean Beijing's; what is left out is this month until now."""
    now = max(NOVEMBER + 1000, span[1])
    assert sums.span_of(query, now if "end" not in query else 0) == span


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start": "yesterday"}, "start"),
        ({"start": "-5"}, "start"),
        ({"end": "9" * 12}, "end"),
        ({"end": "٣"}, "end"),
        ({"end": ""}, "end"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "start"),
    ],
)
def test_wrong_times_are_refused(query: dict[str, str], param: str) -> None:
    """A time that is none is a 400 that names it."""
    with pytest.raises(Problem) as caught:
        sums.span_of(query, NOVEMBER)
    assert (caught.value.code, caught.value.param) == ("caller.invalid_value", param)


def test_groups_limits_and_months_are_checked() -> None:
    """Names of groups in any order, a limit within its bounds, a month as it is written."""
    assert sums.groups_of("model, key,day", GROUPS) == ("day", "key", "model")
    assert sums.groups_of("", GROUPS) == ()
    assert sums.limit_of({"limit": str(LIMIT_MAX)}) == LIMIT_MAX
    assert sums.limit_of({}) == sums.LIMIT
    assert sums.month("2026-11") == NOVEMBER
    assert sums.month("2026-12") == DECEMBER
    for text in ("hour,day", "nothing", "key;model"):
        with pytest.raises(Problem, match="invalid_value"):
            sums.groups_of(text, GROUPS)
    with pytest.raises(Problem, match="invalid_value"):
        sums.groups_of("host", ("key", "model"))
    for text in ("0", str(LIMIT_MAX + 1), "x", "-1", ""):
        with pytest.raises(Problem, match="invalid_value"):
            sums.limit_of({"limit": text})
    for text in ("2026-13", "2026", "26-11", "2026-1", "2026-11-01", "abcd-ef", "1969-12"):
        with pytest.raises(Problem, match="invalid_value"):
            sums.month(text)
