"""The client's side of an answer, as the relay sees it. One implementation is the server's connection."""

from __future__ import annotations

from typing import Protocol

Fields = list[tuple[str, str]]


class Listener(Protocol):
    """Who is told what happens to the client while an answer runs."""

    def gone(self) -> None:
        """The client closed the connection, or was cut because it stopped reading."""

    def pause(self) -> None:
        """More than the high-water mark is waiting for the client: produce no more for now."""

    def resume(self) -> None: ...

    def probe(self) -> None:
        """The client sent FIN within an answer: it has closed, or only its sending side. Write something that means
        nothing, if there is such a thing here; a client that is gone resets it."""


class Writer(Protocol):
    """Start, write, end; or everything at once with `whole`. After `gone` every call does nothing."""

    def listen(self, listener: Listener | None) -> None: ...

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        """A complete answer with its length. The server adds Date-less standard fields and `x-request-id`."""

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        """The head of an answer whose length is not known (chunked; for HTTP/1.0 until close)."""

    def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The answer is complete; the connection may serve the next request."""

    def cut(self) -> None:
        """The answer cannot be completed: close without the end mark, so that the client sees it is not whole."""
