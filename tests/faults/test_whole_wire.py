"""A network that is slow, cuts, swallows, or turns a bit, between a client, the whole server and its hosts:
RELIABILITY cases 41 to 46."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.driven import by_clock, pass_time
from faults.sink import Clock
from faults.speaker import ANSWER, THOUGHTS, Speaker
from faults.stage import (
    DONE,
    HOST_KEY,
    KEY,
    ROLE,
    USAGE,
    Answer,
    Client,
    Stage,
    chat,
    event,
    good,
    last,
    only,
    play,
    records,
    stage,
    streamed,
    until,
    whole_body,
    words,
)
from faults.storm import forget, middle, storm
from faults.twins import thought
from faults.upstream import (
    STREAM_HEAD,
    FaultProxy,
    Harm,
    Peer,
    Request,
    Upstream,
    answer,
    chunk,
    close,
    flood,
    rst,
    threaded,
)
from moonpool.settings import Streams

PRICES = [{"valid_from": "2020-01-01", "prompt_miss": "1", "prompt_hit": "1", "completion": "2"}]


def row(port: int, **more: Any) -> dict[str, dict[str, Any]]:
    """One host, at that port."""
    return {
        "host0": {"base_url": f"http://127.0.0.1:{port}", "dialect": "deepseek", "api_key": HOST_KEY, **more},
    }


async def ask_through(here: Stage, port: int, body: Any) -> Answer:
    """Ask at a port that leads to the server."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    here.clients.append(client)
    raw = json.dumps(body).encode()
    client.send("POST", "/v1/chat/completions", raw, {"Authorization": f"Bearer {KEY}"})
    try:
        return await client.rest()
    finally:
        client.close()


def short(delta: dict[str, Any], *, finish: str | None = None, usage: Any = None) -> bytes:
    """An event with no more in it than must be."""
    value: dict[str, Any] = {"choices": [{"index": 0, "delta": delta}]}
    if finish:
        value["choices"][0]["finish_reason"] = finish
    if usage:
        value["usage"] = usage
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


SHORT = [
    short({"role": "assistant", "content": ""}),
    short({"content": "one "}),
    short({"content": "two "}),
    short({"content": ""}, finish="stop", usage=USAGE),
    DONE,
]


# 41 and 42: slow.


def test_a_slow_and_uneven_wire_is_no_fault(tmp_path: Path) -> None:
    """Case 41: 400 ms, 300 more or less, for each piece and in each direction, on both sides of the server; the host's
    deadlines are tight. All is whole, no host is tried twice, all is paid as the host said."""
    wire = Harm(latency_s=0.4, jitter_s=0.3, each=True)

    async def run() -> list[Answer]:
        async with Upstream(good) as host, FaultProxy(("127.0.0.1", host.port), wire, wire) as far:
            rows = row(far.port, first_s=4.0, gap_s=2.5)
            async with (
                stage(tmp_path, rows=rows) as here,
                FaultProxy(("127.0.0.1", here.app.port), wire, wire) as near,
            ):
                return await asyncio.gather(*(ask_through(here, near.port, chat(at % 2 == 0)) for at in range(24)))

    found = uvloop.run(run())
    for at, got in enumerate(found):
        assert got.status == 200
        text = got.text if at % 2 == 0 else got.json["choices"][0]["message"]["content"]
        assert text == ("".join(f"word{n} " for n in range(5)) if at % 2 == 0 else "hello")
    rows = records(tmp_path / "moonpool.db")
    assert {(row.kind, row.attempts, row.completion, row.estimated) for row in rows} == {("posted", 1, 7, False)}


