"""All that the admin API needs of a database besides keys, people and books, over one thread that writes."""

from __future__ import annotations

from moonpool.state.alerts import AlertStore
from moonpool.state.audit_log import AuditLog
from moonpool.state.base_admin import Office
from moonpool.state.codes import CodeStore
from moonpool.state.receipts import ReceiptReader
from moonpool.state.thread import Jobs


def office(thread: Jobs) -> Office:
    return Office(AuditLog(thread), CodeStore(thread), ReceiptReader(thread), AlertStore(thread))
