"""What a simulated process stands on: time, a disk and a network that are made from a seed.

Real is all that decides: the App as it starts, its data plane, path, limiter, books, keys, pulse, and SQLite itself.
Simulated is what a machine gives it: the event loop's clock, the thread that writes, the disk's moods, the host. A
process that crashes is left where it stands; its database is as the last transaction that was committed left it.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from faults.stage import DONE, MODEL, ROLE, event, last, whole_body
from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.state.file import SqliteDatabase
from moonpool.state.thread import Done, _into
from moonpool.words import Host, Outbound

TEXT = "abcdefgh " * 4


class Crashed(KeyboardInterrupt):
    """The process is gone. Of this kind, because a loop lets no other out of a callback."""


class Time:
    """Unix seconds, the same for all processes of one world; it stands in for the module `time` where that is asked."""

    def __init__(self, at: float) -> None:
        self.at = at

    def time(self) -> float:
        return self.at

    monotonic = time


class _Idle(selectors.SelectSelector):
    """Instead of waiting for sockets, of which there are none, time passes."""

    def __init__(self, now: Time) -> None:
        super().__init__()
        self._now = now

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self._now.at += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes at once. It may be abandoned; it owns nothing of the system."""

    def __init__(self, now: Time) -> None:
        self._now = now
        super().__init__(_Idle(now))
        self._clock_resolution = 1e-6  # Unix seconds as floats are no finer

    def time(self) -> float:
        return self._now.at

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass

    def __del__(self) -> None:
        pass


class Disk:
    """One database, which outlives its processes. `sick(text, ran)` gives an error for a statement, or None; it is
    asked before and after it `ran`. `dies(text)` says whether the process dies right before it; each job of the
    thread takes `slow_s` longer."""

    def __init__(self, image: bytes) -> None:
        self.sick: Callable[[str, bool], Exception | None] = lambda text, ran: None
        self.dies: Callable[[str], bool] = lambda text: False
        self.slow_s = 0.0
        self.engine: Engine | None = None
        disk = self

        class Cursor(sqlite3.Cursor):
            def execute(self, text: str, values: Any = ()) -> Cursor:
                if disk.dies(text):
                    raise Crashed
                for ran in (False, True):
                    error = disk.sick(text, ran)
                    if error is not None:
                        raise error
                    if not ran:
                        super().execute(text, values)
                return self

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = None) -> Any:
                return super().cursor(Cursor)

            def close(self) -> None:
                """What SQLAlchemy does with a connection that failed; here the file would be gone with it."""
                disk.reset()

        self.connection = sqlite3.connect(":memory:", isolation_level=None, factory=Connection, cached_statements=256)
        self.connection.deserialize(image)

    def reset(self) -> None:
        """What a new process finds."""
        if self.connection.in_transaction:
            self.connection.rollback()


class _Opened(SqliteDatabase):
    """The product's own, over a connection that is there already."""

    def __init__(self, disk: Disk) -> None:
        self.connection = disk.connection
        self.cursor = disk.connection.cursor()
        self._engine = disk.engine  # what it has compiled outlives a process here: that is slow
        disk.engine = self.engine
        self.commits = self.rows = 0

    def guard(self) -> None:
        self.commits = self.rows = 0

    def discard(self) -> None:
        pass


class SimulatedThread:
    """A WriterThread whose jobs take time, and are done one after another on the loop. A job is done in an instant, at
    the end of its time; the answer comes a moment later, and a crash may come between."""

    def __init__(self, disk: Disk, loop: VirtualLoop, chance: random.Random) -> None:
        self._disk, self._loop, self._chance = disk, loop, chance
        self._jobs: deque[tuple[Callable[[Any], Any], Done]] = deque()
        self._database: _Opened | None = None
        self._busy = False
        self._closed = False

    async def start(self) -> None:
        self._database = _Opened(self._disk)

    def submit(self, work: Callable[[Any], Any], done: Done) -> None:
        if self._closed:
            self._loop.call_soon(done, None, Problem("platform.storage", detail="the store is closed"))
            return
        self._jobs.append((work, done))
        if not self._busy:
            self._busy = True
            self._loop.call_later(self._span_s(), self._run)

    def call(self, work: Callable[[Any], Any]) -> Later[Any]:
        later: Later[Any] = Later()
        self.submit(work, _into(later))
        return later

    async def stop(self) -> None:
        if not self._closed and self._database is not None:
            await self.call(lambda database: None)
        self._closed = True

    def _span_s(self) -> float:
        return self._chance.uniform(0.0005, 0.005) + self._disk.slow_s

    def _run(self) -> None:
        database = self._database
        assert database is not None
        work, done = self._jobs.popleft()
        result, error = None, None
        try:
            result = work(database)
        except Exception as caught:
            error = caught
            if self._disk.connection.in_transaction:
                self._disk.connection.rollback()
        self._loop.call_later(self._chance.uniform(0.0, 0.001), done, result, error)
        if self._jobs:
            self._loop.call_later(self._span_s(), self._run)
        else:
            self._busy = False


