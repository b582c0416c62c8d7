"""Answers a host may give over HTTP/1.1, good and bad, against a real socket: what the sink hears of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.sink import CHAT, Recorder, host_at
from faults.upstream import LAST_CHUNK, STREAM_HEAD, Request, Step, Upstream, answer, chunk, close, rst, sliced
from moonpool.transports.http import HttpTransport
from moonpool.words import Outbound

LOOPS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Run = Callable[..., Any]

EVENTS = [b'data: {"a":"\xe4\xbd\xa0"}\n\n', b": keep-alive\n\n", b"data: [DONE]\n\n"]
STREAM = STREAM_HEAD + b"".join(map(chunk, EVENTS)) + LAST_CHUNK


async def tell(steps: Iterable[Step], **settings: Any) -> tuple[Recorder, int, int]:
    """One request to a host that takes these steps. What the sink heard, and the pool's slots and idle ones."""
    kept = list(steps)
    async with Upstream(lambda request: kept) as upstream:
        transport = HttpTransport(**settings)
        sink = Recorder()
        host = host_at(upstream.base_url)
        transport.send(host, CHAT, sink)
        assert sink.calls == []
        await sink.over()
        pool = transport.pool(host)
        assert pool is not None
        counts = len(pool), pool.idle
        await transport.stop()
        return sink, *counts


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("text", "body", "kept"),
    [
        (answer(b'{"x":1}'), b'{"x":1}', 1),
        (answer(b""), b"", 1),
        (STREAM, b"".join(EVENTS), 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", 1),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", 0),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", 0),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", b"ok", 1),
    ],
    ids=["length", "empty", "chunked", "204", "http10", "close", "close-chunked", "identity"],
)
def test_whole_answers(run: Run, text: bytes, body: bytes, kept: int) -> None:
    """An answer is whole by its own framing, and its connection is kept exactly when the host keeps it."""
    sink, slots, idle = run(tell([text]))
    assert sink.code == ""
    assert sink.body == body
    assert (slots, idle) == (kept, kept)
    assert sink.calls[0] == "head"


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_body_until_eof(run: Run, version: str) -> None:
    """Without any length the end of the connection ends the body; a reset is not such an end."""
    head = f"HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\n\r\n".encode()
    sink, slots, _ = run(tell([head, b"all ", b"of it", close]))
    assert (sink.code, sink.body, slots) == ("", b"all of it", 0)
    sink, slots, _ = run(tell([head, b"some of it", rst]))
    assert (sink.code, slots) == ("upstream.cut", 0)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("text", [STREAM, answer(b'{"message":"whole"}')], ids=["chunked", "length"])
def test_sliced_to_bytes(run: Run, text: bytes) -> None:
    """An answer that arrives byte by byte is the same answer."""
    whole, *_ = run(tell([text]))
    sink, slots, idle = run(tell([sliced(text)]))
    assert sink.code == ""
    assert (sink.status, sink.headers, sink.body) == (whole.status, whole.headers, whole.body)
    assert (slots, idle) == (1, 1)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("end", [close, rst], ids=["fin", "rst"])
@pytest.mark.parametrize("text", [STREAM, answer(b'{"message":"whole"}')], ids=["chunked", "length"])
def test_cut_after_every_byte(run: Run, text: bytes, end: Step) -> None:
    """A connection that ends after any number of bytes but all gives one end, `upstream.cut`, and never a whole."""

    async def main() -> None:
        body = (await tell([text]))[0].body
        async with Upstream(lambda request: [text[: request.number], end]) as upstream:
            transport = HttpTransport()
            host = host_at(upstream.base_url)
            for _ in range(len(text)):
                sink = Recorder()
                transport.send(host, CHAT, sink)
                await sink.over()
                assert sink.code == "upstream.cut"
                assert body.startswith(sink.body)
                assert sink.calls.count("head") <= 1
            assert [request.number for request in upstream.requests] == list(range(len(text)))
            assert len(transport.pool(host) or ()) == 0
            await transport.stop()

    run(main())


