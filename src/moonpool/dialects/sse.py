"""Server-sent events as bytes: one reader that any slicing of the bytes leaves the same, and one writer.

The reader splits at CR, LF and CRLF only (a JSON string may hold U+0085 or U+2028, which `splitlines` would cut),
keeps nothing but the `data` of an event, and holds at most `EVENT_BYTES_MAX` bytes of an unfinished one. The writer
makes one `data:` line per event, in which nothing can be taken for a line's end by anybody.

Sources: the WHATWG standard, section "server-sent events"; PROVIDERS section 6; RELIABILITY 3.6, cases 24 to 26.
"""

from __future__ import annotations

from typing import Final

import msgspec

from moonpool.errors import Problem

EVENT_BYTES_MAX: Final = 1 << 20
DONE: Final = b"data: [DONE]\n\n"
_BOM: Final = b"\xef\xbb\xbf"

dumps: Final = msgspec.json.Encoder().encode


class Events:
    """Reads the events of one stream.

    `feed` gives the data of the events that became complete, each without a line's end in it; events without data
    (comments, `event:` alone) are dropped. `take` gives them as a block, for who looks at it himself. A line or an
    event of more than `bytes_max` bytes ends the reading: what came before it is still given, `broken` then says why
    nothing more will come.
    """

    __slots__ = ("_after_cr", "_bytes_max", "_first", "_rest", "broken")

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.broken: Problem | None = None
        self._rest = bytearray()
        self._bytes_max = bytes_max
        self._first = True
        self._after_cr = False

    @property
    def rest(self) -> bytearray:
        """What came of an event that is not complete; the same object for ever."""
        return self._rest

    def feed(self, data: bytes) -> list[bytes]:
        block = self.take(data)
        values = [data_of(piece) for piece in block[:-2].split(b"\n\n")] if block else []
        return [value for value in values if value is not None]

    def take(self, data: bytes) -> bytes:
        """The events that became complete, as they came but for their line ends: each ends in a blank line."""
        if self.broken is not None:
            return b""
        if self._first:
            data = self._begin(data)
        if self._after_cr or 13 in data:
            data = self._with_newlines(data)
        rest = self._rest
        if rest:
            looked_at = len(rest) - 1
            rest += data
            if rest.find(b"\n\n", looked_at) < 0:
                self._check_rest()
                return b""
            data = bytes(rest)
            rest.clear()
        if not data.endswith(b"\n\n"):
            end = data.rfind(b"\n\n") + 2
            if end == 1:
                end = 0
            rest += data[end:]
            data = data[:end]
        if len(data) > self._bytes_max:
            data = self._bounded(data)
        if len(rest) > self._bytes_max:
            self._check_rest()
        return data

    def finish(self) -> list[bytes]:
        """The bytes are over. Gives the event that no blank line closed, if there is one."""
        if self.broken is not None:
            return []
        value = data_of(bytes(self._rest))
        self._rest.clear()
        return [] if value is None else [value]

    def _bounded(self, block: bytes) -> bytes:
        """What of it comes before an event that is too long."""
        at = 0
        for piece in block.split(b"\n\n"):
            if len(piece) > self._bytes_max and len(piece.strip(b"\n")) > self._bytes_max:
                self._break()
                return block[:at]
            at += len(piece) + 2
        return block

    def _begin(self, data: bytes) -> bytes:
        """Drop a byte order mark at the very start, though it be cut in pieces."""
        data = bytes(self._rest) + data
        self._rest.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._rest += data
            return b""
        self._first = False
        return data.removeprefix(_BOM)

    def _with_newlines(self, data: bytes) -> bytes:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check_rest(self) -> None:
        # A newline at either edge may belong to the blank lines around an event.
        if len(self._rest) > self._bytes_max and len(self._rest.strip(b"\n")) > self._bytes_max:
            self._break()

    def _break(self) -> None:
        self._rest.clear()
        self.broken = Problem("upstream.too_large", detail=f"one event has more than {self._bytes_max} bytes")


def data_of(block: bytes) -> bytes | None:
    """The data of one event, given without the blank line; None if it has none."""
    if block.startswith(b"data: ") and 10 not in block:
        return block[6:]
    values = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            values.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            values.append(b"")
    # The standard joins with a newline. In JSON that is white space, and a blank keeps the event one line.
    return b" ".join(values) if values else None


def safe(raw: bytes) -> bytes:
    """JSON without the line ends that only Unicode knows (U+0085, U+2028, U+2029): as escapes they mean the same.

    Clients that read lines with `str.splitlines` would cut an event there.
    """
    if raw.isascii():
        return raw
    if b"\xe2\x80" in raw:
        raw = raw.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in raw:
        raw = raw.replace(b"\xc2\x85", b"\\u0085")
    return raw


def event(value: object) -> bytes:
    """One event that carries `value` as JSON."""
    return b"data: " + safe(dumps(value)) + b"\n\n"
