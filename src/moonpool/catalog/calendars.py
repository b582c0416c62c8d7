"""When is it peak? Calendars as rows become answers to one question: what holds at this moment, and until when.

All of it is Beijing's time (ledger/spans.py); a day is named by its first second. A year whose public holidays are not
known is taken as it comes, Monday to Friday and the weekend; `gaps` says so.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from moonpool.catalog.rows import DAYS, CalendarRow, YearRow
from moonpool.ledger.spans import DAY_S, HOUR_S, ZONE, day_of
from moonpool.settings import ConfigError, nearest

SOON_S: Final = 31 * DAY_S
"""How long before a year begins its holidays ought to be known."""

_FIRST_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday


def midnight(day: datetime.date) -> int:
    """The first moment of that day, in Unix seconds."""
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=ZONE).timestamp())


def date_of(at: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(at, ZONE).date()


class Calendar(Struct, frozen=True):
    """`hours` are (first second, second after the last) of a day with peak hours, in order; `weekdays` the days of the
    week that have them, 0 for Monday; `off` days have none, `worked` ones have. `years` are those whose
    holidays are known, None where none matter; they stand under `holidays`."""

    name: str
    hours: tuple[tuple[int, int], ...]
    weekdays: frozenset[int]
    off: frozenset[int] = frozenset()
    worked: frozenset[int] = frozenset()
    years: frozenset[int] | None = None
    holidays: str = ""

    def has_peak(self, day: int) -> bool:
        """Whether this day has peak hours at all."""
        if day in self.off:
            return False
        number = -(-day // DAY_S)  # a midnight of Beijing lies before that of UTC
        return (number + _FIRST_WEEKDAY) % 7 in self.weekdays or day in self.worked

    def span(self, at: float) -> tuple[bool, float, float]:
        """(whether it is peak, since when, until when); what comes then may be the same once more."""
        start = day_of(at)
        since, until = start, start + DAY_S
        if self.has_peak(start):
            for first, end in self.hours:
                if at < start + first:
                    return False, since, start + first
                if at < start + end:
                    return True, start + first, start + end
                since = start + end
        return False, since, until

    def gaps(self, now: float) -> list[int]:
        """This year, and the next one when it is near, if their holidays are not known."""
        if self.years is None:
            return []
        return sorted({date_of(at).year for at in (now, now + SOON_S)} - self.years)


def calendars(rows: Mapping[str, CalendarRow], years: Mapping[str, Mapping[str, YearRow]]) -> dict[str, Calendar]:
    """Calendars by name; `years` are rows by whose holidays they are and by year. Raises ConfigError."""
    return {name: _calendar(name, row, years) for name, row in rows.items()}


def _calendar(name: str, row: CalendarRow, years: Mapping[str, Mapping[str, YearRow]]) -> Calendar:
    key = f"calendars.{name}"
    hours = []
    last = 0
    for text in row.hours:
        first, end = (_second(part) for part in text.split("-"))
        if first < last or end <= first:
            raise ConfigError("", f"{key}.hours", f"{text} does not come after what stands before it.")
        hours.append((first, end))
        last = end
    weekdays = frozenset(DAYS.index(day) for day in row.days)
    if not row.holidays:
        return Calendar(name, tuple(hours), weekdays)
    if row.holidays not in years:
        sentence = f"there are no holidays {row.holidays!r}{nearest(row.holidays, years)}"
        raise ConfigError("", f"{key}.holidays", sentence)
    known = years[row.holidays]
    return Calendar(
        name,
        tuple(hours),
        weekdays,
        frozenset(midnight(day) for year in known.values() for day in year.off),
        frozenset(midnight(day) for year in known.values() for day in year.worked) if row.worked else frozenset(),
        frozenset(int(year) for year, said in known.items() if said.announced),
        row.holidays,
    )


def check_year(name: str, year: str, row: YearRow) -> None:
    """Raises ConfigError for a day of another year, and for one that is both off and worked."""
    key = f"holidays.{name}.{year}"
    if not (year.isascii() and year.isdigit() and len(year) == 4):
        raise ConfigError("", key, f"{year!r} is no year.")
    for field, days in (("off", row.off), ("worked", row.worked)):
        for day in days:
            if day.year != int(year):
                raise ConfigError("", f"{key}.{field}", f"{day} is not in {year}.")
    both = set(row.off) & set(row.worked)
    if both:
        raise ConfigError("", f"{key}.worked", f"{min(both)} is a day off as well.")


def warnings(used: Iterable[Calendar], now: float) -> list[str]:
    """A sentence for each year whose holidays are not known and matter now or soon."""
    found: dict[tuple[str, int], None] = {}
    for calendar in used:
        for year in calendar.gaps(now):
            found[calendar.holidays, year] = None
    return [
        f"the public holidays of {year} are not all known: peak hours go by Monday to Friday and what the law says; "
        f"add [holidays.{name}.{year}] to moonpool.toml"
        for name, year in sorted(found)
    ]


def shown(calendar: Calendar) -> dict[str, Any]:
    """For people."""
    return {
        "name": calendar.name,
        "hours": [f"{_clock(first)}-{_clock(end)}" for first, end in calendar.hours],
        "days": [day for at, day in enumerate(DAYS) if at in calendar.weekdays],
        "holidays": calendar.holidays,
    }


def _second(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * HOUR_S + int(minute) * 60


def _clock(second: int) -> str:
    return f"{second // HOUR_S:02}:{second % HOUR_S // 60:02}"
