"""The ledger over PostgreSQL, the event loop's side: collects what is asked while a transaction runs, hands it to the
writer thread (pgwrite.py), which decides, and answers who waits when it is durable.

Rules:
- While nothing can be written holds are refused at once (Problem "platform.storage"), and so is what else nobody could
  be told the end of. Resolutions are kept and written when it can be done again; that is tried with growing pauses.
- A hold that turns out to have been written after it was refused is voided.
- What is read is read from the database, after everything that was asked before.
- A resolution does not start a transaction at once: the next hold takes it along, or a few milliseconds pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger import entries, funds
from moonpool.ledger.funds import Funds, Holding, Pack
from moonpool.state import booking, nodes, pgsweep, pgtext, rows
from moonpool.state.base import Balance, Deposit, Deposited, Held, Hold, PackBalance, Progress, Resolution, Resolved
from moonpool.state.pgask import Ask
from moonpool.state.pglink import PgDatabase
from moonpool.state.pgwrite import PgWriter
from moonpool.state.thread import WriterThread, storage_problem
from moonpool.words import Account

OPEN_MAX: Final = 100_000
BATCH_MAX: Final = 1000
"""No more than a block of numbers (pgwrite.py)."""
RESOLVE_S: Final = 0.005
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
PATIENCE_S: Final = 5.0

_CURRENCY: Final = "CNY"


class PgBooks:
    """Books. All methods are called on the event loop; none blocks it. `thread` is for this alone; `reads` is where
    balances and the like are read."""

    def __init__(
        self,
        thread: WriterThread,
        reads: WriterThread,
        accounts: Mapping[str, Account],
        writer: PgWriter,
        clock: Callable[[], float],
    ) -> None:
        self._thread = thread
        self._clock = clock
        self._reads = reads
        self._accounts = accounts
        self._writer = writer
        self._loop: asyncio.AbstractEventLoop
        self._asks: list[Ask] = []
        self._progress: list[Progress] = []
        self._doubtful: list[Ask] = []
        self._idle = False
        self._timer = False
        self._pause_s = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._closing: Later[bool] | None = None
        self._closed = True
        self._sums: dict[str, int] = {}
        self.trouble: str | None = None

    async def start(self) -> None:
        """Become a node. Raises Problem("platform.storage")."""
        self._loop = asyncio.get_running_loop()
        await self._thread.call(self._writer.join)
        self._sums = await self._reads.call(_sums)
        self._closed, self._idle, self._closing = False, True, None
        self._beat = self._loop.call_later(nodes.BEAT_S, self._live)

    async def stop(self) -> None:
        """Write what is pending, and give our row back. Raises Problem("platform.storage") if that does not succeed."""
        if self._closed:
            return
        if self._beat is not None:
            self._beat.cancel()
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
                f"{sum(isinstance(ask.what, Resolution) for ask in self._asks)} resolutions could not be written. "
                "Another node, or the next start, will book those requests as recovered.",
            )
        await self._thread.call(self._writer.leave)

    # What a request asks

    def hold(self, hold: Hold) -> Later[Held]:
        later: Later[Held] = Later()
        if self._closed or self.trouble is not None:
            later.fail(Problem("platform.storage"))
        elif len(self._asks) + len(self._writer.open) >= OPEN_MAX:
            later.fail(Problem("platform.overloaded"))
        elif not entries.bookable(hold.amount_pico):
            later.fail(Problem("platform.fault", detail=f"a hold of {hold.amount_pico} pico-units"))
        else:
            self._asks.append(Ask(hold, later, self._accounts.get(hold.account)))
            if self._idle:
                self._wake()
        return later

    def resolve(self, resolution: Resolution) -> Later[Resolved]:
        later: Later[Resolved] = Later()
        self._asks.append(Ask(resolution, later))
        if self._idle and not self._timer:
            self._wait_for_company()
        return later

    def progress(self, rows: Sequence[Progress]) -> None:
        if not self._closed and self.trouble is None:
            self._progress += rows
            self._wait_for_company()

    # What an operator asks

    async def recover(self, now: float) -> int:
        await self._reachable()
        return await self._thread.call(partial(pgsweep.recover, self._writer, "recovered", now, float("inf")))

    async def expire(self, now: float) -> int:
        await self._reachable()
        return await self._thread.call(partial(pgsweep.recover, self._writer, "expired", now, now))

    async def deposit(self, deposit: Deposit) -> Deposited:
        place = (deposit.account, deposit.currency)
        return await self._book(
            Ask(partial(booking.deposit, wanted=deposit), name=deposit.id, place=place), deposit.account
        )

    async def add_pack(self, pack: Pack) -> Deposited:
        def book(tally: Any, seq: int) -> booking.Booked:
            return booking.pack(tally, seq, pack)[0]

        return await self._book(Ask(book, name=pack.id), pack.account)

    async def packs(self, account: str, now: float) -> list[PackBalance]:
        await self._written()
        holdings: list[Holding] = await self._reads.call(partial(_holdings, account))
        return [PackBalance(each.pack, each.used, each.held) for each in holdings if each.pack.expires_at > now]

    async def settle_hours(self, now: float) -> int:
        await self._reachable()
        return await self._thread.call(partial(pgsweep.settle, self._writer, now))

    async def balance(self, account: str, currency: str | None = None) -> Balance | None:
        known = self._accounts.get(account)
        if known is None:
            return None
        await self._written()
        of_account: list[Funds] = await self._reads.call(partial(_funds, account))
        if currency is None:
            used = (
                each.currency for each in of_account if each.granted or each.topped_up or each.held or each.post_paid
            )
            currency = next(used, _CURRENCY)
        found = next((each for each in of_account if each.currency == currency), Funds(account, currency))
        return Balance(currency, found.granted, found.topped_up, found.held, known.post_paid, found.post_paid)

    async def totals(self) -> dict[str, int]:
        """Of all nodes."""
        await self._written()
        self._sums = await self._reads.call(_sums)
        return dict(self._sums)

    def sums(self) -> dict[str, int]:
        """As `totals`, as they were a few seconds ago."""
        return dict(self._sums)

    async def _book(self, ask: Ask, account: str) -> Deposited:
        if account not in self._accounts:
            raise Problem("caller.invalid_value", "There is no such account.", param="account")
        if self._closed or self.trouble is not None:
            raise Problem("platform.storage")
        ask.later = Later()
        self._asks.append(ask)
        self._wake()
        answer: Deposited = await ask.later
        return answer

    async def _reachable(self) -> None:
        """As `_written`. Raises Problem("platform.storage") while nothing can be written."""
        await self._written()
        if self._closed or self.trouble is not None:
            raise Problem("platform.storage")

    async def _written(self) -> None:
        """Everything that was asked before is in the database, or cannot be written."""
        if self._closed or self.trouble is not None or (self._idle and not self._asks):
            return
        mark = Ask(None, Later())
        self._asks.append(mark)
        self._wake()
        assert mark.later is not None
        await mark.later

    # Transactions

    def _wake(self) -> None:
        """Something is to be written soon."""
        if self._idle:
            self._idle = False
            self._loop.call_soon(self._flush)

    def _wait_for_company(self) -> None:
        if self._idle and not self._timer:
            self._timer = True
            self._loop.call_later(RESOLVE_S, self._waited)

    def _waited(self) -> None:
        self._timer = False
        if self._idle:
            self._idle = False
            self._flush()

    def _flush(self) -> None:
        """Hand over what was collected. Called when no transaction runs."""
        if not self._asks and not self._progress and self.trouble is None:
            self._idle = True
            if self._closing is not None and not self._closing.done():
                self._closing.set(True)
            return
        batch, self._asks = self._asks[:BATCH_MAX], self._asks[BATCH_MAX:]
        progress, self._progress = self._progress, []
        self._thread.submit(partial(self._writer.run, batch, progress), partial(self._done, batch))

    def _give_up(self) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set(False)

    def _done(self, batch: list[Ask], _: Any, error: Exception | None) -> None:
        """After a transaction: hand over the next one first, then answer whoever waited. The other way round at the
        end: whose hold became durable just then may resolve it in the same breath, and that is to be written too."""
        if error is not None:
            self._failed(batch, error)
            return
        self._pause_s = 0.0
        self.trouble = None
        self._void_doubtful()
        if self._closing is not None:
            _tell(batch)
            self._flush()
            return
        if any(not isinstance(ask.what, Resolution) for ask in self._asks):
            self._flush()
        else:
            self._idle = True
            if self._asks or self._progress:
                self._wait_for_company()
        _tell(batch)

    def _failed(self, batch: list[Ask], error: Exception) -> None:
        """Keep resolutions, answer everybody else who waits, and try again after a pause."""
        self.trouble = f"The ledger cannot be written ({type(error).__name__}: {error})."
        waiting = batch + self._asks
        self._asks, told = [], []
        problem = storage_problem(error)
        for ask in waiting:
            if ask.answer is None and ask.error is None:
                if isinstance(ask.what, Resolution):
                    self._asks.append(ask)
                    continue
                if isinstance(ask.what, Hold):
                    self._doubtful.append(ask)
            told.append(ask)
        self._progress.clear()
        if not self._closed:
            self._pause_s = min(max(2 * self._pause_s, RETRY_FIRST_S), RETRY_MAX_S)
            self._loop.call_later(self._pause_s, self._flush)
        _tell(told, problem)

    def _void_doubtful(self) -> None:
        """Holds that were refused while nobody knew whether they had been written: now it is known."""
        if self._doubtful and self._writer.unknown is None:
            now = self._clock()
            for ask in self._doubtful:
                if ask.answer == "held":
                    self._asks.append(Ask(rows.recovered(ask.what, None, "voided", now)))
            self._doubtful.clear()

    # Being there

    def _live(self) -> None:
        self._beat = self._loop.call_later(nodes.BEAT_S, self._live)
        self._thread.submit(self._writer.beat, lambda *_: None)
        self._reads.submit(_sums, self._summed)

    def _summed(self, found: dict[str, int] | None, _: Exception | None) -> None:
        if found is not None:
            self._sums = found


def _tell(asks: Iterable[Ask], problem: Exception | None = None) -> None:
    for ask in asks:
        later = ask.later
        if later is None or later.done():
            continue
        if ask.error is not None:
            later.fail(ask.error)
        elif problem is None or ask.answer is not None or ask.what is None:
            later.set(ask.answer)
        else:
            later.fail(problem)


def _funds(account: str, database: PgDatabase) -> list[Funds]:
    text = (
        "SELECT account, currency, granted_pico, topped_up_pico, held_pico, post_paid_pico FROM balances "
        "WHERE account = ? ORDER BY currency"
    )
    with database.transaction():
        return [Funds(*row) for row in database.execute(text, (account,)).fetchall()]


def _holdings(account: str, database: PgDatabase) -> list[Holding]:
    text = (
        "SELECT p.id, p.account, p.kind, p.product, p.unit, p.units, p.note, p.bought_at, p.expires_at, b.used, b.held "
        "FROM packs p JOIN pack_balances b ON b.pack = p.id WHERE p.account = ? AND b.used < p.units"
    )
    with database.transaction():
        found = [Holding(Pack(*row[:-2]), row[-2], row[-1]) for row in database.execute(text, (account,)).fetchall()]
    return sorted(found, key=funds.rank)


def _sums(database: PgDatabase) -> dict[str, int]:
    with database.transaction():
        row = database.execute(pgtext.SUMS).fetchone()
    found = dict(zip(pgtext.COUNTS, row, strict=True))
    found["open"] = found["holds"] - sum(found[kind] for kind in ("posted", "voided", "expired", "recovered"))
    return found
