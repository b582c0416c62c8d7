"""What other processes change, seen soon: a thread with a connection of its own asks for the numbers of `changes`, at
once when the database tells of a change and every POLL_S anyway, because what it tells may be lost.

Rule: what is remembered of the database may be used for TRUST_S after the moment at which it was asked whether anything
had changed, and no longer. Using it renews nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import psycopg

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.state.pglink import PAUSE_FIRST_S, PAUSE_MAX_S, Link, connect

POLL_S: Final = 0.25
TRUST_S: Final = 1.0


class Watch:
    """`refreshes` are what to do when the number of a kind of change is another; use it on one event loop, between
    `start` and `stop`."""

    def __init__(
        self,
        address: str,
        application: str,
        refreshes: Mapping[str, Callable[[], Awaitable[None]]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        poll_s: float = POLL_S,
    ) -> None:
        self._address = address
        self._application = application
        self._refreshes = refreshes
        self._monotonic = monotonic
        self._poll_s = poll_s
        self._known: dict[str, int] = {}
        self._until = float("-inf")
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._link: Link | None = None
        self._stopping = threading.Event()
        self._ended: Later[None] = Later()
        self._task: asyncio.Task[None] | None = None
        self._next: tuple[float, dict[str, int]] | None = None

    def trusted(self) -> bool:
        """May what is remembered be used now?"""
        return self._monotonic() < self._until

    def start(self, known: Mapping[str, int], asked_at: float) -> None:
        """`known` are the numbers when what is remembered was read, or a little before."""
        self._loop = asyncio.get_running_loop()
        self._known = dict(known)
        self._until = asked_at + TRUST_S
        self._stopping.clear()
        self._ended = Later()
        self._thread = threading.Thread(target=self._run, name="moonpool-watch", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        link = self._link
        if link is not None and not link.closed:
            # It waits for news: let it see the end of the connection instead.
            with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(link.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)
        await self._ended
        thread.join()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._until = float("-inf")

    # On the loop

    def _seen(self, asked_at: float, revisions: dict[str, int]) -> None:
        if self._task is not None:
            self._next = asked_at, revisions
        elif revisions == self._known:
            self._until = max(self._until, asked_at + TRUST_S)
        else:
            self._task = self._loop.create_task(self._refresh(asked_at, revisions))

    async def _refresh(self, asked_at: float, revisions: dict[str, int]) -> None:
        """Read anew what changed; only then what is remembered is as new as the numbers."""
        try:
            for what, refresh in self._refreshes.items():
                if revisions.get(what) != self._known.get(what):
                    await refresh()
        except Problem:
            return  # asked again with the next numbers
        else:
            self._known = revisions
            self._until = max(self._until, asked_at + TRUST_S)
        finally:
            self._task = None
        following, self._next = self._next, None
        if following is not None:
            self._seen(*following)

    # In the thread

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.is_set():
            try:
                with connect(self._address, self._application) as link:
                    self._link = link
                    link.autocommit = True
                    link.execute("LISTEN moonpool_changes")
                    pause_s = 0.0
                    self._follow(link)
            except psycopg.Error:
                pause_s = min(max(2 * pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
                self._stopping.wait(pause_s)
        with contextlib.suppress(RuntimeError):  # the loop was closed without `stop`
            self._loop.call_soon_threadsafe(self._ended.set, None)

    def _follow(self, link: Link) -> None:
        while not self._stopping.is_set():
            asked_at = self._monotonic()
            found = dict(link.execute("SELECT what, revision FROM changes").fetchall())
            try:
                self._loop.call_soon_threadsafe(self._seen, asked_at, found)
            except RuntimeError:
                self._stopping.set()
            for _ in link.notifies(timeout=self._poll_s, stop_after=1):
                pass
