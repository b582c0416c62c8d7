"""cli/options.py and cli/key_limits.py: what typed words mean."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
import typer

from moonpool.cli.key_limits import Typed, spoken
from moonpool.cli.options import moment, span_s

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("30m", 1800), ("24h", 86_400), (" 7d ", 604_800)]
)
def test_spans(text: str, seconds: int) -> None:
    """A span is a whole number and a unit."""
    assert span_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1.5h", "1 h", "1w", "٣h", "1234567890s"])
def test_what_is_no_span(text: str) -> None:
    """Anything else is refused, and not guessed at."""
    with pytest.raises(typer.BadParameter):
        span_s(text)


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span counts from now; a date means the end of that day where the operator is; a time of day is exact, and may
    name its zone; never is never."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert moment("never", NOW) is None
        assert moment("30d", NOW) == NOW + 30 * 86_400
        assert moment("2027-01-31", NOW) == datetime.fromisoformat("2027-02-01T00:00+08:00").timestamp()
        assert moment("2027-01-31 18:00", NOW) == datetime.fromisoformat("2027-01-31T18:00+08:00").timestamp()
        assert moment("2027-01-31T18:00+00:00", NOW) == datetime.fromisoformat("2027-02-01T02:00+08:00").timestamp()
        for text in ("", "tomorrow", "31.1.2027", "2027-02-30", "9999-12-31"):
            with pytest.raises(typer.BadParameter):
                moment(text, NOW)
    finally:
        monkeypatch.undo()
        time.tzset()


def _typed(**more: Any) -> Typed:
    nothing: dict[str, Any] = dict.fromkeys(Typed.__struct_fields__)
    return Typed(**(nothing | more))


_ROW = {
    "expires_at": NOW,
    "models": ["a"],
    "addresses": ["10.0.0.0/8"],
    "requests_per_minute": 60,
    "tokens_per_minute": 0,
    "concurrency": 3,
    "day": "12.50",
    "month": None,
}


def test_nothing_typed_changes_nothing() -> None:
    """A key's limits stay as they are, and a key without any has none."""
    assert _typed().over(_ROW, NOW) == _ROW
    assert _typed().over(None, NOW) is None


def test_what_is_typed_goes_over_what_was() -> None:
    """Each limit alone, the others stay."""
    assert _typed(expires="24h", models=["b", "c"]).over(_ROW, NOW) == _ROW | {
        "expires_at": NOW + 86_400,
        "models": ["b", "c"],
    }
    assert _typed(tokens=5, per_month="100", per_day="0").over(_ROW, NOW) == _ROW | {
        "tokens_per_minute": 5,
        "month": "100",
        "day": "0",
    }
    assert _typed(per_day="0").over(None, NOW) == {"day": "0"}


def test_limits_are_taken_away() -> None:
    """Each has a word for that; when none is left there are no limits."""
    away = _typed(expires="never", models=["any"], addresses=["any"], requests=0, concurrency=0, per_day="none")
    assert away.over(_ROW, NOW) is None
    assert away.over(_ROW | {"month": "5"}, NOW) == {
        "expires_at": None,
        "models": [],
        "addresses": [],
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "concurrency": 0,
        "day": None,
        "month": "5",
    }


def test_limits_in_a_line() -> None:
    """People read what is limited, and nothing of what is not."""
    assert spoken(None, str) == spoken({}, str) == ""
    line = spoken(_ROW, lambda at: "then")
    assert line == "until then; models a; from 10.0.0.0/8; requests/min 60; at once 3; a day 12.50"
