"""What a token costs at which moment: text tables of moments around every edge, and a slow reference."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.catalog import load
from moonpool.catalog.calendars import Calendar
from moonpool.catalog.catalog import SEARCH, build
from moonpool.catalog.prices import FREE, Schedule, agreed, now_table, schedule
from moonpool.catalog.rows import AgreedRow, PeakRow, PriceRow
from moonpool.ledger.money import price_of
from moonpool.settings import ConfigError, Settings
from moonpool.words import Call, Price

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
CATALOGUE = build(Settings(home="/nowhere"), {"DEEPSEEK_API_KEY": "k", "LKEAP_API_KEY": "k"})
CALENDARS = load.known_calendars(Settings())


def at(text: str) -> float:
    """A moment as a clock in Beijing shows it."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=BEIJING).timestamp()


# A clock in Beijing, a model, what a million tokens of an answer cost then, and why.
MOMENTS = """
2026-08-16 23:59:59.999  deepseek-v4-flash  2     before there were peak hours
2026-08-17 00:00:00      deepseek-v4-flash  4.5   the first moment of the day of a price
2026-08-17 08:59:59.999  deepseek-v4-flash  4.5
2026-08-17 09:00:00      deepseek-v4-flash  9     peak begins to the second
2026-08-22 10:00:00      deepseek-v4-flash  9     a Saturday: in August every day had peak hours
2026-09-09 23:59:59.999  deepseek-v4-flash  4.5
2026-09-10 00:00:00      deepseek-v4-flash  4
2026-11-25 08:59:59.999  deepseek-flash     4     a Wednesday
2026-11-25 09:00:00      deepseek-flash     8
2026-11-25 11:59:59.999  deepseek-flash     8
2026-11-25 12:00:00      deepseek-flash     4     the noon
2026-11-25 13:59:59.999  deepseek-flash     4
2026-11-25 14:00:00      deepseek-flash     8
2026-11-25 17:59:59.999  deepseek-flash     8
2026-11-25 18:00:00      deepseek-flash     4
2026-11-25 23:59:59.999  deepseek-flash     4
2026-11-26 00:00:00      deepseek-flash     4
2026-11-27 17:00:00      deepseek-flash     8     Friday
2026-11-28 10:00:00      deepseek-flash     4     Saturday
2026-11-29 15:00:00      deepseek-flash     4     Sunday
2026-11-30 09:00:00      deepseek-flash     8     Monday
2026-11-30 23:59:59.999  deepseek-flash     4     the end of a month
2026-12-01 09:00:00      deepseek-flash     8
2026-09-24 15:00:00      deepseek-flash     8     the day before Mid-Autumn
2026-09-25 10:00:00      deepseek-flash     4     Mid-Autumn, a Friday
2026-09-30 17:59:59.999  deepseek-flash     8     the day before National Day
2026-10-01 09:00:00      deepseek-flash     4     National Day, a Thursday
2026-10-07 10:00:00      deepseek-flash     4     its last day off, a Wednesday
2026-10-08 09:00:00      deepseek-flash     8     work again
2026-09-20 10:00:00      deepseek-flash     4     a Sunday that is worked is no Monday to Friday
2026-10-10 10:00:00      deepseek-flash     4     a Saturday that is worked
2026-12-31 10:00:00      deepseek-flash     8     the last day of a year
2027-01-01 10:00:00      deepseek-flash     4     New Year, a Friday: the law says so before any notice
2027-01-04 10:00:00      deepseek-flash     8     a Monday of a year whose notice is not known
2027-02-08 10:00:00      deepseek-flash     4     the third day of the Spring Festival, a Monday
2028-01-03 10:00:00      deepseek-flash     8     a Monday of a year of which nothing is known
2028-01-01 10:00:00      deepseek-flash     4     a Saturday of that year
2026-11-25 10:00:00      deepseek-v4-pro    27
2026-11-25 13:00:00      deepseek-v4-pro    13.5
2026-11-25 10:00:00      deepseek-chat      8     an old name pays what it became a name of
2026-11-25 10:00:00      deepseek-r1        16    no peak was published for it
2020-01-01 12:00:00      deepseek-flash     4     before the first price: the first, its peaks too
"""


