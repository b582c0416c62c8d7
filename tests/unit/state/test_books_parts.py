"""state/tally.py and what it is made from (reading.py, booking.py), where the suites over whole books do not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import a_hold, a_resolution, opened, run
from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger.funds import Holding, Pack, Spent
from moonpool.state import booking, reading, rows, setbacks
from moonpool.state.base import Cost, Deposit, Hold, Kind, Progress, Resolution
from moonpool.state.groupcommit import Batch
from moonpool.state.tally import TOTALS, Entry, Tally, changed
from moonpool.words import Account, Limits, Price, Usage

CREDIT = Account("credit", "Credit", post_paid=True)
PRICE = Price(2, 1, 5, searches=100)
_MOST = 2**63 - 1
"""What a database can hold."""


def _tally() -> Tally:
    return Tally(dict.fromkeys(TOTALS, 0))


def _stands(tally: Tally) -> list[Any]:
    """Everything that undoing must bring back."""
    return [
        tally.snapshot(0)[3:],
        sorted(
            (each.account, each.granted, each.topped_up, each.held, each.post_paid) for each in tally.funds.values()
        ),
        sorted((each.pack.id, each.used, each.held) for of_one in tally.holdings.values() for each in of_one),
    ]


# name -> (hold, how it ends)
_ENDS: dict[str, tuple[Hold, Resolution]] = {
    "nothing set aside, nothing owed": (a_hold("a"), a_resolution("a")),
    "nothing set aside, something owed": (a_hold("a"), a_resolution("a", owed_pico=7)),
    "set aside, nothing owed": (a_hold("a", 9), a_resolution("a", "voided")),
    "set aside and owed": (a_hold("a", 9), a_resolution("a", owed_pico=7, cost_pico=3)),
    "tokens of a pack and a fee": (
        Hold("a", "credit", "key", "model", "host", 90, "CNY", 1.0, 9.0, "", 6, 5, 2, 100),
        Resolution("a", "posted", Usage(3, 0, 3, searches=2), 221, 0, "host", "", 1, 2.0, price=PRICE),
    ),
}


@pytest.mark.parametrize("name", _ENDS)
def test_what_was_not_written_can_be_taken_back(name: str) -> None:
    """Undoing a resolution opens its hold again, undoing the hold leaves no trace: whatever was drawn from where."""
    tally = _tally()
    tally.own(Holding(Pack("p", "credit", "paid", "", "tokens", 4, "", 0.0, 99.0)))
    tally.deposit(Deposit("d", "credit", "granted", 5, "CNY", "", 0.0))
    hold, resolution = _ENDS[name]
    begun = _stands(tally)
    entry = tally.hold(hold, CREDIT, None)
    assert isinstance(entry, Entry)
    held = _stands(tally)
    tally.resolve(entry, resolution)
    assert _stands(tally) != held
    tally.undo_resolution(entry)
    assert _stands(tally) == held
    tally.undo_hold(entry)
    assert _stands(tally)[1:] in (begun[1:], [[("credit", 5, 0, 0, 0)], *begun[2:]])


def test_everything_at_once() -> None:
    """Packs, granted and topped-up money, credit, fees, budgets, a host paid in another currency, earlier dispatches:
    what is set aside, what moves, what is written of it, to the last unit."""
    tally = _tally()
    for kind in ("granted", "topped_up"):
        tally.deposit(Deposit(kind, "credit", kind, 10 if kind == "granted" else 20, "CNY", "", 0.0))  # type: ignore[arg-type]
    for name, product, unit, units in (("p", "chat", "tokens", 4), ("s", "search", "calls", 1)):
        tally.own(Holding(Pack(name, "credit", "paid", product, unit, units, "", 0.0, 99.0)))  # type: ignore[arg-type]
    funds, packs = tally.of("credit", "CNY"), tally.holdings["credit"]
    limits = Limits(day_pico=110, month_pico=110)
    entry = tally.hold(
        Hold("a", "credit", "key", "model", "host", 230, "CNY", 1.0, 9.0, "chat", 6, 5, 2, 100, limits), CREDIT, None
    )
    assert isinstance(entry, Entry)
    assert (entry.units, entry.money_pico, funds.held) == ((("p", 4), ("s", 1)), 2 * 5 + 100, 110)
    assert [(each.used, each.held) for each in packs] == [(0, 4), (0, 1)]
    starts = {"day": -8 * 3600, "month": -8 * 3600}
    assert {each.span: (each.start, each.spent, each.held) for each in tally.spent.values()} == {
        span: (start, 0, 110) for span, start in starts.items()
    }
    reservations: list[Any] = []
    hold = (1, "a", "credit", "key", "model", "host", 110, "CNY", 1.0, 9.0, 6)
    assert tuple(rows.holds([entry], 6, reservations)) == hold
    kept = [(1, "pack:p", 4), (1, "pack:s", 1), (1, "day:-28800", 110), (1, "month:-28800", 110)]
    assert reservations == [value for row in kept for value in row]

    usage, owed = Usage(3, 0, 3, 1, searches=2), 3 * 2 + 3 * 5 + 200
    earlier = (Cost("two", 4, ""), Cost("none", 0, ""), Cost("three", 5, "USD"))
    tally.resolve(entry, Resolution("a", "posted", usage, owed, 3, "host", "", 4, 7201.0, "USD", earlier, PRICE))
    assert entry.resolution is not None
    # The dearest four tokens and one search are paid by packs; of what is left, the fee comes last.
    assert entry.resolution.owed_pico == owed - (3 * 5 + 2) - 100 == 104
    moved = [
        (0, "client:credit:granted", "revenue", 4, "CNY"),
        (1001, "client:credit:granted", "fees", 6, "CNY"),
        (1002, "client:credit:topped_up", "fees", 20, "CNY"),
        (1003, "client:credit:post_paid", "fees", 74, "CNY"),
        (2000, "pack:p", "used", 4, "tokens"),
        (2001, "pack:s", "used", 1, "calls"),
        (2, "cost", "host:host", 3, "USD"),
        (3, "cost", "host:two", 4, "CNY"),
        (5, "cost", "host:three", 5, "USD"),
    ]
    transfers: list[Any] = []
    ended = (1, "posted", 3, 0, 3, 1, False, 104, 3, "host", "", 4, 7201.0, 2, PRICE.version)
    assert tuple(rows.resolutions([entry], transfers)) == ended
    assert transfers == [value for row in moved for value in (1, *row)]
    assert (funds.granted, funds.topped_up, funds.held, funds.post_paid) == (0, 0, 0, -74)
    assert [(each.used, each.held) for each in packs] == [(4, 0), (1, 0)]
    assert {(each.spent, each.held) for each in tally.spent.values()} == {(104, 0)}
    assert tally.snapshot(9) == (9, 1, 1, 1, 1, 0, 0, 0, 3, 0, 3, 1, 2)

    dirty = ({funds}, set(packs), set(tally.spent.values()))
    assert (tally.dirty.funds, tally.dirty.holdings, tally.dirty.spent) == dirty
    balances, of_packs, spent = rows.derived(tally.dirty)
    assert (balances, sorted(map(str, of_packs))) == (
        ["credit", "CNY", 0, 0, 0, -74],
        sorted(["p", "4", "0", "s", "1", "0"]),
    )
    assert len(spent) == 12
    same, other = ("credit", "key", "model", "host", "CNY", "USD"), ("credit", "key", "model")
    sums = {
        same: (1, 1, 0, 3, 0, 3, 1, 2, 5, 104, 10, 20, 3),
        (*other, "two", "CNY", "CNY"): (0,) * 12 + (4,),
        (*other, "none", "CNY", "CNY"): (0,) * 13,
        (*other, "three", "CNY", "USD"): (0,) * 12 + (5,),
    }
    flat = rows.usage([entry])
    assert {tuple(flat[at : at + 21]) for at in range(0, len(flat), 21)} == {
        (span, start, *place, *counts)
        for place, counts in sums.items()
        for span, start in (("hour", 7200), ("day", -28800))
    }
    assert len(flat) == 8 * 21

    for undo in (tally.undo_resolution, tally.undo_hold):
        tally.dirty = changed()
        undo(entry)
        assert (tally.dirty.funds, tally.dirty.holdings, tally.dirty.spent) == dirty
    assert [(each.used, each.held) for each in packs] == [(0, 0), (0, 0)]
    assert {(each.spent, each.held) for each in tally.spent.values()} == {(0, 0)}
    assert (funds.granted, funds.topped_up, funds.held, funds.post_paid) == (10, 20, 0, 0)


def test_sums_of_usage() -> None:
    """What falls into one hour is one row, what falls into one day another; who was not charged counts as well."""
    tally, entries = _tally(), []
    ends: tuple[tuple[str, float, Kind], ...] = (
        ("a", 10.0, "posted"),
        ("b", 20.0, "voided"),
        ("c", 3600.0, "recovered"),
    )
    for name, at, kind in ends:
        entry = tally.hold(a_hold(name), CREDIT, None)
        assert isinstance(entry, Entry)
        usage = Usage(1, 2, 3, 1, True, 4)
        tally.resolve(entry, Resolution(name, kind, usage, 5, 7, "a-host", "", 1, at))
        entries.append(entry)
    flat = rows.usage(entries)
    found = {tuple(flat[at : at + 2]): flat[at + 8 : at + 21] for at in range(0, len(flat), 21)}
    assert found == {
        ("hour", 0): [2, 1, 2, 2, 4, 6, 2, 8, 0, 5, 0, 0, 14],
        ("hour", 3600): [1, 0, 1, 1, 2, 3, 1, 4, 0, 5, 0, 0, 7],
        ("day", -28800): [3, 1, 3, 3, 6, 9, 3, 12, 0, 10, 0, 0, 21],
    }


def test_what_a_dead_process_left() -> None:
    """Who had got nothing owes nothing; who had got something owes that, for one dispatch, at its price."""
    hold = a_hold("a", 9)
    assert rows.recovered(hold, None, "expired", 7.0) == Resolution(
        "a", "expired", Usage(), 0, 0, "a-host", "expired", 0, 7.0
    )
    known = Progress("a", Usage(1, 2, 3), 4, 5, "another", "USD", PRICE, 6.0)
    assert rows.recovered(hold, known, "expired", 7.0) == Resolution(
        "a", "recovered", Usage(1, 2, 3), 4, 5, "another", "expired", 1, 7.0, "USD", (), PRICE
    )
    (*flat, price, at) = rows.progress([(8, known)])
    assert (flat, rows.price_of(price), at) == ([8, "another", 1, 2, 3, 0, 4, 5, "USD"], PRICE, 6.0)


# limits -> what a hold of 5 is told where 3 were spent and 2 are held
_BUDGETS: list[tuple[Limits, bool]] = [
    (Limits(day_pico=10), True),
    (Limits(day_pico=9), False),
    (Limits(month_pico=10), True),
    (Limits(month_pico=9), False),
    (Limits(day_pico=10, month_pico=9), False),
    (Limits(expires_at=9.0), True),
]


@pytest.mark.parametrize("limits,fits", _BUDGETS)
def test_budgets(limits: Limits, fits: bool) -> None:
    """A key may spend its budget to the last unit, of the day and of the month, each by itself."""
    tally = _tally()
    for span in ("day", "month"):
        tally.spent["AbCdEfGhIjKl", "CNY", span, -28800] = Spent("AbCdEfGhIjKl", "CNY", span, -28800, 3, 2)
    answer = tally.hold(replace(a_hold("a", 5), limits=limits), CREDIT, None)
    assert (answer == "budget", isinstance(answer, Entry)) == (not fits, fits)
    assert len(tally.open) == fits


def test_budgets_of_days_that_are_over() -> None:
    """Are forgotten when a new day begins, unless something is still held in them."""
    tally = _tally()
    for start, held in ((-3, 0), (-2, 2)):
        tally.spent["AbCdEfGhIjKl", "CNY", "day", start] = Spent("AbCdEfGhIjKl", "CNY", "day", start, 3, held)
    tally.hold(replace(a_hold("a", 5), limits=Limits(day_pico=10)), CREDIT, None)
    assert [place[3] for place in tally.spent] == [-2, -28800]


def test_only_what_is_owed_to_hosts_moves() -> None:
    """An earlier dispatch that cost nothing has no transfer; the others keep their numbers."""
    tally = _tally()
    entry = tally.hold(a_hold("a"), CREDIT, None)
    assert isinstance(entry, Entry)
    earlier = (Cost("one", 0, "CNY"), Cost("two", 4, ""), Cost("three", 5, "USD"))
    tally.resolve(entry, Resolution("a", "voided", Usage(), 0, 0, "host", "", 4, 2.0, earlier=earlier))
    assert [(each.leg, each.credit, each.currency) for each in entry.transfers] == [
        (4, "host:two", "CNY"),
        (5, "host:three", "USD"),
    ]


# granted money that is there, amount -> does it fit?
_DEPOSITS = [
    (3, 0, False),
    (3, -1, False),
    (3, 1, True),
    (3, 10**17, True),
    (3, 10**17 + 1, False),
    (_MOST - 9, 4, True),
    (_MOST - 9, 5, False),
]


@pytest.mark.parametrize("granted,amount,fits", _DEPOSITS)
def test_deposits_that_can_be(granted: int, amount: int, fits: bool) -> None:
    """A deposit is something, no more than one may be, and makes no balance that a database cannot hold."""
    tally = _tally()
    tally.deposit(Deposit("g", "credit", "granted", granted, "CNY", "", 0.0))
    tally.deposit(Deposit("t", "credit", "topped_up", 5, "CNY", "", 0.0))
    wanted = Deposit("d", "credit", "granted", amount, "CNY", "", 1.0)
    before, tally.dirty = _stands(tally), changed()
    if fits:
        assert booking.deposit(tally, 7, wanted).values == (7, "d", "credit", "granted", amount, "CNY", "", 1.0)
        assert tally.of("credit", "CNY").granted == granted + amount
        assert tally.dirty.funds == {tally.of("credit", "CNY")}
    else:
        with pytest.raises(Problem, match="cannot be booked"):
            booking.deposit(tally, 7, wanted)
        assert _stands(tally) == before


# post-paid money, the hour it was settled last -> is it settled in the hour number 2?
_SETTLED = [(0, None, False), (1, None, False), (-1, None, True), (-1, 1, True), (-1, 2, False), (-1, 3, False)]


@pytest.mark.parametrize("post_paid,last,now", _SETTLED)
def test_settlements(post_paid: int, last: int | None, now: bool) -> None:
    """Who used credit pays for it with topped-up money, once an hour, under the next number; undone, it never was."""
    tally = _tally()
    tally.seq = 4
    tally.of("credit", "CNY").post_paid = post_paid
    begun, place, tally.dirty = _stands(tally), ("credit", "CNY"), changed()
    settled = {} if last is None else {place: last}
    booked = booking.settlements(tally, settled, 7200.0)
    if not now:
        assert (booked, tally.seq, _stands(tally)) == ([], 4, begun)
        return
    ((where, each),) = booked
    assert (where, each.values, tally.seq) == (place, (5, *place, 2, 1, 7200.0), 5)
    assert (tally.of(*place).post_paid, tally.of(*place).topped_up) == (0, -1)
    assert tally.dirty.funds == {tally.of(*place)}
    each.landed()
    assert settled[place] == 2
    each.undo()
    assert _stands(tally)[1:] == begun[1:]


def test_a_hold_that_came_too_late() -> None:
    """Of holds that were written after all, those whose asker was told otherwise end as nothing at all; who still
    waits, and what has ended already, is left alone."""
    tally, batch = _tally(), Batch()
    for name, answer in (("late", None), ("awaited", Later[Any]()), ("ended", None)):
        entry = tally.hold(a_hold(name), CREDIT, answer)
        assert isinstance(entry, Entry)
        batch.held.append(entry)
    tally.resolve(batch.held[2], a_resolution("ended"))
    assert setbacks.unused(batch) == [
        Resolution("late", "voided", Usage(), 0, 0, "a-host", "platform.storage", 0, batch.held[0].hold.created_at)
    ]


def _two_batches(tally: Tally) -> tuple[Batch, Batch, dict[str, Entry]]:
    """Holds `a` and `b` in one batch, `c` in the next, whose askers wait; `b` and `c` are resolved in the next one, `a`
    in its own. Each has a deposit, and has noted how far `a`, `b` and `c` had come."""
    batches, entries = (Batch(), Batch()), {}
    for name, of in (("a", 0), ("b", 0), ("c", 1)):
        tally.dirty = batches[of].dirty
        entry = tally.hold(a_hold(name, 9), CREDIT, Later())
        assert isinstance(entry, Entry)
        entries[name] = entry
        batches[of].held.append(entry)
        batches[of].progress.append((entry.seq, Progress(name, Usage(1), 2, 0, "host", "", PRICE, 3.0)))
    for name, of in (("a", 0), ("b", 1), ("c", 1)):
        tally.dirty = batches[of].dirty
        tally.resolve(entries[name], a_resolution(name, owed_pico=7))
        entries[name].answered = Later()
        batches[of].resolved.append(entries[name])
    for name, batch in zip("de", batches, strict=True):
        tally.dirty = batch.dirty
        batch.booked.append(booking.deposit(tally, 0, Deposit(name, "credit", "granted", 5, "CNY", "", 0.0)))
    return *batches, entries


def test_ids_that_were_used_before() -> None:
    """Only what has such an id is undone, and its askers are told; all else is written with the next try."""
    tally = _tally()
    batch, following, entries = _two_batches(tally)
    a, b, c = entries.values()
    answers = [a.answer, a.answered]
    again, refused = setbacks.without(tally, batch, following, {"a", "never"})
    assert refused == answers
    assert (again.held, again.resolved) == ([b, c], [b, c])
    assert again.booked == batch.booked + following.booked
    assert again.progress == batch.progress + following.progress
    assert tally.dirty is again.dirty
    assert again.dirty.funds == {tally.of("credit", "CNY")}
    assert (list(tally.open), a.resolution, a.answered, tally.holds) == (["b", "c"], None, None, 2)
    assert tally.kinds["posted"] == 2


@pytest.mark.parametrize("silent", [False, True])
def test_ids_that_were_used_before_by_who_waits_no_more(silent: bool) -> None:
    """Who is not there any more need not be told."""
    tally, batch = _tally(), Batch()
    entry = tally.hold(a_hold("a"), CREDIT, None)
    assert isinstance(entry, Entry)
    batch.held.append(entry)
    if silent:
        tally.resolve(entry, a_resolution("a"))
        batch.resolved.append(entry)
    again, refused = setbacks.without(tally, batch, Batch(), {"a"})
    assert (refused, again.held, again.resolved, tally.open) == ([], [], [], {})


def test_what_is_kept_of_what_was_not_written() -> None:
    """Resolutions are, with their holds, and how far streams have come, the newest of each; whoever waits for a hold or
    a booking is told that it is undone, once."""
    tally = _tally()
    batch, following, entries = _two_batches(tally)
    a, b, c = entries.values()
    open_hold = tally.hold(a_hold("open", 3), CREDIT, Later())
    own = tally.hold(a_hold("before", 3), CREDIT, None)
    assert isinstance(open_hold, Entry)
    assert isinstance(own, Entry)
    following.held.append(open_hold)
    noted = [Progress("before", Usage(each), 2, 0, "host", "", PRICE, 3.0) for each in (1, 2)]
    batch.progress.append((own.seq, noted[0]))
    following.progress += [(own.seq, noted[1]), (open_hold.seq, noted[1])]
    for entry in (a, b, c):
        del tally.open[entry.hold.id]
    waiting = [a.answer, b.answer, batch.booked[0].answer, c.answer, open_hold.answer, following.booked[0].answer]
    again, refused = setbacks.kept(tally, batch, following)
    assert refused == waiting
    assert (again.held, again.resolved) == ([a, b, c], [a, b, c])
    assert again.progress == [(own.seq, noted[1])]
    assert (again.booked, again.dirty.funds, list(tally.open)) == ([], {tally.of("credit", "CNY")}, ["before"])
    assert tally.of("credit", "CNY").granted == 0
    assert [entry.answer for entry in (a, b, c, open_hold)] == [None] * 4
    assert all(each is not booked.answer for booked in batch.booked + following.booked for each in refused)
    assert setbacks.kept(tally, Batch(), again)[1] == []


def test_debts_have_a_bound() -> None:
    """What would owe more than a database can hold is our fault, and charged to nobody; the last unit is not."""
    for owed, kind in ((4, "posted"), (5, "voided")):
        tally = _tally()
        funds = tally.of("credit", "CNY")
        funds.topped_up, funds.post_paid = -3, 7 - _MOST
        entry = tally.hold(a_hold("a"), CREDIT, None)
        assert isinstance(entry, Entry)
        tally.resolve(entry, a_resolution("a", owed_pico=owed))
        assert entry.resolution is not None
        assert entry.resolution.kind == kind


@pytest.mark.parametrize("tokens,kind", [(2**31 - 1, "posted"), (2**31, "voided")])
@pytest.mark.parametrize("of", ["prompt_miss", "prompt_hit", "completion", "reasoning", "searches"])
def test_counts_have_a_bound(of: str, tokens: int, kind: str) -> None:
    """What no answer can have used is our fault, whichever count it is."""
    tally = _tally()
    entry = tally.hold(a_hold("a"), CREDIT, None)
    assert isinstance(entry, Entry)
    tally.resolve(entry, a_resolution("a", usage=replace(Usage(), **{of: tokens})))
    assert entry.resolution is not None
    assert (entry.resolution.kind, sum(tally.tokens)) == (kind, tokens if kind == "posted" else 0)


def test_the_largest_pack() -> None:
    """As many units as can be counted, booked under its number."""
    wanted = Pack("p", "credit", "paid", "", "tokens", 10**15, "", 0.0, 9.0)
    assert booking.pack(_tally(), 3, wanted)[0].values[0] == 3


@pytest.mark.parametrize("units", [0, -1, 10**15 + 1])
def test_packs_that_cannot_be(units: int) -> None:
    """A pack holds something, and no more than can be counted."""
    with pytest.raises(Problem) as caught:
        booking.pack(_tally(), 1, Pack("p", "credit", "paid", "", "tokens", units, "", 0.0, 9.0))
    assert (caught.value.code, caught.value.param) == ("caller.invalid_value", "units")


def test_open_holds_of_one_node(tmp_path: Path) -> None:
    """What another node holds, its reservations and progress are left out, and so is what has been resolved."""

    async def walk() -> None:
        store = await opened("sqlite", tmp_path)
        books = store.books
        await books.add_pack(Pack("p", "credit", "paid", "", "tokens", 9, "", 0.0, 99.0))
        for name in ("mine", "theirs", "over"):
            hold = Hold(name, "credit", "key", "model", "host", 9, "CNY", 1.0, 9.0, "", 3, 5)
            assert await books.hold(hold) == "held"
        books.progress([Progress(name, Usage(1), 2, 0, "host", "", PRICE, 3.0) for name in ("mine", "theirs")])
        await books.resolve(a_resolution("over"))

        def look(database: Any) -> list[Entry]:
            database.cursor.execute("UPDATE holds SET node = 2 WHERE id = 'theirs'")
            with database.engine.connect() as connection:
                return reading.unresolved(connection, 0, node=1)

        (entry,) = await store._thread.call(look)  # type: ignore[attr-defined]
        assert (entry.hold.id, entry.units) == ("mine", (("p", 3),))
        assert entry.progress is not None
        await books.resolve(a_resolution("theirs"))
        await store.stop()

    run(walk())
