"""What is asked of the books over PostgreSQL, what a transaction makes of it, what it has to lock for that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger import spans
from moonpool.state.base import Hold, Resolution
from moonpool.state.booking import Booked
from moonpool.state.tally import Entry, Tally
from moonpool.words import Account, Limits

Place = tuple[str, str]
"""An account and a currency: a row of `balances`."""
Span = tuple[str, str, str, int]
"""A key, a currency, a kind of span and its start: a row of `spent`."""


class Ask(Struct, gc=False, eq=False):
    """Something that was asked, who waits for it, and what became of it: an answer or an error, or neither yet.

    `what` is a Hold, a Resolution, or what makes a deposit or a pack; then `name` is its id and `place` the account and
    currency whose balance it needs. `account` is who holds.
    """

    what: Any
    later: Later[Any] | None = None
    account: Account | None = None
    name: str = ""
    place: tuple[str, str] | None = None
    answer: Any = None
    error: Exception | None = None


class Decided(Struct, gc=False):
    """What a transaction is to write, and what may be said when it is written."""

    tally: Tally
    held: list[Entry]
    resolved: list[Entry]
    booked: list[Booked]
    said: list[tuple[Ask, Any]]

    def drop(self) -> None:
        """It was not written: what was to end is open again."""
        for entry in self.resolved:
            entry.resolution, entry.transfers, entry.drawn = None, (), ENDED.drawn


ENDED: Final = Entry(0, Hold("", "", "", "", "", 0, "", 0.0, 0.0), False, 0)
"""Stands for a hold that has its resolution."""


def new(tally: Tally) -> Decided:
    return Decided(tally, [], [], [], [])


def decide(decided: Decided, asks: Sequence[Ask], known: Mapping[str, Entry], others: Mapping[str, Entry]) -> None:
    """Answer them one after another, each after what those before it changed. `known` are our open holds, `others`
    those of other nodes that are asked for."""
    tally, said = decided.tally, decided.said
    names: set[str] = set()
    for ask in asks:
        what = ask.what
        if isinstance(what, Hold):
            if what.id in known or what.id in tally.open:
                said.append((ask, "exists"))
                continue
            entry = tally.hold(what, ask.account, None)
            if isinstance(entry, Entry):
                decided.held.append(entry)
                said.append((ask, "held"))
            else:
                said.append((ask, entry))
        elif isinstance(what, Resolution):
            open_entry = tally.open.get(what.hold_id) or known.get(what.hold_id) or others.get(what.hold_id)
            if open_entry is None:
                said.append((ask, "unknown"))
            elif open_entry is ENDED or open_entry.resolution is not None:
                said.append((ask, "exists"))
            else:
                decided.resolved.append(open_entry)
                tally.resolve(open_entry, what)
                said.append((ask, "resolved"))
        elif ask.name in names:
            said.append((ask, "exists"))
        else:
            try:
                decided.booked.append(what(tally, tally.seq + 1))
            except Problem as problem:
                said.append((ask, problem))
            else:
                tally.seq += 1
                names.add(ask.name)
                said.append((ask, "deposited"))


def left(asks: Iterable[Ask]) -> list[Ask]:
    """Those that have neither an answer nor an error."""
    return [ask for ask in asks if ask.answer is None and ask.error is None]


def touched(
    asks: Iterable[Ask], known: Mapping[str, Entry], others: Mapping[str, Entry]
) -> tuple[set[Place], set[Span]]:
    """The rows these change."""
    places: set[Place] = set()
    wanted: set[Span] = set()
    for ask in asks:
        what = ask.what
        if isinstance(what, Hold):
            places.add((what.account, what.currency))
            if what.limits is not None:
                wanted.update(_limited(what, what.limits))
        elif isinstance(what, Resolution):
            entry = known.get(what.hold_id) or others.get(what.hold_id)
            if entry is not None and entry is not ENDED:
                touch(entry, places, wanted)
        elif ask.place is not None:
            places.add(ask.place)
    return places, wanted


def touch(entry: Entry, places: set[Place], wanted: set[Span]) -> None:
    """Add the rows that the end of this hold changes."""
    hold = entry.hold
    places.add((hold.account, hold.currency))
    wanted.update((hold.key, hold.currency, span, start) for span, start in entry.spans)


def _limited(hold: Hold, limits: Limits) -> Iterator[Span]:
    """The spans in which a hold of a key with limits of money counts."""
    if limits.day_pico is not None:
        yield hold.key, hold.currency, "day", spans.day_of(hold.created_at)
    if limits.month_pico is not None:
        yield hold.key, hold.currency, "month", spans.month_of(hold.created_at)