def test_one_call_for_one_read() -> None:
    """A read that brings fifty events is told as one piece."""

    async def main() -> None:
        text = STREAM_HEAD + b"".join(chunk(b"data: %d\n\n" % n) for n in range(50)) + LAST_CHUNK
        sink, *_ = await tell([text])
        assert sink.calls == ["head", "data", "end"]

    asyncio.run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_interim_answers(run: Run) -> None:
    """1xx answers, a flood of them too, are swallowed with their fields; the final answer is told."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + b"HTTP/1.1 102 Processing\r\n\r\n" * 1000
    sink, slots, idle = run(tell([interim, answer(b"ok")]))
    assert (sink.code, sink.status, sink.body) == ("", 200, b"ok")
    assert sink.headers == {"content-type": "application/json", "content-length": "2"}
    assert (slots, idle) == (1, 1)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switch protocols"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "switch protocols"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 3000, "head of more than"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(1000)) + b"\r\n", "128 header fields"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 1000 + b"\r\n", "128 header fields"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\nContent-Length: 0\r\n\r\n", "head of more than"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nX\0: a\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", "content-encoding 'gzip'"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nxx", "content-encoding 'br'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", ""),
        (b"<html><body>502 Bad Gateway</body></html>", ""),
        (b"\x16\x03\x01\x00\xa5garbage", ""),
    ],
)
def test_nonsense(run: Run, text: bytes, why: str) -> None:
    """What is no proper answer, or more of a head than is allowed, is `upstream.nonsense` and costs the connection."""
    sink, slots, _ = run(tell([text]))
    assert sink.code == "upstream.nonsense"
    assert sink.calls == ["end"]
    assert why in sink.detail
    assert sink.detail.startswith("there: ")
    assert slots == 0


@pytest.mark.parametrize("run", LOOPS)
def test_nonsense_in_the_body(run: Run) -> None:
    """Framing that breaks in the middle: what came before is told, then `upstream.nonsense`."""
    sink, slots, _ = run(tell([STREAM_HEAD + chunk(b"data: 1\n\n"), b"zz\r\nbroken"]))
    assert (sink.code, sink.body, slots) == ("upstream.nonsense", b"data: 1\n\n", 0)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    "endless", [b";" + b"x" * 9999, b"\r\nok\r\n0\r\nT: " + b"x" * 9999], ids=["extension", "trailer"]
)
def test_endless_framing(run: Run, endless: bytes) -> None:
    """Chunk extensions and trailers are ignored, but not without end."""
    sink, slots, _ = run(tell([STREAM_HEAD, b"2", endless, *[b"x" * 10000] * 20, close]))
    assert (sink.code, slots) == ("upstream.nonsense", 0)


@pytest.mark.parametrize("run", LOOPS)
def test_trailers_and_extensions(run: Run) -> None:
    """Trailers and chunk extensions change nothing that is told."""
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nContent-Type: x\r\nT: 1\r\n\r\n"
    sink, slots, idle = run(tell([text]))
    assert (sink.code, sink.body) == ("", b"ok")
    assert sink.headers == {"transfer-encoding": "chunked"}
    assert (slots, idle) == (1, 1)


@pytest.mark.parametrize("run", LOOPS)
def test_repeated_fields(run: Run) -> None:
    """Names are lower case; a field that came twice is joined by a comma."""
    sink, *_ = run(tell([b"HTTP/1.1 200 OK\r\nX-Odd-Name: a\r\nx-odd-name: b\r\nCONTENT-LENGTH: 0\r\n\r\n"]))
    assert sink.headers == {"x-odd-name": "a, b", "content-length": "0"}


@pytest.mark.parametrize("run", LOOPS)
def test_redirects_are_answers(run: Run) -> None:
    """A redirect is told as what it is and not followed: the key would go along."""
    text = b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n"
    sink, *_ = run(tell([text]))
    assert (sink.code, sink.status, sink.headers["location"]) == ("", 302, "http://elsewhere.test/")


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    "after", [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"garbage", b"H"], ids=["answer", "garbage", "byte"]
)
def test_bytes_after_the_answer(run: Run, after: bytes) -> None:
    """An answer followed by more is whole, but its connection is not used again: the next answer may be false."""
    sink, slots, _ = run(tell([answer(b"ok") + after]))
    assert (sink.code, sink.body, slots) == ("", b"ok", 0)


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("framing", ["length", "chunked", "eof"])
def test_body_limit(run: Run, framing: str) -> None:
    """A body may be as long as the limit, and one byte more ends it, whatever its framing says."""

    def steps(size: int) -> list[Step]:
        if framing == "length":
            return [answer(b"x" * size)]
        if framing == "chunked":
            return [STREAM_HEAD, *[chunk(b"x")] * size, LAST_CHUNK]
        return [b"HTTP/1.0 200 OK\r\n\r\n", b"x" * size, close]

    sink, *_ = run(tell(steps(5000), body_bytes_max=5000))
    assert (sink.code, len(sink.body)) == ("", 5000)
    sink, slots, _ = run(tell(steps(5001), body_bytes_max=5000))
    assert (sink.code, slots) == ("upstream.too_large", 0)
    assert len(sink.body) <= 5000


def test_what_is_sent() -> None:
    """The request as a host sees it: target below the base URL's path, who we are, no compression asked for."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as upstream:
            transport = HttpTransport(user_agent="moonpool/test")
            host = host_at(upstream.base_url + "/v1/", api_key="secret")
            stream = Outbound("/chat/completions", b"{}", stream=True, headers=(("X-More", "1"),))
            for outbound in (stream, Outbound("/models", method="GET"), Outbound("/big", b"x" * 300_000)):
                sink = Recorder()
                transport.send(host, outbound, sink)
                await sink.over()
                assert sink.code == ""
            await transport.stop()
        common = {
            "host": f"127.0.0.1:{upstream.port}",
            "authorization": "Bearer secret",
            "accept-encoding": "identity",
            "user-agent": "moonpool/test",
        }
        chat, models, big = upstream.requests
        assert (chat.method, chat.target, chat.body) == ("POST", "/v1/chat/completions", b"{}")
        assert chat.fields == common | {
            "accept": "text/event-stream", "content-type": "application/json", "content-length": "2", "x-more": "1",
        }  # fmt: skip
        assert (models.method, models.target) == ("GET", "/v1/models")
        assert models.fields == common | {"accept": "application/json"}
        assert big.body == b"x" * 300_000
        assert upstream.connections == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("outbound", "settings"),
    [
        (Outbound("/x\r\nHost: evil"), {}),
        (Outbound("/x y"), {}),
        (Outbound("/x", headers=(("X", "a\r\nY: b"),)), {}),
        (Outbound("/x", headers=(("X:", "a"),)), {}),
        (CHAT, {"api_key": "two\nlines"}),
        (CHAT, {"api_key": "\u5bc6"}),
        (CHAT, {"base_url": "ftp://host.test"}),
        (CHAT, {"base_url": "http://user:secret@"}),
        (CHAT, {"base_url": "http://user:secret@host.test:99999999"}),
        (CHAT, {"base_url": ""}),
    ],
)
def test_what_cannot_be_sent(outbound: Outbound, settings: dict[str, str]) -> None:
    """A request that cannot be one never leaves; the sink hears so later, not from within `send`, and no secret."""

    async def main() -> None:
        transport = HttpTransport()
        sink = Recorder()
        kept = {"base_url": "http://127.0.0.1:9", "api_key": "k"} | settings
        inbound = transport.send(host_at(kept["base_url"], api_key=kept["api_key"]), outbound, sink)
        assert sink.calls == []
        await sink.over()
        assert sink.code == "upstream.unreachable"
        assert "secret" not in sink.detail
        assert "lines" not in sink.detail
        inbound.close()
        closed = Recorder()
        transport.send(host_at("ftp://x.test"), CHAT, closed).close()
        await transport.stop()
        assert closed.calls == []

    asyncio.run(main())


