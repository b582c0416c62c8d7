"""A whole Moonpool between a client of bare sockets and scripted hosts, and an audit of what it leaves behind.

`stage(folder, script, ...)` starts the real App (temporary home, port 0, no embedded model), whose model
`deepseek-chat` is served by as many hosts as there are scripts. When the block ends, nothing may run any more, the App
is stopped, and the database is read with plain sqlite3: every hold resolved once, the books sound.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from faults.auditor import audit
from faults.upstream import LAST_CHUNK, STREAM_HEAD, Script, Step, Upstream, answer, chunk
from moonpool.app import App
from moonpool.settings import Idempotency, Log, Settings, Streams, Vault
from moonpool.settings_edge import Edge
from moonpool.settings_hosts import Embedded, Routing
from moonpool.settings_hosts import Upstream as Timers
from moonpool.words import Account, Key

MODEL = "deepseek-chat"
KEY = "key-of-the-stage"
HOST_KEY = "key-of-the-host"
DEADLINE_S = 10.0
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_cache_hit_tokens": 3,
    "prompt_cache_miss_tokens": 8,
}


# What a host says.


def event(delta: dict[str, Any], *, finish: str | None = None, usage: Any = None, name: str = "chat-1") -> bytes:
    """One event as DeepSeek writes it."""
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    value = {
        "id": name,
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
DONE = b"data: [DONE]\n\n"


def words(count: int, text: str = "word") -> list[bytes]:
    return [event({"content": f"{text}{number} "}) for number in range(count)]


def last(usage: Any = USAGE) -> bytes:
    return event({"content": ""}, finish="stop", usage=usage)


def streamed(*events: bytes, end: bool = True) -> list[Step]:
    """A stream, each event in a chunk of its own."""
    return [STREAM_HEAD, *(chunk(piece) for piece in events), *([LAST_CHUNK] if end else [])]


def good_stream(count: int = 5, usage: Any = USAGE) -> list[Step]:
    return streamed(ROLE, *words(count), last(usage), DONE)


def whole_body(text: str = "hello", usage: Any = USAGE) -> bytes:
    value = {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": usage,
        "system_fingerprint": "fp_1",
    }
    return json.dumps(value).encode()


def good(request: Any) -> list[Step]:
    """What a healthy host answers, streamed or whole."""
    return good_stream() if json.loads(request.body).get("stream") else [answer(whole_body())]


def failed(status: str, message: str, *fields: str, content_type: str = "application/octet-stream") -> list[Step]:
    """A refusal as DeepSeek sends it: JSON that is called something else."""
    body = json.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}}).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *fields]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


# What a client asks and gets.


def chat(stream: bool = True, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **more}


@dataclass
class Answer:
    """An answer as the client read it; `complete` says whether it ended as HTTP says it must."""

    status: int
    fields: dict[str, str]
    body: bytes
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found = self.json["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return dict(found)

    @property
    def events(self) -> list[Any]:
        return read_events(self.body)

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content") or ""
            for value in self.events
            if value != "[DONE]"
            for choice in value.get("choices", ())
        )

    @property
    def failure(self) -> dict[str, Any] | None:
        """The error a stream ended with, None for one that ended well. Fails on anything else."""
        end = self.events[-1]
        if end == "[DONE]":
            return None
        return dict(end["error"])


def read_events(body: bytes) -> list[Any]:
    """The events of a stream, strictly: comments, blank lines and single `data:` lines that are JSON; one end."""
    found: list[Any] = []
    assert body.endswith(b"\n\n") or not body
    for line in body.decode("utf-8").split("\n"):
        if not line or line.startswith(":"):
            continue
        assert line.startswith("data: "), line
        data = line[6:]
        found.append("[DONE]" if data == "[DONE]" else json.loads(data))
    ends = [at for at, value in enumerate(found) if value == "[DONE]" or "error" in value]
    assert len(ends) <= 1, "more than one end"
    assert not ends or ends[0] == len(found) - 1, "something after the end"
    return found


class Client:
    """One connection. Everything it waits for has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = b""
        self.complete = False

    def send(self, method: str, path: str, body: bytes = b"", fields: dict[str, str] | None = None) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: stage"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        if body or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(lines).encode("latin-1", "surrogateescape") + b"\r\n\r\n" + body)

    async def head(self) -> int:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return self.status if self.status >= 200 else await self.head()

    async def piece(self) -> bytes:
        """A chunk of the body; b"" at its end."""
        line = await asyncio.wait_for(self.reader.readuntil(b"\r\n"), DEADLINE_S)
        size = int(line, 16)
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), DEADLINE_S)
        self.body += data[:-2]
        self.complete = size == 0
        return data[:-2]

    async def until(self, part: bytes, times: int = 1) -> None:
        """Until the body holds `part` so many times."""
        if not self.status:
            await self.head()
        while self.body.count(part) < times:
            assert await self.piece(), f"the answer ended before {part!r}"

    async def rest(self, head_only: bool = False) -> Answer:
        if not self.status:
            await self.head()
        if head_only or self.status in {204, 304}:
            self.complete = True
        elif "content-length" in self.fields:
            count = int(self.fields["content-length"]) - len(self.body)
            self.body += await asyncio.wait_for(self.reader.readexactly(count), DEADLINE_S)
            self.complete = True
        else:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self.piece():
                    pass
        return Answer(self.status, self.fields, self.body, self.complete)

    def reset(self) -> None:
        """Hang up with RST, as a killed program does."""
        if self.writer.is_closing():
            return
        sock = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()

    async def closed(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def until(seen: Callable[[], bool], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Until something is so, looked at every turn of the loop."""
    try:
        async with asyncio.timeout(deadline_s):
            while not seen():  # noqa: ASYNC110 - what is looked at sets no event
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s:g} s: {what}") from None


@dataclass
class Stage:
    app: App
    hosts: list[Upstream]
    path: Path
    clients: list[Client] = field(default_factory=list)

    @property
    def host(self) -> Upstream:
        return self.hosts[0]

    async def connect(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.app.port, **options))
        self.clients.append(client)
        return client

    async def open(
        self,
        body: Any = None,
        *,
        path: str = "/v1/chat/completions",
        key: str = KEY,
        fields: dict[str, str] | None = None,
    ) -> Client:
        """Ask, and read nothing yet."""
        client = await self.connect()
        raw = body if isinstance(body, bytes) else json.dumps(body if body is not None else chat()).encode()
        own = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        client.send("POST", path, raw, own | (fields or {}))
        return client

    async def ask(self, body: Any = None, **options: Any) -> Answer:
        client = await self.open(body, **options)
        try:
            return await client.rest()
        finally:
            client.close()

    async def get(self, path: str, method: str = "GET", fields: dict[str, str] | None = None) -> Answer:
        client = await self.connect()
        client.send(method, path, b"", {"Authorization": f"Bearer {KEY}"} if fields is None else fields)
        try:
            return await client.rest(head_only=method == "HEAD")
        finally:
            client.close()

    async def key(self, secret: str, **switches: str) -> str:
        """One more key of the account, with switches; in a home that was there before, the one it has."""
        digest = hashlib.sha256(secret.encode()).digest()
        if await self.app.store.keys.find(digest) is None:
            await self.app.store.keys.create(Key(secret[:12], "bench", secret, 0.0, switches=switches), digest)
        return secret

    def beat(self) -> None:
        """What the app's pulse does once a second."""
        self.app.platform.tapes.beat()
        self.app.platform.answers.beat()
        for reply in list(self.app.platform.active):
            reply.beat()

    async def quiet(self, deadline_s: float = DEADLINE_S) -> None:
        """Until no request runs and no lease is held."""
        platform = self.app.platform
        await until(lambda: not platform.active, "no request runs", deadline_s)
        assert await platform.limiter.held("bench", platform.monotonic()) == 0


@contextlib.asynccontextmanager
async def stage(
    home: Path,
    *scripts: Script,
    dead: int = 0,
    host: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    concurrency: int = 100,
    streams: Streams | None = None,
    edge: Edge | None = None,
    upstream: Timers | None = None,
    routing: Routing | None = None,
    vault: Vault | None = None,
    idempotency: Idempotency | None = None,
    prepare: Callable[[App], None] | None = None,
    rows: dict[str, dict[str, Any]] | None = None,
    model_name: str = MODEL,
    log: Log | None = None,
    also: tuple[str, ...] = (),
    limits: str = "memory://",
    limits_call_s: float = 0.1,
) -> AsyncIterator[Stage]:
    """`scripts`: one host each; `dead`: so many hosts before them where nobody listens; `host`: more for each host's
    row; `prepare`: what to do to the app before the first request; `rows`: hosts that the test runs itself;
    `also`: more models of the catalogue, at the same hosts."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(Upstream(script)) for script in scripts]
        urls = {f"dead{at}": f"http://127.0.0.1:{_closed_port()}" for at in range(dead)}
        urls |= {f"host{at}": server.base_url for at, server in enumerate(hosts)}
        table = {name: {"base_url": url, "dialect": "deepseek", "api_key": HOST_KEY} for name, url in urls.items()}
        table |= rows or {}
        settings = Settings(
            home=str(home),
            port=0,
            limits=limits,
            limits_call_s=limits_call_s,
            embedded=Embedded(enabled=False),
            edge=edge or Edge(drain_s=0),
            streams=streams or Streams(continuation="off"),
            upstream=upstream or Timers(),
            routing=routing or Routing(),
            vault=vault or Vault(),
            idempotency=idempotency or Idempotency(),
            log=log or Log(requests=False),
            hosts={name: {**row, **(host or {})} for name, row in table.items()},
            models={name: {"hosts": list(table), **(model or {})} for name in (model_name, *also)},
        )
        app = App(settings, {})
        await app.start()
        play = Stage(app, hosts, settings.store_path())
        try:
            await app.store.keys.save_account(Account("bench", "bench", True, concurrency))
            await play.key(KEY)
            if prepare is not None:
                prepare(app)
            yield play
            await play.quiet()
            assert app.platform.answers.held == 0
            assert app.server.counters.faults == 0
        finally:
            for client in play.clients:
                await client.closed()
            await app.stop()
        sound(play.path)


def play(home: Path, *scripts: Any, act: Callable[[Stage], Awaitable[Any]], **options: Any) -> tuple[Any, Path]:
    """Run `act` on a stage; gives what it returned, and where the ledger is."""

    async def run() -> tuple[Any, Path]:
        async with stage(home, *scripts, **options) as here:
            found = await act(here)
        return found, here.path

    return uvloop.run(run())


def _closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# The auditor: plain sqlite3, nothing of the product.


@dataclass(frozen=True)
class Record:
    """A hold and how it was resolved."""

    kind: str
    cause: str
    attempts: int
    host: str
    prompt: int
    completion: int
    estimated: bool
    model: str
    owed_pico: int


def sound(path: Path) -> None:
    """Fails unless every hold is resolved exactly once and the books add up."""
    assert audit(path) == []
    connection = sqlite3.connect(path)
    try:
        (holds,) = connection.execute("SELECT count(*) FROM holds").fetchone()
        (resolved,) = connection.execute("SELECT count(DISTINCT hold_seq) FROM resolutions").fetchone()
        (rows,) = connection.execute("SELECT count(*) FROM resolutions").fetchone()
        held = connection.execute("SELECT account FROM balances WHERE held_pico <> 0").fetchall()
    finally:
        connection.close()
    assert (holds, holds) == (resolved, rows), f"{holds} holds, {resolved} of them resolved, by {rows} resolutions"
    assert held == []


def records(path: Path) -> list[Record]:
    """What was written, in the order of the holds."""
    connection = sqlite3.connect(path)
    try:
        return [
            Record(*row[:6], bool(row[6]), *row[7:])
            for row in connection.execute(
                "SELECT r.kind, r.cause, r.attempts, r.host, r.prompt_miss + r.prompt_hit, r.completion, r.estimated,"
                " h.model, r.owed_pico FROM holds h JOIN resolutions r ON r.hold_seq = h.seq ORDER BY h.seq"
            )
        ]
    finally:
        connection.close()


def only(path: Path) -> Record:
    (record,) = records(path)
    return record


# A server of its own, as an operator starts it.


class Served:
    """A `moonpool serve` process with one account, its home and its hosts kept when it is started again."""

    def __init__(self, folder: Path, base_url: str, drain_s: float = 1.0) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.config = folder / "moonpool.toml"
        self.config.write_text(
            f"[embedded]\nenabled = false\n[edge]\ndrain_s = {drain_s}\n"
            f'[hosts.mine]\nbase_url = "{base_url}"\ndialect = "deepseek"\napi_key = "{HOST_KEY}"\n'
            f'[models.{MODEL}]\nhosts = ["mine"]\n'
            f'[[accounts]]\nname = "bench"\nkeys = ["{KEY}"]\npost_paid = true\nconcurrency = 1000\n'
        )
        self.port = 0
        self.process: asyncio.subprocess.Process | None = None
        self.said = b""

    @property
    def path(self) -> Path:
        return self.home / "moonpool.db"

    def program(self) -> list[str]:
        """What Python runs: the command line that an operator uses."""
        return ["-m", "moonpool", "serve"]

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.program(), "--home", str(self.home), "--config", str(self.config),
            "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
        )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while True:
                line = await self.process.stdout.readline()
                assert line, self.said.decode()
                self.said += line
                if b'"started"' in line:
                    self.port = int(json.loads(line)["port"])
                    return

    async def ended(self) -> int:
        assert self.process is not None
        rest, _ = await asyncio.wait_for(self.process.communicate(), 30)
        self.said += rest
        return int(self.process.returncode or 0)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def open(self, body: Any = None, fields: dict[str, str] | None = None) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        own = {"Authorization": f"Bearer {KEY}", **(fields or {})}
        client.send("POST", "/v1/chat/completions", json.dumps(body or chat()).encode(), own)
        return client


@contextlib.asynccontextmanager
async def served(folder: Path, base_url: str, *, made: Served | None = None, **options: Any) -> AsyncIterator[Served]:
    server = made or Served(folder, base_url, **options)
    await server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.returncode is None:
            server.signal(signal.SIGKILL)
            await server.ended()


@contextlib.contextmanager
def within(span_s: float) -> Iterator[None]:
    """Fails when the block took longer."""
    began = time.monotonic()
    yield
    taken = time.monotonic() - began
    assert taken <= span_s, f"took {taken:.2f} s"
