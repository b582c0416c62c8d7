"""Where a command does its work: at the running server, else at the store itself.

The server is asked through the UNIX socket in its home. No socket, or nobody behind it, means that no server runs:
then the store is opened here and the very function that the server would have called is called (alone.py).

A command that the server answers imports nothing of the server: that would take longer than all the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from moonpool.settings import Settings
from moonpool.web.local import ADMIN, short_address

ASK_S: Final = 60.0


class Refused(Exception):
    """The desk said no: one sentence for the operator."""


def ask(settings: Settings, method: str, path: str, body: object = None, **query: str) -> Any:
    """The answer of an admin route (`path` below /admin/v1). Raises Refused."""
    data = b"" if body is None else msgspec.json.encode(body)
    line = urlencode(query)
    answer = _at_the_server(settings.socket_path(), method, path, line, data)
    if answer is None:
        with gathering():
            from moonpool.cli.alone import answer_alone
        answer = asyncio.run(answer_alone(settings, method, path, line, data))
    status, page = answer
    if status >= 400:
        raise Refused(page["error"]["message"])
    return page


def server_runs(settings: Settings) -> bool:
    try:
        return _at_the_server(settings.socket_path(), "GET", "/status", "", b"") is not None
    except Refused:
        return False


@contextlib.contextmanager
def gathering() -> Iterator[None]:
    """While all of the server is imported: that makes much and leaves no garbage, and looking for some takes a fifth of
    the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
    target = ADMIN + route + ("?" + query if query else "")
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
