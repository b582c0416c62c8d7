"""Whom to tell when money reaches a threshold. What is told, and when, is `web/alarms.py`."""

from __future__ import annotations

import os
from typing import Final

from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.state.base_admin import Alert, Delivery
from moonpool.web.addresses import check_url
from moonpool.web.admin.accounts import CREDIT_PICO_MAX, pico, signed
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import Gone
from moonpool.web.admin.types_money import AlertRow, AlertSecret, DeliveryRow, NewAlert

ALERTS_MAX: Final = 20
PREFIX: Final = "mp-hook-"
_SHOWN: Final = 100


def _row(alert: Alert) -> AlertRow:
    return AlertRow(
        id=alert.id,
        kind=alert.kind,
        threshold=signed(alert.threshold_pico),
        currency=alert.currency,
        url=alert.url,
        created_at=int(alert.created_at),
        told_of=alert.fired_for,
    )


async def list_alerts(desk: Desk, ask: Ask) -> Answer:
    """The account's alerts; never a secret."""
    return 200, {"data": [_row(alert) for alert in await desk.office.alerts.list(ask.about().id)]}


async def create_alert(desk: Desk, ask: Ask) -> Answer:
    """A new alert; the secret that its messages are signed with is in this answer and nowhere else."""
    new, account = ask.body, ask.about()
    assert isinstance(new, NewAlert)
    check_url(new.url, private=desk.settings.alerts.private)
    threshold_pico = pico("threshold", new.threshold, CREDIT_PICO_MAX)
    if len(await desk.office.alerts.list(account.id)) >= ALERTS_MAX:
        raise Problem("caller.invalid_value", f"An account has at most {ALERTS_MAX} alerts.")
    alert_id, secret = key_rules.make(os.urandom, PREFIX)
    alert = Alert(alert_id, account.id, new.kind, threshold_pico, new.currency, new.url, b"", desk.clock())
    await ask.log(
        desk, alert.id, account=account.name, kind=alert.kind, threshold=new.threshold, currency=new.currency,
        url=new.url,
    )  # fmt: skip
    await desk.office.alerts.save(alert, secret)
    return 201, AlertSecret(alert.id, secret)


async def delete_alert(desk: Desk, ask: Ask) -> Answer:
    """Delete an alert, and what is still to be told of it."""
    account, alert_id = ask.about(), ask.names["id"]
    await _find(desk, ask)
    await ask.log(desk, alert_id, account=account.name)
    if not await desk.office.alerts.delete(account.id, alert_id):
        raise Problem("caller.not_found")
    return 200, Gone(alert_id, True)


async def _find(desk: Desk, ask: Ask) -> Alert:
    for alert in await desk.office.alerts.list(ask.about().id):
        if alert.id == ask.names["id"]:
            return alert
    raise Problem("caller.not_found")


def _delivery_row(delivery: Delivery) -> DeliveryRow:
    return DeliveryRow(
        id=delivery.id,
        body=dict(delivery.body),
        tries=delivery.tries,
        trouble=delivery.trouble,
        created_at=int(delivery.created_at),
        next_at=None if delivery.done_at is not None else int(delivery.next_at),
        done_at=None if delivery.done_at is None else int(delivery.done_at),
    )


async def list_deliveries(desk: Desk, ask: Ask) -> Answer:
    """What was told, newest first, and what became of it."""
    found = await desk.office.alerts.deliveries((await _find(desk, ask)).id, _SHOWN)
    return 200, {"data": [_delivery_row(delivery) for delivery in found]}


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/accounts/{name}/alerts", list_alerts, "List whom to tell of an account's money.", AlertRow,
        many=True, who="member", about="path",
    ),
    Route(
        "POST", "/accounts/{name}/alerts", create_alert, "Have a message sent when money reaches a threshold.",
        AlertSecret, status=201, who="owner", about="path", body=NewAlert,
    ),
    Route(
        "DELETE", "/accounts/{name}/alerts/{id}", delete_alert, "Delete an alert.", Gone, who="owner", about="path",
    ),
    Route(
        "GET", "/accounts/{name}/alerts/{id}/deliveries", list_deliveries, "List an alert's messages.", DeliveryRow,
        many=True, who="member", about="path",
    ),
)  # fmt: skip
