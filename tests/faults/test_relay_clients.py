"""Clients that hang up, stop reading or wait in silence, through the whole App."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from faults.stage import (
    DEADLINE_S,
    DONE,
    KEY,
    ROLE,
    USAGE,
    Client,
    Stage,
    chat,
    event,
    failed,
    good,
    last,
    only,
    play,
    records,
    streamed,
    until,
    whole_body,
    within,
    words,
)
from faults.upstream import STREAM_HEAD, Peer, answer, chunk, flood, gate, rst, stall
from moonpool.settings import Streams
from moonpool.settings_edge import Edge

EVENTS = 10
STREAMS = 200


@pytest.mark.parametrize("k", [0, 1, 5, EVENTS - 1])
def test_hanging_up_after_k_events_cancels_and_settles(tmp_path: Path, k: int) -> None:
    """Case 1: many clients reset after k events: every connection to the host is closed within a second, what was
    delivered is posted (estimated), nothing delivered costs nothing."""
    steps = [*streamed(*([ROLE, *words(k)] if k else []), end=False), stall]

    async def one(here: Stage) -> None:
        client = await here.open()
        if k:
            await client.until(b"word", k)
        client.reset()

    async def act(here: Stage) -> None:
        clients = [asyncio.ensure_future(one(here)) for _ in range(STREAMS)] if k else []
        if not k:
            silent = [await here.open() for _ in range(STREAMS)]
            await here.host.until_asked(STREAMS)
            for client in silent:
                client.reset()
        await asyncio.gather(*clients)
        with within(1.0):
            await here.host.until_open(0)
            await here.quiet()
        assert len(here.host.requests) == STREAMS

    _, path = play(tmp_path, lambda _: steps, act=act, concurrency=STREAMS)
    found = records(path)
    assert len(found) == STREAMS
    assert {record.cause for record in found} == {"caller.gone"}
    if k:
        assert {(record.kind, record.estimated) for record in found} == {("posted", True)}
        assert {record.completion for record in found} == {-(-k * 6 * 3 // 10)}
    else:
        assert {(record.kind, record.owed_pico) for record in found} == {("voided", 0)}


@pytest.mark.parametrize("form", ["comment", "newline"])
def test_a_client_that_closes_in_silence_is_found_out(tmp_path: Path, form: str) -> None:
    """Case 1: a client that closes (FIN, no reset) while its stream is silent: the host is cancelled in a second,
    not at the next keep-alive."""

    async def act(here: Stage) -> None:
        key = await here.key("key-with-a-switch", keepalive=form)
        clients = [await here.open(key=key) for _ in range(20)]
        for client in clients:
            await client.until(b"word0")
            client.close()
        with within(1.0):
            await here.host.until_open(0)

    steps = [*streamed(ROLE, *words(1), end=False), stall]
    _, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(keepalive_s=0))
    assert {(record.kind, record.cause) for record in records(path)} == {("posted", "caller.gone")}


def test_hanging_up_after_the_usage_came_pays_the_hosts_word(tmp_path: Path) -> None:
    """Case 1: usage that came is believed even where the client left before the end."""
    counted = event({"content": "word"}, usage={"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14})

    async def act(here: Stage) -> None:
        client = await here.open()
        await client.until(b"word")
        client.reset()
        await here.quiet(2.0)

    _, path = play(tmp_path, lambda _: [*streamed(ROLE, counted, end=False), stall], act=act)
    assert (only(path).kind, only(path).completion, only(path).estimated) == ("posted", 3, False)


def test_a_host_that_is_read_on_says_the_exact_usage(tmp_path: Path) -> None:
    """Case 1, with `streams.drain_s`: the client leaves, the host is read on, its word is booked; nothing reaches the
    client's connection any more, and the request counts as one whose client left."""
    left = asyncio.Event()

    async def act(here: Stage) -> None:
        client = await here.open()
        await client.until(b"word", 2)
        client.reset()
        await until(lambda: all(reply.over for reply in here.app.platform.active))
        here.beat()
        left.set()
        await here.quiet()

    steps = [*streamed(ROLE, *words(2), end=False), gate(left), *[chunk(each) for each in (*words(3), last(), DONE)]]
    _, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(drain_s=3))
    found = only(path)
    assert (found.kind, found.cause, found.estimated) == ("posted", "caller.gone", False)
    assert found.completion == USAGE["completion_tokens"]