@pytest.mark.parametrize("line", MOMENTS.strip().splitlines())
def test_the_price_of_a_moment(line: str) -> None:
    """Case 181: days, hours, holidays, worked weekends and month ends by the clocks of Beijing, to the millisecond."""
    day, clock, name, published, *_ = line.split()
    price = CATALOGUE.find(name).price_at(at(f"{day} {clock}"))
    assert price.completion == price_of(published)
    assert price.version.endswith("/peak") is (published in {"8", "9", "27"})


def test_a_price_has_a_name_that_stays() -> None:
    """The list, its day and whether it is peak; the same record each time; a row of the operator's by where it is."""
    model = CATALOGUE.find("deepseek-flash")
    peak = model.price_at(at("2026-11-25 10:00"))
    assert peak.version == "flash@2026-11-01/peak"
    model.price_at(at("2026-11-25 13:00"))
    assert model.price_at(at("2026-11-26 10:00")) is peak
    own = [{"valid_from": "2026-01-01", "prompt_miss": "1", "prompt_hit": "1", "completion": "3"}]
    built = build(Settings(home="/nowhere", models={"deepseek-chat": {"prices": own}}), {})
    assert built.find("deepseek-chat").price_at(at("2026-02-01 00:00")).version == "models.deepseek-chat@2026-01-01"
    assert built.find("deepseek-flash").price_at(at("2026-02-01 00:00")).version == "free"


def test_all_classes_cost_more_at_peak_and_searches_do_not() -> None:
    """Twice as much for each of the token classes as published; a search costs 5 a thousand at all hours."""
    model = CATALOGUE.find("deepseek-v4-pro")
    plain, peak = (model.price_at(at(f"2026-11-25 {clock}")) for clock in ("08:00", "09:00"))
    assert (plain.prompt_hit, plain.prompt_miss, plain.completion) == (150_000, 4_500_000, 13_500_000)
    assert (peak.prompt_hit, peak.prompt_miss, peak.completion) == (300_000, 9_000_000, 27_000_000)
    assert plain.searches == peak.searches == 5 * 10**9
    assert model.price_at(at("2026-10-31 23:59:59.999")).searches == 0


def test_peak_may_have_amounts_of_its_own() -> None:
    """Where it is no multiple of the other hours."""
    row = PriceRow(
        datetime.date(2026, 1, 1), "1", "0.1", "2", peak=PeakRow("every-day", "", "1.5", "0.1", "3.25"), searches="4"
    )
    (step,) = schedule([row], "own", "", "", CALENDARS)
    peak = Schedule([step]).at(at("2026-05-01 09:30"))
    assert (peak.prompt_miss, peak.prompt_hit, peak.completion) == (1_500_000, 100_000, 3_250_000)
    assert (peak.searches, peak.version) == (4 * 10**9, "own@2026-01-01/peak")


def test_holidays_of_an_operator_replace_a_year() -> None:
    """Whoever writes `[holidays.cn.2027]` after the notice has all of that year; a calendar that counts worked weekends
    has peak hours there."""
    day = datetime.date
    settings = Settings(
        home="/nowhere",
        holidays={"cn": {"2027": {"off": [day(2027, 1, 1), day(2027, 1, 4)], "worked": [day(2027, 1, 9)]}}},
        calendars={"work": {"hours": ["00:00-24:00"], "days": ["mon", "fri"], "holidays": "cn", "worked": True}},
    )
    weekdays, work = (load.known_calendars(settings)[name] for name in ("weekdays", "work"))

    def is_peak(calendar: Calendar, text: str) -> bool:
        return calendar.span(at(text))[0]

    assert not is_peak(weekdays, "2027-01-04 10:00")
    assert is_peak(weekdays, "2027-02-08 10:00"), "the shipped year is gone"
    assert not is_peak(weekdays, "2027-01-09 10:00")
    assert is_peak(work, "2027-01-09 00:00:00")
    assert is_peak(work, "2027-01-09 23:59:59.999")
    assert not is_peak(work, "2027-01-10 00:00:00")
    assert not is_peak(work, "2027-01-12 10:00")


