"""What a host may say that is odd, endless or dangerous, through the whole server: RELIABILITY cases 22, 23, 25, 26 and
35 to 38. What the transport alone makes of it: test_http_answers.py and test_http_deadlines.py."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.driven import by_clock, pass_time
from faults.sink import Clock
from faults.stage import (
    DONE,
    HOST_KEY,
    ROLE,
    Answer,
    Stage,
    chat,
    event,
    good,
    good_stream,
    last,
    only,
    play,
    stage,
    streamed,
    until,
    whole_body,
    words,
)
from faults.upstream import STREAM_HEAD, Peer, Upstream, answer, chunk, close, flood
from moonpool.settings import Streams
from moonpool.settings_hosts import Upstream as Timers

MIB = 1 << 20


class Beats:
    """A host that is at work, and says so when the test lets it."""

    def __init__(self, life: bytes, *after: bytes, content_type: bytes = b"text/event-stream") -> None:
        self.head = STREAM_HEAD.replace(b"text/event-stream", content_type)
        self.life, self.after = life, after
        self.said = 0
        self._wanted = 0
        self._news = asyncio.Event()
        self._over = False

    def __call__(self, _: Any) -> Any:
        return [self.head, self._live, *(chunk(piece) for piece in self.after), b"0\r\n\r\n"]

    async def _live(self, peer: Peer) -> None:
        while not self._over:
            await self._news.wait()
            self._news.clear()
            while self.said < self._wanted:
                await peer.send(chunk(self.life))
                self.said += 1

    async def beat(self, here: Stage) -> None:
        """One sign of life, read by us before this returns."""
        (exchange,) = here.app.transports["http"].active  # type: ignore[attr-defined]
        self._wanted += 1
        exchange.moved = False
        self._news.set()
        await until(lambda: exchange.moved or exchange.over, "the sign of life is read")

    def end(self) -> None:
        self._over = True
        self._news.set()


SIGNS = {
    True: (b": keep-alive\n\n", [*words(3), last(), DONE], b"text/event-stream"),
    False: (b"\n", [whole_body("word0 word1 word2 ")], b"application/json"),
}


@pytest.mark.parametrize("stream", [True, False])
def test_nine_minutes_of_life_and_then_an_answer(tmp_path: Path, stream: bool) -> None:
    """Cases 22 and 23: comments of a stream, or blank lines before a body, every 15 s for nine minutes, by a driven
    clock and the default deadlines. Our client hears from us every ten seconds, reads the answer whole and pays what
    the host said."""
    clock, (life, after, content_type) = Clock(), SIGNS[stream]
    host = Beats(life, *after, content_type=content_type)

    async def act(here: Stage) -> Answer:
        client = await here.open(chat(stream))
        await here.host.until_asked(1)
        await until(lambda: _answers(here), "the head has come")
        for _ in range(36):
            await pass_time(here, clock, 15)
            await host.beat(here)
        host.end()
        return await client.rest()

    got, path = play(tmp_path, host, act=act, prepare=by_clock(clock))
    if stream:
        assert (got.status, got.text, got.failure) == (200, "word0 word1 word2 ", None)
        assert got.body.count(b": keep-alive\n\n") >= 53
    else:
        assert got.json["choices"][0]["message"]["content"] == "word0 word1 word2 "
        assert got.body.startswith(b"\n" * 53)
    record = only(path)
    assert (record.kind, record.completion, record.estimated, record.attempts) == ("posted", 7, False, 1)


@pytest.mark.parametrize("stream", [True, False])
def test_life_does_not_stand_for_an_answer_for_ever(tmp_path: Path, stream: bool) -> None:
    """Cases 22 and 23: signs of life never move the deadline of the first content: after ten minutes another host is
    asked."""
    clock, (life, after, content_type) = Clock(), SIGNS[stream]
    host = Beats(life, *after, content_type=content_type)

    async def act(here: Stage) -> Answer:
        client = await here.open(chat(stream))
        await here.host.until_asked(1)
        await until(lambda: _answers(here), "the head has come")
        for _ in range(39):
            await pass_time(here, clock, 15)
            await host.beat(here)
        await pass_time(here, clock, 14)
        assert not here.hosts[1].requests
        await pass_time(here, clock, 2)
        return await client.rest()

    got, path = play(tmp_path, host, good, act=act, prepare=by_clock(clock))
    assert got.status == 200
    assert (only(path).host, only(path).attempts, only(path).kind) == ("host1", 2, "posted")


def _answers(here: Stage) -> bool:
    """Whether the head of the host's answer was read."""
    return any(exchange.connection is not None for exchange in here.app.transports["http"].active)  # type: ignore[attr-defined]


