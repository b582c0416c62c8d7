"""Where a command does its work: at the running server, else at the store itself.

The server is asked through the UNIX socket in its home. No socket, or nobody behind it, means that no server runs:
then the store is opened here and the very function that the server would have called is called.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from moonpool.app import dialects, open_store, vault_key
from moonpool.catalog.catalog import Catalogue
from moonpool.errors import Problem
from moonpool.relay.offer import Offer
from moonpool.settings import Settings
from moonpool.state.base import Books, Keys, People
from moonpool.state.base_admin import Office
from moonpool.state.base_prices import Overrides
from moonpool.state.base_reports import Reports
from moonpool.transports.http import HttpTransport
from moonpool.web import admin
from moonpool.web.listener import short_address

ASK_S: Final = 60.0


class Refused(Exception):
    """The desk said no: one sentence for the operator."""


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


def ask(settings: Settings, method: str, path: str, body: object = None, **query: str) -> Any:
    """The answer of an admin route (`path` below /admin/v1). Raises Refused."""
    data = b"" if body is None else msgspec.json.encode(body)
    line = urlencode(query)
    answer = _at_the_server(settings.socket_path(), method, path, line, data)
    if answer is None:
        answer = asyncio.run(_alone(settings, method, path, line, data))
    status, page = answer
    if status >= 400:
        raise Refused(page["error"]["message"])
    return page


def server_runs(settings: Settings) -> bool:
    try:
        return _at_the_server(settings.socket_path(), "GET", "/status", "", b"") is not None
    except Refused:
        return False


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_S)
        with short_address(self._path) as address:
            self.sock.connect(address)


def _at_the_server(path: Path, method: str, route: str, query: str, body: bytes) -> tuple[int, Any] | None:
    """None when no server listens at `path`."""
    connection = _Connection(path)
    target = admin.BASE + route + ("?" + query if query else "")
    try:
        connection.request(method, target, body or None, {"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read())
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise Refused(f"The server at {path.parent} belongs to another user: run this as that user.") from None
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise Refused(
            f"The server at {path.parent} does not answer properly: {error or type(error).__name__}."
        ) from None
    finally:
        connection.close()


async def _alone(settings: Settings, method: str, route: str, query: str, body: bytes) -> tuple[int, Any]:
    offer = Offer(settings, dict(os.environ))
    settings.home_path().mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(settings)
    store.office.alerts.seal_with(lambda: vault_key(settings, os.environ))
    transport = HttpTransport(proxies=dict(os.environ))
    try:
        await store.start()
        offer.open(store.kept_rows, store.overrides, leave_out=True)
        await transport.start()
        desk = Alone(
            settings,
            offer.catalogue,
            offer,
            store.books,
            store.keys,
            store.people,
            store.reports,
            store.overrides,
            store.office,
            {"http": transport},
            dialects(),
            time.time,
            _parts,
        )
        return await admin.handle(desk, method, route, query, body)
    except Problem as problem:
        raise Refused(" ".join(filter(None, (problem.message, problem.detail)))) from None
    finally:
        await transport.stop()
        await store.stop()


def _parts() -> Mapping[str, Any]:
    return {"store": "ok", "embedded": None, "connections": {}}
