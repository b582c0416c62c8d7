"""How bytes reach a host and come back over HTTP/1.1: our own client.

A gateway is its upstream leg, so this one is ours: it pushes (base.py), it has a connection for each answer under
way and none of them is ever lost by a cancellation, it looks at deadlines with one coarse ticker, and it hands
on a read as one call. What a request goes through: `HttpTransport.send` → pool.py (which connection) →
connection.py (bytes of the answer) → the sink. A new connection is dial.py's work.

What it will not do: follow a redirect (the key would go along), unpack a compressed answer (none is asked for),
switch protocols, or repeat a request, but for one case: a reused connection that died before a byte of the answer
came. See RELIABILITY 3.6 in the shared facts for the deadlines.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from moonpool import __version__
from moonpool.errors import Problem
from moonpool.transports.base import Inbound, Sink
from moonpool.transports.connection import Connection
from moonpool.transports.dial import LookUp, Resolver, Route, look_up
from moonpool.transports.exchange import Exchange, tell_end
from moonpool.transports.origin import Heads, parse_origin
from moonpool.transports.pool import Limits, Pool
from moonpool.transports.proxy import Proxies
from moonpool.transports.tls import system_context
from moonpool.words import Host, Outbound

_STOP_S: Final = 2.0


class HttpTransport:
    """A Transport (base.py) for hosts with an http or https base URL.

    `connections_max` and `idle_s` (s) hold for each pool: a base URL with a credential. `head_bytes_max`,
    `fields_max`, `body_bytes_max` bound one answer. `proxies` is a mapping such as `os.environ`, of which only
    the proxy variables are looked at (proxy.py). `context` replaces the system's trust. `resolve` turns names
    into addresses, which are remembered for `resolve_keep_s`. `now` is a monotonic clock (s); deadlines are
    looked at every `tick_s` (s), and whenever `tick` is called. `loop` is the running one if None.
    """

    def __init__(
        self,
        *,
        connections_max: int = 4096,
        idle_s: float = 60.0,
        head_bytes_max: int = 65536,
        fields_max: int = 128,
        body_bytes_max: int = 64 << 20,
        proxies: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        resolve: LookUp = look_up,
        resolve_keep_s: float = 30.0,
        tick_s: float = 0.1,
        now: Callable[[], float] = time.monotonic,
        user_agent: str = f"moonpool/{__version__}",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.now = now
        self.at = now()
        self.active: set[Exchange] = set()
        self.live: set[Connection] = set()
        self.resolver = Resolver(resolve_keep_s, now, resolve)
        self._limits = Limits(connections_max, idle_s, head_bytes_max, fields_max, body_bytes_max)
        self._proxies = Proxies(proxies or {})
        self._context = context
        self._tick_s = tick_s
        self._user_agent = user_agent
        self._loop = loop
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ticking = False
        self._stopped: asyncio.Future[None] | None = None

    def send(self, host: Host, outbound: Outbound, sink: Sink) -> Inbound:
        now = self.at = self.now()
        pool = self._pools.get((host.base_url, host.api_key))
        try:
            if pool is None:
                pool = self._make_pool(host)
            request = pool.heads.render(outbound)
        except ValueError as error:
            return self._refuse(host, sink, Problem("upstream.unreachable", detail=f"{host.name}: {error}"))
        if self._stopped is not None:
            return self._refuse(host, sink, Problem("platform.stopping"))
        exchange = Exchange(pool, host, request, sink, now)
        self.active.add(exchange)
        if not self._ticking:
            self._start_ticking()
        pool.start(exchange)
        return exchange

    async def start(self) -> None:
        """Nothing to do before the first request."""

    async def stop(self) -> None:
        """Close everything; running answers end with `platform.stopping`. Returns when the sockets are closed."""
        if self._stopped is None:
            self._stopped = self._running_loop().create_future()
            if self._timer is not None:
                self._timer.cancel()
            for exchange in list(self.active):
                exchange.stop()
            for connection in list(self.live):
                connection.drop()
            self._pools.clear()
            self.resolver.stop()
            self._set_stopped()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A loop that owes us a `connection_lost` must not keep the server from stopping.
        await asyncio.wait([self._stopped], timeout=_STOP_S)

    def tick(self) -> None:
        """Look at every deadline now, and close what was idle too long."""
        now = self.at = self.now()
        for exchange in list(self.active):
            if not exchange.over:
                exchange.tick(now)
        for key, pool in list(self._pools.items()):
            if pool.sweep(now) is None and not len(pool) and not pool.waiting:
                del self._pools[key]

    def pool(self, host: Host) -> Pool | None:
        """For tests and metrics: `len(pool)` slots taken, `pool.idle`, `pool.waiting`."""
        return self._pools.get((host.base_url, host.api_key))

    # What pools, dials and exchanges ask of it.

    def forget(self, connection: Connection) -> None:
        self.live.discard(connection)
        self._set_stopped()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def report(self, error: BaseException) -> None:
        """A fault of ours, to where the loop's owner logs them."""
        self._running_loop().call_exception_handler({"message": "fault in an upstream answer", "exception": error})

    # Parts of the above.

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _make_pool(self, host: Host) -> Pool:
        """Raises ValueError (no secret in it) for a base URL, key or proxy address that cannot be used."""
        origin = parse_origin(host.base_url)
        proxy = self._proxies.choose(origin.scheme, origin.hostname, origin.port)
        plain = proxy is not None and not origin.secure
        heads = Heads(origin, host.api_key, self._user_agent, proxy.authorization if proxy and plain else None)
        pool = Pool(self, self._limits, Route(origin, proxy, self._trust), heads)
        self._pools[(host.base_url, host.api_key)] = pool
        return pool

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = system_context()
        return self._context

    def _refuse(self, host: Host, sink: Sink, problem: Problem) -> Inbound:
        """End an exchange that cannot begin, from the loop: `send` itself tells nothing."""
        refused = _Refused(sink, self.report)
        self._running_loop().call_soon(refused.end, problem)
        return refused

    def _start_ticking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ticking = True
        self._timer = self._running_loop().call_later(self._tick_s, self._on_timer)

    def _on_timer(self) -> None:
        """Tick while answers are under way; else sleep until an idle connection is too old."""
        try:
            self.tick()
        finally:
            self._plan()

    def _plan(self) -> None:
        self._timer = None
        self._ticking = bool(self.active)
        pause_s = self._tick_s
        if not self._ticking:
            untils = [until for pool in self._pools.values() if (until := pool.sweep(self.at)) is not None]
            if not untils:
                return
            pause_s = max(min(untils) - self.at, self._tick_s)
        self._timer = self._running_loop().call_later(pause_s, self._on_timer)

    def _set_stopped(self) -> None:
        if self._stopped is not None and not self.live and not self._stopped.done():
            self._stopped.set_result(None)


class _Refused:
    """The handle of a request that could not even be tried."""

    __slots__ = ("_report", "_sink")

    def __init__(self, sink: Sink, report: Callable[[BaseException], None]) -> None:
        self._sink: Sink | None = sink
        self._report = report

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None:
        self._sink = None

    def end(self, problem: Problem) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            tell_end(sink, problem, self._report)