class Dispatch:
    """What the host was asked and what it issued: (time, characters so far); `usage` once it said it."""

    def __init__(self, stream: bool) -> None:
        self.stream = stream
        self.issued: list[tuple[float, int]] = []
        self.usage: dict[str, int] | None = None

    def chars(self, until: float) -> int:
        return max((chars for at, chars in self.issued if at <= until), default=0)


class SimulatedHost:
    """A transport with a host behind it that answers as chance has it, and its own book of what it issued."""

    def __init__(self, now: Time, chance: random.Random) -> None:
        self._now, self._chance = now, chance
        self.loop: VirtualLoop
        self.seen: dict[str, list[Dispatch]] = {}
        self.running: dict[str, set[Dispatch]] = {}
        self.most: dict[str, int] = {}
        self.calm = False

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def tick(self) -> None: ...

    def send(self, host: Host, outbound: Outbound, sink: Any) -> Any:
        asked = json.loads(outbound.body)
        name = asked["user"]
        account = name.partition("/")[0]
        dispatch = Dispatch(bool(asked.get("stream")))
        self.seen.setdefault(name, []).append(dispatch)
        there = self.running.setdefault(account, set())
        there.add(dispatch)
        self.most[account] = max(self.most.get(account, 0), len(there))
        inbound = _Inbound(self.loop, lambda: there.discard(dispatch))
        self._play(dispatch, inbound, sink, asked.get("max_tokens", 4096))
        return inbound

    def _play(self, dispatch: Dispatch, inbound: _Inbound, sink: Any, tokens_max: int) -> None:
        chance = self._chance
        mood = "good" if self.calm else chance.choices(
            ("good", "refused", "cut", "stalls", "uncounted", "unreachable"), (70, 6, 9, 4, 6, 5)
        )[0]  # fmt: skip
        pieces = chance.choice((1, 3, 8, 30))
        pace_s = chance.choice((0.0, 0.05, 0.5, 3.0))
        at = chance.uniform(0.05, 2.0)
        # Now and then a host counts more than was set aside (case 81).
        excess = tokens_max * 3 if not self.calm and chance.random() < 0.02 else chance.randrange(9)
        usage = {
            "prompt_tokens": 30,
            "prompt_cache_hit_tokens": 10,
            "prompt_cache_miss_tokens": 20,
            "completion_tokens": -(-3 * pieces * len(TEXT) // 10) + excess,
        }
        usage["total_tokens"] = 30 + usage["completion_tokens"]
        end = inbound.end(sink)
        if mood == "unreachable":
            inbound.later(at, end, Problem("upstream.unreachable"))
            return
        status = 503 if mood == "refused" else 200
        inbound.later(at, sink.head, status, {"content-type": "text/event-stream"})
        if mood == "refused":
            inbound.later(at, sink.data, b'{"error": {"message": "busy", "type": "t", "code": "c"}}')
            inbound.later(at, end, None)
            return
        if not dispatch.stream:
            at += pace_s * pieces
            inbound.later(at, self._counted, dispatch, usage)
            inbound.later(at, sink.data, whole_body(TEXT * pieces, usage))
            inbound.later(at, end, None)
            return
        inbound.later(at, sink.data, ROLE)
        stop = chance.randrange(pieces + 1) if mood in {"cut", "stalls"} else pieces
        for piece in range(stop):
            at += pace_s
            inbound.later(at, self._issue, dispatch, (piece + 1) * len(TEXT))
            inbound.later(at, sink.data, event({"content": TEXT}))
        if mood in {"cut", "stalls"}:
            broken = "upstream.cut" if mood == "cut" else "upstream.timeout"
            inbound.later(at + (0.1 if mood == "cut" else 60.0), end, Problem(broken))
            return
        if mood != "uncounted":
            inbound.later(at, self._counted, dispatch, usage)
        inbound.later(at, sink.data, last(None if mood == "uncounted" else usage) + DONE)
        inbound.later(at, end, None)

    def _issue(self, dispatch: Dispatch, chars: int) -> None:
        dispatch.issued.append((self._now.at, chars))

    def _counted(self, dispatch: Dispatch, usage: dict[str, int]) -> None:
        dispatch.usage = usage


class _Inbound:
    """An answer under way: its steps are timers that fall away when it is closed."""

    def __init__(self, loop: VirtualLoop, over: Callable[[], None]) -> None:
        self._loop, self._over = loop, over
        self._open = True
        self._last = 0.0

    def later(self, span_s: float, step: Callable[..., Any], *values: Any) -> None:
        # In the order in which they were said, also where they are to come at the same time.
        self._last = max(self._last + 1e-6, span_s)
        self._loop.call_later(self._last, self._step, step, values)

    def _step(self, step: Callable[..., Any], values: tuple[Any, ...]) -> None:
        if self._open:
            step(*values)

    def end(self, sink: Any) -> Callable[[Problem | None], None]:
        def ended(problem: Problem | None) -> None:
            self.close()
            sink.end(problem)

        return ended

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def close(self) -> None:
        self._open = False
        self._over()


def chat(name: str, stream: bool, tokens_max: int) -> bytes:
    return json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say something."}],
            "stream": stream,
            "user": name,
            "max_tokens": tokens_max,
        }
    ).encode()
