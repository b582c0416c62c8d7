"""Resumable streams through the whole App: clients that are cut and come back, and those that never do."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import (
    DONE,
    KEY,
    ROLE,
    USAGE,
    Client,
    Stage,
    chat,
    event,
    good,
    last,
    only,
    play,
    read_events,
    records,
    served,
    sound,
    streamed,
    until,
    within,
    words,
)
from faults.upstream import LAST_CHUNK, STREAM_HEAD, FaultProxy, Harm, Upstream, answer, chunk, flood, gate, stall
from moonpool.relay.resume import Tape, Tapes
from moonpool.settings import Streams
from moonpool.settings_edge import Edge
from moonpool.words import Account, Key

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "programs.md"
RESUME = {"x-moonpool-resume": "1"}
WORDS = 6
PIECES = [ROLE, *words(WORDS), last(), DONE]
EVENTS = len(PIECES)


def tapes(here: Stage) -> Tapes:
    return here.app.platform.tapes


async def back(here: Stage, stream_id: str, after: int | str, *, key: str = KEY, base: str = "/v1") -> Client:
    client = await here.connect()
    client.send("GET", f"{base}/streams/{stream_id}?after={after}", fields={"Authorization": f"Bearer {key}"})
    return client


async def left(here: Stage, stream: Client, count: int = 1) -> str:
    """It hangs up with a reset, and that was seen. Gives the id of its stream."""
    stream.reset()
    await until(lambda: len(tapes(here).detached) == count, "the stream is detached")
    return stream.fields["x-moonpool-stream"]


@pytest.mark.parametrize("seen", [True, False])
def test_cut_at_every_event_and_resumed(tmp_path: Path, seen: bool) -> None:
    """A client that is reset after k events, and comes back with after=k, has read the uncut answer byte for byte, with
    one end; one dispatch, one charge. Whether we have noticed the reset or not when it comes back."""
    gates = {str(k): asyncio.Event() for k in range(EVENTS + 1)}

    def script(request: Any) -> Any:
        k = int(json.loads(request.body).get("user", EVENTS))
        steps = streamed(*PIECES)
        return [*steps[: 1 + k], gate(gates[str(k)]), *steps[1 + k :]]

    async def act(here: Stage) -> None:
        gates[str(EVENTS)].set()
        uncut = (await here.ask()).body
        assert uncut.count(b"\n\n") == EVENTS
        for k in range(2, EVENTS + 1):  # the opening event waits for the first meaningful one
            client = await here.open(chat(user=str(k)), fields=RESUME)
            await client.until(b"\n\n", k)
            stream_id = client.fields["x-moonpool-stream"]
            if seen and k < EVENTS:
                await left(here, client)
            else:
                client.reset()
            again = await back(here, stream_id, k)
            await again.head()
            gates[str(k)].set()
            got = await again.rest()
            assert got.complete
            assert (client.body + got.body) == uncut, k
            assert read_events(client.body + got.body)[-1] == "[DONE]"
            assert got.fields["x-moonpool-stream"] == stream_id
            assert got.fields["x-moonpool-host"] == "host0"
            assert not tapes(here).detached
        for after in range(EVENTS + 3):
            whole = await (await back(here, stream_id, after)).rest()
            assert whole.body == b"".join(part + b"\n\n" for part in uncut.split(b"\n\n")[after:-1])
        assert len(here.host.requests) == EVENTS

    _, path = play(tmp_path, script, act=act)
    found = records(path)
    assert len(found) == EVENTS
    assert {(record.kind, record.cause, record.attempts, record.completion) for record in found} == {
        ("posted", "stop", 1, 7)
    }


def test_whose_it_is(tmp_path: Path) -> None:
    """Another account and an unknown id get the same 404; another key of the account gets the stream; a deleted key
    and none at all 401; `after` that is no whole number 400; every base URL; GET and HEAD only."""

    async def act(here: Stage) -> None:
        keys = here.app.store.keys
        await keys.save_account(Account("other", "other", True, 10))
        await keys.create(Key("k-other", "other", "", 0.0), sha256(b"key-of-another").digest())
        await here.key("same-account-key")
        gone = await here.key("key-that-went")
        await keys.delete(gone[:12], 1.0)
        client = await here.open(fields=RESUME)
        await client.until(b"word1")
        stream_id = client.fields["x-moonpool-stream"]

        foreign = await (await back(here, stream_id, 0, key="key-of-another")).rest()
        unknown = await (await back(here, "f" * 32, 0)).rest()
        assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
        assert foreign.error["code"] == "not_found"
        assert (await (await back(here, stream_id, 0, key=gone)).rest()).status == 401
        assert (await here.get(f"/v1/streams/{stream_id}", fields={})).status == 401
        for wrong in ("x", "-1", "1.5", "", "%C2%B2", "1&after=2", "9" * 19):
            got = await (await back(here, stream_id, wrong)).rest()
            assert (got.status, got.error["param"]) == (400, "after"), wrong
        assert (await here.get(f"/v1/streams/{stream_id}", "POST")).status == 405
        head = await here.get(f"/v1/streams/{stream_id}", "HEAD")
        assert (head.status, head.fields["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert not client.reader.at_eof(), "the stream's client was cut by one that may not have it"

        for base in ("", "/v1", "/beta", "/gateway/v1"):
            again = await back(here, stream_id, 1, key="same-account-key", base=base)
            await again.until(b"word1")
            assert b"word0" in again.body
            assert ROLE.removesuffix(b"\n\n") not in again.body
        go.set()
        assert (await again.rest()).failure is None

    go = asyncio.Event()
    steps = [STREAM_HEAD, *map(chunk, [ROLE, *words(2)]), gate(go), *map(chunk, [last(), DONE]), LAST_CHUNK]
    _, path = play(tmp_path, lambda _: steps, act=act)
    assert only(path).kind == "posted"


def test_without_the_header_all_is_as_before(tmp_path: Path) -> None:
    """No id, no tape, and who hangs up has cancelled; a whole answer and a refusal have no stream either."""

    def script(request: Any) -> Any:
        if b"busy" in request.body:
            return [answer(b'{"error":{"message":"x"}}', "503 Service Unavailable")]
        return [*streamed(ROLE, *words(1), end=False), stall] if b"stall" in request.body else good(request)

    async def act(here: Stage) -> None:
        client = await here.open(chat(user="stall"))
        await client.until(b"word0")
        assert "x-moonpool-stream" not in client.fields
        client.reset()
        await here.host.until_open(0)
        await here.quiet()
        for body in (chat(stream=False), chat(user="busy")):
            refused = await (await here.open(body, fields=RESUME)).rest()
            assert refused.status == (503 if body["stream"] else 200)
            assert "x-moonpool-stream" not in refused.fields
        gone = await here.open(chat(user="busy"), fields=RESUME)
        gone.reset()
        assert tapes(here).held == 0

    play(tmp_path, script, act=act)


def test_switched_off_the_header_means_nothing(tmp_path: Path) -> None:
    """streams.resume_s = 0: no id, and no stream to come back to."""

    async def act(here: Stage) -> None:
        got = await (await here.open(fields=RESUME)).rest()
        assert got.failure is None
        assert "x-moonpool-stream" not in got.fields

    play(tmp_path, good, act=act, streams=Streams(resume_s=0))


def test_the_answer_ends_while_nobody_reads(tmp_path: Path) -> None:
    """The host is read to its end, its word on usage is what is paid, and the whole answer can be fetched, more than
    once, also by two at a time and by HTTP/1.0."""

    async def act(here: Stage) -> None:
        client = await here.open(fields=RESUME)
        await client.until(b"word0")
        stream_id = await left(here, client)
        page = (await here.get("/metrics", fields={})).body
        assert b"moonpool_streams_detached 1.0" in page
        go.set()
        await here.quiet()
        page = (await here.get("/metrics", fields={})).body
        assert b"moonpool_streams_detached 0.0" in page
        assert b"moonpool_resume_bytes 0.0" not in page
        for _ in range(2):
            got = await (await back(here, stream_id, 0)).rest()
            assert (got.text, got.failure) == ("word0 word1 word2 ", None)
        old = await here.connect()
        old.writer.write(f"GET /v1/streams/{stream_id} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        raw = await asyncio.wait_for(old.reader.read(), 5)
        assert raw.endswith(got.body)

    go = asyncio.Event()
    first, *rest = words(3)
    steps = [STREAM_HEAD, chunk(ROLE), chunk(first), gate(go), *map(chunk, [*rest, last(), DONE]), LAST_CHUNK]
    _, path = play(tmp_path, lambda _: steps, act=act)
    assert (only(path).kind, only(path).cause, only(path).completion, only(path).estimated) == (
        "posted",
        "stop",
        7,
        False,
    )


def test_the_host_breaks_off_while_nobody_reads(tmp_path: Path) -> None:
    """The error event is the end of what can be fetched."""

    async def act(here: Stage) -> None:
        client = await here.open(fields=RESUME)
        await client.until(b"word0")
        stream_id = await left(here, client)
        go.set()
        await here.quiet()
        got = await (await back(here, stream_id, 0)).rest()
        assert got.failure is not None
        assert got.failure["code"] == "upstream_incomplete"

    go = asyncio.Event()
    steps = [*streamed(ROLE, *words(1), end=False), gate(go), LAST_CHUNK]
    play(tmp_path, lambda _: steps, act=act)


def test_who_never_comes_back_is_given_up(tmp_path: Path) -> None:
    """When the time is over the host is cancelled, what it said is paid and can be fetched, with an error as its end;
    then it is forgotten, and nothing is held."""

    async def act(here: Stage) -> None:
        now = [1000.0]
        tapes(here).monotonic = lambda: now[0]
        client = await here.open(fields=RESUME)
        await client.until(b"word4")
        stream_id = await left(here, client)
        now[0] += 119.0
        here.beat()
        assert tapes(here).detached
        now[0] += 2.0
        here.beat()
        await here.host.until_open(0)
        await here.quiet()
        got = await (await back(here, stream_id, 0)).rest()
        assert got.text == "word0 word1 word2 word3 word4 "
        assert got.failure is not None
        assert got.failure["code"] == "client_closed_request"
        now[0] += 301.0
        here.beat()
        assert (await (await back(here, stream_id, 0)).rest()).status == 404
        assert tapes(here).held == 0

    _, path = play(tmp_path, lambda _: [*streamed(ROLE, *words(5), end=False), stall], act=act)
    assert (only(path).kind, only(path).cause, only(path).estimated) == ("posted", "caller.gone", True)
    assert only(path).completion == -(-30 * 3 // 10)


def test_a_stream_without_a_reader_grows_to_its_bound(tmp_path: Path) -> None:
    """Then the host is cancelled, and what it said is paid and can be fetched."""
    taken = [0]
    steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go := asyncio.Event())]
    steps += [flood(chunk(event({"content": "x" * 1000})), 20_000, taken), chunk(last()), chunk(DONE)]

    async def act(here: Stage) -> None:
        client = await here.open(fields=RESUME)
        await client.until(b"word0")
        stream_id = await left(here, client)
        go.set()
        await here.host.until_open(0)
        await here.quiet()
        assert tapes(here).held < 65536 * 4
        got = await (await back(here, stream_id, 0)).rest()
        assert got.failure is not None
        assert len(got.body) > 65536

    _, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(resume_bytes_max=65536))
    assert taken[0] < 10_000, "the host was read on"
    assert (only(path).kind, only(path).cause) == ("posted", "caller.gone")


def test_a_second_client_takes_over(tmp_path: Path) -> None:
    """The first sees that its answer is not whole; the second gets the rest; one charge."""

    async def act(here: Stage) -> None:
        first = await here.open(fields=RESUME)
        await first.until(b"word0")
        second = await back(here, first.fields["x-moonpool-stream"], 1)
        await second.until(b"word0")
        assert not (await first.rest()).complete
        for _ in range(10):
            here.beat()
        await second.until(b": keep-alive")
        go.set()
        got = await second.rest()
        assert (got.complete, got.text, got.failure) == (True, "word0 ", None)

    go = asyncio.Event()
    steps = [STREAM_HEAD, *map(chunk, [ROLE, *words(1)]), gate(go), *map(chunk, [last(), DONE]), LAST_CHUNK]
    _, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(keepalive_s=10))
    assert (only(path).kind, only(path).completion) == ("posted", 7)


@pytest.mark.parametrize("again", [False, True])
def test_a_slow_reader_slows_the_host_and_gets_every_byte(tmp_path: Path, again: bool) -> None:
    """As without a tape, for the first client and for one that came back: the host is read no further than the marks
    allow while the client takes nothing, and then all of it comes."""
    taken, count = [0], 20_000
    piece = event({"content": "x" * 1000})
    steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), flood(chunk(piece), count, taken)]
    steps += [*map(chunk, [last(), DONE]), LAST_CHUNK]

    async def act(here: Stage) -> None:
        loop = asyncio.get_running_loop()
        stream_id = ""
        if again:
            first = await here.open(fields=RESUME)
            await first.until(b"word0")
            stream_id = first.fields["x-moonpool-stream"]
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", here.app.port))
        body = b"" if again else json.dumps(chat()).encode()
        line = f"GET /v1/streams/{stream_id}?after=1" if again else "POST /v1/chat/completions"
        fields = f"Host: x\r\nAuthorization: Bearer {KEY}\r\nx-moonpool-resume: 1\r\nContent-Length: {len(body)}"
        await loop.sock_sendall(sock, f"{line} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
        await until(lambda: any(reply.paused for reply in here.app.platform.active), "the host is held")
        seen = taken[0]
        for _ in range(50):
            here.beat()
            await asyncio.sleep(0)
        assert taken[0] < count // 2, "the host was read on"
        assert seen < count // 2
        client = Client(*await asyncio.open_connection(sock=sock))
        here.clients.append(client)
        got = await client.rest()
        assert got.failure is None
        assert got.body.count(b"x" * 1000) == count

    _, path = play(tmp_path, lambda _: steps, act=act)
    assert (only(path).kind, only(path).cause) == ("posted", "stop")


def test_what_was_kept_is_given_back(tmp_path: Path) -> None:
    """After many streams, some fetched again, some never, no tape is left in memory."""

    async def one(here: Stage, number: int) -> None:
        client = await here.open(fields=RESUME)
        await client.until(b"word0")
        client.reset()
        if number % 2:
            got = await (await back(here, client.fields["x-moonpool-stream"], 1)).rest()
            assert got.failure is None

    async def act(here: Stage) -> None:
        now = [1000.0]
        tapes(here).monotonic = lambda: now[0]
        await asyncio.gather(*(one(here, number) for number in range(60)))
        await here.quiet()
        assert tapes(here).held > 0
        now[0] += 301.0
        here.beat()
        assert tapes(here).held == 0
        mine = tapes(here)
        await until(
            lambda: not any(type(found) is Tape and found._tapes is mine for found in gc.get_objects()),
            "no tape is left",
        )

    _, path = play(tmp_path, good, act=act)
    assert {(record.kind, record.completion, record.attempts) for record in records(path)} == {("posted", 7, 1)}
    assert len(records(path)) == 60


def test_a_server_that_stops_does_not_wait_for_them(tmp_path: Path) -> None:
    """Nobody can come back to it: a stream without a reader ends at once, and is settled."""

    async def run() -> Path:
        script = [*streamed(ROLE, *words(2), end=False), stall]
        async with Upstream(lambda _: script) as host, served(tmp_path, host.base_url, drain_s=30.0) as server:
            client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
            fields = {"Authorization": f"Bearer {KEY}", **RESUME}
            client.send("POST", "/v1/chat/completions", json.dumps(chat()).encode(), fields)
            await client.until(b"word1")
            client.reset()
            with within(15.0):
                server.signal(signal.SIGTERM)
                assert await server.ended() == 0
                await host.until_open(0)
            assert b"Traceback" not in server.said
            return server.path

    path = uvloop.run(run())
    sound(path)
    assert (only(path).kind, only(path).estimated) == ("posted", True)


def test_a_client_that_was_cut_for_taking_nothing_comes_back(tmp_path: Path) -> None:
    """While it was away the host was read on, and all that was said is there."""
    piece = event({"content": "x" * 1000})
    steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), flood(chunk(piece), 6000), *map(chunk, [last(), DONE]), LAST_CHUNK]

    async def act(here: Stage) -> None:
        client = await here.open(fields=RESUME)
        await client.head()
        stream_id = client.fields["x-moonpool-stream"]
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await here.quiet(15.0)
        got = await (await back(here, stream_id, 0)).rest()
        assert (got.failure, got.body.count(b"x" * 1000)) == (None, 6000)

    play(
        tmp_path,
        lambda _: steps,
        act=act,
        edge=Edge(stall_s=1, drain_s=0),
        streams=Streams(resume_bytes_max=64 << 20),
    )


def test_the_example_of_the_guide_reads_every_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that docs/guides/programs.md shows, over a line that is reset again and again."""
    programs = [part.partition("```")[0] for part in GUIDE.read_text("utf-8").split("```python\n")[1:]]
    (example,) = (program for program in programs if "x-moonpool-resume" in program)
    said: list[str] = []

    def run(port: int) -> None:
        program = example.replace("127.0.0.1:8787", f"127.0.0.1:{port}").replace("sk-mp-…", KEY)
        exec(program.replace("time.sleep(1)", "pass"), {"print": lambda text, **_: said.append(text)})

    async def act(here: Stage) -> int:
        async with FaultProxy(("127.0.0.1", here.app.port), down=Harm(reset_after=1500)) as line:
            await asyncio.to_thread(run, line.port)
            return line.connections

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    steps = streamed(ROLE, *words(30), last({**USAGE, "completion_tokens": 60}), DONE)
    lines, path = play(tmp_path, lambda _: steps, act=act)
    assert "".join(said) == "".join(f"word{number} " for number in range(30))
    assert lines > 5
    assert (only(path).kind, only(path).completion) == ("posted", 60)
