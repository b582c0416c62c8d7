"""The ledger of one process: decided here, at once and in memory, on the event loop (`tally.py`), and made durable in
groups by the writer thread (`groupcommit.py`).

Rules:
- A decision is made when a method is called, so that racing requests cannot both get the same money; the answer comes
  when the transaction that contains it is durable. While one transaction runs, the next one collects.
- A transaction that fails writes nothing. Holds that wait then are undone and answered Problem("platform.storage");
  resolutions are kept and written with a later one, tried again with a growing pause until it succeeds.
- A resolution does not start a transaction at once: the next hold takes it along, or a few milliseconds pass.
- Memory is bounded: OPEN_MAX holds may be open or wait for their resolution to be written, more are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Table

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger import entries
from moonpool.ledger.funds import Funds, Pack
from moonpool.state import booking, reading, rows, tables
from moonpool.state.base import (
    Balance,
    Deposit,
    Deposited,
    Held,
    Hold,
    Kind,
    PackBalance,
    Progress,
    Resolution,
    Resolved,
)
from moonpool.state.booking import Booked
from moonpool.state.file import SqliteDatabase
from moonpool.state.groupcommit import Batch, Conflict, Doubt, has_landed, tell, write
from moonpool.state.setbacks import doubted, kept, unused, without
from moonpool.state.tally import TOTALS, Entry, Tally
from moonpool.state.thread import WriterThread, storage_problem
from moonpool.words import Account

OPEN_MAX: Final = 100_000
RESOLVE_S: Final = 0.005
RETRY_FIRST_S: Final = 0.02
RETRY_MAX_S: Final = 0.5
PATIENCE_S: Final = 5.0
"""How long `stop` tries to write what is pending."""

_CURRENCY: Final = "CNY"


class SqliteBooks:
    """Books. All methods are called on the event loop; none blocks it. `accounts` is kept by the side of the keys."""

    def __init__(self, thread: WriterThread, accounts: Mapping[str, Account]) -> None:
        self._thread = thread
        self._accounts = accounts
        self._loop: asyncio.AbstractEventLoop
        self._tally: Tally
        self._batch = Batch()
        self._commit = 0
        self._idle = False  # no transaction runs, and none is about to
        self._timer = False  # resolutions wait for a hold to take them along
        self._pause_s = 0.0
        self._closing: Later[bool] | None = None
        self._closed = True
        self.trouble: str | None = None

    def start(self, memory: reading.Memory) -> None:
        """Take over what `load` read."""
        self._loop = asyncio.get_running_loop()
        self._tally = Tally(memory.totals, memory.funds, memory.holdings, memory.spent)
        for entry in memory.unresolved:
            account = self._accounts.get(entry.hold.account)
            entry.credit = account is not None and account.post_paid
            self._tally.take_over(entry)
        self._settled = memory.settled
        self._commit = memory.totals["commits"]
        self._collect(Batch())
        # Two deposits with one id must see each other; they are rare, so one at a time will do.
        self._booking = asyncio.Lock()
        self._closed, self._idle = False, True

    async def stop(self) -> None:
        """Write what is pending. Raises Problem("platform.storage") if that does not succeed."""
        if self._closed:
            return
        closing: Later[bool] = Later()
        self._closing = closing
        patience = self._loop.call_later(PATIENCE_S, self._give_up)
        if self._idle:
            self._idle = False
            self._flush()
        written = await closing
        patience.cancel()
        self._closed = True
        if not written:
            raise Problem(
                "platform.storage",
                f"{len(self._batch.resolved)} resolutions could not be written. "
                "The next start will book those requests as recovered.",
            )

    # What a request asks

    def hold(self, hold: Hold) -> Later[Held]:
        later: Later[Held] = Later()
        tally = self._tally
        account = self._accounts.get(hold.account)
        if hold.id in tally.open:
            later.set("exists")
        elif self._closed or len(tally.open) >= OPEN_MAX:
            later.fail(Problem("platform.storage" if self._closed or self.trouble else "platform.overloaded"))
        elif not entries.bookable(hold.amount_pico):
            later.fail(Problem("platform.fault", detail=f"a hold of {hold.amount_pico} pico-units"))
        else:
            entry = tally.hold(hold, account, later)
            if isinstance(entry, Entry):
                self._batch.held.append(entry)
                self._wake()
            else:
                later.set(entry)
        return later

    def resolve(self, resolution: Resolution) -> Later[Resolved]:
        later: Later[Resolved] = Later()
        entry = self._tally.open.get(resolution.hold_id)
        if entry is None:
            self._thread.submit(partial(_is_held, resolution.hold_id), partial(self._looked_up, later))
        elif entry.resolution is not None:
            later.set("exists")
        else:
            self._tally.resolve(entry, resolution)
            entry.answered = later
            self._batch.resolved.append(entry)
            if self._idle and not self._timer:
                self._wait_for_company()
        return later

    def progress(self, rows: Sequence[Progress]) -> None:
        if self._closed:
            return
        known = self._tally.open
        for row in rows:
            entry = known.get(row.hold_id)
            if entry is not None and entry.mine and entry.resolution is None:
                entry.progress = row
                self._batch.progress.append((entry.seq, row))
        if self._batch.progress and self._idle and not self._timer:
            self._wait_for_company()

    # What an operator asks

    async def recover(self, now: float) -> int:
        """One transaction for all. Owed is what each was last known to have come to."""
        return await self._end((each for each in self._tally.open.values() if not each.mine), "recovered", now)

    async def expire(self, now: float) -> int:
        late = (each for each in self._tally.open.values() if not each.mine and each.hold.expires_at <= now)
        return await self._end(late, "expired", now)

    async def deposit(self, deposit: Deposit) -> Deposited:
        book = partial(booking.deposit, self._tally, wanted=deposit)
        return await self._book(tables.deposits, deposit.id, deposit.account, book)

    async def add_pack(self, pack: Pack) -> Deposited:
        def book(seq: int) -> Booked:
            return booking.pack(self._tally, seq, pack)[0]

        return await self._book(tables.packs, pack.id, pack.account, book)

    async def packs(self, account: str, now: float) -> list[PackBalance]:
        return [
            PackBalance(each.pack, each.used, each.held)
            for each in self._tally.holdings.get(account, ())
            if each.pack.expires_at > now and each.used < each.pack.units
        ]

    async def settle_hours(self, now: float) -> int:
        async with self._booking:
            booked = booking.settlements(self._tally, self._settled, now)
            self._batch.booked += (each for _, each in booked)
            if booked:
                self._wake()
            for _, each in booked:
                await each.answer
            return len(booked)

    def balance(self, account: str, currency: str | None = None) -> Later[Balance | None]:
        """From memory: with everything that was decided so far."""
        later: Later[Balance | None] = Later()
        known = self._accounts.get(account)
        if known is None:
            later.set(None)
            return later
        of_account = [each for each in self._tally.funds.values() if each.account == account]
        if currency is None:
            used = (
                each.currency for each in of_account if each.granted or each.topped_up or each.held or each.post_paid
            )
            currency = next(used, _CURRENCY)
        funds = next((each for each in of_account if each.currency == currency), Funds(account, currency))
        later.set(Balance(currency, funds.granted, funds.topped_up, funds.held, known.post_paid, funds.post_paid))
        return later

    def totals(self) -> Later[dict[str, int]]:
        """From memory: with everything that was decided so far."""
        later: Later[dict[str, int]] = Later()
        found = dict(zip(TOTALS, self._tally.snapshot(0), strict=True))
        for name in ("commits", "last_seq", "first_open"):
            del found[name]
        found["open"] = self._tally.holds - sum(self._tally.kinds.values())
        later.set(found)
        return later

    def sums(self) -> dict[str, int]:
        """As `totals`, at once."""
        return self.totals().result()

    def _looked_up(self, later: Later[Resolved], found: bool, error: Exception | None) -> None:
        if error is not None:
            later.fail(storage_problem(error))
        else:
            later.set("exists" if found else "unknown")

    async def _end(self, open_entries: Iterable[Entry], kind: Kind, now: float) -> int:
        ended = [
            self.resolve(rows.recovered(each.hold, each.progress, kind, now))
            for each in list(open_entries)
            if each.resolution is None
        ]
        for later in ended:
            await later
        return len(ended)

    async def _book(self, table: Table, booking_id: str, account: str, book: Callable[[int], Booked]) -> Deposited:
        """Something that an account gets, once for each id of `table`."""
        async with self._booking:
            if account not in self._accounts:
                raise Problem("caller.invalid_value", "There is no such account.", param="account")
            # Asked before it is booked: money that turns out to have come before must not be spent meanwhile.
            if await self._thread.call(partial(reading.is_booked, table, booking_id)):
                return "exists"
            booked = book(self._tally.seq + 1)
            self._tally.seq += 1
            self._batch.booked.append(booked)
            self._wake()
            await booked.answer
            return "deposited"

    # Transactions

    def _collect(self, batch: Batch) -> None:
        """From now on `batch` collects."""
        self._batch = batch
        self._tally.dirty = batch.dirty

    def _wake(self) -> None:
        """Something is to be written soon."""
        if self._idle:
            self._idle = False
            self._loop.call_soon(self._flush)

    def _wait_for_company(self) -> None:
        self._timer = True
        self._loop.call_later(RESOLVE_S, self._waited)

    def _waited(self) -> None:
        self._timer = False
        if self._idle:
            self._idle = False
            self._flush()

    def _flush(self) -> None:
        """Hand over what was collected. Called when no transaction runs."""
        batch = self._batch
        if batch.empty():
            self._idle = True
            if self._closing is not None and not self._closing.done():
                self._closing.set(True)
            return
        self._collect(Batch())
        self._commit += 1
        batch.commit = self._commit
        batch.totals = self._tally.snapshot(self._commit)
        batch.changed = rows.derived(batch.dirty)
        self._thread.submit(partial(write, batch=batch), partial(self._done, batch))

    def _give_up(self) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set(False)

    def _done(self, batch: Batch, _: Any, error: Exception | None) -> None:
        """After a transaction: hand over the next one first, then answer whoever waited. The other way round at the
        end: whose hold became durable just then may resolve it in the same breath, and that is to be written too."""
        if isinstance(error, Conflict):
            again, refused = without(self._tally, batch, self._batch, error.ids)
            self._batch = again
            self._flush()
            for later in refused:
                later.set("exists")
            return
        if isinstance(error, Doubt):
            self._doubted(batch, error.error)
            return
        if error is not None:
            self._failed(batch, error)
            return
        self._pause_s = 0.0
        self.trouble = None
        known = self._tally.open
        for entry in batch.resolved:
            del known[entry.hold.id]
        if self._closing is not None:
            tell(batch)
            self._flush()
            return
        following = self._batch
        if following.held or following.booked:
            self._flush()
        else:
            self._idle = True
            if (following.resolved or following.progress) and not self._timer:
                self._wait_for_company()
        tell(batch)

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Nothing of `batch` was written: what must be written is tried again after a pause."""
        self._batch, refused = kept(self._tally, batch, self._batch)
        self._later(self._flush, error)
        for later in refused:
            later.fail(storage_problem(error))

    def _doubted(self, batch: Batch, error: Exception) -> None:
        """Nobody knows whether `batch` was written, so nothing of it is undone and nothing else is written: the
        database is asked until it says so. Whoever waits is refused."""
        self._batch, refused = kept(self._tally, Batch(), self._batch)
        refused += doubted(batch)
        ask = partial(has_landed, commit=batch.commit)
        self._later(lambda: self._thread.submit(ask, partial(self._known, batch, error)), error)
        for later in refused:
            later.fail(storage_problem(error))

    def _known(self, batch: Batch, error: Exception, written: bool, trouble: Exception | None) -> None:
        if trouble is not None:
            self._doubted(batch, error)
        elif not written:
            self._failed(batch, error)
        else:
            for resolution in unused(batch):
                self.resolve(resolution)
            self._done(batch, None, None)

    def _later(self, do: Callable[[], Any], error: Exception) -> None:
        """After a pause, which grows."""
        self.trouble = f"The ledger cannot be written ({type(error).__name__}: {error})."
        if not self._closed:
            self._pause_s = min(max(2 * self._pause_s, RETRY_FIRST_S), RETRY_MAX_S)
            self._loop.call_later(self._pause_s, do)


def _is_held(hold_id: str, database: SqliteDatabase) -> bool:
    return database.cursor.execute("SELECT 1 FROM holds WHERE id = ?", (hold_id,)).fetchone() is not None
