"""Does the event loop turn? Everything a request needs runs on it, so when one thing on it takes too long, everybody
waits, and nothing on the loop can say so. A thread looks instead, and tells where the loop stood.

Source: RELIABILITY case 74.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

LOOK_S: Final = 0.25
LATE_S: Final = 1.0
"""Longer than this without a turn is told: people notice, and keep-alives come late."""
RECENT_S: Final = 5.0
"""So long after such a pause the server says that it is not well."""


class Watchdog:
    """`beat` is called on the loop every LOOK_S, `look` by the thread as often; times are monotonic seconds.
    `stalls` and `stalled_s` are what was seen since the start."""

    def __init__(self, note: Callable[..., None], stack: Callable[[], str] | None = None) -> None:
        """`note(event, **facts)` must be one that any thread may call. `stack` gives the loop's stack as text; else it
        is that of the thread that calls `start`."""
        self._note = note
        self._stack = stack
        self._beat_at = self._looked_at = 0.0
        self._stalled_at = 0.0
        self._turned_at = float("-inf")
        self._last_s = 0.0
        self._over = threading.Event()
        self.stalls = 0
        self.stalled_s = 0.0

    def start(self) -> None:
        """Begin to look. Called on the loop."""
        if self._stack is None:
            self._stack = _stack_of(threading.get_ident())
        self._beat_at = self._looked_at = time.monotonic()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def beat(self, now: float) -> None:
        """The loop turns."""
        self._beat_at = now
        if self._stalled_at:
            self._last_s = now - self._stalled_at
            self._stalled_at, self._turned_at = 0.0, now
            self.stalled_s += self._last_s
            self._note("loop turns again", stood_s=round(self._last_s, 1))

    def look(self, now: float) -> None:
        """Tell of a loop that stands still, once. Whoever could not look itself, because the whole process stood still,
        has seen nothing."""
        looked_at, self._looked_at = self._looked_at, now
        if now - looked_at > LATE_S:
            return
        beat_at = self._beat_at
        if now - beat_at > LATE_S and not self._stalled_at:
            self._stalled_at = beat_at
            self.stalls += 1
            assert self._stack is not None
            self._note("loop stands still", since_s=round(now - beat_at, 1), trace=self._stack())

    def trouble(self, now: float) -> str | None:
        """A sentence for RECENT_S after it stood still. Asked on the loop, so never while it does."""
        if now - self._turned_at < RECENT_S:
            return f"the event loop stood still for {self._last_s:.1f} s; the log says where"
        return None

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self.look(time.monotonic())


def _stack_of(thread: int) -> Callable[[], str]:
    """Names of files and functions, and lines of code; no values."""

    def stack() -> str:
        frame: Any = sys._current_frames().get(thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    return stack
