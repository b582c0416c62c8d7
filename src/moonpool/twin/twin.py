"""A provider that listens on a port: made, started, asked what it saw, stopped.

For tests: `async with Twin("...") as twin:` on the running loop, or `with threaded(Twin("...")) as twin:` where the
program under test blocks; port 0, `twin.base_url` for a client, `twin.served` for what happened. The command
`moonpool twin` runs the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import uvloop

from moonpool.dialects import DIALECTS
from moonpool.errors import Problem
from moonpool.relay.reply import JSON
from moonpool.settings import ConfigError, Settings
from moonpool.twin import answers, faults
from moonpool.twin.accounts import Accounts
from moonpool.twin.backend import Backend, EmbeddedModel, Transcripts
from moonpool.twin.faults import Fault, Faults
from moonpool.twin.log import Lines, Served, line
from moonpool.twin.providers import dialect_of, find, parts
from moonpool.twin.request import Request
from moonpool.twin.service import Service
from moonpool.web.answer import Exchange
from moonpool.web.listener import Server
from moonpool.web.protocol import Limits
from moonpool.words import Arrival

BODY_BYTES_MAX: Final = 48 * 1024 * 1024
LOG_PATH: Final = "/twin/log"
TRANSCRIPTS: Final = "transcripts"
EMBEDDED: Final = "embedded"


class Twin:
    """One provider. `names` are more names of its first model; `faults` is a script's path, or rows as they stand in
    one (or `Fault`s); `model` is `transcripts`, `transcripts:FOLDER` or `embedded`; `concurrency` replaces the
    provider's limit per account and model; `at` (Unix seconds) plays another day; `log` gets a line of JSON for each
    request that is over. `weights` and `home` are for the embedded model. Raises ConfigError.
    """

    def __init__(
        self,
        provider: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Path | str | Iterable[Fault | Mapping[str, Any]] | None = None,
        names: Sequence[str] = (),
        model: str = TRANSCRIPTS,
        seed: int | None = None,
        concurrency: int | None = None,
        at: float | None = None,
        log: BinaryIO | None = None,
        log_content: bool = False,
        weights: Path | None = None,
        home: Path | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = provider
        self.provider = find(provider)
        self.host = host
        self.port = port
        began = clock()
        day = began if at is None else at
        found = parts(provider, day, names)
        first = next(iter(found.values()))
        dialect = DIALECTS[dialect_of(first)]
        script = _script(faults, seed)
        self._backend: Backend
        if model == EMBEDDED:
            if weights is None or home is None:
                raise ConfigError("", "model", "embedded needs `weights` and `home`.")
            self._backend = EmbeddedModel(weights, home, settings or Settings())
        else:
            kind, _, folder = model.partition(":")
            if kind != TRANSCRIPTS:
                raise ConfigError("", "model", f"{model!r} is not known; there is: transcripts[:FOLDER], embedded.")
            own = answers.load(Path(folder), dialect, first.model.targets[0]) if folder else []
            self._backend = Transcripts(answers.Answers(own, script.seed))
        self.accounts = Accounts(self.provider, concurrency)
        self._lines = Lines(log)
        self._service = Service(
            self.provider,
            dialect,
            found,
            self.accounts,
            script,
            self._backend,
            clock=(lambda: day + (clock() - began)) if at is not None else clock,
            over=self._over,
            seed=script.seed,
            content=log_content,
        )
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._server: Server | None = None
        self.faults_of_ours: list[BaseException] = []

    # For those who ask.

    @property
    def served(self) -> list[Served]:
        """What came, oldest first; those that run are among them."""
        return self._service.served

    @property
    def models(self) -> list[str]:
        """The names in its list."""
        return [name for name, part in self._service.parts.items() if part.listed]

    @property
    def address(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What a program takes for the provider's base URL."""
        return self.address + self.provider.base

    def summary(self) -> dict[str, Any]:
        """What there was in all (log.Totals)."""
        return self._service.totals.page(self.accounts.peaks)

    async def until(self, seen: Callable[[], object], deadline_s: float = 10.0) -> None:
        """Until something is so; looked at whenever a request has come or is over. Raises TimeoutError."""
        if seen():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seen, future))
        async with asyncio.timeout(deadline_s):
            await future

    # Life.

    async def start(self) -> None:
        """Listen. Raises OSError: the port is taken."""
        await self._backend.start()
        await self.up()

    async def up(self) -> None:
        """Listen again, on the port that it had."""
        server = Server(self._handle, self._render, self._fault, limits=Limits(body_bytes_max=BODY_BYTES_MAX))
        self.port = await server.start(self.host, self.port)
        self._server = server

    async def down(self) -> None:
        """Be gone: the port is closed and so is every connection; what was served is still known."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def stop(self) -> None:
        await self.down()
        self._lines.write({"summary": self.summary()})
        await self._backend.stop()

    async def __aenter__(self) -> Twin:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # What the server asks.

    def _handle(self, arrival: Arrival, exchange: Exchange) -> None:
        if arrival.path == LOG_PATH and arrival.method == "GET":
            page = {**self.summary(), "served": [line(served) for served in self.served]}
            exchange.whole(200, JSON, [], msgspec.json.encode(page))
            return
        Request(self._service, arrival, exchange).run()
        self._look()

    def _render(self, problem: Problem) -> bytes:
        return self._service.dialect.render_problem(problem, in_stream=False)

    def _fault(self, error: BaseException, request_id: str) -> None:
        """A mistake of the twin's own: kept, so that a test sees it."""
        self.faults_of_ours.append(error)

    def _over(self, served: Served) -> None:
        self._lines.write(line(served))
        self._look()

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for seen, future in waiting:
            if future.done():
                continue
            if seen():
                future.set_result(None)
            else:
                self._waiting.append((seen, future))


def _script(said: Path | str | Iterable[Fault | Mapping[str, Any]] | None, seed: int | None) -> Faults:
    if said is None:
        return Faults((), seed or 0)
    if isinstance(said, Path | str):
        return faults.load(Path(said), seed)
    rows = [row if isinstance(row, Fault) else faults.read_row(dict(row)) for row in said]
    return Faults(rows, seed or 0)


@contextlib.contextmanager
def threaded(twin: Twin) -> Iterator[Twin]:
    """Run it on a loop of its own in a thread. What it served may be read meanwhile, `until` is not for this."""
    ready = threading.Event()
    found: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def live() -> None:
        stopping = asyncio.Event()
        async with twin:
            found.append((asyncio.get_running_loop(), stopping))
            ready.set()
            await stopping.wait()

    with ThreadPoolExecutor(1, "twin") as pool:
        running = pool.submit(lambda: uvloop.run(live()))
        running.add_done_callback(lambda _: ready.set())
        ready.wait()
        if not found:
            running.result()
        try:
            yield twin
        finally:
            loop, stopping = found[0]
            loop.call_soon_threadsafe(stopping.set)
            running.result()


def run(twin: Twin, announce: Callable[[Twin], None]) -> int:
    """Until SIGINT or SIGTERM; `announce` is called once, when it listens. Returns the exit code."""

    async def live() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopping.set)
        async with twin:
            announce(twin)
            await stopping.wait()

    uvloop.run(live())
    return 0
