"""state/recount.py over a ledger that the books wrote: it adds up, and whatever is changed in it is found."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from moonpool.errors import Problem
from moonpool.ledger.reports import CallsAsk, Standing, UsageAsk
from moonpool.state import schema
from moonpool.state.recount import Differences, recount, sqlite_engine
from moonpool.state.sqlite import SqliteStore
from unit.state.furnished import NOW, a_hold, an_end, furnish, write
from unit.state.rows import DAY, HOUR, NOVEMBER, call, insert


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("ledger") / "m.db")


def differences(path: Path, now: float = NOW) -> Differences:
    engine = sqlite_engine(path)
    try:
        with engine.connect() as connection:
            return recount(connection, now, lambda told: None)
    finally:
        engine.dispose()


def test_what_the_books_wrote_adds_up(ledger: Path) -> None:
    """I1, I2, I4, I5: a sound ledger has no difference, with open holds in it."""
    assert differences(ledger).sentences() == []


def test_a_hold_that_outlives_its_time_is_told(ledger: Path) -> None:
    """I6: hours after its end an open hold is a difference."""
    assert [said.split(",")[0] for said in differences(ledger, NOW + DAY).sentences()] == [
        "Hold open is open",
        "Hold open too is open",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM resolutions WHERE hold_seq = (SELECT seq FROM holds WHERE id = 'c1')", "c1 has not ended, and"),
        ("DELETE FROM holds WHERE id = 'c1'", "is that of nothing"),
        ("UPDATE resolutions SET owed_pico = owed_pico + 1 WHERE hold_seq = 8", "owes"),
        ("UPDATE resolutions SET kind = 'lost' WHERE hold_seq = 8", "no way to end"),
        ("UPDATE resolutions SET kind = 'voided' WHERE hold_seq = 8", "was voided and owes"),
        ("UPDATE resolutions SET cost_pico = cost_pico - 1 WHERE hold_seq = 8", "cost us 59"),
        ("UPDATE resolutions SET completion = completion + 1 WHERE hold_seq = 8", "completion by -1"),
        ("UPDATE resolutions SET resolved_at = resolved_at + 3600 WHERE hold_seq = 8", "requests by +1"),
        ("UPDATE resolutions SET host = 'h9' WHERE hold_seq = 8", "host h9"),
        ("UPDATE transfers SET amount_pico = amount_pico + 1 WHERE leg = 1", "and paid 97"),
        ("UPDATE transfers SET debit = 'client:credit:granted' WHERE debit = 'client:acme:topped_up'", "was paid from"),
        ("UPDATE transfers SET credit = 'grants' WHERE credit = 'revenue'", "neither revenue nor a fee"),
        ("UPDATE transfers SET credit = debit WHERE leg = 0 AND debit LIKE 'client:%'", "from one account to itself"),
        ("UPDATE transfers SET credit = 'pocket' WHERE credit = 'revenue'", "no ledger account"),
        ("UPDATE transfers SET leg = 5000 WHERE leg = 2 AND seq = 8", "in leg 5000"),
        ("UPDATE transfers SET currency = 'USD' WHERE leg = 2 AND seq = 8", "in CNY, differs|in USD, differs"),
        ("DELETE FROM transfers WHERE seq = (SELECT seq FROM deposits WHERE id = 'd1')", "moved nothing"),
        ("UPDATE deposits SET amount_pico = 1 WHERE id = 'd2'", "The deposit with"),
        ("UPDATE packs SET units = units + 1 WHERE id = 'p1'", "The pack with"),
        ("UPDATE packs SET account = 'credit' WHERE id = 'p1'", "used tokens of pack:p1"),
        ("UPDATE settlements SET amount_pico = amount_pico - 1", "The settlement with"),
        ("INSERT INTO settlements SELECT seq, 'acme', 'CNY', 1, 1, 1.0 FROM holds WHERE id = 'c1'", "a settlement"),
        ("DELETE FROM reservations WHERE what = 'pack:p1'", "had set aside"),
        ("INSERT INTO reservations SELECT seq, 'pack:p1', 1 FROM deposits WHERE id = 'd1'", "which only holds have"),
        ("UPDATE balances SET granted_pico = granted_pico + 1", "says granted"),
        ("UPDATE balances SET held_pico = held_pico + 1", "says held"),
        ("UPDATE balances SET post_paid_pico = post_paid_pico - 1", "says post_paid"),
        ("DELETE FROM balances WHERE account = 'acme'", "and no balance"),
        ("UPDATE pack_balances SET used = used - 1", "its entries"),
        ("DELETE FROM pack_balances", "nothing used"),
        ("UPDATE spent SET spent_pico = 0", "0 spent"),
        ("UPDATE spent SET held_pico = held_pico + 1", "held in CNY"),
        ("DELETE FROM spent WHERE span = 'month'", "no row says so"),
        ("UPDATE usage SET requests = requests + 1 WHERE span = 'hour'", "requests by +1"),
        ("UPDATE usage SET requests = requests + 1 WHERE span = 'day'", "not those of its hours"),
        ("UPDATE usage SET granted_pico = granted_pico + 1", "granted_pico by +1"),
        ("UPDATE usage SET cost_pico = cost_pico + 1 WHERE span = 'hour' AND host = 'h0'", "The cost of"),
        ("UPDATE usage SET pack_units = pack_units + 1 WHERE span = 'hour'", "pack_units by +1"),
        ("DELETE FROM usage WHERE span = 'day'", "not those of its hours"),
        ("DELETE FROM usage WHERE span = 'hour'", "not those of its calls"),
        ("UPDATE usage SET start = start + 3600 WHERE span = 'day'", "not the first moment"),
        ("UPDATE totals SET posted = posted + 1", "The totals say"),
        ("UPDATE totals SET searches = 0", "searches"),
        ("UPDATE totals SET first_open = last_seq + 1", "where nobody looks"),
        ("UPDATE totals SET last_seq = 3", "beyond the last one"),
        ("UPDATE progress SET hold_seq = 8", "progress is still kept"),
        ("UPDATE accounts SET post_paid = 0; DELETE FROM settlements; UPDATE transfers SET amount_pico = 10"
         " WHERE credit = 'client:credit:topped_up'; UPDATE deposits SET amount_pico = 9 WHERE id = 'd3'", "topped_up"),
    ],
)  # fmt: skip
def test_each_change_is_found(ledger: Path, tmp_path: Path, change: str, told: str) -> None:
    """I1 to I5: an entry, a balance or a sum that somebody changed is told in a sentence that names it."""
    path = tmp_path / "m.db"
    shutil.copy(ledger, path)
    with sqlite3.connect(path) as connection:
        connection.executescript(change)
    connection.close()
    found = differences(path)
    assert any(part in said for said in found.sentences() for part in told.split("|")), found.sentences()


def test_a_debt_that_nothing_explains(ledger: Path, tmp_path: Path) -> None:
    """I5: an account without credit may owe what calls used above their holds, and no more."""
    path = tmp_path / "m.db"
    shutil.copy(ledger, path)
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "UPDATE transfers SET amount_pico = 1 WHERE seq = (SELECT seq FROM deposits WHERE id = 'd2');"
            "UPDATE deposits SET amount_pico = 1 WHERE id = 'd2';"
            "UPDATE balances SET topped_up_pico = topped_up_pico - 99999 WHERE account = 'acme'"
        )
    connection.close()
    assert [said for said in differences(path).sentences() if "without credit" in said]


def test_many_differences_are_counted_and_some_of_them_told(ledger: Path, tmp_path: Path) -> None:
    """What is wrong everywhere does not fill the screen."""
    path = tmp_path / "m.db"
    shutil.copy(ledger, path)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO transfers SELECT seq + 1000, 0, 'cash', 'cash', 0, 'CNY' FROM transfers WHERE leg = 2"
        )
        connection.execute(
            "INSERT INTO transfers SELECT seq + 2000, 0, 'cash', 'cash', 0, 'CNY' FROM transfers WHERE leg = 2"
        )
    connection.close()
    found = differences(path)
    assert found.count == 48
    assert len(found.sentences()) == 42
    assert "There are 4 more differences of this kind: transfers." in found.sentences()


def test_other_schemas_and_files_are_refused(tmp_path: Path, ledger: Path) -> None:
    """A file that is not there, and one of another version, are errors and no sound ledgers."""
    with pytest.raises(Problem, match="storage"):
        sqlite_engine(tmp_path / "none.db")
    path = tmp_path / "m.db"
    shutil.copy(ledger, path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    with pytest.raises(Problem, match="storage"):
        differences(path)


def test_it_reads_one_moment_beside_a_server(tmp_path: Path) -> None:
    """While the books go on writing, what is recounted is one moment; the file is not changed by it."""
    path = tmp_path / "m.db"

    async def run() -> None:
        store = SqliteStore(path)
        await store.start()
        await write(store)
        engine = sqlite_engine(path)
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM holds").all()
            for number in range(50):
                await store.books.hold(a_hold(f"later {number}", NOW, 1))
                await store.books.resolve(an_end(f"later {number}", NOW + 1, 1))
            assert recount(connection, NOW, lambda told: None).sentences() == []
            assert connection.exec_driver_sql("SELECT count(*) FROM holds WHERE id LIKE 'later%'").scalar() == 0
        engine.dispose()
        await store.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert differences(path).sentences() == []


def test_a_ledger_from_before_there_were_sums_adds_up(tmp_path: Path) -> None:
    """Hours and days of calls that an earlier version booked are made when the schema is brought forward: sums,
    statements and the recount know them."""
    path = tmp_path / "m.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()
    insert(path, "accounts", [{"id": "acme", "name": "Acme", "post_paid": 0, "concurrency": 7, "created_at": 1.0}])
    for number in range(1, 7):
        hold, end = call(number, NOVEMBER + number * 5 * HOUR, host="h2" if number % 2 else "h1")
        insert(path, "holds", [hold])
        insert(path, "resolutions", [end])
        client = ("client:acme:granted", "client:acme:topped_up")
        host = f"host:{end['host']}"
        legs = [
            (0, client[0], "revenue", 30, "CNY"),
            (1, client[1], "revenue", 70, "CNY"),
            (2, "cost", host, 60, "USD" if number == 3 else "CNY"),
            *([(3, "cost", "host:h0", 9, "CNY"), (4, "cost", host, 1, "CNY")] if number == 4 else []),
        ]
        names = ("leg", "debit", "credit", "amount_pico", "currency")
        insert(path, "transfers", [{"seq": number, **dict(zip(names, leg, strict=True))} for leg in legs])
    for seq, fund, source in ((7, "granted", "grants"), (8, "topped_up", "cash")):
        row = {"seq": seq, "id": fund, "account": "acme", "fund": fund, "amount_pico": 500, "currency": "CNY"}
        insert(path, "deposits", [{**row, "note": "", "created_at": 1.0}])
        to = {"seq": seq, "leg": 0, "debit": source, "credit": f"client:acme:{fund}", "amount_pico": 500}
        insert(path, "transfers", [{**to, "currency": "CNY"}])
    funds = {"granted_pico": 500 - 6 * 30, "topped_up_pico": 500 - 6 * 70, "held_pico": 0}
    insert(path, "balances", [{"account": "acme", "currency": "CNY", **funds}])
    with sqlite3.connect(path) as plain:
        plain.execute(
            "UPDATE totals SET last_seq = 8, first_open = 9, holds = 6, posted = 6, prompt_miss = 60, prompt_hit = 30, "
            "completion = 42, reasoning = 12"
        )
    plain.close()

    async def run() -> None:
        store = SqliteStore(path)
        await store.start()
        (row,) = (await store.reports.usage("acme", UsageAsk(0, NOW), 10)).rows
        assert (row.requests, row.owed_pico, row.granted_pico) == (6, 600, 180)
        found = await store.reports.statement("acme", NOVEMBER)
        assert found.closing == [Standing("CNY", 320, 80, 0)]
        await store.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert differences(path).sentences() == []


def test_reports_agree_with_the_books(tmp_path: Path) -> None:
    """What the books wrote as they went is what reports say: sums, calls with what paid for them, and a statement that
    ends with the balance."""

    async def run() -> None:
        store = SqliteStore(tmp_path / "m.db")
        await store.start()
        await write(store)
        reports = store.reports
        month = (NOVEMBER, NOVEMBER + 30 * DAY)
        rows = (await reports.usage("acme", UsageAsk(*month, ("day",)), 1000)).rows
        calls = (await reports.calls("acme", CallsAsk(*month), 1000)).rows
        assert sum(row.requests for row in rows) == len(calls) == 9
        assert sum(row.owed_pico for row in rows) == sum(each.owed_pico for each in calls)
        for each in calls:
            assert sum(leg.amount for leg in each.paid if leg.unit == "CNY") == each.owed_pico
        for account in ("acme", "credit"):
            found = await reports.statement(account, NOVEMBER)
            (balance,) = await reports.balances(account)
            funds = (balance.granted_pico, balance.topped_up_pico, balance.post_paid_pico)
            assert found.closing == [Standing("CNY", *funds)]
            assert found.opening == [Standing("CNY")]
        await store.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