# 25 and 36: too much.


def high_water_bytes() -> int:
    """The most memory this process had since `forget_high_water`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def forget_high_water() -> None:
    Path("/proc/self/clear_refs").write_text("5")


ENDLESS = {
    "event": (b'data: {"id":"', b"x" * 65536),
    "line": (b"x", b"x" * 65536),
    "comment": (b": ", b"x" * 65536),
    "lines without an end": (b"data: 1\n", b"data: 11111111\n" * 4000),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("begun", [False, True])
def test_fifty_mebibytes_without_an_end_are_not_kept(tmp_path: Path, name: str, begun: bool) -> None:
    """Case 25: an event, a line, a comment of 50 MiB: cut long before, 502 or an error event, and memory does not grow
    with what the host would have said."""
    first, piece = ENDLESS[name]
    taken = [0]
    count = 50 * MIB // len(piece)
    steps = [STREAM_HEAD, *([chunk(ROLE), chunk(words(1)[0])] if begun else []), chunk(first)]
    grown = []

    async def act(here: Stage) -> Answer:
        await here.ask(chat(), key="nobody's")  # whatever is made once is made
        forget_high_water()
        before = high_water_bytes()
        got = await here.ask(chat())
        grown.append(high_water_bytes() - before)
        return got

    got, path = play(tmp_path, lambda _: [*steps, flood(chunk(piece), count, taken), close], act=act)
    assert taken[0] * len(piece) < 12 * MIB, "the host was read on"
    assert grown[0] < 12 * MIB, grown
    if begun:
        assert got.failure is not None
        assert (only(path).kind, only(path).estimated) == ("posted", True)
    else:
        assert got.status == 502
        assert (only(path).kind, only(path).owed_pico) == ("voided", 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_bomb_is_not_unpacked(tmp_path: Path, stream: bool) -> None:
    """Case 36: 64 MiB of zeros in 64 KiB of gzip, though nobody asked for gzip: 502 at its head, or, where it does not
    say what it is, for its nonsense; memory stays."""
    bomb = gzip.compress(b"\0" * 64 * MIB, 9)
    said = answer(bomb).replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type")

    async def act(here: Stage) -> Answer:
        await here.ask(chat(), key="nobody's")
        forget_high_water()
        before = high_water_bytes()
        got = await here.ask(chat(stream))
        assert high_water_bytes() - before < 24 * MIB
        return got

    for number, steps in enumerate(([said, close], [answer(bomb), close])):
        got, path = play(tmp_path / str(number), lambda _, steps=steps: steps, act=act)
        assert (got.status, only(path).kind) == (502, "voided")


def test_a_body_has_a_bound(tmp_path: Path) -> None:
    """Case 36: a whole answer without an end is cut at `upstream.body_bytes_max`."""
    taken = [0]
    head = STREAM_HEAD.replace(b"text/event-stream", b"application/json")
    steps = [head, chunk(b'{"id":"'), flood(chunk(b"x" * 65536), 800, taken), close]
    got, path = play(
        tmp_path, lambda _: steps, act=lambda here: here.ask(chat(False)), upstream=Timers(body_bytes_max=MIB)
    )
    assert (got.status, only(path).cause) == (502, "upstream.too_large")
    assert taken[0] < 200


# 26: how lines end.

TEXT = "a\u2028b\u0085c\u000bd\u000ce\u001cf\rg\nh\r\ni é你🎉"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("size", [1, 7, 65536])
def test_lines_end_as_they_like_and_contents_keep_theirs(tmp_path: Path, end: bytes, escaped: bool, size: int) -> None:
    """Case 26: events whose lines end in LF, CRLF or CR, in pieces that part CR and LF; what looks like a line's end
    to some and is none in a content comes out as it went in."""
    content = event({"content": TEXT})
    if not escaped:
        for sign in "\u2028\u0085é你🎉":
            content = content.replace(_escape(sign), sign.encode())
    raw = b"".join([ROLE, content, *words(2), last(), DONE]).replace(b"\n", end)
    steps = streamed(*(raw[at : at + size] for at in range(0, len(raw), size)))
    got, path = play(tmp_path, lambda _: steps, act=lambda here: here.ask(chat()))
    assert (got.failure, got.text) == (None, TEXT + "word0 word1 ")
    assert (only(path).completion, only(path).estimated) == (7, False)


def _escape(sign: str) -> bytes:
    """As JSON writes it."""
    number = ord(sign)
    if number < 0x10000:
        return b"\\u%04x" % number
    number -= 0x10000
    return b"\\u%04x\\u%04x" % (0xD800 + (number >> 10), 0xDC00 + (number & 0x3FF))


# 35, 37, 38: heads.


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_takes_our_key_nowhere(tmp_path: Path, status: str) -> None:
    """Case 35: whoever is named in Location sees no connection, and the client no Location."""

    async def run() -> None:
        async with Upstream(lambda _: good_stream()) as elsewhere:
            place = f"Location: {elsewhere.base_url}/chat/completions"
            steps = [f"HTTP/1.1 {status}\r\n{place}\r\nContent-Length: 0\r\n\r\n".encode()]
            async with stage(tmp_path, lambda _: steps) as here:
                got = await here.ask(chat())
                assert (got.status, got.error["code"]) == (502, "upstream_failed")
                assert "location" not in got.fields
                assert HOST_KEY.encode() not in got.body
                assert here.host.requests[0].fields["authorization"] == f"Bearer {HOST_KEY}"
            assert elsewhere.connections == 0

    uvloop.run(run())
    assert only(tmp_path / "moonpool.db").kind == "voided"


@pytest.mark.parametrize(
    "field", [b"X: a\0b", b"X: a\rSet-Cookie: b=c", b"X: a\r\n folded", b"X\0: a", b"Set-Cookie : b=c", b": b"],
)  # fmt: skip
def test_fields_that_no_head_may_have(tmp_path: Path, field: bytes) -> None:
    """Case 37: CR, LF or NUL in a value, and names that are none: 502, and nothing of it reaches the client."""
    spiced = answer(whole_body()).replace(b"Content-Type", field + b"\r\nContent-Type")
    got, path = play(tmp_path, lambda _: [spiced, close], act=lambda here: here.ask(chat(False)))
    assert (got.status, only(path).kind) == (502, "voided")
    assert not {"x", "set-cookie"} & set(got.fields)


@pytest.mark.parametrize("stream", [True, False])
def test_interim_answers_and_trailers_change_nothing(tmp_path: Path, stream: bool) -> None:
    """Case 38: hundreds of 1xx before the answer, trailers behind it: the client reads the answer, and the connection
    serves the next."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + b"HTTP/1.1 102 Processing\r\n\r\n" * 500
    trailers = b"0\r\nSet-Cookie: a=b\r\nContent-Type: text/html\r\n\r\n"
    pieces = [ROLE, *words(3), last(), DONE] if stream else [whole_body("word0 word1 word2 ")]
    head = STREAM_HEAD if stream else STREAM_HEAD.replace(b"text/event-stream", b"application/json")
    steps = [interim, head, *(chunk(piece) for piece in pieces), trailers]

    async def act(here: Stage) -> list[Answer]:
        found = [await here.ask(chat(stream)) for _ in range(3)]
        if not stream:
            assert here.host.connections == 1
        return found

    found, _ = play(tmp_path, lambda _: steps, act=act)
    for got in found:
        text = got.text if stream else got.json["choices"][0]["message"]["content"]
        assert (got.status, text) == (200, "word0 word1 word2 ")
        assert "set-cookie" not in got.fields


@pytest.mark.parametrize("interim", [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                                     b"HTTP/1.1 102 Processing\r\n\r\n" * 5000])  # fmt: skip
def test_no_upgrade_and_no_endless_interim(tmp_path: Path, interim: bytes) -> None:
    """Case 38: we asked for no other protocol, and a head has its bound: 502."""
    got, path = play(tmp_path, lambda _: [interim, *good_stream()], act=lambda here: here.ask(chat()))
    assert (got.status, only(path).cause, only(path).kind) == (502, "upstream.nonsense", "voided")


def test_the_deadlines_are_the_defaults() -> None:
    """The driven tests speak of ten minutes, of one, and of ten seconds: these."""
    timers = Timers()
    assert (timers.first_s, timers.gap_s, timers.connect_s, Streams().keepalive_s) == (600.0, 60.0, 5.0, 10)