def _run_silently(steps: list[Step]) -> Recorder:
    async def main() -> Recorder:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        sink, slots, idle = await tell(steps)
        assert not faults
        assert slots == idle
        return sink

    return asyncio.run(main())


_PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"\r\n",
        b"5\r\n",
        b"hello",
        b"0\r\n\r\n",
        b"\0",
        b":",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(_PARTS, st.binary(max_size=20)), max_size=12))
def test_any_bytes(parts: list[bytes]) -> None:
    """Whatever bytes a host sends before it closes: one end, a known cause, no fault of ours, no slot lost."""
    sink = _run_silently([*parts, close])
    assert sink.code in ("", "upstream.cut", "upstream.nonsense")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(STREAM) - 1), st.integers(0, 7))
def test_a_flipped_bit(position: int, bit: int) -> None:
    """One wrong bit in an answer: one end, a known cause, no fault of ours."""
    text = bytearray(STREAM)
    text[position] ^= 1 << bit
    sink = _run_silently([bytes(text), close])
    assert sink.code in ("", "upstream.cut", "upstream.nonsense")


def test_script_sees_its_request() -> None:
    """The stand-in host answers by what it was asked (the witness of these tests is itself seen to work)."""

    async def main() -> None:
        def script(request: Request) -> list[Step]:
            return [answer(request.body)]

        async with Upstream(script) as upstream:
            transport = HttpTransport()
            for body in (b"1", b"2"):
                sink = Recorder()
                transport.send(host_at(upstream.base_url), Outbound("/x", body), sink)
                assert (await sink.over()).body == body
            await transport.stop()

    asyncio.run(main())
