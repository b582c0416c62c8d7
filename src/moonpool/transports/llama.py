"""How bytes reach the embedded model: a supervised child process, and the HTTP client towards it.

Rules: nothing else knows that the model is local. A request that comes while the model loads waits and is sent when it
serves. When the child dies, the answers it was giving end with `platform.model_failed`, it is started again (after 0.2
s, doubling to 10 s), and new requests wait for it. A child that cannot load its model several times in a row is
`failed`: requests are then refused at once, while it is still tried every 10 s. The child ends with us, however we end
(llama_child.py). A child that does not serve within `start_s` is ended and counts as one that could not. It is only
ever ended by its own process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from moonpool.errors import Problem
from moonpool.transports import llama_child
from moonpool.transports.base import Inbound, Sink, Transport
from moonpool.transports.llama_log import ChildLog
from moonpool.words import Headers, Host, Outbound

State = Literal["absent", "loading", "ready", "restarting", "failed", "stopped"]

BACKOFF_MAX_S: Final = 10.0
LIVED_S: Final = 5.0
FAILURES_MAX: Final = 5
LOOK_EVERY_S: Final = 1.0
RETRIES_MAX: Final = 20
RETRY_S: Final = 0.05
# A request that was sent to a child in its last moments, unheard: it was new, and goes to the next child.
FRESH_S: Final = 1.0
STOP_S: Final = 2.0


class Embedded(Struct, frozen=True):
    """`weights`: the GGUF file; `log`: where the child's own words go, at most 1 MiB and the one before it;
    `context`: tokens of one request; `parallel`: requests at a time; `threads`: 0 for one per core; `backoff_s`: the
    pause after the first death, doubled with each of those that follow; `start_s`: how long a child may load."""

    weights: Path
    log: Path
    context: int = 4096
    parallel: int = 2
    threads: int = 0
    prompt_cache_mib: int = 256
    backoff_s: float = 0.2
    start_s: float = 120.0


class LlamaTransport:
    """A `transports.base.Transport`. `http` is shared and neither started nor stopped here."""

    def __init__(self, http: Transport, embedded: Embedded, *, clock: Callable[[], float] = time.time) -> None:
        self._http = http
        self._embedded = embedded
        self._clock = clock
        self._state: State = "loading" if embedded.weights.exists() else "absent"
        self._since = clock()
        self._process: asyncio.subprocess.Process | None = None
        self._address = ""
        self._key = ""
        self._hosts: dict[str, tuple[Host, Host]] = {}
        self._waiting: list[_Answer] = []
        self._running: set[_Answer] = set()
        self._task: asyncio.Task[None] | None = None
        self._starts = 0
        self._failures = 0
        self._log = ChildLog(embedded.log)

    # What the platform asks.

    @property
    def state(self) -> State:
        return self._state

    def status(self) -> dict[str, Any]:
        """`state`, `since` (Unix seconds), `pid` (None when there is none), `starts`, `waiting`, `running`."""
        return {
            "state": self._state,
            "since": self._since,
            "pid": self.pid,
            "starts": self._starts,
            "waiting": len(self._waiting),
            "running": len(self._running),
        }

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def last_lines(self) -> list[str]:
        """The last words of the child, for `doctor`."""
        return list(self._log.last)

    def address(self) -> tuple[str, str]:
        """Base URL and key of the child while it serves; for measuring."""
        return self._address, self._key

    # The protocol of transports.

    async def start(self) -> None:
        """Begin to load the model; returns at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._supervise())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._set("stopped")
        answers = [*self._running, *self._waiting]
        self._waiting.clear()
        self._fail_soon(answers)
        await asyncio.sleep(0)

    def send(self, host: Host, outbound: Outbound, sink: Sink) -> Inbound:
        answer = _Answer(self, host, outbound, sink)
        self.deliver(answer)
        return answer

    # What its answers ask.

    def deliver(self, answer: _Answer) -> None:
        """Send it now, or when the model serves, or refuse it when that will not be."""
        if self._state == "ready":
            self._running.add(answer)
            answer.go(self._http, self._host(answer.host))
        elif self._state in {"loading", "restarting"}:
            self._waiting.append(answer)
        else:
            self._fail_soon([answer])

    def again(self, answer: _Answer) -> None:
        """The child could not be reached: it is dying, and its end will be noticed in a moment."""
        self._running.discard(answer)
        if self._state == "ready":
            asyncio.get_running_loop().call_later(RETRY_S, self._once_more, answer)
        else:
            self.deliver(answer)

    def _once_more(self, answer: _Answer) -> None:
        if not answer.over:
            self.deliver(answer)

    def forget(self, answer: _Answer) -> None:
        self._running.discard(answer)
        if answer in self._waiting:
            self._waiting.remove(answer)

    def _refusal(self) -> Problem:
        if self._state == "stopped":
            return Problem("platform.stopping")
        if self._state == "absent":
            return Problem(
                "platform.model_failed",
                "The embedded model's weights are not here yet.",
                detail=f"there is no file {self._embedded.weights}: `moonpool models pull`",
                retry_after_s=30,
            )
        last = self._log.last[-1] if self._log.last else ""
        return Problem("platform.model_failed", detail=last, retry_after_s=10)

    def _host(self, host: Host) -> Host:
        """`host` as the child is reached now."""
        known = self._hosts.get(host.name)
        if known is not None and known[0] is host:
            return known[1]
        there = msgspec.structs.replace(host, base_url=self._address, api_key=self._key)
        self._hosts[host.name] = (host, there)
        return there

    # The child.

    def _set(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._since = self._clock()

    async def _supervise(self) -> None:
        backoff_s = self._embedded.backoff_s
        try:
            while True:
                if not self._embedded.weights.exists():
                    self._set("absent")
                    self._refuse_waiting()
                    await asyncio.sleep(LOOK_EVERY_S)
                    continue
                if self._state == "absent":
                    self._set("loading")
                lived_s = await self._live()
                if lived_s is None:
                    self._failures += 1
                    if self._failures >= FAILURES_MAX:
                        self._set("failed")
                        self._refuse_waiting()
                else:
                    self._failures = 0
                    if lived_s >= LIVED_S:
                        backoff_s = self._embedded.backoff_s
                await asyncio.sleep(backoff_s)
                backoff_s = min(BACKOFF_MAX_S, 2 * backoff_s)
        finally:
            await self._end_child()
            self._log.close()

    async def _live(self) -> float | None:
        """One life of the child: seconds that it served, None if it never did."""
        embedded = self._embedded
        self._key = secrets.token_hex(24)
        self._hosts.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            llama_child.__name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._process = process
        self._starts += 1
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        wanted = llama_child.Settings(
            model=str(embedded.weights),
            key=self._key,
            parent=os.getpid(),
            context=embedded.context,
            parallel=embedded.parallel,
            threads=embedded.threads,
            prompt_cache_mib=embedded.prompt_cache_mib,
        )
        process.stdin.write(msgspec.json.encode(wanted) + b"\n")
        listening = asyncio.get_running_loop().create_task(self._log.follow(process.stderr))
        try:
            try:
                report = await asyncio.wait_for(process.stdout.readline(), embedded.start_s)
            except TimeoutError:
                self._log.note(f"the model had not loaded after {embedded.start_s:g} s")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                report = b""
            if not report:
                await process.wait()
                await listening
                return None
            self._address = f"http://127.0.0.1:{msgspec.json.decode(report)['port']}"
            served_at = time.monotonic()
            self._failures = 0
            self._set("ready")
            self._send_waiting()
            await process.wait()
            self._set("restarting")
            await listening
            return time.monotonic() - served_at
        finally:
            listening.cancel()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            self.deliver(answer)

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._fail_soon(waiting)

    def _fail_soon(self, answers: list[_Answer]) -> None:
        """Not from within a task: whoever waits for an answer is run by its end, and may be a task itself."""
        for answer in answers:
            asyncio.get_running_loop().call_soon(answer.fail, self._refusal())

    async def _end_child(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Answer:
    """One answer of the child: the inbound of our caller, and the sink of the HTTP client."""

    __slots__ = ("_head", "_inbound", "_owner", "_paused", "_sent_at", "_sink", "_tries", "host", "outbound", "over")

    def __init__(self, owner: LlamaTransport, host: Host, outbound: Outbound, sink: Sink) -> None:
        self.host = host
        self.outbound = outbound
        self.over = False
        self._owner = owner
        self._sink = sink
        self._inbound: Inbound | None = None
        self._paused = False
        self._head = False
        self._tries = 0
        self._sent_at = 0.0

    def go(self, http: Transport, host: Host) -> None:
        self._tries += 1
        self._sent_at = asyncio.get_running_loop().time()
        self._inbound = http.send(host, self.outbound, self)
        if self._paused:
            self._inbound.pause()

    def fail(self, problem: Problem) -> None:
        if not self.over:
            self.close()
            self._sink.end(problem)

    # Our caller's.

    def pause(self) -> None:
        self._paused = True
        if self._inbound is not None:
            self._inbound.pause()

    def resume(self) -> None:
        self._paused = False
        if self._inbound is not None:
            self._inbound.resume()

    def close(self) -> None:
        if not self.over:
            self.over = True
            self._owner.forget(self)
            if self._inbound is not None:
                self._inbound.close()

    # The HTTP client's.

    def head(self, status: int, headers: Headers) -> None:
        self._head = True
        self._sink.head(status, headers)

    def data(self, chunk: bytes) -> None:
        self._sink.data(chunk)

    def alive(self) -> None:
        self._sink.alive()

    def end(self, problem: Problem | None) -> None:
        if self.over:
            return
        if problem is not None:
            code = problem.code
            fresh = asyncio.get_running_loop().time() - self._sent_at < FRESH_S
            lost = code == "upstream.unreachable" or (code == "upstream.cut" and fresh)
            if lost and not self._head and self._tries < RETRIES_MAX:
                self._inbound = None
                self._owner.again(self)
                return
            if code in {"upstream.unreachable", "upstream.cut"}:
                problem = Problem("platform.model_failed", detail=problem.detail or problem.message)
        self.over = True
        self._owner.forget(self)
        self._sink.end(problem)
