"""A wire to PostgreSQL that can be cut: a UNIX socket that passes every connection on to the server's.

`cut_at(what, when)`: the next time a client of the application `who` sends `what`, the connection ends: "before" it
reached the server, or "after" the server has answered it, with the answer lost.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Literal

NAME = ".s.PGSQL.5432"


class Wire:
    """Listens in `folder`; use as a context manager."""

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / NAME))
        self._listener.listen()
        self._cut: tuple[bytes, bytes, Literal["before", "after"]] | None = None
        self.cuts = 0

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, address: str) -> str:
        """The same database, through here."""
        return address.replace(str(self._server), str(self.folder))

    def cut_at(self, who: bytes, what: bytes, when: Literal["before", "after"]) -> None:
        self._cut = who, what, when

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._server / NAME))
        except OSError:
            client.close()
            return
        deaf = threading.Event()
        threading.Thread(target=self._answer, args=(server, client, deaf), daemon=True).start()
        greeting = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                greeting = greeting or data
                cut = self._cut
                if cut is not None and cut[0] in greeting and cut[1] in data:
                    self._cut = None
                    self.cuts += 1
                    if cut[2] == "after":
                        deaf.set()
                        server.sendall(data)
                        deaf.wait()
                        continue  # `_answer` ends both
                    break
                server.sendall(data)
        _end(server, client)

    def _answer(self, server: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if deaf.is_set():
                    break
                client.sendall(data)
        _end(server, client)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