@pytest.mark.parametrize("side", ["host", "client"])
def test_bytes_that_come_one_by_one(tmp_path: Path, side: str) -> None:
    """Case 42: 100 streams whose every byte, there and back, comes alone, 5 ms after the last: all whole, and what the
    server has to do for one byte is bounded, however many come. The wire is in a thread of its own, so only ours is
    counted."""
    wire = Harm(slice_bytes=1, slice_delay_s=0.005)
    steps = streamed(*SHORT)
    count = 100
    spent: list[float] = []

    async def run(far: int, near: FaultProxy | None) -> list[Answer]:
        async with stage(tmp_path, rows=row(far), concurrency=count) as here:
            port = here.app.port
            if near is not None:
                near.target = ("127.0.0.1", port)
                port = near.port
            began = time.thread_time()
            found = await asyncio.gather(*(ask_through(here, port, chat()) for _ in range(count)))
            spent.append(time.thread_time() - began)
            return found

    with threaded(Upstream(lambda _: steps)) as host:
        if side == "host":
            with threaded(FaultProxy(("127.0.0.1", host.port), wire, wire)) as far:
                found = uvloop.run(run(far.port, None))
        else:
            with threaded(FaultProxy(("127.0.0.1", 0), wire, wire)) as near:
                found = uvloop.run(run(host.port, near))
    assert [(got.text, got.failure) for got in found] == [("one two ", None)] * count
    rows = records(tmp_path / "moonpool.db")
    assert {(row.kind, row.completion, row.estimated) for row in rows} == {("posted", 7, False)}
    size = sum(len(step) for step in steps if isinstance(step, bytes)) + 200
    assert spent[0] / (count * size) < 50e-6, f"{spent[0]:.2f} s for {count} x {size} bytes"


# 43: cut at every byte.


