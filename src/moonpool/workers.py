"""How `moonpool serve` runs: in this process, or (`--workers N`) in N that this one looks after.

Rules for several:
- Workers share nothing but the port (each has a listening socket of its own, the kernel spreads clients over them), the
  database and the store of limits. Any of them may die; the others go on, and it is started again, after a pause that
  grows while it keeps dying.
- The first worker starts alone: it migrates, makes what a first start makes, says where the server is and owns the
  socket for commands. If it cannot start, nothing does, and its exit code is ours.
- SIGTERM or SIGINT is passed on, and the end of all is waited for; workers that take longer than they may are killed.
  When this process is killed, they end by themselves, as after SIGTERM.
- Workers are forked from here, so there is no thread and no loop in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import uvloop
from msgspec import Struct
from msgspec.structs import replace

from moonpool.app import App
from moonpool.settings import Settings

DESCRIPTORS_MAX: Final = 65_536
PAUSE_FIRST_S: Final = 0.2
PAUSE_MAX_S: Final = 10.0
LIVED_S: Final = 30.0
GRACE_S: Final = 15.0
"""What a worker may take beyond `edge.drain_s` to end."""
_SIGNALS: Final = frozenset((signal.SIGCHLD, signal.SIGTERM, signal.SIGINT))


class _Place(Struct):
    """A worker's: who runs there since when, and when the next one may."""

    number: int
    pid: int = 0
    since: float = 0.0
    pause_s: float = 0.0
    again_at: float = 0.0


class Worker(Struct, frozen=True):
    """One of several processes that serve (workers.py); the first, 0, does what is done once. `alive` is a descriptor
    that ends with the process that looks after them."""

    number: int
    alive: int


def serve_here(settings: Settings, announce: Callable[[App], None], worker: Worker | None = None) -> int:
    """Run until SIGINT or SIGTERM; `announce` is called once, when the server listens. Returns the exit code."""

    async def run() -> None:
        app = App(settings, worker=worker.number if worker is not None else 0)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopping.set)
        if worker is not None:
            loop.add_reader(worker.alive, stopping.set)
        await app.start()
        # What start-up built stays for ever: the collector need not look at it again, and rarely at the rest.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        announce(app)
        await stopping.wait()
        if worker is not None:
            loop.remove_reader(worker.alive)
        await app.stop()

    raise_descriptor_limit()
    uvloop.run(run())
    return 0


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may have: a stream needs two, and many systems give a program 1024 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings, announce: Callable[[App], None]) -> int:
    """Run until SIGINT or SIGTERM; `announce` is called once, when the server listens. Returns the exit code; in a
    worker it returns too, with the worker's. Raises what `App.start` raises."""
    if settings.workers == 1:
        return serve_here(settings, announce)
    with _reserved(settings.host, settings.port) as port:
        return _Supervisor(replace(settings, port=port), announce).run()


class _Supervisor:
    def __init__(self, settings: Settings, announce: Callable[[App], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._places = [_Place(number) for number in range(settings.workers)]
        # Whoever holds the other end learns of our end; of the first worker's start we learn by the second pipe.
        self._alive, self._life = os.pipe()
        self._heard, self._ready = os.pipe()
        os.set_blocking(self._heard, False)
        self._started = False
        self._stopping_at: float | None = None

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while True:
            now = time.monotonic()
            for place in self._places:
                if place.pid == 0 and self._may_start(place, now):
                    place.since = now
                    place.pid = os.fork()
                    if place.pid == 0:
                        return self._work(place.number)
            caught = signal.sigtimedwait(_SIGNALS, 0.05 if not self._started else 0.5)
            if caught is not None and caught.si_signo != signal.SIGCHLD and self._stopping_at is None:
                self._stopping_at = time.monotonic()
                self._tell(signal.SIGTERM)
            code = self._reap()
            if code is not None:
                return code
            self._listen()
            late_s = self._settings.edge.drain_s + GRACE_S
            if self._stopping_at is not None and time.monotonic() > self._stopping_at + late_s:
                self._tell(signal.SIGKILL)

    def _may_start(self, place: _Place, now: float) -> bool:
        if self._stopping_at is not None or now < place.again_at:
            return False
        return self._started or place.number == 0

    def _listen(self) -> None:
        if not self._started:
            with contextlib.suppress(BlockingIOError):
                self._started = bool(os.read(self._heard, 1))

    def _reap(self) -> int | None:
        """See who ended; an exit code when that was the end of all."""
        for place in self._places:
            if place.pid == 0:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid == 0:
                continue
            place.pid = 0
            code = os.waitstatus_to_exitcode(status)
            self._listen()
            if self._stopping_at is not None:
                continue
            if not self._started:
                return code if code > 0 else 1
            now = time.monotonic()
            lived = now - place.since > LIVED_S
            place.pause_s = PAUSE_FIRST_S if lived else min(max(2 * place.pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
            place.again_at = now + place.pause_s
            _note("worker ended", worker=place.number, pid=pid, code=code, again_in_s=place.pause_s)
        return 0 if self._stopping_at is not None and not any(place.pid for place in self._places) else None

    def _tell(self, number: int) -> None:
        for place in self._places:
            if place.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.pid, number)

    def _work(self, number: int) -> int:
        """In the worker."""
        os.close(self._life)
        os.close(self._heard)
        for place in self._places:
            place.pid = 0
        first = number == 0 and not self._started

        def announce(app: App) -> None:
            if first:
                self._announce(app)
                sys.stdout.flush()
            os.write(self._ready, b"1")

        # What came while signals were held back was meant for us as well.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return serve_here(self._settings, announce, Worker(number, self._alive))


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """The port, free and kept so for our workers: nobody who does not share it on purpose can take it. Raises OSError
    where somebody listens there."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        address = probe.getsockname()
    with socket.socket(family, socket.SOCK_STREAM) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(address)
        yield int(address[1])


def _note(event: str, **facts: object) -> None:
    """A line as the journal writes them."""
    line = msgspec.json.encode({"at": round(time.time(), 3), "event": event, **facts})
    with contextlib.suppress(OSError):
        os.write(2, line + b"\n")
