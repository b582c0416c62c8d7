"""Opening one connection: name to addresses, address to socket, through a proxy, into TLS.

This is the one part of the client that runs as a task. It is bounded by the host's `connect_s` as a whole; each
address but the last gets an equal share of what is left, so that a dead first address does not hide a living
second one. The look at the clock is the ticker's (`Dial.is_late`).
Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 6724 (the order of addresses is the resolver's).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.transports.connection import Connection
from moonpool.transports.origin import Origin
from moonpool.transports.proxy import Proxy

if TYPE_CHECKING:
    from moonpool.transports.exchange import Exchange
    from moonpool.transports.pool import Pool

_NAMES_MAX: Final = 256
_TUNNEL_BYTES_MAX: Final = 16384

Address = tuple[int, str]
"""Family (`socket.AF_INET` …) and numeric address."""

LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Name and port to addresses, in the order to try them. Raises OSError."""


class Route(Struct, frozen=True):
    """How to reach an origin."""

    origin: Origin
    proxy: Proxy | None
    context: Callable[[], ssl.SSLContext]


class Resolver:
    """Names to addresses, remembered for `keep_s`; one look-up however many wait for it."""

    __slots__ = ("_keep_s", "_known", "_look_up", "_now", "_running")

    def __init__(self, keep_s: float, now: Callable[[], float], look_up: LookUp) -> None:
        self._look_up = look_up
        self._keep_s = keep_s
        self._now = now
        self._known: dict[tuple[str, int], tuple[float, tuple[Address, ...]]] = {}
        self._running: dict[tuple[str, int], asyncio.Task[tuple[Address, ...]]] = {}

    async def resolve(self, hostname: str, port: int) -> tuple[Address, ...]:
        """At least one address. Raises OSError."""
        try:
            literal = ipaddress.ip_address(hostname.partition("%")[0])
        except ValueError:
            pass
        else:
            return ((socket.AF_INET6 if literal.version == 6 else socket.AF_INET, hostname),)
        name = (hostname, port)
        known = self._known.get(name)
        if known is not None and known[0] > self._now():
            return known[1]
        running = self._running.get(name)
        if running is None:
            running = asyncio.ensure_future(self._remember(name))
            self._running[name] = running
            running.add_done_callback(lambda done: self._looked_up(name, done))
        # Whoever gives up must not take the look-up from the others.
        return await asyncio.shield(running)

    def knows(self, hostname: str, port: int) -> bool:
        """Whether `resolve` would say what it remembers."""
        known = self._known.get((hostname, port))
        return known is not None and known[0] > self._now()

    def forget(self, hostname: str, port: int, addresses: tuple[Address, ...]) -> None:
        """These led nowhere; what was learned meanwhile stays."""
        known = self._known.get((hostname, port))
        if known is not None and known[1] is addresses:
            del self._known[(hostname, port)]

    def stop(self) -> None:
        for running in self._running.values():
            running.cancel()

    def _looked_up(self, name: tuple[str, int], done: asyncio.Task[tuple[Address, ...]]) -> None:
        self._running.pop(name, None)
        if not done.cancelled():
            done.exception()

    async def _remember(self, name: tuple[str, int]) -> tuple[Address, ...]:
        addresses = tuple(await self._look_up(*name))
        if not addresses:
            raise OSError("the name has no address")
        while len(self._known) >= _NAMES_MAX:
            del self._known[next(iter(self._known))]
        self._known[name] = (self._now() + self._keep_s, addresses)
        return addresses


async def look_up(hostname: str, port: int) -> Sequence[Address]:
    """The system's answer, asked for in a thread."""
    rows = await asyncio.get_running_loop().getaddrinfo(hostname, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(row[0]), str(row[4][0])) for row in rows))


