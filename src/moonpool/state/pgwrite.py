"""The ledger over PostgreSQL, the writer thread's side: what was asked is decided inside a transaction, on rows that it
has locked, by the rules that SQLite's books follow too (tally.py), and written in the same transaction.

Rules:
- Two round trips: lock and read what the batch touches, in the order of keys; then write it all and commit.
- A transaction whose end nobody saw (the connection broke while it was written) is of unknown outcome: its backend is
  ended first, then its number is looked up in our row of `totals`. Until that is known nothing else is written. Holds
  that turn out to be there, when whoever waited for them was told otherwise, are voided.
- Deadlocks, serialisation failures and what broke the connection are tried again, ATTEMPTS times, within PATIENCE_S.
  What PostgreSQL refuses for good is found by halves, and costs only itself.
- Ids that exist already are not looked for: the unique constraint says so, and then the batch is decided again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg import errors

from moonpool.errors import Problem
from moonpool.ledger.funds import Funds, Holding, Pack, Spent
from moonpool.state import nodes, pgask, pgbatch, pgfind, pgtext, rows
from moonpool.state.base import Hold, Progress, Resolution
from moonpool.state.pgask import Ask, Decided, Place, Span
from moonpool.state.pgbatch import Statement
from moonpool.state.pglink import Link, PgDatabase
from moonpool.state.tally import TOTALS, Entry, Tally
from moonpool.words import Account, Usage

ATTEMPTS: Final = 5
PATIENCE_S: Final = 2.0
"""What took longer than this is not tried again while somebody waits."""
BLOCK: Final = 1000
BLOCK_S: Final = 60.0
"""How many numbers a node takes at a time, and how long it gives them out: so the order of numbers is about that of
time, over all nodes."""
_FIRST_PAUSE_S: Final = 0.005
_FAULT: Final = "platform.fault"

_NONE: Final = dict.fromkeys(TOTALS, 0)
_AGAIN: Final = (errors.DeadlockDetected, errors.SerializationFailure)
_AWAY: Final = (psycopg.OperationalError, psycopg.InterfaceError)
_DERIVED: Final = (pgtext.BALANCES, pgtext.PACK_BALANCES, pgtext.SPENT)


class Ousted(psycopg.OperationalError):
    """Our row of `totals` is not ours any more: another node took us for dead."""


class _Taken(Exception):
    """Something of the batch exists already; that has its answer now."""


class Unknown(Struct):
    """A transaction whose end nobody saw: of which backend and which node, and its number."""

    pid: int
    node: int
    commit: int
    decided: Decided


class PgWriter:
    """`open` are our open holds. All methods but the constructor are jobs of the books' thread."""

    def __init__(
        self,
        name: str,
        application: str,
        accounts: Mapping[str, Account],
        *,
        chance: Callable[[], float],
        pause: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._application = application
        self._accounts = accounts
        self._chance = chance
        self._pause = pause
        self._monotonic = monotonic
        self.open: dict[str, Entry] = {}
        self.node = 0
        self._commit = 0
        self._next, self._end, self._block_at = 1, 0, 0.0
        self._known: set[Place] = set()
        self.unknown: Unknown | None = None
        """A transaction whose end nobody saw; what was asked in it may get its answer later."""

    # Our row of `totals`

    def join(self, database: PgDatabase) -> int:
        self.node, self._commit = nodes.join(self._name, database)
        self._next, self._end = 1, 0
        return self.node

    def beat(self, database: PgDatabase) -> None:
        if not nodes.beat(self.node, self._name, database):
            self.join(database)

    def leave(self, database: PgDatabase) -> None:
        nodes.leave(self.node, self._name, bool(self.open), database)

    # Transactions

    def run(self, asks: Sequence[Ask], progress: Sequence[Progress], database: PgDatabase) -> None:
        """Give every ask an answer or an error, each of them durable. Raises what keeps it from being written; then
        those without either can be asked again."""
        attempt, start = 0, self._monotonic()
        while True:
            try:
                self.settle_unknown(database)
                self._transact(pgask.left(asks), progress, database)
                return
            except _Taken:
                continue
            except Ousted:
                database.rest()
                self.join(database)
            except Exception as error:
                lost = database.link_lost()
                database.rest()
                attempt += 1
                if not (lost or isinstance(error, (*_AGAIN, *_AWAY))):
                    self._by_halves(asks, progress, error, database)
                    return
                again = lost or isinstance(error, _AGAIN)
                if not again or attempt == ATTEMPTS or self._monotonic() > start + PATIENCE_S:
                    raise
                self._pause(_FIRST_PAUSE_S * 2**attempt * self._chance())

    def _by_halves(
        self, asks: Sequence[Ask], progress: Sequence[Progress], error: Exception, database: PgDatabase
    ) -> None:
        left = pgask.left(asks)
        if progress:  # nobody waits for it
            self.run(left, (), database)
        elif len(left) == 1:
            ask, what = left[0], left[0].what
            ask.error = Problem("platform.fault", detail=f"{type(error).__name__}: {error}")
            if isinstance(what, Resolution) and what.cause != _FAULT:
                # The hold must end; what cannot be booked is voided, as `tally.py` does.
                self.run([Ask(Resolution(what.hold_id, "voided", Usage(), 0, 0, "", _FAULT, 1, 0.0))], (), database)
        elif left:
            self.run(left[: len(left) // 2], (), database)
            self.run(left[len(left) // 2 :], (), database)

    def _transact(self, asks: Sequence[Ask], progress: Sequence[Progress], database: PgDatabase) -> None:
        link = database.link
        places, wanted, strangers = pgask.touched(asks, self.open)
        others = self._others(asks, strangers, places, wanted, database) if strangers else {}
        decided = pgask.new(self.read(places, wanted, len(asks), link), asks)
        pid, writing = link.info.backend_pid, False
        try:
            pgask.decide(decided, self.open, others)
            writing = True
            self.write(decided, progress, link, commit=True)
        except Exception as error:
            if database.link_lost() and writing:
                self.unknown = Unknown(pid, self.node, self._commit, decided)
            decided.drop()
            if isinstance(error, errors.UniqueViolation):
                link.rollback()
                if self._answer_taken(asks, decided, link):
                    raise _Taken from None
            raise
        self._landed(decided)

    def _landed(self, decided: Decided) -> None:
        for entry in decided.held:
            self.open[entry.hold.id] = entry
        for entry in decided.resolved:
            self.open.pop(entry.hold.id, None)
        self._known.update(decided.tally.funds)
        for ask, answer in zip(decided.asks, decided.said, strict=True):
            if type(answer) is str:
                ask.answer = answer
            else:
                ask.error = answer

    def settle_unknown(self, database: PgDatabase) -> None:
        """Find out what became of a transaction whose end nobody saw. Raises psycopg.Error while that cannot be."""
        unknown = self.unknown
        if unknown is None:
            return
        link = database.link
        pgfind.end_backend(unknown.pid, self._application, link)
        held = [entry.seq for entry in unknown.decided.held]
        landed = pgfind.landed(unknown.node, self._name, unknown.commit, held, link)
        self.unknown = None
        if landed:
            self._landed(unknown.decided)

    def _answer_taken(self, asks: Sequence[Ask], decided: Decided, link: Link) -> bool:
        """Something of these exists already: it is answered so. Was anything found?"""
        taken = pgfind.taken(decided, [ask.name for ask in asks if ask.name], link)
        for hold_id in taken.resolved:
            self.open.pop(hold_id, None)
        for ask in asks:
            what = ask.what
            if (
                (isinstance(what, Hold) and what.id in taken.held)
                or (isinstance(what, Resolution) and what.hold_id in taken.resolved)
                or (ask.name and ask.name in taken.booked)
            ):
                ask.answer = "exists"
        return bool(taken.held or taken.resolved or taken.booked)

    # Locking and reading

    def _others(
        self, asks: Iterable[Ask], ids: list[str], places: set[Place], wanted: set[Span], database: PgDatabase
    ) -> dict[str, Entry]:
        """Holds that are to be resolved and are not ours; the rows that they touch are added."""
        held = {ask.what.id for ask in asks if isinstance(ask.what, Hold)}
        ids = [each for each in ids if each not in held]
        if not ids:
            return {}
        found = pgfind.holds(ids, database)
        for entry in found.values():
            if entry is not pgask.ENDED:
                self.credit(entry)
                pgask.touch(entry, places, wanted)
        return found

    def credit(self, entry: Entry) -> None:
        """What is not in the rows of a hold: may its account use credit?"""
        account = self._accounts.get(entry.hold.account)
        entry.credit = account is not None and account.post_paid

    def read(self, places: set[Place], wanted: set[Span], numbers: int, link: Link) -> Tally:
        """Lock our row of `totals` and these, and see how they stand; so many numbers can be given out then. Raises
        Ousted."""
        now = self._monotonic()
        renumber = self._end - self._next < numbers or (numbers and now > self._block_at + BLOCK_S)
        asked: list[Statement] = [(pgtext.MINE, (self.node, self._name))]
        if renumber:
            asked.append((pgtext.BLOCK, ()))
        if places:
            new = places - self._known
            if new:
                asked.append((pgtext.NEW_BALANCES, _columns(new, 2)))
            accounts = pgtext.texts(sorted({place[0] for place in places}))
            asked.append((pgtext.LOCKED_BALANCES, _columns(places, 2)))
            asked.append((pgtext.LOCKED_PACKS, (accounts,)))
        if wanted:
            spans = _columns(wanted, 4)
            asked.append((pgtext.NEW_SPENT, spans))
            asked.append((pgtext.LOCKED_SPENT, spans))
        said = {text: rows for (text, _), rows in zip(asked, pgbatch.run(link, asked), strict=True)}
        if not said[pgtext.MINE]:
            raise Ousted
        if renumber:
            first = said[pgtext.BLOCK][0][0] * BLOCK
            self._next, self._end, self._block_at = first, first + BLOCK, now
        tally = Tally(
            _NONE,
            [Funds(*row) for row in said.get(pgtext.LOCKED_BALANCES, ())],
            [Holding(Pack(*row[:-2]), row[-2], row[-1]) for row in said.get(pgtext.LOCKED_PACKS, ())],
            [Spent(*row) for row in said.get(pgtext.LOCKED_SPENT, ())],
        )
        tally.seq = self._next - 1
        return tally

    # Writing

    def write(self, decided: Decided, progress: Sequence[Progress], link: Link, *, commit: bool = False) -> None:
        """In one round trip; with `commit` the transaction ends in it."""
        # Numbers are never given twice, whatever becomes of the transaction.
        self._next = decided.tally.seq + 1
        self._commit += 1
        transfers: list[Any] = []
        reservations: list[Any] = []
        texts: list[Statement] = []

        def insert(table: pgtext.Rows, values: list[Any]) -> None:
            if values:
                texts.append(table.statement(values))

        insert(pgtext.HOLDS, rows.holds(decided.held, self.node, reservations))
        insert(pgtext.RESERVATIONS, reservations)
        if progress:
            insert(pgtext.PROGRESS, rows.progress(self._come(progress)))
        if decided.resolved:
            insert(pgtext.RESOLUTIONS, rows.resolutions(decided.resolved, transfers))
            insert(pgtext.USAGE, rows.usage(decided.resolved))
            gone = [entry.seq for entry in decided.resolved if entry.progress is not None]
            if gone:
                texts.append((pgtext.FORGET, (pgtext.numbers(gone),)))
        for booked in decided.booked:
            insert(pgtext.BOOKED[booked.table], list(booked.values))
            transfers += rows.transfer(booked.values[0], booked.transfer)
        insert(pgtext.TRANSFERS, transfers)
        for table, values in zip(_DERIVED, rows.derived(decided.tally.dirty), strict=True):
            insert(table, values)
        texts.append((pgtext.COUNT, (*self._counts(decided), self.node)))
        if commit:
            texts.append(pgbatch.COMMIT)
        pgbatch.run(link, texts)

    def _counts(self, decided: Decided) -> tuple[int, ...]:
        still = (
            entry.seq for several in (self.open.values(), decided.held) for entry in several if entry.resolution is None
        )
        last = decided.tally.seq
        return (self._commit, last, next(still, last + 1), *decided.tally.snapshot(self._commit)[3:])

    def _come(self, progress: Sequence[Progress]) -> list[tuple[int, Progress]]:
        """The newest of each of our open holds, by its number."""
        newest: dict[int, Progress] = {}
        for each in progress:
            entry = self.open.get(each.hold_id)
            if entry is not None and entry.resolution is None:
                entry.progress = each
                newest[entry.seq] = each
        return sorted(newest.items(), key=lambda item: item[0])


def _columns(found: Iterable[tuple[Any, ...]], count: int) -> list[str]:
    ordered = sorted(found)
    return [(pgtext.numbers if at == 3 else pgtext.texts)([row[at] for row in ordered]) for at in range(count)]
