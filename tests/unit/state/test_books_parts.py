"""state/tally.py and what it is made from (reading.py, booking.py), where the suites over whole books do not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conformance.backends import a_hold, a_resolution, opened, run
from moonpool.errors import Problem
from moonpool.ledger.funds import Holding, Pack
from moonpool.state import booking, reading
from moonpool.state.base import Cost, Deposit, Hold, Progress, Resolution
from moonpool.state.tally import TOTALS, Entry, Tally
from moonpool.words import Account, Price, Usage

CREDIT = Account("credit", "Credit", post_paid=True)
PRICE = Price(2, 1, 5, searches=100)


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