def test_a_year_that_is_not_known_is_told_in_time() -> None:
    """A month before it begins, and while it lasts; not where no price goes by holidays, nor where they are known."""
    assert CATALOGUE.warnings(at("2026-11-27 12:00")) == []
    assert CATALOGUE.warnings(at("2025-01-01 00:00")) == []
    (said,) = CATALOGUE.warnings(at("2026-12-02 00:00"))
    assert "2027" in said
    assert "[holidays.cn.2027]" in said
    assert len(CATALOGUE.warnings(at("2027-12-15 00:00"))) == 2
    assert build(Settings(home="/nowhere"), {}).warnings(at("2027-06-01 00:00")) == []
    told = Settings(home="/nowhere", holidays={"cn": {"2027": {"off": [datetime.date(2027, 1, 1)]}}})
    assert build(told, {"DEEPSEEK_API_KEY": "k"}).warnings(at("2026-12-31 23:59")) == []


def test_what_people_read_says_when_it_changes() -> None:
    """Today's price, whether it is peak, and until when: over nights, weekends and holidays."""
    prices = CATALOGUE.find("deepseek-flash").prices
    for now, peak, until in (
        ("2026-11-25 09:30", True, "2026-11-25 12:00"),
        ("2026-11-27 18:00", False, "2026-11-30 09:00"),
        ("2026-09-30 18:00", False, "2026-10-08 09:00"),
        ("2026-10-31 12:00", False, "2026-11-01 00:00"),
    ):
        page = now_table(prices, at(now))
        assert (page["peak"], page["until"]) == (peak, at(until))
    assert now_table(FREE, at("2026-11-25 09:30"))["until"] is None
    assert now_table(CATALOGUE.find("deepseek-r1").prices, at("2026-11-25 09:30"))["until"] is None


def test_products_are_the_contracts() -> None:
    """Each model counts for one product; searches are one; a model of the operator's is its own."""
    assert CATALOGUE.products() == ("chat-prover", "chat-r1", "chat-v3", "chat-v4", SEARCH)
    mine = build(Settings(home="/nowhere", models={"house": {"hosts": ["embedded"]}}), {}).find("house")
    assert mine.product == "house"


def test_a_search_is_bounded_where_a_host_searches() -> None:
    """One search at most; none where nobody asked, nor where no host of the model takes the field."""

    def asked(**fields: Any) -> Call:
        return Call("id", "chat", "m", False, fields, b"")

    searching, other = CATALOGUE.find("deepseek-r1"), CATALOGUE.find("deepseek-flash")
    assert searching.searches_max(asked(enable_search=True)) == 1
    assert searching.searches_max(asked(enable_search=False)) == searching.searches_max(asked()) == 0
    assert other.searches_max(asked(enable_search=True)) == 0


# What an account agreed on.

AGREED = """
2026-10-31 23:59:59.999  4      the list's, before anything was agreed
2026-11-01 00:00:00      3.2    a factor of the list
2026-11-02 09:00:00      6.4    also of its peak hours
2026-11-02 12:00:00      3.2
2026-11-14 23:59:59.999  3.2
2026-11-15 00:00:00      1      amounts: no peak hours
2026-11-16 10:00:00      1
2026-12-01 00:00:00      4      the list again
2026-12-01 09:00:00      8
"""


def agreement(rows: dict[str, AgreedRow]) -> Schedule:
    return agreed(rows, CATALOGUE.find("deepseek-flash").prices, "own:acme/deepseek-flash", "k", CALENDARS)


@pytest.mark.parametrize("line", AGREED.strip().splitlines())
def test_what_was_agreed_lies_over_the_list(line: str) -> None:
    """From its day on, by the clocks of Beijing, until the next one; a factor goes by the list's hours."""
    day, clock, published, *_ = line.split()
    own = agreement(
        {
            "2026-12-01": AgreedRow(factor="1"),
            "2026-11-01": AgreedRow(factor="0.8"),
            "2026-11-15": AgreedRow("", "0.5", "0.01", "1"),
        }
    )
    assert own.at(at(f"{day} {clock}")).completion == price_of(published)


def test_an_agreed_price_has_a_name_of_its_own() -> None:
    """It names the account, and what it is a factor of; it is made once, and never dearer than was agreed."""
    own = agreement({"2026-11-01": AgreedRow(factor="0.333333")})
    price = own.at(at("2026-11-02 09:00"))
    assert price.version == "own:acme/deepseek-flash@2026-11-01*flash@2026-11-01/peak"
    assert own.find(at("2026-11-03 09:00")) is price
    assert price.prompt_hit == 40_000 * 333_333 // 10**6
    assert price.searches == 5 * 10**9 * 333_333 // 10**6


