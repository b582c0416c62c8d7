"""Alerts and their messages: who is told what, once, and tried again until it arrives or is given up.

Rule: that an alert fired and its message are one transaction, and of several processes one wins it: `fired_for` is
changed only from what it was read as.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Row, delete, insert, select, update

from moonpool.errors import Problem
from moonpool.state import tables
from moonpool.state.base_admin import Alert, Delivery
from moonpool.state.sealing import Sealer
from moonpool.state.thread import Database, Jobs

_DUE_MAX: Final = 100


class AlertStore:
    """base_admin.Alerts."""

    def __init__(self, thread: Jobs) -> None:
        self._thread = thread
        self._key: Callable[[], str] | None = None
        self._sealer: Sealer | None = None

    def seal_with(self, key: Callable[[], str]) -> None:
        self._key = key

    async def save(self, alert: Alert, secret: str) -> None:
        sealed = self._sealing().seal(alert.account, _marks(alert), secret)
        await self._thread.call(partial(_save, replace(alert, sealed=sealed)))

    def secret(self, alert: Alert) -> str | None:
        return self._sealing().open(alert.account, _marks(alert), alert.sealed)

    def _sealing(self) -> Sealer:
        if self._sealer is None:
            try:
                if self._key is None:
                    raise ValueError("there is none")
                self._sealer = Sealer(self._key())
            except ValueError as error:
                raise Problem("platform.storage", f"No key to seal secrets of alerts with: {error}.") from None
        return self._sealer

    async def list(self, account: str | None = None) -> Sequence[Alert]:
        return await self._thread.call(partial(_list, account))

    async def delete(self, account: str, alert_id: str) -> bool:
        return await self._thread.call(partial(_delete, account, alert_id))

    async def fire(self, alert: Alert, fired_for: str, delivery: Delivery | None) -> bool:
        return await self._thread.call(partial(_fire, alert, fired_for, delivery))

    async def due(self, now: float, lease_s: float) -> Sequence[Delivery]:
        return await self._thread.call(partial(_due, now, lease_s))

    async def tried(self, delivery: Delivery) -> None:
        await self._thread.call(partial(_tried, delivery))

    async def deliveries(self, alert_id: str, limit: int) -> Sequence[Delivery]:
        return await self._thread.call(partial(_deliveries, alert_id, limit))


def _marks(alert: Alert) -> tuple[bytes, ...]:
    return (b"alert", alert.id.encode())


def _save(alert: Alert, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(insert(tables.alerts), {name: getattr(alert, name) for name in alert.__struct_fields__})


def _list(account: str | None, database: Database) -> builtins.list[Alert]:
    alerts = tables.alerts
    wanted = select(alerts).order_by(alerts.c.created_at, alerts.c.id)
    if account is not None:
        wanted = wanted.where(alerts.c.account == account)
    with database.engine.connect() as connection:
        return [_alert(row) for row in connection.execute(wanted)]


def _alert(row: Row[Any]) -> Alert:
    return Alert(
        row.id,
        row.account,
        row.kind,
        row.threshold_pico,
        row.currency,
        row.url,
        bytes(row.sealed),
        row.created_at,
        row.fired_for,
    )


def _delete(account: str, alert_id: str, database: Database) -> bool:
    alerts, deliveries = tables.alerts, tables.deliveries
    with database.engine.begin() as connection:
        gone = connection.execute(delete(alerts).where(alerts.c.id == alert_id, alerts.c.account == account))
        if gone.rowcount:
            connection.execute(delete(deliveries).where(deliveries.c.alert == alert_id))
    return gone.rowcount == 1


def _fire(alert: Alert, fired_for: str, delivery: Delivery | None, database: Database) -> bool:
    alerts = tables.alerts
    with database.engine.begin() as connection:
        won = connection.execute(
            update(alerts)
            .where(alerts.c.id == alert.id, alerts.c.fired_for == alert.fired_for)
            .values(fired_for=fired_for)
        )
        if won.rowcount and delivery is not None:
            connection.execute(insert(tables.deliveries), _delivery_row(delivery))
    return won.rowcount == 1


def _delivery_row(delivery: Delivery) -> dict[str, Any]:
    row = {name: getattr(delivery, name) for name in delivery.__struct_fields__}
    row["body"] = dict(delivery.body)
    return row


def _due(now: float, lease_s: float, database: Database) -> builtins.list[Delivery]:
    deliveries = tables.deliveries
    wanted = (
        select(deliveries)
        .where(deliveries.c.done_at.is_(None), deliveries.c.next_at <= now)
        .order_by(deliveries.c.next_at)
        .limit(_DUE_MAX)
    )
    with database.engine.connect() as connection:
        found = [_delivery(row) for row in connection.execute(wanted)]
    if not found:
        return []
    mine = []
    with database.engine.begin() as connection:
        for each in found:
            taken = connection.execute(
                update(deliveries)
                .where(deliveries.c.id == each.id, deliveries.c.next_at == each.next_at, deliveries.c.done_at.is_(None))
                .values(next_at=now + lease_s)
            )
            if taken.rowcount:
                mine.append(each)
    return mine


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(row.id, row.alert, row.body, row.tries, row.next_at, row.trouble, row.created_at, row.done_at)


def _tried(delivery: Delivery, database: Database) -> None:
    deliveries = tables.deliveries
    with database.engine.begin() as connection:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id == delivery.id)
            .values(
                tries=delivery.tries,
                next_at=delivery.next_at,
                trouble=delivery.trouble,
                done_at=delivery.done_at,
            )
        )


def _deliveries(alert_id: str, limit: int, database: Database) -> builtins.list[Delivery]:
    deliveries = tables.deliveries
    wanted = (
        select(deliveries)
        .where(deliveries.c.alert == alert_id)
        .order_by(deliveries.c.created_at.desc(), deliveries.c.id)
        .limit(limit)
    )
    with database.engine.connect() as connection:
        return [_delivery(row) for row in connection.execute(wanted)]
