"""What a client sees of its limits, asked of a whole server, and what becomes of answers when their store dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import force_setattr

from faults.driven import by_clock
from faults.sink import Clock
from faults.stage import (
    DONE,
    ROLE,
    Client,
    Served,
    Stage,
    chat,
    good,
    last,
    only,
    play,
    records,
    sound,
    streamed,
    until,
    within,
    words,
)
from faults.upstream import STREAM_HEAD, Step, Upstream, chunk, gate, stall
from moonpool.app import App
from moonpool.relay.limits import lose
from moonpool.settings import Routing
from moonpool.state.asks import LEASE_S
from moonpool.state.memory import MemoryLimiter
from moonpool.state.valkey import SHARES_S, ValkeyLimiter
from moonpool.state.valkey_link import Link
from moonpool.words import Account, Key, Limits
from valkey_server import ValkeyServer, valkey_server

RATED = "key-with-rates"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with valkey_server() as server:
        yield server


async def rated(here: Stage, limits: Limits | None = None, **rates: int) -> None:
    """One more account with rates, and its key."""
    keys = here.app.store.keys
    await keys.save_account(Account("rated", "rated", True, 100, None, False, **rates))
    await keys.create(Key("rated0000000", "rated", "", 0.0, limits=limits), hashlib.sha256(RATED.encode()).digest())


def rate_fields(fields: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name.startswith("x-ratelimit")}


def test_the_fields_of_rates(tmp_path: Path) -> None:
    """x-ratelimit-* in OpenAI's form on whole and streamed answers and on the 429, with Retry-After; nothing of it for
    who has no rates."""
    clock = Clock()

    async def act(here: Stage) -> None:
        await rated(here, requests_per_minute=3, tokens_per_minute=60_000)
        assert rate_fields((await here.ask()).fields) == {}
        whole = await here.ask(chat(stream=False), key=RATED)
        found = rate_fields(whole.fields)
        guess = len(json.dumps(chat(stream=False))) // 4 + 512
        assert (whole.status, found) == (
            200,
            {
                "x-ratelimit-limit-requests": "3",
                "x-ratelimit-remaining-requests": "2",
                "x-ratelimit-reset-requests": "20s",
                "x-ratelimit-limit-tokens": "60000",
                "x-ratelimit-remaining-tokens": str(60_000 - guess),
                "x-ratelimit-reset-tokens": f"{guess}ms",
            },
        )
        clock.at += 20.0
        streams = [await here.ask(key=RATED) for _ in range(3)]
        assert [each.fields["x-ratelimit-remaining-requests"] for each in streams] == ["2", "1", "0"]
        refused = await here.ask(key=RATED)
        assert (refused.status, refused.error["code"], refused.error["type"]) == (
            429,
            "rate_limit_exceeded",
            "rate_limit_error",
        )
        assert (refused.fields["retry-after"], refused.fields["x-should-retry"]) == ("20", "true")
        assert refused.fields["x-ratelimit-remaining-requests"] == "0"
        assert refused.fields["x-ratelimit-reset-requests"] == "1m0s"
        clock.at += 20.0
        assert (await here.ask(key=RATED)).status == 200

    play(tmp_path, good, act=act, prepare=by_clock(clock))


def test_tokens_are_what_was_used(tmp_path: Path) -> None:
    """The guess before an answer is replaced by the host's count, of a stream that broke off by what was delivered, of
    a host that failed by nothing."""
    clock = Clock()

    def answers(request: Any) -> list[Step]:
        if request.number == 1:
            return [*streamed(ROLE, *words(3), end=False), stall]
        return good(request)

    async def act(here: Stage) -> None:
        await rated(here, tokens_per_minute=1000)

        async def left() -> int:
            """By asking for too much; what is refused takes nothing."""
            got = await here.ask({**chat(), "max_tokens": 4096, "user": "x" * 3960}, key=RATED)
            assert got.status == 429
            assert "tokens" in got.error["message"]
            return int(got.fields["x-ratelimit-remaining-tokens"])

        assert (await here.ask(chat(stream=False), key=RATED)).status == 200
        assert await left() == 1000 - 18
        client = await here.open(key=RATED)
        await client.until(b"word2")
        client.reset()
        await until(lambda: len(records(here.path)) == 2, "it is written down")
        broken = records(here.path)[1]
        assert broken.estimated
        assert await left() == 1000 - 18 - broken.prompt - broken.completion

    play(tmp_path, answers, act=act, prepare=by_clock(clock))


def test_the_limits_of_a_key(tmp_path: Path) -> None:
    """A key's own: one at once is 20034, though its account may run a hundred."""
    go = asyncio.Event()

    async def act(here: Stage) -> None:
        await rated(here, Limits(concurrency=1, requests_per_minute=100))
        client = await here.open(key=RATED)
        await client.until(b"word0")
        refused = await here.ask(key=RATED)
        assert (refused.status, refused.error["code"], refused.error["message"]) == (
            429,
            "20034",
            "concurrency exceeded",
        )
        assert refused.fields["retry-after"] == "1"
        assert refused.fields["x-ratelimit-remaining-requests"] == "99"
        go.set()
        assert (await client.rest()).failure is None
        assert (await here.ask(key=RATED)).status == 200

    steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(last() + DONE), b"0\r\n\r\n"]
    play(tmp_path, lambda _: steps, act=act)