WRONG = [
    ({"tomorrow": AgreedRow(factor="1")}, "k", "no date"),
    ({"20261101": AgreedRow(factor="1")}, "k", "no date"),
    ({"2026-11-01": AgreedRow(factor="-1")}, "k.2026-11-01.factor", "no amount"),
    ({"2026-11-01": AgreedRow()}, "k.2026-11-01", "no amount"),
    ({"2026-11-01": AgreedRow(factor="1", completion="2")}, "k.2026-11-01", "not both"),
    ({"2026-11-01": AgreedRow("", "1", "1", "1", peak=PeakRow("nights", "2"))}, "k.2026-11-01.peak.calendar", "nights"),
]


@pytest.mark.parametrize(("rows", "key", "says"), WRONG)
def test_what_cannot_be_agreed_is_refused(rows: dict[str, AgreedRow], key: str, says: str) -> None:
    """Before it is kept."""
    with pytest.raises(ConfigError) as refusal:
        agreement(rows)
    assert refusal.value.key == key
    assert says in refusal.value.sentence


# A slow reference: each moment on its own, by a calendar of the standard library, from the rows themselves.

PUBLISHED = load.shipped().prices
OFF = {day for year in load.read(load.CALENDARS_FILE)["holidays"]["cn"].values() for day in year["off"]}


def slow(name: str, moment: float) -> str:
    """The version of the price of a list that holds then."""
    clock = datetime.datetime.fromtimestamp(math.floor(moment), BEIJING)
    rows = PUBLISHED[name]
    row = ([rows[0]] + [row for row in rows if row.valid_from <= clock.date()])[-1]
    version = f"{name}@{row.valid_from}"
    if row.peak is None:
        return version
    works = row.peak.calendar == "every-day" or (clock.isoweekday() <= 5 and clock.date() not in OFF)
    return version + ("/peak" if works and clock.hour in {9, 10, 11, 14, 15, 16, 17} else "")


SCHEDULES = {name: Schedule(schedule(rows, name, "", "", CALENDARS)) for name, rows in PUBLISHED.items()}
EDGES = st.builds(
    lambda day, hour, off: at("2025-01-01 00:00") + day * 86_400 + hour * 3600 + off,
    st.integers(0, 1460),
    st.integers(0, 23),
    st.sampled_from([-0.001, 0.0, 0.001, -1.0, 1.0, 1800.0]),
)
ANY = st.floats(at("2024-12-01 00:00"), at("2029-01-31 00:00"))


@given(st.lists(st.tuples(st.sampled_from(sorted(SCHEDULES)), EDGES | ANY), min_size=1, max_size=30))
def test_prices_equal_a_slow_reference(asked: list[tuple[str, float]]) -> None:
    """Whatever was asked before, in whatever order: the remembered span is never the wrong one, and never too long."""
    for name, moment in asked:
        found = SCHEDULES[name]
        assert found.at(moment).version == slow(name, moment)
        price, since, until = found.look(moment)
        assert since <= moment < until
        for inside in (since, math.nextafter(until, 0)):
            if abs(inside) < at("9000-01-01 00:00"):
                assert slow(name, inside) == price.version


@given(st.sampled_from(sorted(SCHEDULES)), ANY)
def test_the_next_change_is_the_next(name: str, moment: float) -> None:
    """Until then the same price holds at every hour, and then another."""
    until = SCHEDULES[name].changes_at(moment)
    if until is None:
        assert PUBLISHED[name][-1].peak is None
        return
    before = slow(name, moment)
    assert slow(name, until) != before
    hour = moment
    while hour < until:
        assert slow(name, hour) == before
        hour += 1800.0


def test_a_price_that_does_not_change_is_not_looked_up() -> None:
    """Between two changes every moment is answered from memory, with the very same record: what is remembered is all of
    the span."""
    found = Schedule(SCHEDULES["flash"].steps)
    first = found.at(at("2026-11-25 09:00"))
    assert (found.since, found.until) == (at("2026-11-25 09:00"), at("2026-11-25 12:00"))
    assert all(found.at(at("2026-11-25 09:00") + second) is first for second in range(0, 10_800, 60))
    assert isinstance(first, Price)
