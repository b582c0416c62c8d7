"""Which sockets do we listen on, and how many clients are there? Owns accepting, the clock and the stop.

We accept ourselves, not through the loop's servers: so a client too many gets a 503, and a process out of descriptors
rests until the next tick while clients wait in the backlog (libuv would drop them, and could drop the listening
socket). Options are set on the listening socket, accepted ones inherit them: no system calls for each client.

Sources: tcp(7); RELIABILITY 3.10 and cases 8, 9, 13, 171, 172.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import resource
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from moonpool.errors import Problem
from moonpool.later import drive
from moonpool.web.answer import Exchange
from moonpool.web.local import BACKLOG, listen_at
from moonpool.web.protocol import Connection, Counters, Handler, Limits

TICK_S: Final = 0.25
_ACCEPTS_A_TURN: Final = 64
_REFUSED_AT_ONCE_MAX: Final = 256
_UNSENT_BYTES: Final = 128 * 1024
_KEEP_FREE: Final = 64
_PASSING: Final = frozenset((errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR))


def request_ids() -> Callable[[], str]:
    """Names for requests, `req_` and 24 hexadecimal digits: unique over restarts and processes, and cheap."""
    prefix = f"req_{secrets.token_hex(8)}"
    count = itertools.count().__next__
    return lambda: f"{prefix}{count():08x}"


class Server:
    """A server for HTTP/1.1. It is the `protocol.Hub` of its connections.

    `handler(arrival, exchange)` is called for each request and must end the exchange sooner or later; `render` makes
    the body of an error; `fault(error, request_id)` is told of what should not happen.
    """

    def __init__(
        self,
        handler: Handler,
        render: Callable[[Problem], bytes],
        fault: Callable[[BaseException, str], object],
        *,
        limits: Limits | None = None,
        new_id: Callable[[], str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.handler = handler
        self.render = render
        self.fault = fault
        self.limits = limits or Limits()
        self.new_id = new_id or request_ids()
        self.clock = clock
        self.counters = Counters()
        self.connections: set[Connection] = set()
        self.connections_max = self.limits.connections_max or _room_for_connections()
        self.now = 0.0
        self.draining = False
        self._loop: asyncio.AbstractEventLoop
        self._sockets: list[socket.socket] = []
        self._paths: list[tuple[Path, int]] = []
        self._resting: list[socket.socket] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._unflushed: list[Exchange] = []

    # Sockets.

    async def start(
        self, host: str | None = None, port: int = 0, *, path: Path | None = None, reuse_port: bool = False
    ) -> int:
        """Listen on an address or a Unix socket at `path`; may be called for several. Returns the port (0 for a path).

        Raises OSError: the address is taken, not ours, or somebody listens at `path`.
        """
        self._loop = asyncio.get_running_loop()
        made: list[socket.socket] = []
        if path is not None:
            made.append(listen_at(path))
            self._paths.append((path, _inode(path)))
        else:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            try:
                for family, _, _, _, address in dict.fromkeys(found):
                    made.append(_listen_on(family, (address[0], port, *address[2:]), reuse_port, self.limits.stall_s))
                    port = made[0].getsockname()[1]
            except OSError:
                for sock in made:
                    sock.close()
                raise
        self._sockets += made
        for sock in made:
            self._loop.add_reader(sock, self._accept, sock)
        if self._ticker is None:
            self.now = self._loop.time()
            self._ticker = self._loop.call_later(TICK_S, self._on_time)
        return 0 if path is not None else port

    def drain(self) -> None:
        """Accept no more and close idle connections; running exchanges finish and then close theirs."""
        self.draining = True
        self._stop_listening()
        for connection in tuple(self.connections):
            connection.drain()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every connection is closed; False when some are left after `timeout_s`."""
        if self.connections:
            self._empty = self._loop.create_future()
            await asyncio.wait((self._empty,), timeout=timeout_s)
        return not self.connections

    async def stop(self) -> None:
        """Drop what is left, and the clock."""
        self.draining = True
        self._stop_listening()
        for connection in tuple(self.connections):
            connection.abort()
        await self.drained(1.0)
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _stop_listening(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        for path, inode in self._paths:
            # Somebody else may have taken the place since.
            if path.exists() and _inode(path) == inode:
                path.unlink()
        self._sockets, self._paths, self._resting = [], [], []

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                client, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _PASSING:
                    continue
                # No descriptors or no memory: trying again now would spin.
                self._loop.remove_reader(listening)
                self._resting.append(listening)
                return
            if len(self.connections) >= self.connections_max + _REFUSED_AT_ONCE_MAX:
                self.counters.refused += 1
                client.close()
                continue
            client.setblocking(False)
            drive(self._connect(client), self._lost)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self), client)
        except OSError:
            client.close()

    def _lost(self, error: BaseException) -> None:
        self.counters.faults += 1
        self.fault(error, "")

    # What connections ask.

    def joined(self, connection: Connection) -> bool:
        self.connections.add(connection)
        if len(self.connections) > self.connections_max:
            self.counters.refused += 1
            return False
        self.counters.accepted += 1
        return True

    def soon(self, run: Callable[[], object]) -> None:
        self._loop.call_soon(run)

    def left(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    def flush_later(self, exchange: Exchange) -> None:
        if not self._unflushed:
            self.soon(self._flush)
        self._unflushed.append(exchange)

    def _flush(self) -> None:
        exchanges, self._unflushed = self._unflushed, []
        for exchange in exchanges:
            exchange.flush()

    # Time.

    def tick(self, now: float) -> None:
        """Let each connection look at the clock; `now` is monotonic. Called by the server itself once it started."""
        self.now = now
        for connection in tuple(self.connections):
            connection.tick(now)
        resting, self._resting = self._resting, []
        for sock in resting:
            self._loop.add_reader(sock, self._accept, sock)

    def _on_time(self) -> None:
        self._ticker = self._loop.call_later(TICK_S, self._on_time)
        self.tick(self._loop.time())


def _listen_on(family: int, address: Any, reuse_port: bool, stall_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, 4)
        # A client that vanished acknowledges nothing; one that stalls is cut by us, at the same time.
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int(stall_s * 1000))
        # What waits for a slow client waits here, where it is seen, not in the kernel's growing buffer.
        sock.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _room_for_connections() -> int:
    """Half of the descriptors: each client may need one towards a host."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (soft - _KEEP_FREE) // 2)
