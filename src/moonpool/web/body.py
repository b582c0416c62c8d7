"""When is the body of a request complete, and what was in it? Pure, incremental, bounded.

Both readers take any slicing of the bytes and come to the same end. Chunks are read as strictly as heads: a size is
one to sixteen hexadecimal digits, a line ends in CRLF and nothing else, extensions and trailers are bounded and
ignored.

Sources: RFC 9112 section 7; RELIABILITY cases 147 and 161.
"""

from __future__ import annotations

import re
from typing import Final

from moonpool.errors import Problem
from moonpool.web.head import HEAD_BYTES_MAX

CHUNK_LINE_BYTES_MAX: Final = 256
EXTENSION_BYTES_MAX: Final = 16 * 1024
"""Of one body: a client cannot make us read much more than it says."""

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t -~\x80-\xff]*+)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+\r\n")


class Sized:
    """A body whose length is known."""

    __slots__ = ("_length", "data", "done")

    def __init__(self, length: int) -> None:
        self._length = length
        self.data = bytearray()
        self.done = length == 0

    def feed(self, buffer: bytes | bytearray, start: int) -> int:
        """Take what belongs to the body from `buffer[start:]`; returns where it stopped."""
        stop = min(len(buffer), start + self._length - len(self.data))
        self.data += buffer if start == 0 and stop == len(buffer) else memoryview(buffer)[start:stop]
        self.done = len(self.data) == self._length
        return stop


class Chunked:
    """A body in chunks, at most `limit` bytes of it.

    Raises Problem `caller.malformed`, or `caller.too_large` as soon as a size says so.
    """

    __slots__ = ("_aside", "_left", "_limit", "_line", "_read", "data", "done")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = 0
        self._aside = 0
        self._line = b""
        self._read = self._size
        self.data = bytearray()
        self.done = False

    def feed(self, buffer: bytes | bytearray, start: int) -> int:
        """Take what belongs to the body from `buffer[start:]`; returns where it stopped."""
        end = len(buffer)
        while start < end and not self.done:
            if self._left:
                stop = min(end, start + self._left)
                self.data += memoryview(buffer)[start:stop]
                self._left -= stop - start
                if not self._left:
                    self._read = self._data_end
            else:
                # A line, of which a part may have come before.
                found = buffer.find(b"\n", start, start + CHUNK_LINE_BYTES_MAX)
                stop = found + 1 if found >= 0 else min(end, start + CHUNK_LINE_BYTES_MAX)
                line = self._line + buffer[start:stop]
                if len(line) > CHUNK_LINE_BYTES_MAX or (found < 0 and len(line) == CHUNK_LINE_BYTES_MAX):
                    raise _malformed()
                if found < 0:
                    self._line = line
                else:
                    self._line = b""
                    self._read(line)
            start = stop
        return start

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise _malformed()
        self._aside += len(match[2] or b"")
        if self._aside > EXTENSION_BYTES_MAX:
            raise _malformed()
        self._left = int(match[1], 16)
        if self._left + len(self.data) > self._limit:
            raise Problem("caller.too_large")
        if not self._left:
            self._read = self._trailer

    def _data_end(self, line: bytes) -> None:
        if line != b"\r\n":
            raise _malformed()
        self._read = self._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._aside += len(line)
        if self._aside > HEAD_BYTES_MAX or _TRAILER.fullmatch(line) is None:
            raise _malformed()


def _malformed() -> Problem:
    return Problem("caller.malformed", "The chunks of the body are malformed.")
