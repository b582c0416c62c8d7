"""state/reports.py over rows made by hand: sums, pages, isolation, calls by time, the statement of a month."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.ledger.reports import GROUPS, CallsAsk, Leg, Standing, StatementLine, UsageAsk, UsageRow, mark, segments
from moonpool.ledger.spans import DAY_S, day_of
from moonpool.state import reports
from moonpool.state.sqlite import SqliteStore
from unit.state.rows import DAY, HOUR, NOVEMBER, call, insert, summed, used


def ask_store(folder: Path, run: Callable[[SqliteStore], Awaitable[Any]]) -> Any:
    async def live() -> Any:
        store = SqliteStore(folder / "m.db")
        await store.start()
        try:
            return await run(store)
        finally:
            await store.stop()

    return asyncio.run(asyncio.wait_for(live(), 30))


def filled(folder: Path, **rows: list[dict[str, Any]]) -> Path:
    """A ledger with these rows, by table."""

    async def nothing(store: SqliteStore) -> None:
        pass

    ask_store(folder, nothing)
    for table, some in rows.items():
        insert(folder / "m.db", table, some)
    return folder


def a_call(seq: int, at: float, **more: Any) -> dict[str, list[dict[str, Any]]]:
    hold, end = call(seq, at, **more)
    return {"holds": [hold], "resolutions": [end]}


def calls(*made: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {table: [row for each in made for row in each[table]] for table in ("holds", "resolutions")}


MOMENTS = st.integers(NOVEMBER - 2 * DAY, NOVEMBER + 4 * DAY)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    ended=st.lists(st.tuples(MOMENTS, st.sampled_from(["acme", "other"]), st.sampled_from("kl")), max_size=25),
    bounds=st.tuples(MOMENTS, MOMENTS),
    groups=st.sets(st.sampled_from(GROUPS)).filter(lambda found: not {"hour", "day"} <= found),
    account=st.sampled_from([None, "acme"]),
    limit=st.integers(1, 4),
)
def test_any_sum_is_that_of_its_calls(
    tmp_path_factory: pytest.TempPathFactory,
    ended: list[tuple[int, str, str]],
    bounds: tuple[int, int],
    groups: set[Any],
    account: str | None,
    limit: int,
) -> None:
    """Whatever is asked, page by page: each call that ended within the hours asked for is counted once, in its row."""
    rows = summed(row for at, owner, key in ended for row in used(at, account=owner, key_id=key))
    folder = filled(tmp_path_factory.mktemp("m"), usage=rows)
    start, end = min(bounds), max(bounds)
    first, last = start // HOUR * HOUR, -(-end // HOUR) * HOUR
    wanted: dict[tuple[Any, ...], int] = {}
    for at, owner, key in ended:
        if first <= at < last and account in {None, owner}:
            when = at // HOUR * HOUR if "hour" in groups else day_of(at) if "day" in groups else None
            whole = {"at": when, "account": owner, "key": key, "model": "m1", "host": "h1"}
            place = tuple(whole[name] if name in groups or name == "at" else None for name in whole)
            wanted[place] = wanted.get(place, 0) + 1

    async def run(store: SqliteStore) -> list[UsageRow]:
        found: list[UsageRow] = []
        after = None
        while True:
            page = await store.reports.usage(account, UsageAsk(start, end, tuple(groups)), limit, after)
            assert len(page.rows) <= limit
            found += page.rows
            after = page.next
            if after is None:
                return found

    found = ask_store(folder, run)
    assert {(row.at, row.account, row.key, row.model, row.host): row.requests for row in found} == wanted
    assert len(found) == len(wanted)
    assert [row.owed_pico for row in found] == [100 * row.requests for row in found]
    places = [tuple(x or 0 if name == "at" else x or "" for name, x in _place(row)) for row in found]
    assert places == sorted(places)


def _place(row: UsageRow) -> list[tuple[str, Any]]:
    return [(name, getattr(row, name)) for name in ("at", "account", "key", "model", "host")]


@pytest.mark.parametrize("by_day", [False, True])
def test_segments_leave_no_hour_out_and_count_none_twice(by_day: bool) -> None:
    """Case 181: hours at the edges and whole days of Beijing between them are exactly the hours that were asked for."""
    for first in range(0, 50):
        for last in range(first, first + 60):
            start, end = NOVEMBER + first * HOUR, NOVEMBER + last * HOUR
            hours = [hour for part in segments(start, end, False, by_day) for hour in range(part.start, part.end, HOUR)]
            assert hours == list(range(start, end, HOUR))
            for part in segments(start, end, False, by_day):
                if part.at is not None:
                    assert part.at == day_of(part.start) == day_of(part.end - 1)
                if part.span == "day":
                    assert part.start == day_of(part.start)
                    assert part.end == day_of(part.end)


def test_a_call_at_the_last_moment_of_a_month_is_of_that_month(tmp_path: Path) -> None:
    """Case 181: 23:59:59 on 30 November in Beijing is November's, a second later is December's; UTC does not matter."""
    december = int(datetime.datetime(2026, 12, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=8))).timestamp())
    folder = filled(tmp_path, usage=summed([*used(december - 1), *used(december)]))

    async def run(store: SqliteStore) -> tuple[int, int]:
        both = [
            (await store.reports.usage("acme", UsageAsk(start, end), 10)).rows[0].requests
            for start, end in ((NOVEMBER, december), (december, december + 31 * DAY_S))
        ]
        return both[0], both[1]

    assert ask_store(folder, run) == (1, 1)


def test_what_hosts_cost_is_told_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """A tenant's sums have no costs, and no rows for dispatches that only cost us."""
    rows = [
        *used(NOVEMBER),
        *used(
            NOVEMBER, host="h0", requests=0, posted=0, owed_pico=0, topped_up_pico=0, cost_pico=9, cost_currency="USD"
        ),
    ]
    folder = filled(tmp_path, usage=rows)

    async def run(store: SqliteStore) -> None:
        ask = UsageAsk(NOVEMBER, NOVEMBER + DAY, ("host",))
        (row,) = (await store.reports.usage("acme", ask, 10)).rows
        assert (row.host, row.cost_pico, row.cost_currency) == ("h1", 0, None)
        ask = UsageAsk(NOVEMBER, NOVEMBER + DAY, ("host",), costs=True)
        found = (await store.reports.usage(None, ask, 10)).rows
        assert [(row.host, row.cost_currency, row.cost_pico, row.requests) for row in found] == [
            ("h0", "USD", 9, 0),
            ("h1", "CNY", 60, 1),
        ]

    ask_store(folder, run)