async def opened(here: Stage, count: int) -> list[Client]:
    clients = [await here.open() for _ in range(count)]
    for client in clients:
        await client.until(b"word0")
    return clients


def shared(server: ValkeyServer, clock: Clock) -> Any:
    """The stage's limiter over a real store, by the test's clock."""

    def prepare(app: App) -> None:
        by_clock(clock)(app)
        limiter = ValkeyLimiter(
            Link(server.url, store_clock=False),
            lambda request_id: lose(app.platform, request_id),
            node="stage",
            clock=clock,
        )
        force_setattr(app.platform, "limiter", limiter)

    return prepare


def test_streams_outlive_the_store_of_limits(tmp_path: Path, server: ValkeyServer) -> None:
    """Case 60: killed under running streams: they end as if nothing had been, new ones run, after a minute 503 with a
    code of its own; when it is back all is served again; not a record is missing (`stage` audits the money)."""
    clock, go = Clock(), asyncio.Event()
    steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(last() + DONE), b"0\r\n\r\n"]

    async def act(here: Stage) -> None:
        running = await opened(here, 20)
        server.kill()
        with within(1.0):
            client = (await opened(here, 1))[0]
        assert b"\nmoonpool_limits_ready 0.0\n" in (await here.get("/metrics")).body
        go.set()
        for each in (*running, client):
            assert (await each.rest()).failure is None
        for _ in range(round(SHARES_S)):
            assert (await here.ask()).status == 200
            clock.at += 1.0
            here.app.platform.limiter.tick(clock.at)
        refused = await here.ask()
        assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
        assert refused.fields["retry-after"] == "5"
        server.start()
        clock.at += 1.0
        here.app.platform.limiter.tick(clock.at)
        await until(lambda: here.app.platform.limiter.trouble() is None, "the store is back")
        assert b"\nmoonpool_limits_ready 1.0\n" in (await here.get("/metrics")).body
        assert (await here.ask()).status == 200
        await here.quiet()
        await here.app.platform.limiter.stop()
        force_setattr(here.app.platform, "limiter", MemoryLimiter())

    _, path = play(tmp_path, lambda _: steps, act=act, prepare=shared(server, clock))
    rows = records(path)
    assert {row.kind for row in rows} == {"posted"}
    assert len(rows) == 20 + 1 + SHARES_S + 1


def test_streams_of_a_process_that_stood_still(tmp_path: Path, server: ValkeyServer) -> None:
    """Case 70: after a minute's stop its leases are others': its streams end with an error event, what was delivered is
    billed, and what runs then is within the limit."""
    clock = Clock()

    async def act(here: Stage) -> None:
        running = await opened(here, 5)
        clock.at += 60.0
        here.app.platform.limiter.tick(clock.at)
        for client in running:
            failure = (await client.rest()).failure
            assert failure is not None
            assert failure["code"] == "limits_unavailable"
        await here.quiet()
        await here.app.platform.limiter.stop()
        force_setattr(here.app.platform, "limiter", MemoryLimiter())

    steps = [*streamed(ROLE, *words(1), end=False), stall]
    _, path = play(tmp_path, lambda _: steps, act=act, prepare=shared(server, clock))
    rows = records(path)
    assert [(row.kind, row.cause, row.estimated) for row in rows] == [("posted", "platform.limits", True)] * 5