@pytest.mark.parametrize("fault", [rst, close], ids=["rst", "fin"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_cut_at_every_byte_is_never_recorded_wrongly(tmp_path: Path, fault: Any, stream: bool) -> None:
    """Case 43: with the only host. What the client read is a beginning of the answer and is what was posted: nothing
    read, nothing owed; a part, our count of that part; all, the host's word."""
    raw = b"".join(step for step in streamed(*SHORT) if isinstance(step, bytes)) if stream else answer(whole_body())
    cuts = range(1, len(raw) + 1)

    async def act(here: Stage) -> list[Answer]:
        found = []
        for _ in cuts:
            forget(here)
            found.append(await here.ask(chat(stream)))
            await here.quiet()
        return found

    def script(request: Any) -> Any:
        return [raw[: cuts[request.number]], _be_read, fault]

    found, path = play(tmp_path, script, act=act, model={"prices": PRICES})
    rows = records(path)
    assert len(found) == len(rows) == len(raw)
    for cut, got, record in zip(cuts, found, rows, strict=True):
        where = f"after {cut} of {len(raw)} bytes"
        assert got.complete, where
        assert record.owed_pico == record.prompt * 1_000_000 + record.completion * 2_000_000, where
        if got.status != 200:
            assert (got.status, record.kind, record.owed_pico) == (502, "voided", 0), where
        elif not stream:
            assert got.json["choices"][0]["message"]["content"] == "hello", where
            assert (record.kind, record.completion, record.estimated) == ("posted", 7, False), where
        else:
            assert got.text, where
            assert "one two ".startswith(got.text), where
            whole = got.failure is None
            assert not whole or got.text == "one two ", where
            assert record.kind == "posted", where
            counted = math.ceil(len(got.text) * 0.3)
            assert record.completion == (counted if record.estimated else 7), where
            assert not (whole and record.estimated), where
    assert found[-1].status == 200
    if not stream:
        assert [got.status for got in found[:-1]] == [502] * (len(raw) - 1)


async def _be_read(peer: Peer) -> None:
    """What was sent is read before a reset takes it away."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_stream_cut_at_every_byte_goes_on_to_the_same_text(tmp_path: Path) -> None:
    """Case 43, with a second host and continuation: whatever byte is the last of the first host, the client reads the
    text of an uncut stream, one end, and pays for one answer."""
    first = Speaker(lambda request: request.number + 1, say=short, unit="bytes")
    second = Speaker(lambda request: None, say=short)
    length = sum(len(step) for step in Speaker(lambda _: None, say=short)(_question()) if isinstance(step, bytes))

    async def act(here: Stage) -> list[Answer]:
        found = []
        for _ in range(length):
            forget(here)
            found.append(await here.ask(chat()))
            await here.quiet()
        return found

    model = {"thinking": "default_on", "can": ["thinking", "prefix", "prefix_thinking"], "prices": PRICES}
    found, path = play(tmp_path, first, second, act=act, model=model, streams=Streams(continuation="same"))
    for at, got in enumerate(found):
        where = f"after {at + 1} of {length} bytes"
        assert (got.status, got.failure, got.complete) == (200, None, True), where
        assert (thought(got), got.text) == ("".join(THOUGHTS), "".join(ANSWER)), where
    rows = records(path)
    assert {record.kind for record in rows} == {"posted"}
    assert max(record.attempts for record in rows) == 2
    for record in rows:
        assert record.owed_pico == record.prompt * 1_000_000 + record.completion * 2_000_000
    assert sum(b"continued by host1" in got.body for got in found) > len(found) / 2


def _question() -> Request:
    return Request("POST", "/", {}, json.dumps(chat()).encode(), 0, 0)


# 44: nothing more, and no word of it.


@pytest.mark.parametrize("stream", [True, False])
def test_a_black_hole_is_noticed_after_a_minute(tmp_path: Path, stream: bool) -> None:
    """Case 44: in the middle of an answer the way to the host swallows everything, and both ends think the other is
    there. Our gap of 60 s ends it, by a driven clock, not TCP's quarter of an hour; the place is free at once."""
    clock = Clock()

    async def run() -> Answer:
        raw = streamed(ROLE, *words(40), last(), DONE) if stream else [answer(whole_body("word " * 1000))]
        hole = Harm(stall_after=3000)
        async with Upstream(lambda _: raw) as host, FaultProxy(("127.0.0.1", host.port), down=hole) as way:
            options = {"streams": Streams(continuation="off", keepalive_s=0), "prepare": by_clock(clock)}
            async with stage(tmp_path, rows=row(way.port), **options) as here:
                client = await here.open(chat(stream))
                (exchange,) = await _asked(here)
                if stream:
                    await client.until(b"word5 ")
                else:
                    await until(lambda: exchange.moved, "the half of it has come")
                await pass_time(here, clock, 58)
                assert not exchange.over
                await pass_time(here, clock, 4)
                got = await client.rest()
                await here.quiet()
                assert not here.app.transports["http"].active  # type: ignore[attr-defined]
                return got

    got = uvloop.run(run())
    record = only(tmp_path / "moonpool.db")
    assert record.cause == "upstream.timeout"
    if stream:
        assert got.failure is not None
        assert (got.failure["code"], got.complete) == ("upstream_timeout", True)
        assert (record.kind, record.estimated) == ("posted", True)
    else:
        assert (got.status, record.kind, record.owed_pico) == (504, "voided", 0)


async def _asked(here: Stage) -> Any:
    transport: Any = here.app.transports["http"]
    await until(lambda: any(exchange.connection is not None for exchange in transport.active), "the host is asked")
    return list(transport.active)


# 45: one slow client.


def test_one_slow_client_holds_nobody_up(tmp_path: Path) -> None:
    """Case 45: one client of 200 reads 32 KiB now and then, through a small window: its host is stopped meanwhile, the
    others are as fast as without it, and in the end it has read every byte."""
    pieces, size = 6000, 2000
    taken = [0]

    def script(request: Any) -> Any:
        if b"slow" not in request.body:
            return good(request)
        piece = chunk(event({"content": "x" * size}))
        return [STREAM_HEAD, chunk(ROLE), flood(piece, pieces, taken), chunk(last(None)), chunk(DONE), b"0\r\n\r\n"]

    async def act(here: Stage) -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        usual = await storm(here, 199, 20)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", here.app.port))
        body = json.dumps(chat(user="slow")).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        await loop.sock_sendall(sock, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        read = bytearray(await loop.sock_recv(sock, 4096))
        await until(lambda: any(reply.paused for reply in here.app.platform.active), "it is too slow")
        found: list[Any] = []

        async def sip() -> None:
            while len(found) < 199:
                read.extend(await loop.sock_recv(sock, 1024))

        async def others() -> None:
            for _ in range(10):
                found.extend(await storm(here, 20 if len(found) < 180 else 19, 20))

        await asyncio.gather(sip(), others())
        assert taken[0] < pieces, "its host was read on"
        while not read.endswith(b"0\r\n\r\n"):
            read.extend(await loop.sock_recv(sock, 65536))
        sock.close()
        assert read.count(b"x" * size) == pieces
        return usual, found

    (usual, found), path = play(tmp_path, script, act=act, concurrency=300)
    assert all(got.status == 200 and got.failure is None for got, _ in usual + found)
    assert len(found) == 199
    assert middle(found) <= 3 * middle(usual) + 0.05
    assert max(took for _, took in found) <= 3 * max(took for _, took in usual) + 0.25
    assert {record.kind for record in records(path)} == {"posted"}


# 46: one bit.


def says(body: bytes, stream: bool) -> str | None:
    """What these bytes say, read by nothing of ours; None: they are no answer."""
    try:
        if not stream:
            return str(json.loads(body)["choices"][0]["message"].get("content", ""))
        text = ""
        for raw in body.split(b"\n\n"):
            data = b"\n".join(
                line[5:].removeprefix(b" ") for line in raw.split(b"\n") if line.partition(b":")[0] == b"data"
            )
            if data.startswith(b"[DONE]"):
                return text
            if data:
                for choice in json.loads(data).get("choices", ()):
                    text += choice.get("delta", {}).get("content", "")
        return text
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("stream", [True, False])
def test_one_wrong_bit_anywhere(tmp_path: Path, stream: bool, bit: int) -> None:
    """Case 46: each byte of a short answer, head and body, with one bit turned: 502, or an error event, or a text that
    is what the bytes say; never a fault of ours, and the hold is resolved."""
    body = b"".join(SHORT) if stream else whole_body("one two ").replace(b" ", b"")
    kind = "text/event-stream" if stream else "application/json"
    head = answer(body, content_type=kind)[: -len(body)]

    async def act(here: Stage) -> list[Answer]:
        found = []
        for _ in range(len(head) + len(body)):
            forget(here)
            found.append(await here.ask(chat(stream)))
        return found

    def script(request: Any) -> Any:
        raw = bytearray(head + body)
        raw[request.number] ^= 1 << bit
        return [bytes(raw), close]

    found, path = play(tmp_path, script, act=act)
    clean = 0
    for at, (got, record) in enumerate(zip(found, records(path), strict=True)):
        raw = bytearray(body)
        if at >= len(head):
            raw[at - len(head)] ^= 1 << bit
        where = f"byte {at}: {bytes(raw)[max(0, at - len(head) - 10) : at - len(head) + 10]!r}"
        assert record.cause != "platform.fault", where
        assert got.complete, where
        if got.status != 200:
            assert got.status in {400, 502, 503, 504}, (where, got.status)
            assert record.kind == "voided", where
            continue
        assert record.kind == "posted", where
        if stream and got.failure is not None:
            assert says(bytes(raw), stream) is None or at < len(head), where
            continue
        clean += 1
        text = got.text if stream else got.json["choices"][0]["message"].get("content")
        assert (text or "") == says(bytes(raw), stream), where
    # The eighth bit makes what is no UTF-8 anywhere in the body.
    assert clean >= (10 if bit == 7 else len(found) / 4)