def test_a_host_is_read_on_for_so_long_and_no_longer(tmp_path: Path) -> None:
    """Case 1, with `streams.drain_s`: a host that says no usage in that time is cut, and what the client got before it
    left is charged, not what was read after it."""

    async def act(here: Stage) -> None:
        client = await here.open()
        await client.until(b"word", 2)
        client.reset()
        await until(lambda: all(reply.over for reply in here.app.platform.active))
        left.set()
        (reply,) = here.app.platform.active
        await until(lambda: reply.trip is not None and reply.trip.ascii_chars == 7 * len("word0 "))
        for _ in range(3):
            here.beat()
        await here.host.until_open(0)
        await here.quiet()

    left = asyncio.Event()
    steps = [*streamed(ROLE, *words(2), end=False), gate(left), *[chunk(each) for each in words(5)], stall]
    _, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(drain_s=3))
    found = only(path)
    assert (found.kind, found.cause, found.estimated) == ("posted", "caller.gone", True)
    assert found.completion == -(-2 * 6 * 3 // 10)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_hanging_up_during_a_whole_call_cancels_it(tmp_path: Path, how: str) -> None:
    """Cases 2 and 3: nothing was delivered: cancelled within a second, voided."""

    async def act(here: Stage) -> None:
        clients = [await here.open(chat(stream=False)) for _ in range(20)]
        await here.host.until_asked(20)
        for client in clients:
            getattr(client, how)()
        with within(1.0 if how == "reset" else 5.0):
            await here.host.until_open(0)

    _, path = play(tmp_path, lambda _: [stall], act=act, streams=Streams(keepalive_s=0))
    assert {(record.kind, record.cause, record.owed_pico) for record in records(path)} == {("voided", "caller.gone", 0)}


def test_reading_all_and_leaving_is_success(tmp_path: Path) -> None:
    """Case 4: a reset right after [DONE] is no disconnect."""

    async def act(here: Stage) -> None:
        for _ in range(20):
            client = await here.open()
            await client.until(b"[DONE]")
            client.reset()

    _, path = play(tmp_path, good, act=act)
    assert {(record.kind, record.cause, record.estimated) for record in records(path)} == {("posted", "stop", False)}


def test_a_client_that_stops_reading_stops_the_host(tmp_path: Path) -> None:
    """Case 5: the host is read no further than the marks allow; the client is cut when it takes nothing; what was
    delivered is posted."""
    taken = [0]
    piece = chunk(event({"content": "x" * 1000}))
    steps = [STREAM_HEAD, chunk(ROLE), flood(piece, 20_000, taken), chunk(last()), chunk(DONE)]

    async def act(here: Stage) -> None:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, ("127.0.0.1", here.app.port))
        body = json.dumps(chat()).encode()
        lines = ["POST /chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode()
        await loop.sock_sendall(reader, head + b"\r\n\r\n" + body)
        await here.host.until_asked(1)
        await here.quiet(DEADLINE_S)
        reader.close()
        await here.host.until_open(0)

    _, path = play(tmp_path, lambda _: steps, act=act, edge=Edge(stall_s=1, drain_s=0))
    assert taken[0] < 10_000, "the host was read on"
    assert (only(path).kind, only(path).cause, only(path).estimated) == ("posted", "caller.gone", True)


def test_a_slow_reader_gets_every_byte(tmp_path: Path) -> None:
    """Cases 5 and 166: pausing and going on loses nothing, doubles nothing and ends."""
    steps = streamed(ROLE, *words(5000), last({**USAGE, "completion_tokens": 9000}), DONE)

    async def act(here: Stage) -> Any:
        client = Client(*await asyncio.open_connection("127.0.0.1", here.app.port, limit=2048))
        here.clients.append(client)
        body = json.dumps(chat()).encode()
        client.send("POST", "/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
        await client.head()
        await until(lambda: any(reply.paused for reply in here.app.platform.active) or not here.app.platform.active)
        return await client.rest()

    got, path = play(tmp_path, lambda _: steps, act=act)
    assert got.text == "".join(f"word{number} " for number in range(5000))
    assert got.failure is None
    assert (only(path).kind, only(path).completion, only(path).estimated) == ("posted", 9000, False)


def test_a_stream_that_ends_while_its_client_waits_frees_the_host(tmp_path: Path) -> None:
    """The last bytes may wait for the client; the connection to the host is free, and nobody waits for a deadline."""
    steps = [STREAM_HEAD, chunk(b"".join([ROLE, *words(4000), last(), DONE]))]

    async def act(here: Stage) -> None:
        client = await here.open()
        await here.quiet()
        transport = here.app.transports["http"]
        await until(lambda: not transport.active, "the host's connection is free", 5.0)  # type: ignore[attr-defined]
        assert (await client.rest()).failure is None

    play(tmp_path, lambda _: [*steps, b"0\r\n\r\n"], act=act, edge=Edge(high_water_bytes=4096, drain_s=0))


def test_a_half_closed_client_gets_its_answer(tmp_path: Path) -> None:
    """Case 6: FIN after the request, and on reading."""

    async def act(here: Stage) -> Any:
        client = await here.open()
        client.writer.write_eof()
        return await client.rest()

    got, path = play(tmp_path, good, act=act)
    assert got.failure is None
    assert only(path).kind == "posted"


FORMS = {"comment": b": keep-alive\n\n", "newline": b": keep-alive\n", "off": b""}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("begun", [False, True])
def test_silence_in_a_stream_is_filled_as_the_key_says(tmp_path: Path, form: str, begun: bool) -> None:
    """Cases 22 and 166: comments after so many silent seconds, in the key's form; never `id:` nor `retry:`."""

    async def act(here: Stage) -> Any:
        key = await here.key("key-with-a-switch", keepalive=form)
        client = await here.open(key=key)
        await here.host.until_asked(1)
        if begun:
            await client.until(b"word0")
        for _ in range(3):
            here.beat()  # not yet
        assert FORMS["newline"] not in client.body
        for _ in range(6):
            here.beat()
        if form != "off":
            await client.until(b": keep-alive\n", 3)
        go.set()
        return await client.rest()

    go = asyncio.Event()
    before = [chunk(ROLE), chunk(words(1)[0])] if begun else []
    after = [chunk(piece) for piece in [*([] if begun else [ROLE, words(1)[0]]), last(), DONE]]
    steps = [STREAM_HEAD, *before, gate(go), *after, b"0\r\n\r\n"]
    got, _ = play(tmp_path, lambda _: steps, act=act, streams=Streams(keepalive_s=3))
    assert (got.status, got.text, got.failure) == (200, "word0 ", None)
    assert got.body.count(b": keep-alive") == (0 if form == "off" else 3)
    if form == "comment":
        assert got.body.count(FORMS[form]) == 3
    assert b"\nid:" not in got.body
    assert b"\nretry:" not in got.body


@pytest.mark.parametrize("form", FORMS)
def test_silence_before_a_whole_answer_is_blank_lines(tmp_path: Path, form: str) -> None:
    """Blank lines after admission, then JSON: what every client reads as JSON."""

    async def act(here: Stage) -> Any:
        client = await here.open(chat(stream=False), key=await here.key("key-with-a-switch", keepalive=form))
        await here.host.until_asked(1)
        for _ in range(4):
            here.beat()
        if form != "off":
            await client.until(b"\n", 2)
        go.set()
        return await client.rest()

    go = asyncio.Event()
    got, path = play(tmp_path, lambda _: [gate(go), answer(whole_body())], act=act, streams=Streams(keepalive_s=2))
    assert got.json["choices"][0]["message"]["content"] == "hello"
    assert got.body.startswith(b"{" if form == "off" else b"\n\n{")
    assert got.fields["content-type"] == "application/json"
    assert only(path).kind == "posted"


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_after_keep_alives_is_told_in_the_body(tmp_path: Path, stream: bool) -> None:
    """Once a keep-alive went out the status is 200: a late failure is an error event, or an error body."""

    async def act(here: Stage) -> Any:
        client = await here.open(chat(stream))
        await here.host.until_asked(1)
        for _ in range(3):
            here.beat()
        await client.head()
        go.set()
        return await client.rest()

    go = asyncio.Event()
    steps = [gate(go), *failed("500 Internal Server Error", "late")]
    got, path = play(tmp_path, lambda _: steps, act=act, streams=Streams(keepalive_s=1))
    assert got.status == 200
    assert got.complete
    assert (got.failure if stream else got.error)["code"] == "upstream_failed"
    assert b"[DONE]" not in got.body
    assert (only(path).kind, only(path).owed_pico) == ("voided", 0)


def test_another_host_may_still_serve_after_keep_alives(tmp_path: Path) -> None:
    """A comment is no answer: the next target is tried although the head is out."""

    async def act(here: Stage) -> Any:
        client = await here.open()
        await here.host.until_asked(1)
        here.beat()
        await client.head()
        go.set()
        return await client.rest()

    go = asyncio.Event()
    got, path = play(tmp_path, lambda _: [gate(go), rst], good, act=act, streams=Streams(keepalive_s=1))
    assert (got.failure, only(path).host) == (None, "host1")


def test_a_silent_client_learns_of_each_new_stall(tmp_path: Path) -> None:
    """Each event starts the count of silent seconds anew."""

    async def act(here: Stage) -> Any:
        client = await here.open()
        await client.until(b"word0")
        here.beat()
        go.set()
        await client.until(b"word1")
        here.beat()
        assert b"keep-alive" not in client.body
        end.set()
        return await client.rest()

    go, end = asyncio.Event(), asyncio.Event()
    first, second = (chunk(piece) for piece in words(2))
    steps = [STREAM_HEAD, chunk(ROLE), first, gate(go), second, gate(end), chunk(last()), chunk(DONE), b"0\r\n\r\n"]
    got, _ = play(tmp_path, lambda _: steps, act=act, streams=Streams(keepalive_s=2))
    assert b"keep-alive" not in got.body


def test_leaving_while_another_host_is_tried_ends_it(tmp_path: Path) -> None:
    """The client is gone before the second host said a word: that one is cancelled, too."""

    async def act(here: Stage) -> None:
        client = await here.open()
        await here.hosts[1].until_asked(1)
        client.reset()
        await here.hosts[1].until_open(0)

    _, path = play(tmp_path, lambda _: [rst], lambda _: [stall], act=act)
    assert (only(path).kind, only(path).attempts, only(path).cause) == ("voided", 2, "caller.gone")


def test_pipelined_requests_are_served_in_order(tmp_path: Path) -> None:
    """Case 10: one at a time, each with a hold of its own."""

    async def act(here: Stage) -> int:
        client = await here.connect()
        body = json.dumps(chat(stream=False)).encode()
        for _ in range(30):
            client.send("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
        for _ in range(30):
            client.status, client.body = 0, b""
            assert (await client.rest()).status == 200
        return here.host.most

    most, path = play(tmp_path, good, act=act)
    assert most == 1
    assert Counter(record.kind for record in records(path)) == {"posted": 30}


def test_a_storm_of_clients_that_come_and_go_leaves_nothing(tmp_path: Path) -> None:
    """Cases 1, 47 and 72: whatever each client does, every hold is resolved, every lease back, every dispatch in the
    ledger."""

    async def pause(peer: Peer) -> None:
        await asyncio.sleep(0)

    def script(request: Any) -> Any:
        kind = request.number % 5
        if kind == 0:
            return good(request)
        if kind == 1:
            return [*streamed(ROLE, *words(3), end=False), rst]
        if kind == 2:
            return failed("500 Internal Server Error", "x")
        if kind == 3:
            return [STREAM_HEAD, chunk(ROLE), pause, chunk(words(1)[0]), stall]
        return [b"HTTP/1.1 2", rst]  # not before a byte: a reused connection would be replaced in silence

    async def one(here: Stage, number: int) -> None:
        client = await here.open(chat(stream=number % 3 > 0))
        for _ in range(number % 7 * 3):
            await asyncio.sleep(0)
        if number % 4 == 0:
            client.reset()
        elif number % 4 == 1:
            client.close()
        else:
            if number % 3 > 0:
                with contextlib.suppress(OSError, EOFError, ValueError):
                    if await client.head() == 200:
                        await client.piece()
            client.reset()

    async def act(here: Stage) -> list[int]:
        for wave in range(5):
            await asyncio.gather(*(one(here, wave * 60 + number) for number in range(60)))
        await here.quiet()
        return [len(host.requests) for host in here.hosts]

    asked, path = play(tmp_path, script, script, act=act)
    assert sum(record.attempts for record in records(path)) >= sum(asked)
    assert len(records(path)) <= 300
