"""What must be true of a simulated world when a day has ended: RELIABILITY's invariants I1 to I9, by number."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.auditor import differences
from moonpool.state.base import Deposit
from moonpool.state.sqlite import SqliteStore
from simulation.machine import TEXT, Disk, Dispatch
from simulation.world import (
    ACCOUNTS,
    BEGIN,
    BUSY_S,
    DAY_S,
    HIT,
    MISS,
    NOTED_S,
    OUT,
    QUIET_S,
    World,
    a_key,
    an_account,
    digest,
)

_TABLES = ("holds", "resolutions", "transfers", "balances", "pack_balances", "spent", "usage", "settlements", "totals")


@dataclass
class Row:
    """A hold and its end; `units` came from packs, `set_aside` is what of money was held."""

    id: str
    account: str
    set_aside: int
    kind: str | None
    miss: int
    hit: int
    completion: int
    estimated: bool
    owed_pico: int
    units: int


class JudgedWorld(World):
    """A world that fails with what does not add up."""

    def __init__(self, seed: str, folder: Path, image: bytes, catalogues: dict[str, Any]) -> None:
        super().__init__(seed, folder, image, catalogues)
        self.keys = {account: f"key of {account}" for account in ACCOUNTS}
        self.judged = 0

    def live(self, days: int) -> None:
        for day in range(days):
            end = self.plan(day)
            tries = 0
            while not self.live_process(end + QUIET_S):
                tries += 1
                assert tries < 100, "it does not come up again"
            self.count("days")

    async def day_ends(self) -> None:
        app = self.app
        assert app.platform.journal.faults == [], app.platform.journal.faults  # type: ignore[attr-defined]
        assert not app.platform.active, "a request runs on and on"
        assert self.running == 0
        assert self.begun == [], "what is tried again and again is done at last"
        await self._reaches_its_limit("credit")
        await self._again_changes_nothing()
        self._books()
        self._money()
        self._requests()

    async def _reaches_its_limit(self, account: str) -> None:
        """I8: one more than may run at once are asked for at once; all but one are served. I7: never more were."""
        most = ACCOUNTS[account][2]
        limiter = self.app.platform.limiter
        assert await limiter.held(account, self.now.at) == 0
        asked = [self.ask(account, plain=True) for _ in range(most + 1)]
        await self._at(self.now.at + QUIET_S)
        assert sorted(each.status for each in asked) == [200] * most + [429]
        assert await limiter.held(account, self.now.at) == 0
        for name, peak in self.host.most.items():
            assert peak <= ACCOUNTS[name][2], f"{name}: {peak} at once"

    async def _again_changes_nothing(self) -> None:
        """I4: settling, sweeping and recovering once more. I6: no hold is open."""
        books = self.app.store.books
        assert await books.recover(self.now.at) == 0
        assert await books.expire(self.now.at + 10 * DAY_S) == 0
        await books.settle_hours(self.now.at)
        before = self._tables()
        assert await books.settle_hours(self.now.at) == 0
        await self.thread.call(lambda database: None)
        assert self._tables() == before

    def _tables(self) -> dict[str, Any]:
        execute = self.disk.connection.execute
        return {name: sorted(execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in _TABLES}

    def _books(self) -> None:
        """I1, and the reverse of I2: each record has its request."""
        assert differences(self.disk.connection.execute) == []

    def _money(self) -> None:
        """I5: who must pay first is never further below zero than what answers cost beyond what was set aside for them.
        Deposits and packs are there once, those that were told and those that nobody knew of."""
        execute = self.disk.connection.execute
        deposits = {row[0] for row in execute("SELECT id FROM deposits")}
        assert deposits == set(self.deposits) | {f"first of {name}" for name, row in ACCOUNTS.items() if row[3]}
        assert {row[0] for row in execute("SELECT id FROM packs")} == set(self.packs)
        for account, granted, topped_up, post_paid, held in execute(
            "SELECT account, granted_pico, topped_up_pico, post_paid_pico, held_pico FROM balances"
        ).fetchall():
            assert held == 0
            if not ACCOUNTS[account][0]:
                (beyond,) = execute(
                    "SELECT coalesce(sum(max(r.owed_pico - h.amount_pico, 0)), 0) FROM resolutions r"
                    " JOIN holds h ON h.seq = r.hold_seq WHERE h.account = ?", (account,),
                ).fetchone()  # fmt: skip
                assert granted + topped_up + post_paid >= -beyond, account

    def _requests(self) -> None:
        """I2, I3, I9: for each request of the day, what its client, its host and the ledger know of it."""
        rows = {
            row[0]: Row(*row)
            for row in self.disk.connection.execute(
                "SELECT h.id, h.account, h.amount_pico, r.kind, r.prompt_miss, r.prompt_hit, r.completion,"
                " r.estimated, r.owed_pico, (SELECT coalesce(sum(t.amount_pico), 0) FROM transfers t"
                " WHERE t.seq = h.seq AND t.credit = 'used') FROM holds h LEFT JOIN resolutions r ON r.hold_seq = h.seq"
            )
        }
        assert set(rows) <= {each.id for each in self.asked}
        for asked in self.asked[self.judged :]:
            self._judge(asked, rows.get(asked.id), self.host.seen.get(asked.name, []))
        self.judged = len(self.asked)

    def _judge(self, asked: Any, row: Row | None, dispatches: list[Dispatch]) -> None:
        self.count(f"status {asked.status}")
        if row is None:
            assert not dispatches, f"{asked}: a dispatch without a record"
            assert asked.status != 200 or not asked.whole, asked
            return
        self.count(row.kind or "open")
        assert row.account == asked.account
        assert row.kind in {"posted", "voided", "recovered"}, row
        if asked.barred:
            assert asked.status == 401 or asked.lost, asked
        if not dispatches:
            assert (row.completion, row.owed_pico) == (0, 0)
            return
        (dispatch,) = dispatches
        end = asked.lost or float("inf")
        if asked.whole and asked.status == 200:
            # What was answered a while before a crash was booked before it.
            late = any(self._noted(crash) < asked.ended <= crash for crash in self.crashed)
            assert row.kind == "posted" or late, (asked, row)
        if row.kind == "posted" and not row.estimated:
            assert dispatch.usage is not None, (asked, row)
            usage = (20, 10, dispatch.usage["completion_tokens"])
            assert (row.miss, row.hit, row.completion) == usage, (asked, row)
        elif row.kind == "voided":
            assert row.owed_pico == 0
            return
        else:
            issued = -(-3 * dispatch.chars(end) // 10)
            assert row.completion <= issued, (asked, row, dispatch.issued)
            if row.kind == "recovered":
                known = dispatch.chars(self._noted(asked.lost)) if asked.stream and asked.lost else 0
                assert row.completion >= -(-3 * known // 10), (asked, row, dispatch.issued)
            elif asked.stream:
                assert row.completion >= -(-3 * asked.chars // 10), (asked, row)
        if not row.units:
            assert row.owed_pico == row.miss * MISS + row.hit * HIT + row.completion * OUT, (asked, row)

    def _noted(self, crash: float) -> float:
        """What was issued by then had been written down before this crash. A disk that fails or is slow writes nothing
        down in time."""
        for begin, end in reversed(self.sick):
            if begin <= crash <= end + NOTED_S:
                return begin - NOTED_S
        return crash - NOTED_S


async def furnish(folder: Path) -> bytes:
    """The file of a new platform with all accounts, as bytes."""
    store = SqliteStore(folder / "new.db", clock=lambda: BEGIN)
    await store.start()
    for name, (_, _, _, amount, _) in ACCOUNTS.items():
        await store.keys.save_account(an_account(name))
        secret = f"key of {name}"
        await store.keys.create(a_key(name, secret, BEGIN), digest(secret))
        if amount:
            await store.books.deposit(Deposit(f"first of {name}", name, "topped_up", amount, "CNY", "", BEGIN))
    await store.stop()
    connection = sqlite3.connect(folder / "new.db")
    # In memory there is no write-ahead log.
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.close()
    return (folder / "new.db").read_bytes()


__all__ = ["BUSY_S", "TEXT", "Disk", "JudgedWorld", "furnish"]