def test_a_process_that_stood_still_with_limits_of_its_own(tmp_path: Path) -> None:
    """Case 70 with memory: the same, whoever comes first finds it out."""
    clock = Clock()

    def prepare(app: App) -> None:
        by_clock(clock)(app)
        force_setattr(app.platform, "limiter", MemoryLimiter(lambda request_id: lose(app.platform, request_id)))

    async def act(here: Stage) -> None:
        client = (await opened(here, 1))[0]
        clock.at += LEASE_S
        other = await here.open()
        assert (await client.rest()).failure is not None
        other.reset()

    steps = [*streamed(ROLE, *words(1), end=False), stall]
    _, path = play(tmp_path, lambda _: steps, act=act, prepare=prepare)
    assert records(path)[0].cause == "platform.limits"


def test_a_lease_that_is_lost_before_the_answer_begins(tmp_path: Path) -> None:
    """Nothing is asked of a host any more, and the client reads 503."""

    async def act(here: Stage) -> None:
        hold = here.app.platform.books.hold

        async def slow(wanted: Any) -> Any:
            lose(here.app.platform, wanted.id)
            return await hold(wanted)

        class Slow:
            def __getattr__(self, name: str) -> Any:
                return slow if name == "hold" else getattr(here.app.store.books, name)

        force_setattr(here.app.platform, "books", Slow())
        refused = await here.ask()
        assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
        assert here.host.requests == []
        lose(here.app.platform, "a request that is over")

    _, path = play(tmp_path, good, act=act)
    assert only(path).kind == "voided"


