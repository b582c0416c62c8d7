"""Tells people about money: looks at the thresholds now and then, and delivers what is to be told.

Rules:
- No request pays for it: it is called by the pulse, and what it asks is in memory or in sums that are kept anyway.
- An alert tells once: when what it is about begins, and again when it begins anew (the balance was above the threshold
  in between, another day, another month). Of several processes one tells (`Alerts.fire`).
- A message is POSTed as JSON and signed as payments are (`x-moonpool-signature`), with the alert's secret. 2xx is
  arrival; everything else is tried again after growing pauses, TRIES_MAX times in about a day.
- Messages go to public addresses over TLS only, unless the operator allows others; a redirect is no arrival.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.ledger.funds import owes_too_much
from moonpool.ledger.spans import day_of, month_of
from moonpool.settings_money import AlertSettings
from moonpool.state.base import Balance, Books, Keys
from moonpool.state.base_admin import Alert, Delivery, Office
from moonpool.web.addresses import check_url
from moonpool.web.admin.accounts import signed
from moonpool.web.payments import HEADER, sign
from moonpool.words import Account, Headers, Host, Outbound

PAUSES_S: Final = (10.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 28_800.0)
TRIES_MAX: Final = len(PAUSES_S) + 1
_AT_ONCE: Final = 8


class Alarms:
    """`clock` gives Unix seconds; `transport` reaches what is outside (public addresses only, unless allowed)."""

    def __init__(
        self,
        settings: AlertSettings,
        books: Books,
        keys: Keys,
        office: Office,
        transport: Any,
        clock: Callable[[], float],
        note: Callable[..., object],
        fault: Callable[[str, BaseException], object],
    ) -> None:
        self._settings = settings
        self._books = books
        self._keys = keys
        self._office = office
        self._transport = transport
        self._clock = clock
        self._note = note
        self._fault = fault
        self._next_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def beat(self) -> None:
        """Called once a second; does its work in a task of its own, one at a time."""
        now = self._clock()
        if now >= self._next_at and (self._running is None or self._running.done()):
            self._next_at = now + self._settings.every_s
            self._running = asyncio.get_running_loop().create_task(self._run(now))
            self._running.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fault("alerts", error)

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, now: float) -> None:
        try:
            await self.look(now)
            await self.deliver(now)
        except Problem as problem:  # the store cannot be asked now: the next time
            self._note("alerts", why=problem.detail or problem.message)

    async def look(self, now: float) -> None:
        """Compare each alert with what there is; write down the messages of those that begin."""
        accounts = {account.id: account for account in await self._keys.accounts()}
        for alert in await self._office.alerts.list():
            account = accounts.get(alert.account)
            if account is None:
                continue
            about, amount_pico = await self._state(alert, account, now)
            if about == alert.fired_for:
                continue
            delivery = _delivery(alert, account, about, amount_pico, now) if about else None
            await self._office.alerts.fire(alert, about, delivery)

    async def _state(self, alert: Alert, account: Account, now: float) -> tuple[str, int]:
        """(what there is to be told now, "" for nothing, and the amount it is about)."""
        if alert.kind in {"spent_day", "spent_month"}:
            start = day_of(now) if alert.kind == "spent_day" else month_of(now)
            spent = await self._office.receipts.spent(account.id, alert.currency, start)
            return (f"{alert.kind} {start}" if spent >= alert.threshold_pico > 0 else ""), spent
        balance = await self._books.balance(account.id, alert.currency)
        left = available(balance) if balance is not None else 0
        if alert.kind == "balance_below":
            return ("below" if left < alert.threshold_pico else ""), left
        own = balance.topped_up_pico if balance is not None else 0
        return ("arrears" if owes_too_much(account, own, left) else ""), left

    async def deliver(self, now: float) -> None:
        """Try what is due."""
        alerts = {alert.id: alert for alert in await self._office.alerts.list()}
        lease_s = 2 * self._settings.timeout_s + 60.0
        due = await self._office.alerts.due(now, lease_s)
        for start in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._try(each, alerts.get(each.alert)) for each in due[start : start + _AT_ONCE]))

    async def _try(self, delivery: Delivery, alert: Alert | None) -> None:
        trouble = await self._send(delivery, alert) if alert is not None else "the alert was deleted"
        now, tries = self._clock(), delivery.tries + 1
        over = not trouble or tries >= TRIES_MAX or alert is None
        next_at = now if over else now + PAUSES_S[tries - 1]
        tried = replace(delivery, tries=tries, next_at=next_at, trouble=trouble[:200], done_at=now if over else None)
        await self._office.alerts.tried(tried)
        if trouble:
            self._note("alert not delivered", alert=delivery.alert, tries=tries, why=trouble[:200])

    async def _send(self, delivery: Delivery, alert: Alert) -> str:
        """What went wrong; "" for nothing."""
        secret = self._office.alerts.secret(alert)
        if secret is None:
            return "its secret was sealed with another key: make the alert anew"
        try:
            base, path = check_url(alert.url, private=self._settings.private)
        except Problem as problem:
            return problem.message
        body = msgspec.json.encode({"id": delivery.id, **delivery.body})
        header = (HEADER, sign(secret, int(self._clock()), body))
        timeout_s = self._settings.timeout_s
        host = Host(
            "alert", "", base_url=base, connect_s=timeout_s, first_s=timeout_s, gap_s=timeout_s, total_s=timeout_s
        )
        heard = _Heard()
        self._transport.send(host, Outbound(path, body, headers=(header,)), heard)
        end = await heard.over
        if heard.status:
            return "" if 200 <= heard.status < 300 else f"status {heard.status}"
        return (end.detail or end.message) if end is not None else "no answer"


def available(balance: Balance) -> int:
    """Pico-units that may be used now; below zero: owed."""
    return balance.granted_pico + balance.topped_up_pico + balance.post_paid_pico - balance.held_pico


def _delivery(alert: Alert, account: Account, about: str, amount_pico: int, now: float) -> Delivery:
    body = {
        "alert": alert.id,
        "kind": alert.kind,
        "account": account.name,
        "currency": alert.currency,
        "threshold": signed(alert.threshold_pico),
        "amount": signed(amount_pico),
        "at": int(now),
    }
    return Delivery(f"msg_{os.urandom(12).hex()}", alert.id, body, 0, now, "", now)


class _Heard:
    """A Sink that wants the status only."""

    def __init__(self) -> None:
        self.status = 0
        self.over: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Headers) -> None:
        self.status = status

    def data(self, chunk: bytes) -> None: ...

    def alive(self) -> None: ...

    def end(self, problem: Problem | None) -> None:
        self.over.set_result(problem)
