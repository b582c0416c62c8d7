"""Alerts about money: told once, signed, tried again, and never to where they must not go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from moonpool.ledger.spans import day_of, month_of
from moonpool.settings_money import AlertSettings
from moonpool.state import tables
from moonpool.state.base import Deposit, Hold, Resolution
from moonpool.state.base_admin import Alert
from moonpool.state.sqlite import SqliteStore
from moonpool.state.thread import Database
from moonpool.transports.dial import look_up
from moonpool.transports.http import HttpTransport
from moonpool.web.addresses import guarded
from moonpool.web.alarms import PAUSES_S, TRIES_MAX, Alarms
from moonpool.web.payments import HEADER, signed
from moonpool.words import Account, Usage

UNIT = 10**12
NOW = 1_795_000_000.0
SECRET = "mp-hook-a-secret-of-a-test-0123456789"


class Hook:
    """A server of the one who wants to be told; answers each message with the next status."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(fields["content-length"]))
        self.got.append((fields, body))
        status = self.statuses.pop(0) if self.statuses else 204
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        writer.close()


def _ignore(*_: object, **__: object) -> None:
    """What would be a line of the log."""


class World:
    """A store, a hook, and the alarms between them with a clock of their own."""

    def __init__(self, store: SqliteStore, hook: Hook, private: bool) -> None:
        self.store, self.hook, self.now = store, hook, NOW
        self.transport = HttpTransport(resolve=look_up if private else guarded(look_up))
        settings = AlertSettings(private=private, timeout_s=5.0)
        self.alarms = Alarms(
            settings, store.books, store.keys, store.office, self.transport, lambda: self.now, _ignore, _ignore
        )

    async def add(self, kind: str, threshold: int = 0, account: str = "acme", url: str = "") -> str:
        alert_id = f"alert-{kind}-{account}"
        alert = Alert(alert_id, account, kind, threshold, "CNY", url or self.hook.url, b"", NOW)  # type: ignore[arg-type]
        await self.store.office.alerts.save(alert, SECRET)
        return alert_id

    async def deposit(self, name: str, units: int) -> None:
        await self.store.books.deposit(Deposit(name, "acme", "topped_up", units * UNIT, "CNY", "", self.now))

    async def spend(self, at: float, pico: int) -> None:
        """What the books would have summed up for that day."""

        def work(database: Database) -> None:
            row = {column.name: 0 for column in tables.usage.columns}
            names = {"account": "acme", "key_id": f"k{at}", "model": "m", "host": "h"}
            row |= {"span": "day", "start": day_of(at), "currency": "CNY", "cost_currency": "CNY", "owed_pico": pico}
            with database.engine.begin() as connection:
                connection.execute(insert(tables.usage), row | names)

        await self.store.office.receipts._thread.call(work)  # type: ignore[attr-defined]

    async def tell(self) -> list[dict[str, Any]]:
        """Look and deliver; what arrived by that."""
        before = len(self.hook.got)
        await self.alarms.look(self.now)
        await self.alarms.deliver(self.now)
        return [json.loads(body) for _, body in self.hook.got[before:]]


def in_world(folder: Path, play: Callable[[World], Awaitable[None]], private: bool = True) -> None:
    async def live() -> None:
        store, hook = SqliteStore(folder / "moonpool.db"), Hook()
        store.office.alerts.seal_with(lambda: "what the secrets are sealed with, 32 characters")
        await store.start()
        server = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
        hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b"
        world = World(store, hook, private)
        await store.keys.save_account(Account("acme", "Acme"))
        await store.keys.save_account(Account("credit", "Credit", post_paid=True, credit_pico=0))
        try:
            await play(world)
        finally:
            await world.alarms.stop()
            await world.transport.stop()
            server.close()
            await store.stop()

    asyncio.run(asyncio.wait_for(live(), 30))


def test_arrears_are_what_stops_an_account(tmp_path: Path) -> None:
    """An account on credit is in arrears once what it used was settled below its credit, not before; one without as
    soon as it owes. Told when the next request would be refused, and not again until that was over."""

    async def play(world: World) -> None:
        for account in ("acme", "credit"):
            await world.add("arrears", account=account)
        books = world.store.books
        await world.deposit("d1", 1)
        for account, amount in (("credit", 5), ("acme", 1)):
            hold = Hold(account, account, "AbCdEfGhIjKl", "m", "h", amount * UNIT, "CNY", NOW, NOW + 9)
            assert await books.hold(hold) == "held"
        assert await world.tell() == []
        await books.resolve(Resolution("credit", "posted", Usage(5), 5 * UNIT, 0, "h", "", 1, NOW))
        assert await world.tell() == []
        await books.resolve(Resolution("acme", "posted", Usage(3), 3 * UNIT, 0, "h", "", 1, NOW))
        (told,) = await world.tell()
        assert (told["account"], told["amount"]) == ("Acme", "-2.00")
        assert await books.settle_hours(NOW) == 1
        (told,) = await world.tell()
        assert (told["account"], told["amount"]) == ("Credit", "-5.00")
        assert await books.hold(Hold("again", "credit", "AbCdEfGhIjKl", "m", "h", 0, "CNY", NOW, NOW + 9)) == "short"
        assert await world.tell() == []
        await world.deposit("d2", 2)
        assert await world.tell() == []

    in_world(tmp_path, play)


