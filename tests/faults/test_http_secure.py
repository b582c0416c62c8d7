"""TLS and proxies: whom we trust, what we say to whom, and that a secret goes to nobody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trustme
import uvloop

from faults.sink import CHAT, Recorder, host_at, turns
from faults.upstream import LAST_CHUNK, STREAM_HEAD, Peer, Request, Step, Upstream, answer, chunk, close, flood, rst
from moonpool.transports.http import HttpTransport
from moonpool.transports.tls import system_context
from moonpool.words import Host, Outbound

LOOPS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Run = Callable[..., Any]

AUTHORITY = trustme.CA()
BASIC = "Basic " + base64.b64encode(b"us:pa ss").decode()


def serving(*names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


def trusting() -> ssl.SSLContext:
    context = system_context()
    AUTHORITY.configure_trust(context)
    return context


async def loopback(hostname: str, port: int) -> Sequence[tuple[int, str]]:
    """Every name is here."""
    return [(2, "127.0.0.1")]


async def ask(transport: HttpTransport, host: Host, outbound: Outbound = CHAT) -> Recorder:
    sink = Recorder()
    transport.send(host, outbound, sink)
    return await sink.over()


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("name", ["origin.test", "127.0.0.1"])
def test_trusted(run: Run, name: str) -> None:
    """A host with a certificate for its name is spoken to, on one connection, in HTTP/1.1, and told its name."""

    async def main() -> None:
        asked: list[tuple[str | None, str | None]] = []
        context = serving("origin.test", "127.0.0.1")
        names: list[str | None] = []
        context.sni_callback = lambda connection, server_name, _: names.append(server_name)

        async def look(peer: Peer) -> None:
            spoken = peer.writer.get_extra_info("ssl_object")
            asked.append((spoken.version(), spoken.selected_alpn_protocol()))

        async with Upstream(lambda request: [look, answer(b"ok")], context=context) as upstream:
            transport = HttpTransport(context=trusting(), resolve=loopback)
            host = host_at(f"https://{name}:{upstream.port}/v1")
            for _ in range(3):
                assert (await ask(transport, host)).code == ""
            assert upstream.connections == 1
            assert asked == [("TLSv1.3", "http/1.1")] * 3
            assert names == [None if name == "127.0.0.1" else name]
            assert upstream.requests[0].fields["host"] == f"{name}:{upstream.port}"
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("name", "context", "why"),
    [("origin.test", system_context, "not trusted"), ("other.test", trusting, "not trusted: Hostname mismatch")],
    ids=["stranger", "name"],
)
def test_not_trusted(run: Run, name: str, context: Callable[[], ssl.SSLContext], why: str) -> None:
    """A certificate of a stranger, or for another name, ends it before a byte of the request is sent."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with Upstream(lambda request: [answer(b"ok")], context=serving("origin.test")) as upstream:
            transport = HttpTransport(context=context(), resolve=loopback)
            sink = await ask(transport, host_at(f"https://{name}:{upstream.port}"))
            assert sink.code == "upstream.unreachable"
            assert why in sink.detail
            assert upstream.requests == []
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_no_tls_there(run: Run) -> None:
    """A host that does not speak TLS at all is `upstream.unreachable`."""

    async def main() -> None:
        async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(b"what?"))
            writer.close()

        server = await asyncio.start_server(mumble, "127.0.0.1", 0)
        transport = HttpTransport()
        sink = await ask(transport, host_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        assert sink.code == "upstream.unreachable"
        assert "TLS failed" in sink.detail
        server.close()
        await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("end", [close, rst], ids=["fin", "rst"])
def test_cut_inside_tls(run: Run, end: Step) -> None:
    """An answer cut inside TLS is cut, and a stale connection is retried, as without it."""

    async def main() -> None:
        def script(request: Request) -> list[Step]:
            return [[answer(b"ok")], [end], [STREAM_HEAD, chunk(b"data: 1\n\n"), end]][request.number]

        async with Upstream(script, context=serving("127.0.0.1")) as upstream:
            transport = HttpTransport(context=trusting())
            host = host_at(upstream.base_url)
            assert (await ask(transport, host)).code == ""
            assert (await ask(transport, host)).code == "upstream.cut"
            assert [request.connection for request in upstream.requests] == [0, 0, 1]
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_back_pressure_inside_tls(run: Run) -> None:
    """A paused answer inside TLS is not read further than what was on its way."""

    async def main() -> None:
        taken = [0]
        script = [STREAM_HEAD, flood(chunk(b"x" * 65536), 320, taken), LAST_CHUNK]
        async with Upstream(lambda request: script, context=serving("127.0.0.1")) as upstream:
            transport = HttpTransport(context=trusting())
            sink = Recorder()
            inbound = transport.send(host_at(upstream.base_url), CHAT, sink)
            sink.on["data"] = inbound.pause
            await sink.until(lambda sink: sink.body != b"")
            before = len(sink.body)
            await turns(3000)
            assert len(sink.body) - before <= 1 << 20
            assert taken[0] < 320
            del sink.on["data"]
            inbound.resume()
            await sink.over()
            assert (sink.code, len(sink.body)) == ("", 65536 * 320)
            await transport.stop()

    run(main())


def _tunnel(port: int) -> Step:
    """What a proxy does after its yes: carry bytes to `port` here, both ways, until one side ends."""

    async def carry(peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, RuntimeError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                sink.close()

        await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))
        writer.close()
        await close(peer)

    return carry


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("secure_proxy", [False, True], ids=["http-proxy", "https-proxy"])
def test_tunnel(run: Run, secure_proxy: bool) -> None:
    """https goes through the proxy as a tunnel: the proxy learns the name and its own password, and no more."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")], context=serving("origin.test")) as upstream:
            context = serving("127.0.0.1") if secure_proxy else None
            yes = b"HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n"
            async with Upstream(lambda request: [yes, _tunnel(upstream.port)], context=context) as proxy:
                scheme = "https" if secure_proxy else "http"
                settings = {"https_proxy": f"{scheme}://us:pa%20ss@127.0.0.1:{proxy.port}", "HTTP_PROXY": "http://x"}
                transport = HttpTransport(context=trusting(), proxies=settings)
                host = host_at(f"https://origin.test:{upstream.port}/v1")
                for _ in range(2):
                    sink = await ask(transport, host)
                    assert (sink.code, sink.body) == ("", b"ok")
                assert (proxy.connections, upstream.connections) == (1, 1)
                (connect,) = proxy.requests
                assert (connect.method, connect.target) == ("CONNECT", f"origin.test:{upstream.port}")
                assert connect.fields == {
                    "host": f"origin.test:{upstream.port}",
                    "proxy-authorization": BASIC,
                }
                assert upstream.requests[0].target == "/v1/chat/completions"
                assert "proxy-authorization" not in upstream.requests[0].fields
                await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"], "the proxy answered 407"),
        ([b"HTTP/1.1 200 OK\r\n\r\nsurplus"], "makes no sense"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "makes no sense"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20000], "makes no sense"),
        ([close], "closed the connection"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", close], "TLS failed|closed|no connection|broke"),
    ],
    ids=["407", "surplus", "other", "endless", "closed", "closed-later"],
)
def test_proxy_that_refuses(run: Run, steps: list[Step], why: str) -> None:
    """A proxy that says no, nonsense or nothing is `upstream.unreachable`; its password is in no message."""

    async def main() -> None:
        async with Upstream(lambda request: steps) as proxy:
            transport = HttpTransport(proxies={"HTTPS_PROXY": f"http://us:secret@127.0.0.1:{proxy.port}"})
            sink = await ask(transport, host_at("https://origin.test"))
            assert sink.code == "upstream.unreachable"
            assert any(words in sink.detail for words in why.split("|"))
            assert "secret" not in sink.detail
            assert f"proxy 127.0.0.1:{proxy.port}" in sink.detail
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_absolute_form(run: Run) -> None:
    """Plain http goes through the proxy in absolute form, on a reused connection, with the proxy's password."""

    async def main() -> None:
        async with Upstream(lambda request: [answer(b"ok")]) as proxy:
            transport = HttpTransport(proxies={"http_proxy": f"us:pa%20ss@127.0.0.1:{proxy.port}"})
            for _ in range(2):
                assert (await ask(transport, host_at("http://origin.test:8000/v1"))).code == ""
            assert proxy.connections == 1
            request = proxy.requests[1]
            assert request.target == "http://origin.test:8000/v1/chat/completions"
            assert request.fields["host"] == "origin.test:8000"
            assert request.fields["proxy-authorization"] == BASIC
            await transport.stop()

    run(main())


@pytest.mark.parametrize("run", LOOPS)
def test_proxy_of_another_kind(run: Run) -> None:
    """A proxy that we cannot speak to is said so, request by request; nothing goes past it."""

    async def main() -> None:
        transport = HttpTransport(proxies={"https_proxy": "socks5://us:secret@127.0.0.1:1080"})
        sink = await ask(transport, host_at("https://origin.test"))
        assert sink.code == "upstream.unreachable"
        assert "socks5" in sink.detail
        assert "secret" not in sink.detail
        await transport.stop()

    run(main())


def test_system_trust() -> None:
    """The system's authorities are trusted, names are checked, and nothing older than TLS 1.2 is spoken."""
    context = system_context()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
