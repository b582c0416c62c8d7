"""The vault: memory first, the database (shelf.py) behind it.

Rules:
- Where other processes write to the same database nothing is answered from memory: whether a mark is of one answer
  only, the database alone knows. What is pending is written before it is asked.
- `keep` is a note in memory; it is written a little later, some at a time, as a job behind those of the books. What
  cannot be written is lost to later processes, and to nobody's harm.
- `find` asks the database only for marks of which memory knows nothing, and gives what memory has when that fails.
- Thoughts that another key sealed are unknown; `trouble` says so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection

from moonpool.later import Later
from moonpool.state.base import Thought, VaultBounds
from moonpool.state.sealing import Sealer
from moonpool.state.shelf import CHANCES, Found, Shelf
from moonpool.state.thoughts import MemoryVault
from moonpool.state.thread import WriterThread

WRITE_S: Final = 0.1
_BATCH_MAX: Final = 64
_BATCH_CHARS_MAX: Final = 1_000_000
_PENDING_CHARS_MAX: Final = 32_000_000


class DatabaseVault:
    """Vault. `shared`: over a database that other processes use too; `chance` makes numbers that they do not give.

    All methods are called on the event loop; none blocks it."""

    def __init__(
        self,
        thread: WriterThread,
        sealer: Sealer,
        bounds: VaultBounds,
        *,
        shared: bool = False,
        chance: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._thread = thread
        self._bounds = bounds
        self._shared = shared
        self._memory = MemoryVault(replace(bounds, memory_bytes_max=0) if shared else bounds)
        self._shelf = Shelf(sealer, bounds, shared, chance(CHANCES))
        self._pending: deque[tuple[Thought, float]] = deque()
        self._pending_chars = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0  # jobs that write
        self._idle: Later[None] | None = None
        self._open = False
        self.lost = 0
        """How many thoughts could not be written."""

    def load(self, connection: Connection) -> None:
        """In the writer thread, before `start`."""
        self._shelf.load(connection)

    def start(self) -> None:
        self._open = True

    async def stop(self) -> None:
        """Write what is pending, if that can be done."""
        self._open = False
        await self.written()

    async def written(self) -> None:
        """Write what is pending now, and wait for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._pending:
            self._submit()
        if self._running:
            self._idle = Later()
            await self._idle

    @property
    def rows(self) -> int:
        """How many thoughts are in the database, as far as was written."""
        return self._shelf.rows

    def status(self) -> dict[str, Any]:
        """For people: thoughts that are stored, that could not be written, and what is wrong, if something is."""
        return {"stored": self.rows, "lost": self.lost, "trouble": self.trouble}

    @property
    def trouble(self) -> str | None:
        """Why something that is stored is unknown all the same, in a sentence."""
        if not self._shelf.unreadable:
            return None
        return (
            "remembered reasoning was sealed with another key and cannot be read: was vault.key lost or changed? "
            "It counts as unknown, and goes when its time is over"
        )

    def find(self, account: str, marks: Collection[bytes], now: float) -> Later[dict[bytes, str]]:
        later: Later[dict[bytes, str]] = Later()
        found, unknown = self._memory.look(account, marks, now)
        if self._shared:
            while self._pending and self._open:
                self._submit()
        if not unknown or not self._stored() or not self._open:
            later.set(found)
        else:
            done = partial(self._read, later, account, found)
            self._thread.submit(partial(self._shelf.read, account, unknown, now), done)
        return later

    def _stored(self) -> bool:
        """May anything be in the database?"""
        return self._shared or self._shelf.uncounted or self._shelf.rows > 0

    def keep(self, thought: Thought, now: float) -> None:
        self._memory.keep(thought, now)
        chars = len(thought.reasoning)
        if not self._open or self._pending_chars + chars > _PENDING_CHARS_MAX:
            self.lost += 1
            return
        self._pending.append((thought, now + self._bounds.ttl_s))
        self._pending_chars += chars
        if self._timer is None and not self._running:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._write)

    def sweep(self, now: float) -> None:
        self._memory.sweep(now)
        self._swept(now, True, None)

    def _swept(self, now: float, more: Any, error: Exception | None) -> None:
        """Go on while more is left. What failed is tried again when `sweep` comes again."""
        if more and error is None and self._stored() and self._open:
            self._thread.submit(partial(self._shelf.sweep, now), partial(self._swept, now))

    def _read(
        self, later: Later[dict[bytes, str]], account: str, found: dict[bytes, str], result: Any, error: object
    ) -> None:
        thoughts: list[Found] = result or []
        for each in thoughts:
            self._memory.recall(account, each.marks, each.reasoning, each.expires_at)
            found.update(dict.fromkeys(each.marks, each.reasoning))
        later.set(found)

    def _write(self) -> None:
        self._timer = None
        if self._pending and not self._running:
            self._submit()

    def _submit(self) -> None:
        """Hand over some of what is pending."""
        batch: list[tuple[Thought, float]] = []
        chars = 0
        while self._pending and len(batch) < _BATCH_MAX and chars < _BATCH_CHARS_MAX:
            batch.append(self._pending.popleft())
            chars += len(batch[-1][0].reasoning)
        self._pending_chars -= chars
        self._running += 1
        self._thread.submit(partial(self._shelf.write, batch), partial(self._written, len(batch)))

    def _written(self, count: int, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.lost += count
        for account, mark in result or ():
            self._memory.share(account, mark)
        self._running -= 1
        if self._running:
            return
        if self._pending and self._open and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self._write)
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.set(None)