def test_a_balance_that_falls_is_told_once(tmp_path: Path) -> None:
    """Below the threshold: one signed message; none while it stays there, none when it rises."""

    async def play(world: World) -> None:
        alert_id = await world.add("balance_below", 10 * UNIT)
        (message,) = await world.tell()
        assert message.keys() == {"id", "alert", "kind", "account", "currency", "threshold", "amount", "at"}
        assert (message["alert"], message["account"], message["amount"]) == (alert_id, "Acme", "0.00")
        fields, body = world.hook.got[0]
        assert signed(SECRET, fields[HEADER], body, NOW)
        assert not signed("another secret", fields[HEADER], body, NOW)
        assert await world.tell() == []
        await world.deposit("d1", 20)
        assert await world.tell() == []
        await world.store.office.alerts.delete("acme", alert_id)
        await world.add("balance_below", 30 * UNIT)
        (message,) = await world.tell()
        assert message["amount"] == "20.00"

    in_world(tmp_path, play)


def test_what_was_spent_is_told_once_a_day_and_month(tmp_path: Path) -> None:
    """A day's threshold counts from midnight in Beijing and is told again on another day; a month's sums its days."""

    async def play(world: World) -> None:
        await world.add("spent_day", 10 * UNIT)
        await world.add("spent_month", 15 * UNIT)
        await world.spend(NOW, 9 * UNIT)
        assert await world.tell() == []
        await world.spend(NOW + 1, 1 * UNIT)
        (message,) = await world.tell()
        assert (message["kind"], message["amount"]) == ("spent_day", "10.00")
        assert await world.tell() == []
        world.now = NOW + 86_400
        assert month_of(world.now) == month_of(NOW)
        assert await world.tell() == []
        await world.spend(world.now, 12 * UNIT)
        told = {message["kind"]: message["amount"] for message in await world.tell()}
        assert told == {"spent_day": "12.00", "spent_month": "22.00"}

    in_world(tmp_path, play)


def test_what_does_not_arrive_is_tried_again(tmp_path: Path) -> None:
    """A failure and a redirect are no arrival: the same message is sent again after growing pauses, then given up; a
    delivery says what went wrong."""

    async def play(world: World) -> None:
        alert_id = await world.add("balance_below", 10 * UNIT)
        world.hook.statuses = [500, 302, *[503] * TRIES_MAX]
        (first,) = await world.tell()
        assert await world.tell() == []
        for pause_s in PAUSES_S:
            world.now += pause_s - 1
            assert await world.tell() == []
            world.now += 1
            assert await world.tell() == [first]
        world.now += 10**7
        assert await world.tell() == []
        (delivery,) = await world.store.office.alerts.deliveries(alert_id, 10)
        assert (delivery.tries, delivery.trouble) == (TRIES_MAX, "status 503")
        assert delivery.done_at is not None

    in_world(tmp_path, play)


def test_two_processes_tell_once(tmp_path: Path) -> None:
    """Looked at from two places at the same moment, an alert is told once; a message on its way is not taken twice."""

    async def play(world: World) -> None:
        await world.add("balance_below", 10 * UNIT)
        other = World(world.store, world.hook, True)
        await asyncio.gather(world.alarms.look(NOW), other.alarms.look(NOW))
        await asyncio.gather(world.alarms.deliver(NOW), other.alarms.deliver(NOW))
        assert len(world.hook.got) == 1
        await other.transport.stop()

    in_world(tmp_path, play)


def test_it_does_not_go_inside(tmp_path: Path) -> None:
    """Without the operator's leave no message goes to a loopback or private address, whether it is written as one or
    its name leads there."""

    async def play(world: World) -> None:
        port = world.hook.url.split(":")[2].partition("/")[0]
        addresses = {"acme": f"https://127.0.0.1:{port}/", "credit": f"https://localhost:{port}/"}
        ids = [await world.add("balance_below", 10 * UNIT, account, url) for account, url in addresses.items()]
        assert await world.tell() == []
        for alert_id in ids:
            (delivery,) = await world.store.office.alerts.deliveries(alert_id, 10)
            assert "public" in delivery.trouble
        assert world.hook.got == []

    in_world(tmp_path, play, private=False)


def test_a_deleted_alert_says_nothing_more(tmp_path: Path) -> None:
    """What was still to be delivered goes with the alert; another account cannot delete it."""

    async def play(world: World) -> None:
        alert_id = await world.add("balance_below", 10 * UNIT)
        await world.alarms.look(NOW)
        assert not await world.store.office.alerts.delete("credit", alert_id)
        assert await world.store.office.alerts.delete("acme", alert_id)
        assert await world.tell() == []
        assert await world.store.office.alerts.list() == []

    in_world(tmp_path, play)