def test_one_answer_that_cannot_be_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What fails in ending it is written down and goes no further: whoever told of the loss has others to tell."""

    class Deaf:
        def stop(self, problem: Any) -> None:
            raise ValueError(problem.code)

    async def act(here: Stage) -> None:
        client = (await opened(here, 1))[0]
        (reply,) = here.app.platform.active
        source, deaf = reply.source, Deaf()
        reply.source = deaf  # type: ignore[assignment]
        lose(here.app.platform, reply.id)
        reply.source = source
        client.reset()

    play(tmp_path, lambda _: [*streamed(ROLE, *words(1), end=False), stall], act=act)
    assert "lease" in capfd.readouterr().err


def test_refused_requests_leave_nothing(tmp_path: Path, server: ValkeyServer) -> None:
    """Case 95: thousands of malformed, unknown and refused requests: no lease, no hold; the whole limit is there."""

    async def act(here: Stage) -> None:
        await rated(here, requests_per_minute=1)
        assert (await here.ask(key=RATED)).status == 200
        bodies: list[tuple[Any, str]] = [
            (b"{", RATED),
            ({**chat(), "model": "nobody's"}, RATED),
            ({**chat(), "messages": []}, RATED),
            (chat(), RATED),
            (chat(), "no key"),
        ]
        client = await here.connect()
        for _ in range(400):
            for body, key in bodies:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                client.send("POST", "/v1/chat/completions", raw, {"Authorization": f"Bearer {key}"})
                client.status, client.body = 0, b""
                assert (await client.rest()).status in {400, 401, 429}
        for account in ("rated", "bench"):
            assert await here.app.platform.limiter.held(account, here.app.platform.monotonic()) == 0

    _, path = play(tmp_path, good, act=act, limits=server.url)
    assert len(records(path)) == 1


def test_hang_ups_give_all_back(tmp_path: Path, server: ValkeyServer) -> None:
    """Case 94, small: streams that start and are left at any moment; then a hundred at once, and not one more."""

    async def act(here: Stage) -> None:
        for turn in range(6):
            clients = [await here.open() for _ in range(50)]
            for number, client in enumerate(clients):
                if (number + turn) % 3:
                    await client.until(b"word0")
                client.reset()
            await here.quiet()
        running = await opened(here, 100)
        assert (await here.ask()).error["code"] == "20034"
        assert sum(not client.complete for client in running) == 100
        running.pop().reset()
        await until(lambda: len(here.app.platform.active) == 99, "one is over")
        running += await opened(here, 1)
        assert (await here.ask()).error["code"] == "20034"
        for client in running:
            client.reset()

    steps = [*streamed(ROLE, *words(1), end=False), stall]
    play(tmp_path, lambda _: steps, act=act, limits=server.url)


def test_one_account_waits_behind_itself(tmp_path: Path) -> None:
    """Case 112: one account has a hundred long requests in line for a busy host; another's request is the next to be
    served, not the hundred-and-first."""
    gates: list[asyncio.Event] = []

    def answers(request: Any) -> list[Step]:
        gates.append(asyncio.Event())
        return [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(gates[-1]), chunk(last() + DONE), b"0\r\n\r\n"]

    async def act(here: Stage) -> None:
        await rated(here)
        crowd = [await here.open(chat(user="x" * 5_000)) for _ in range(100)]
        await until(lambda: here.app.platform.fleet.waiting == 99, "all but one wait")
        alone = await here.open(key=RATED)
        await until(lambda: here.app.platform.fleet.waiting == 100, "and one of another account")
        gates[0].set()
        await until(lambda: len(here.host.requests) == 2, "the next is asked")
        gates[1].set()
        await until(lambda: len(here.host.requests) == 3, "and the next")
        gates[2].set()
        assert (await alone.rest()).failure is None
        assert sum(client.status == 0 for client in crowd) >= 98
        for client in crowd:
            client.reset()
        for each in gates:
            each.set()

    play(tmp_path, answers, act=act, host={"concurrency": 1}, routing=Routing(queue_s=3600.0))


def test_two_nodes_and_one_limit(tmp_path: Path, server: ValkeyServer) -> None:
    """Case 93 with processes: of 300 streams at once, half at each of two servers, the host sees exactly 100 run, and
    200 read 429 with 20034. One server is killed: the other goes on with what it runs, untouched (case 69)."""

    async def run() -> tuple[list[int], int, Path]:
        steps = [*streamed(ROLE, *words(1), end=False), stall]
        async with contextlib.AsyncExitStack() as stack:
            host = await stack.enter_async_context(Upstream(lambda _: steps))
            nodes = []
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
                node = Served(tmp_path / name, host.base_url, drain_s=0.0)
                text = node.config.read_text().replace("concurrency = 1000", "concurrency = 100")
                node.config.write_text(f'limits = "{server.url}"\nlimits_call_s = 10\n' + text)
                stack.push_async_callback(ended, node)
                await node.start()
                nodes.append(node)
            asked = [(node, await node.open()) for _ in range(150) for node in nodes]
            refused, running = [], []
            for node, client in asked:
                if await client.head() == 200:
                    running.append((node, client))
                else:
                    refused.append((await client.rest()).error["code"])
            assert refused == ["20034"] * 200
            for _, client in running:
                await client.until(b"word0")
            assert host.most == 100
            nodes[0].signal(signal.SIGKILL)
            await nodes[0].ended()
            mine = [client for node, client in running if node is nodes[1]]
            await host.until_open(len(mine))
            late = await nodes[1].open()
            assert (await late.rest()).error["code"] == "20034", "a dead node's leases live for 15 s at most"
            for client in mine:
                client.reset()
            await host.until_open(0)
            again = [await nodes[1].open() for _ in range(len(mine) + 20)]
            found = [await client.head() for client in again]
            for client in (*again, *(client for _, client in asked), late):
                client.reset()
            return found, len(mine), nodes[1].path

    found, count, path = uvloop.run(run())
    assert found.count(200) == count, "neither one more nor one less"
    sound(path)


async def ended(node: Served) -> None:
    if node.process is not None and node.process.returncode is None:
        node.signal(signal.SIGTERM)
        assert await node.ended() == 0
