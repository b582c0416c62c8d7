"""Where do the words of the embedded model's process go? Into a file of bounded size, and the last stay at hand.

Rules: only the owner may read the file; a disk that is full costs the file, never the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from pathlib import Path
from typing import Any, Final

LOG_BYTES_MAX: Final = 1 << 20
LAST_LINES: Final = 50


class ChildLog:
    """The child's words, in a file of bounded size and the last of them at hand. Line by line, never whole bodies:
    the child is told to say warnings only, so no prompt is among them."""

    def __init__(self, path: Path) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._path = path
        self._file: Any = None
        self._size = 0

    async def follow(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the reader's limit: what came of it is gone
                continue
            if not line:
                return
            self._write(line)

    def note(self, text: str) -> None:
        """A line of our own among the child's."""
        self._write(text.encode() + b"\n")

    def _write(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            return
        self.last.append(text[:500])
        with contextlib.suppress(OSError):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
                self._size = self._file.tell()
            if self._size + len(line) > LOG_BYTES_MAX:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "ab")
                self._size = 0
            self._file.write(line)
            self._file.flush()
            self._size += len(line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
