"""Several machines in small: `moonpool serve` processes over one real PostgreSQL and one real Valkey, each reaching
them by proxies of its own that can be cut and stalled, before a host that keeps its own record.

`cluster(folder)` starts it and ends everything, by id, whatever happened. `Host` is the witness: what it was asked,
what it counted for each, and how much of each account ran at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from admin_rig import Answer as AdminAnswer
from admin_rig import call
from faults.stage import DONE, HOST_KEY, MODEL, ROLE, Client, Served, chat, last, whole_body, words
from faults.upstream import LAST_CHUNK, STREAM_HEAD, FaultProxy, Gone, Peer, Request, Step, Upstream, answer, chunk
from postgres import server
from valkey_server import ValkeyServer, valkey_server

MOONPOOL = (sys.executable, "-m", "moonpool")
ASK_S = 15.0
"""What takes longer has no outcome that its client knows of."""
PIECES = 60
"""A host's count of an answer is below this, so that two numbers name a dispatch."""
PADDING = "x" * 600


def usage_of(number: int) -> dict[str, int]:
    """What the host counts for its dispatch `number`: no two are the same."""
    prompt, completion = 1 + number // PIECES, 1 + number % PIECES
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": prompt,
    }


@dataclass
class Dispatch:
    """What the host was asked: by whose request (`ACCOUNT/NAME`), when, and whether it said all it had to say."""

    number: int
    tag: str
    at: float
    finished: bool = False


