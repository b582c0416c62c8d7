"""What a command does where no server runs: it opens the store and calls what the server would have called."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from moonpool.app import dialects, open_store, vault_key
from moonpool.catalog.catalog import Catalogue
from moonpool.cli.desk import Refused
from moonpool.errors import Problem
from moonpool.relay.offer import Offer
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys, People
from moonpool.state.base_admin import Office
from moonpool.state.base_prices import Overrides
from moonpool.state.base_reports import Reports
from moonpool.transports.http import HttpTransport
from moonpool.web import admin

if TYPE_CHECKING:
    from moonpool.app import AnyStore


class Alone(Struct, frozen=True):
    """What admin.Desk asks for, when no server runs."""

    settings: Settings
    catalogue: Catalogue
    offer: Offer
    books: Books
    keys: Keys
    people: People
    reports: Reports
    overrides: Overrides
    office: Office
    transports: Mapping[str, Any]
    dialects: Mapping[str, Any]
    clock: Callable[[], float]
    parts: Callable[[], Mapping[str, Any]]
    active: frozenset[Any] = frozenset()


def desk_over(
    store: AnyStore, settings: Settings, offer: Offer, transports: Mapping[str, Any], dialects: Mapping[str, Any]
) -> Alone:
    """Over a store that was started, and a catalogue that was opened over it."""
    return Alone(
        settings,
        offer.catalogue,
        offer,
        store.books,
        store.keys,
        store.people,
        store.reports,
        store.overrides,
        store.office,
        transports,
        dialects,
        time.time,
        _parts,
    )


async def answer_alone(settings: Settings, method: str, route: str, query: str, body: bytes) -> tuple[int, Any]:
    """(status, page) of an admin route. Raises Refused."""
    offer = Offer(settings, dict(os.environ))
    settings.home_path().mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(settings)
    store.office.alerts.seal_with(lambda: vault_key(settings, os.environ))
    transport = HttpTransport(proxies=dict(os.environ))
    try:
        await store.start()
        offer.open(store.kept_rows, store.overrides, leave_out=True)
        await transport.start()
        desk = desk_over(store, settings, offer, {"http": transport}, dialects())
        return await admin.handle(desk, method, route, query, body)
    except Problem as problem:
        raise Refused(" ".join(filter(None, (problem.message, problem.detail)))) from None
    finally:
        await transport.stop()
        await store.stop()


def _parts() -> Mapping[str, Any]:
    return {"store": "ok", "embedded": None, "connections": {}}
