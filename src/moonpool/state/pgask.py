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
    """What a transaction is to write, and what may be said when it is written: to each of `asks` what is in its place
    in `said`, a word or a Problem."""

    tally: Tally
    asks: Sequence[Ask]
    held: list[Entry]
    resolved: list[Entry]
    booked: list[Booked]
    said: list[Any]

    def drop(self) -> None:
        """It was not written: what was to end is open again."""
        for entry in self.resolved:
            entry.resolution, entry.transfers, entry.drawn = None, (), ENDED.drawn


ENDED: Final = Entry(0, Hold("", "", "", "", "", 0, "", 0.0, 0.0), False, 0)
"""Stands for a hold that has its resolution."""


def new(tally: Tally, asks: Sequence[Ask] = ()) -> Decided:
    return Decided(tally, asks, [], [], [], [])


def decide(decided: Decided, known: Mapping[str, Entry], others: Mapping[str, Entry]) -> None:
    """Answer what is asked, one after another, each after what those before it changed. `known` are our open holds,
    `others` those of other nodes that are asked for."""
    tally, say = decided.tally, decided.said.append
    names: set[str] = set()
    for ask in decided.asks:
        what = ask.what
        kind = type(what)
        if kind is Hold:
            if what.id in known or what.id in tally.open:
                say("exists")
                continue
            entry = tally.hold(what, ask.account, None)
            if type(entry) is Entry:
                decided.held.append(entry)
                say("held")
            else:
                say(entry)
        elif kind is Resolution:
            open_entry = known.get(what.hold_id) or tally.open.get(what.hold_id) or others.get(what.hold_id)
            if open_entry is None:
                say("unknown")
            elif open_entry is ENDED or open_entry.resolution is not None:
                say("exists")
            else:
                decided.resolved.append(open_entry)
                tally.resolve(open_entry, what)
                say("resolved")
        elif ask.name in names:
            say("exists")
        else:
            try:
                decided.booked.append(what(tally, tally.seq + 1))
            except Problem as problem:
                say(problem)
            else:
                tally.seq += 1
                names.add(ask.name)
                say("deposited")


def left(asks: Iterable[Ask]) -> list[Ask]:
    """Those that ask for something and have neither an answer nor an error."""
    return [ask for ask in asks if ask.answer is None and ask.error is None and ask.what is not None]


def touched(asks: Iterable[Ask], known: Mapping[str, Entry]) -> tuple[set[Place], set[Span], list[str]]:
    """The rows these change; and the holds that they resolve and that are not among the `known`."""
    places: set[Place] = set()
    wanted: set[Span] = set()
    strangers: list[str] = []
    for ask in asks:
        what = ask.what
        kind = type(what)
        if kind is Hold:
            places.add((what.account, what.currency))
            if what.limits is not None:
                wanted.update(_limited(what, what.limits))
        elif kind is Resolution:
            entry = known.get(what.hold_id)
            if entry is None:
                strangers.append(what.hold_id)
            else:
                hold = entry.hold
                places.add((hold.account, hold.currency))
                if entry.spans:
                    touch(entry, places, wanted)
        elif ask.place is not None:
            places.add(ask.place)
    return places, wanted, strangers


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