class Host:
    """`script` of an Upstream. An answer takes as long as `pace` says, or, while there is a `gate`, until that is
    opened; it ends when who asked has gone."""

    def __init__(self, pace: Callable[[], float] = lambda: 0.0) -> None:
        self.dispatches: list[Dispatch] = []
        self.running: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.gate: asyncio.Event | None = None
        self._pace = pace

    def __call__(self, request: Request) -> list[Step]:
        return [partial(self._answer, json.loads(request.body))]

    async def _answer(self, body: Any, peer: Peer) -> None:
        dispatch = Dispatch(len(self.dispatches), body["messages"][0]["content"].split(" ")[0], time.monotonic())
        self.dispatches.append(dispatch)
        account = dispatch.tag.partition("/")[0]
        self.running[account] += 1
        self.peak[account] = max(self.peak[account], self.running[account])
        try:
            usage = usage_of(dispatch.number)
            if not body.get("stream"):
                await self._while_there(peer)
                dispatch.finished = True
                await peer.send(answer(whole_body(usage=usage)))
                return
            await peer.send(STREAM_HEAD + chunk(ROLE + words(1)[0]))
            await self._while_there(peer)
            dispatch.finished = True
            await peer.send(chunk(last(usage) + DONE) + LAST_CHUNK)
        finally:
            self.running[account] -= 1

    async def _while_there(self, peer: Peer) -> None:
        gone = asyncio.ensure_future(peer.reader.read(1))
        ends = [gone] if self.gate is None else [gone, asyncio.ensure_future(self.gate.wait())]
        try:
            await asyncio.wait(
                ends, timeout=self._pace() if self.gate is None else None, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                raise Gone
        finally:
            for each in ends:
                each.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


def asks(tag: str, *, stream: bool = True) -> dict[str, Any]:
    """A request that the host can tell from others."""
    return chat(stream, messages=[{"role": "user", "content": f"{tag} {PADDING}"}], max_tokens=PIECES + 4)


class Node(Served):
    """A process with proxies of its own to what all of them share."""

    def __init__(self, folder: Path, base_url: str, accounts: str, database: FaultProxy, limits: FaultProxy) -> None:
        folder.mkdir()
        super().__init__(folder, base_url)
        self.database, self.limits = database, limits
        self._accounts = accounts
        self._reading: asyncio.Task[None] | None = None

    def configure(self, name: str, base_url: str, call_s: float) -> None:
        store = f"postgresql://moonpool@127.0.0.1:{self.database.port}/{name}?sslmode=disable&gssencmode=disable"
        self.config.write_text(
            f'store = "{store}"\nlimits = "redis://127.0.0.1:{self.limits.port}/0"\nlimits_call_s = {call_s}\n'
            "[embedded]\nenabled = false\n[edge]\ndrain_s = 1.0\n[log]\nrequests = false\n"
            '[streams]\ncontinuation = "off"\n'
            f'[hosts.mine]\nbase_url = "{base_url}"\ndialect = "deepseek"\napi_key = "{HOST_KEY}"\n'
            f'[models.{MODEL}]\nhosts = ["mine"]\n{self._accounts}'
        )

    async def start(self) -> None:
        await super().start()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        """Or it would stand still, with nobody who reads what it says."""
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said += line

    async def ended(self) -> int:
        assert self.process is not None
        await asyncio.wait_for(self.process.wait(), 30)
        assert self._reading is not None
        await self._reading
        return int(self.process.returncode or 0)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        self.port = 0  # it may be another program's soon
        self.signal(signal.SIGKILL)
        await self.ended()

    async def open(self, body: Any = None, fields: dict[str, str] | None = None, key: str = "key-of-acme") -> Client:
        return await super().open(body, {"Authorization": f"Bearer {key}", **(fields or {})})

    async def metrics(self) -> str:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        client.send("GET", "/metrics", b"", {})
        try:
            return (await client.rest()).body.decode()
        finally:
            client.close()

    async def status(self, tag: str, key: str = "key-of-acme") -> int:
        """Of one whole request; 0 where there was no answer."""
        try:
            async with asyncio.timeout(ASK_S):
                client = await self.open(asks(tag, stream=False), key=key)
                try:
                    return (await client.rest()).status
                finally:
                    client.reset()
        except (OSError, EOFError, TimeoutError):
            return 0


@dataclass
class Cluster:
    nodes: list[Node]
    upstream: Upstream
    host: Host
    store: ValkeyServer
    address: str
    token: str = ""
    clients: list[Client] = field(default_factory=list)

    async def admin(self, node: Node, method: str, path: str, body: object = None) -> AdminAnswer:
        """Raises OSError or ValueError where no answer came, TimeoutError where none came in time."""
        if not self.token:
            await self._first_token()
        async with asyncio.timeout(ASK_S):
            return await call(node.port, method, "/admin/v1" + path, body, self.token)

    async def open(self, node: Node, tag: str, **options: Any) -> Client:
        client = await node.open(asks(tag), **options)
        self.clients.append(client)
        return client

    def ask(self, query: str) -> list[Any]:
        """As an operator would."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            done = connection.execute(query)  # type: ignore[arg-type]
            return done.fetchall() if done.description else []

    def open_holds(self) -> int:
        return int(self.ask("SELECT count(*) FROM holds WHERE seq NOT IN (SELECT hold_seq FROM resolutions)")[0][0])

    async def acquainted(self) -> None:
        """Until each node has read how many of them share the limits; what the store knows it may not know yet."""
        said = f"\nmoonpool_limits_nodes {len(self.nodes)}.0\n"

        async def known() -> bool:
            return all([said in await node.metrics() for node in self.nodes])

        await eventually(known, "all nodes know of each other")

    async def _first_token(self) -> None:
        """As an operator gets it, by commands."""
        await self._command("users", "create", "operator", "--operator")
        self.token = (await self._command("tokens", "create", "operator"))["token"]

    async def _command(self, *more: str) -> Any:
        node = self.nodes[0]
        where = ("--json", "--home", str(node.home), "--config", str(node.config))
        done = await asyncio.create_subprocess_exec(*MOONPOOL, *more, *where, stdout=asyncio.subprocess.PIPE)
        out, _ = await done.communicate()
        assert done.returncode == 0, out
        return json.loads(out)


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, host: Host, accounts: str, count: int = 2, call_s: float = 0.1
) -> AsyncIterator[Cluster]:
    """`accounts`: as they are declared in each node's file; `call_s`: how long the limits may take: longer than
    usual where a test is not about that and the machine may be busy."""
    address = server().fresh()
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(valkey_server())
        upstream = await stack.enter_async_context(Upstream(host))
        here = Cluster([], upstream, host, store, address)
        stack.push_async_callback(_end, here)
        for number in range(count):
            database = await stack.enter_async_context(FaultProxy(f"{server().folder}/.s.PGSQL.5432"))
            limits = await stack.enter_async_context(FaultProxy(f"{store.folder}/s"))
            node = Node(folder / f"node{number}", upstream.base_url, accounts, database, limits)
            node.configure(urlsplit(address).path.strip("/"), upstream.base_url, call_s)
            here.nodes.append(node)
        # All at once: they declare the same accounts together.
        await asyncio.gather(*(node.start() for node in here.nodes))
        yield here


async def _end(here: Cluster) -> None:
    for client in here.clients:
        client.reset()
    for node in here.nodes:
        if node.runs:
            node.signal(signal.SIGCONT)
            await node.kill()


async def stop(here: Cluster) -> None:
    """As an operator stops them: both end well."""
    for node in here.nodes:
        node.signal(signal.SIGTERM)
    assert [await node.ended() for node in here.nodes] == [0] * len(here.nodes)


async def eventually(seen: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """What `seen` gives once it is true; it may have to be awaited. Looked at again after a moment, with a deadline."""
    deadline = time.monotonic() + within_s
    while True:
        found = seen()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)
