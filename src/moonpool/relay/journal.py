"""One line of JSON for each request, and for what operators must know; never a prompt, never a secret.

Lines are collected in memory and written by a thread a few times a second, so a slow disk or a blocked pipe does
not stop a request. When more than `LINES_MAX` wait, further lines are dropped and counted (`lost`).
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import msgspec

LINES_MAX: Final = 20_000
FLUSH_S: Final = 0.25


class Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of one request when it is over. Times in seconds; `first_s` and `total_s` are spans."""

    at: float
    event: str
    request: str
    key: str = ""
    account: str = ""
    operation: str = ""
    model: str = ""
    host: str = ""
    stream: bool = False
    status: int = 0
    stage: str = ""
    cause: str = ""
    attempts: int = 0
    prompt_miss: int = 0
    prompt_hit: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False
    first_s: float | None = None
    total_s: float = 0.0
    detail: str = ""
    served_model: str = ""
    """What the host calls the model, where that is another name."""
    continued: int = 0
    answered_model: str = ""
    """What the host said it answered as, where that is yet another name; billed is what was asked for."""
    searches: int = 0


class Journal:
    """`write(line)` costs an append; `note(event, **facts)` is for everything that is no request."""

    def __init__(
        self, out: BinaryIO | None = None, *, requests: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._out = out if out is not None else sys.stderr.buffer
        self._lines: list[Any] = []
        self._requests = requests
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = 0

    def write(self, line: Line) -> None:
        if self._requests:
            self._append(line)

    def note(self, event: str, **facts: Any) -> None:
        self._append({"at": round(self._clock(), 3), "event": event, **facts})

    def fault(self, where: str, error: BaseException) -> None:
        """A mistake of ours: with its traceback, whose frames hold names of code, no values."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.note("fault", where=where, error=type(error).__name__, trace=trace)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2.0)
        self._flush()

    def _append(self, line: Any) -> None:
        if len(self._lines) < LINES_MAX:
            self._lines.append(line)
        else:
            self.lost += 1

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_S):
            self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            self._out.write(msgspec.json.Encoder().encode_lines(lines))
            self._out.flush()
        except (OSError, ValueError):
            self.lost += len(lines)
