"""The server as a whole, and the log of who changed what."""

from __future__ import annotations

import os
from typing import Final

from moonpool import __version__
from moonpool.errors import Problem
from moonpool.state.base_admin import Logged
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import AuditRow, AuditVerdict
from moonpool.web.ops import unready, warnings

_PAGE: Final = 100
_PAGE_MAX: Final = 1000


async def totals(desk: Desk, _: Ask) -> Answer:
    """Holds by how they ended, and tokens, since the ledger was made."""
    return 200, await desk.books.totals()


async def status(desk: Desk, _: Ask) -> Answer:
    """The process that answers, and what it waits for."""
    page = {
        "version": __version__,
        "pid": os.getpid(),
        "home": str(desk.settings.home),
        "answers_open": len(desk.active),
        "reasons": unready(desk.parts()),
        "warnings": warnings(desk.parts()),
        **desk.parts(),
    }
    return 200, page


def _row(row: Logged) -> AuditRow:
    change = row.change
    return AuditRow(
        seq=row.seq,
        at=change.at,
        actor=change.actor,
        action=change.action,
        target=change.target,
        detail=dict(change.detail),
        hash=row.hash.hex(),
    )


def whole_number(ask: Ask, name: str, default: int, lowest: int, highest: int) -> int:
    """A number of the query. Raises caller.invalid_value."""
    text = ask.query.get(name, str(default))
    if text.isascii() and text.isdecimal() and len(text) <= 18 and lowest <= int(text) <= highest:
        return int(text)
    raise Problem("caller.invalid_value", f"{name} is a whole number from {lowest} to {highest}.", param=name)


async def list_audit(desk: Desk, ask: Ask) -> Answer:
    """Who changed what, newest first; the next page is asked for with `before` = the last `seq` of this one."""
    before = whole_number(ask, "before", 0, 0, 10**18) or None
    rows = await desk.office.audit.page(before, whole_number(ask, "limit", _PAGE, 1, _PAGE_MAX))
    return 200, {"data": [_row(row) for row in rows]}


async def verify_audit(desk: Desk, _: Ask) -> Answer:
    """Whether each row is as it was written, none is missing and none is in another place."""
    found = await desk.office.audit.verify()
    return 200, AuditVerdict(ok=not found.trouble, rows=found.rows, head=found.head, trouble=found.trouble)


ROUTES: Final = (
    Route("GET", "/totals", totals, "What the ledger says in sum.", None),
    Route("GET", "/status", status, "How the server is.", None),
    Route(
        "GET",
        "/audit",
        list_audit,
        "List who changed what, newest first.",
        AuditRow,
        many=True,
        query=("before", "limit"),
    ),
    Route("GET", "/audit/verify", verify_audit, "Check that nobody tampered with that list.", AuditVerdict),
)
