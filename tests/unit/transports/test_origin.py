"""Base URLs taken apart, and the heads of requests made from them."""

from __future__ import annotations

import pytest

from moonpool.transports.origin import Heads, parse_origin
from moonpool.words import Outbound


@pytest.mark.parametrize(
    ("base_url", "shown", "port", "prefix"),
    [
        ("http://h.test", "http://h.test", 80, ""),
        ("http://h.test:80/v1/", "http://h.test", 80, "/v1"),
        ("https://h.test:8443/a/b", "https://h.test:8443", 8443, "/a/b"),
        ("https://[2001:db8::1]/v1", "https://[2001:db8::1]", 443, "/v1"),
        ("HTTPS://H.Test", "https://h.test", 443, ""),
        ("https://b\u00fccher.test", "https://xn--bcher-kva.test", 443, ""),
        ("http://us:secret@h.test:81", "http://h.test:81", 81, ""),
    ],
)
def test_parts(base_url: str, shown: str, port: int, prefix: str) -> None:
    """Host, port and path come apart as the standard says; what is shown has no password in it."""
    origin = parse_origin(base_url)
    assert (str(origin), origin.port, origin.prefix) == (shown, port, prefix)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h.test",
        "ftp://h.test",
        "http://",
        "http://:80",
        "http://h.test:x",
        "http://[::",
        "http://h test",
        "http://h\u2100.test",
    ],
)
def test_no_origin(base_url: str) -> None:
    """What is no http or https URL is refused."""
    with pytest.raises(ValueError, match="base_url"):
        parse_origin(base_url)


def test_heads() -> None:
    """A whole request, byte for byte: to a host, to a host with credentials in its URL, and to a proxy."""
    outbound = Outbound("/chat", b"{}", stream=True, headers=(("X-A", "b"),))
    assert b"".join(Heads(parse_origin("http://h.test/v1"), "key", "moonpool/0").render(outbound)) == (
        b"POST /v1/chat HTTP/1.1\r\n"
        b"Host: h.test\r\n"
        b"Authorization: Bearer key\r\n"
        b"User-Agent: moonpool/0\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Accept: text/event-stream\r\n"
        b"Content-Type: application/json\r\n"
        b"X-A: b\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    get = Outbound("", method="GET")
    assert b"".join(Heads(parse_origin("http://a:b@h.test"), "", "m").render(get)) == (
        b"GET / HTTP/1.1\r\nHost: h.test\r\nAuthorization: Basic YTpi\r\nUser-Agent: m\r\n"
        b"Accept-Encoding: identity\r\nAccept: application/json\r\n\r\n"
    )
    proxied = Heads(parse_origin("http://h.test:81/v1"), "", "m", b"Basic x").render(get)
    assert b"".join(proxied).startswith(
        b"GET http://h.test:81/v1 HTTP/1.1\r\nHost: h.test:81\r\nProxy-Authorization: Basic x\r\n"
    )


def test_heads_do_not_mix() -> None:
    """Paths, methods, streaming and extra fields of one request do not stick to the next."""
    heads = Heads(parse_origin("http://h.test"), "", "m")
    for number in range(200):
        outbound = Outbound(f"/{number}", b"x" * number, headers=(("X-N", str(number)),))
        (request,) = heads.render(outbound)
        assert request.startswith(b"POST /%d HTTP/1.1\r\n" % number)
        assert b"X-N: %d\r\nContent-Length: %d\r\n\r\n" % (number, number) in request
    assert b"X-N" not in heads.render(Outbound("/1"))[0]
    assert b"text/event-stream" in heads.render(Outbound("/1", stream=True))[0]
    assert b"text/event-stream" not in heads.render(Outbound("/1"))[0]
    assert heads.render(Outbound("/1"))[0].endswith(b"Content-Length: 0\r\n\r\n")