def test_a_mark_of_another_page_is_refused(tmp_path: Path) -> None:
    """`after` is what `next` said for the same question, or a 400."""
    filled(tmp_path)

    async def run(store: SqliteStore) -> None:
        for after in ("x", "", "%%", mark("a", "b", "c"), mark({"a": 1}), mark(1.5)):
            with pytest.raises(Problem, match="invalid_value"):
                await store.reports.usage("acme", UsageAsk(0, 1), 10, after)
            with pytest.raises(Problem, match="invalid_value"):
                await store.reports.calls("acme", CallsAsk(0, 1), 10, after + "!")

    ask_store(tmp_path, run)


def test_calls_come_newest_first_and_only_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By account, key, model, host and time, in pages that go on where the one before ended, however the search for
    them is cut; an open call is not among them."""
    made = [
        a_call(
            seq,
            NOVEMBER + seq * 10,
            account="acme" if seq % 3 else "other",
            key_id="k1" if seq % 2 else "k2",
            host="h2" if seq % 5 == 0 else "h1",
        )
        for seq in range(1, 200)
        if seq % 7
    ]
    rows = calls(*made)
    rows["holds"].append(call(250, NOVEMBER + 1900)[0])
    folder = filled(tmp_path, **rows)
    monkeypatch.setattr(reports, "STRIDE", 5)
    monkeypatch.setattr(reports, "SCAN_MAX", 40)

    async def run(store: SqliteStore) -> None:
        for account, key, limit in (("acme", None, 3), ("acme", "k2", 50), (None, "k1", 7), ("nobody", None, 5)):
            ask = CallsAsk(NOVEMBER + 300, NOVEMBER + 1500.5, key)
            found: list[int] = []
            after = None
            while True:
                page = await store.reports.calls(account, ask, limit, after)
                assert len(page.rows) <= limit
                found += [row.seq for row in page.rows]
                after = page.next
                if after is None:
                    break
            wanted = [
                hold["seq"]
                for hold in reversed(rows["holds"][:-1])
                if 30 <= hold["seq"] <= 150 and account in {None, hold["account"]} and key in {None, hold["key_id"]}
            ]
            assert found == wanted
        page = await store.reports.calls(None, CallsAsk(0, NOVEMBER * 2, host="h2", model="m1"), 3)
        assert all(row.host == "h2" for row in page.rows)

    ask_store(folder, run)


def test_a_call_tells_what_paid_for_it(tmp_path: Path) -> None:
    """Case 84, as it is read: a call that a pack, granted money and credit paid for shows each of them."""
    rows = a_call(1, NOVEMBER, owed_pico=70)
    legs = [
        (0, "client:acme:granted", "revenue", 30, "CNY"),
        (2, "cost", "host:h1", 60, "CNY"),
        (1000, "client:acme:post_paid", "revenue", 30, "CNY"),
        (1003, "client:acme:post_paid", "fees", 10, "CNY"),
        (2000, "pack:p1", "used", 12, "tokens"),
    ]
    names = ("leg", "debit", "credit", "amount_pico", "currency")
    rows["transfers"] = [{"seq": 1, **dict(zip(names, leg, strict=True))} for leg in legs]
    folder = filled(tmp_path, **rows)

    async def run(store: SqliteStore) -> None:
        (row,) = (await store.reports.calls("acme", CallsAsk(NOVEMBER, NOVEMBER + 1), 10)).rows
        assert row.paid == (Leg("granted", 30, "CNY"), Leg("post_paid", 40, "CNY"), Leg("pack:p1", 12, "tokens"))

    ask_store(folder, run)


def a_deposit(seq: int, at: float, fund: str, amount: int, account: str = "acme") -> dict[str, Any]:
    return {
        "seq": seq,
        "id": f"d{seq}",
        "account": account,
        "fund": fund,
        "amount_pico": amount,
        "currency": "CNY",
        "note": "",
        "created_at": at,
    }


def test_a_statement_adds_up_fund_by_fund(tmp_path: Path) -> None:
    """What there was, what came and went by day, model and fund, what there is; nothing of other accounts."""
    folder = filled(
        tmp_path,
        usage=summed(
            [
                *used(NOVEMBER - 3 * DAY, owed_pico=50, granted_pico=20, topped_up_pico=10),
                *used(NOVEMBER + HOUR, owed_pico=7, granted_pico=3, topped_up_pico=4),
                *used(NOVEMBER + 2 * HOUR, owed_pico=9, granted_pico=0, topped_up_pico=4),
                *used(NOVEMBER + 2 * HOUR, model="m2", owed_pico=0, topped_up_pico=0, pack_units=12),
                *used(NOVEMBER + 30 * DAY, owed_pico=1000, topped_up_pico=1000),
                *used(NOVEMBER + HOUR, account="other", owed_pico=1000, topped_up_pico=1000),
            ]
        ),
        deposits=[
            a_deposit(1, NOVEMBER - 4 * DAY, "granted", 100),
            a_deposit(2, NOVEMBER, "topped_up", 500),
            a_deposit(3, NOVEMBER, "topped_up", 500, account="other"),
            a_deposit(4, NOVEMBER + 30 * DAY, "topped_up", 500),
        ],
        settlements=[
            {
                "seq": 5,
                "account": "acme",
                "currency": "CNY",
                "hour": NOVEMBER // HOUR,
                "amount_pico": 20,
                "created_at": NOVEMBER + 60.0,
            }
        ],
    )

    async def run(store: SqliteStore) -> None:
        found = await store.reports.statement("acme", NOVEMBER)
        assert (found.start, found.end) == (NOVEMBER, NOVEMBER + 30 * DAY)
        assert found.opening == [Standing("CNY", 80, -10, -20)]
        assert found.closing == [Standing("CNY", 77, 462, -5)]
        assert found.lines == [
            StatementLine(NOVEMBER, "topped_up", "topped_up", "CNY", 500),
            StatementLine(NOVEMBER, "usage", "granted", "CNY", -3, "m1", 2),
            StatementLine(NOVEMBER, "usage", "post_paid", "CNY", -5, "m1", 2),
            StatementLine(NOVEMBER, "usage", "topped_up", "CNY", -8, "m1", 2),
            StatementLine(NOVEMBER, "settled", "post_paid", "CNY", 20),
            StatementLine(NOVEMBER, "settled", "topped_up", "CNY", -20),
        ]
        assert [(use.model, use.units) for use in found.pack_use] == [("m2", 12)]
        nothing = await store.reports.statement("nobody", NOVEMBER)
        assert (nothing.opening, nothing.lines, nothing.closing) == ([], [], [])

    ask_store(folder, run)