class Dial:
    """The way of one exchange to a new connection. Tells its pool `dialed` or `undialed`, unless cancelled."""

    __slots__ = ("_address_until", "_attempt", "_exchange", "_pool", "_skipped", "_task", "_until")

    def __init__(self, pool: Pool, exchange: Exchange) -> None:
        self._pool = pool
        self._exchange = exchange
        self._until = pool.client.now() + exchange.host.connect_s
        self._address_until = self._until
        self._attempt: asyncio.Task[Connection] | None = None
        self._skipped = False
        self._task = pool.client.spawn(self._run())
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        self._task.cancel()

    def is_late(self, now: float) -> bool:
        """Is the time over? Looks after the share of the present address by the way."""
        if now >= self._until:
            return True
        if now >= self._address_until and self._attempt is not None:
            self._skipped = self._attempt.cancel()
        return False

    async def _run(self) -> None:
        pool, exchange = self._pool, self._exchange
        why = "the connection was closed as soon as it was open"
        try:
            connection = await self._open()
        except (OSError, ValueError, EOFError) as error:
            why = _reason(error)
        else:
            if exchange.dial is not self:
                connection.drop()
                return
            if connection.usable():
                pool.dialed(exchange, connection)
                return
        self._fail("upstream.unreachable", why)

    def _fail(self, code: str, why: str) -> None:
        pool, exchange = self._pool, self._exchange
        if exchange.dial is self:
            through = f" through {pool.route.proxy}" if pool.route.proxy is not None else ""
            detail = f"{exchange.host.name}: no connection to {pool.route.origin}{through}: {why}"
            pool.undialed(exchange, Problem(code, detail=detail))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of ours in the task would leave the exchange, and its slot, without an end."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._pool.client.report(error)
            self._fail("platform.fault", type(error).__name__)

    async def _open(self) -> Connection:
        resolver, there = self._pool.client.resolver, self._pool.route.proxy or self._pool.route.origin
        remembered = resolver.knows(there.hostname, there.port)
        addresses = await resolver.resolve(there.hostname, there.port)
        try:
            return await self._try(addresses)
        except asyncio.CancelledError:
            if self._pool.client.now() >= self._until:
                resolver.forget(there.hostname, there.port, addresses)
            raise
        except (OSError, EOFError):
            resolver.forget(there.hostname, there.port, addresses)
            if not remembered:
                raise
            # What was true a while ago led nowhere: by now the name may lead elsewhere.
            others = tuple(at for at in await resolver.resolve(there.hostname, there.port) if at not in addresses)
            if not others:
                raise
        return await self._try(others)

    async def _try(self, addresses: tuple[Address, ...]) -> Connection:
        """The first of them that can be connected to. Raises what became of the last one."""
        client = self._pool.client
        failure: Exception = OSError("no address")
        for position, address in enumerate(addresses):
            left = len(addresses) - position
            now = client.now()
            self._address_until = now + (self._until - now) / left if left > 1 else self._until
            attempt = self._attempt = asyncio.ensure_future(self._connect(address))
            try:
                return await attempt
            except (OSError, EOFError) as error:
                failure = error
            except asyncio.CancelledError:
                if not self._skipped:
                    attempt.add_done_callback(_drop_result)
                    raise
                self._skipped = False
                failure = TimeoutError("no answer from the address")
            finally:
                self._attempt = None
        raise failure

    async def _connect(self, address: Address) -> Connection:
        route = self._pool.route
        origin, proxy = route.origin, route.proxy
        connection = Connection(self._pool)
        done = False
        try:
            if proxy is None:
                await _connect(connection, address, origin, route.context() if origin.secure else None)
            elif not origin.secure:
                await _connect(connection, address, proxy, route.context() if proxy.secure else None)
            else:
                await _tunnel(connection, address, route, proxy)
            done = True
        finally:
            if not done:
                connection.drop()
        return connection


def _drop_result(attempt: asyncio.Task[Connection]) -> None:
    """A cancellation that comes after the connection was made, and before anybody has it, must not leave it open."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().drop()


async def _connect(
    protocol: asyncio.Protocol, address: Address, there: Origin | Proxy, context: ssl.SSLContext | None
) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(
        lambda: protocol,
        address[1],
        there.port,
        family=address[0],
        ssl=context,
        server_hostname=there.hostname if context is not None else None,
    )


async def _tunnel(connection: Connection, address: Address, route: Route, proxy: Proxy) -> None:
    """Ask the proxy for a way to the origin, then speak TLS with the origin through it."""
    loop = asyncio.get_running_loop()
    origin = route.origin
    shown = f"[{origin.hostname}]" if ":" in origin.hostname else origin.hostname
    target = f"{shown}:{origin.port}".encode()
    authorization = b"Proxy-Authorization: %b\r\n" % proxy.authorization if proxy.authorization else b""
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, authorization)
    tunnel = _Tunnel(loop.create_future())
    secured: Any = None
    try:
        await _connect(tunnel, address, proxy, route.context() if proxy.secure else None)
        tunnel.transport.write(request)
        await tunnel.ready
        secured = await loop.start_tls(tunnel.transport, connection, route.context(), server_hostname=origin.hostname)
        if secured is None:
            raise EOFError("the proxy closed the tunnel")
    finally:
        if secured is None and tunnel.transport is not None:
            tunnel.transport.abort()
    connection.connection_made(secured)


class _Tunnel(asyncio.Protocol):
    """Reads what a proxy answers to CONNECT. `ready` fails with OSError or EOFError when it is no yes."""

    def __init__(self, ready: asyncio.Future[None]) -> None:
        self.ready = ready
        self.transport: Any = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if self.ready.done() or (not end and len(head) < _TUNNEL_BYTES_MAX):
            return
        words = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if not end or rest or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            self.ready.set_exception(OSError("the proxy's answer makes no sense"))
        elif not words[1].startswith(b"2"):
            self.ready.set_exception(OSError(f"the proxy answered {words[1][:3].decode()}"))
        else:
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(EOFError("the proxy closed the connection"))


def _reason(error: BaseException) -> str:
    """A sentence for the log. Only what OpenSSL, the system or this file says; never a part of a URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'handshake broken off'}"
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name has no address"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
