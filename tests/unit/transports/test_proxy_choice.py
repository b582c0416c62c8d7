"""Which way a host's traffic goes, by the proxy variables."""

from __future__ import annotations

import pytest

from moonpool.transports.proxy import Proxies


def choose(environment: dict[str, str], scheme: str = "https", hostname: str = "api.host.test", port: int = 443) -> str:
    return str(Proxies(environment).choose(scheme, hostname, port))


def test_by_scheme_and_case() -> None:
    """Each scheme has its own variable; the lower case wins; blanks count as not set."""
    assert choose({}) == "None"
    assert choose({"HTTP_PROXY": "http://p:1"}) == "None"
    assert choose({"HTTPS_PROXY": "http://p:1"}) == "proxy p:1"
    assert choose({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}) == "proxy q:2"
    assert choose({"HTTP_PROXY": "http://p:1"}, "http", port=80) == "proxy p:1"
    assert choose({"https_proxy": "  "}) == "None"


@pytest.mark.parametrize(
    ("url", "shown", "authorization"),
    [
        ("http://p:3128", "proxy p:3128", b""),
        ("p:3128", "proxy p:3128", b""),
        ("http://p", "proxy p:80", b""),
        ("https://p", "proxy p:443", b""),
        ("http://[::1]:8080/", "proxy ::1:8080", b""),
        ("http://a:b%40c@p:1", "proxy p:1", b"Basic YTpiQGM="),
    ],
)
def test_addresses(url: str, shown: str, authorization: bytes) -> None:
    """Scheme, port and credentials may be left out; credentials are percent-decoded."""
    proxy = Proxies({"https_proxy": url}).choose("https", "api.host.test", 443)
    assert proxy is not None
    assert (str(proxy), proxy.authorization) == (shown, authorization)
    assert proxy.secure == url.startswith("https")
    assert "b%40c" not in repr(proxy)


@pytest.mark.parametrize("url", ["socks5://u:secret@p:1", "http://u:secret@:1", "http://u:secret@p:port", "http://["])
def test_unusable(url: str) -> None:
    """An address that names no http proxy is refused, and its password is not repeated."""
    with pytest.raises(ValueError, match="HTTPS_PROXY") as refused:
        choose({"https_proxy": url})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("no_proxy", "hostname", "exempt"),
    [
        ("*", "api.host.test", True),
        ("host.test", "api.host.test", True),
        ("host.test", "host.test", True),
        (".host.test", "api.host.test", True),
        (".host.test", "host.test", True),
        ("*.host.test", "api.host.test", True),
        ("host.test", "ghost.test", False),
        ("HOST.TEST", "api.host.test", True),
        ("host.test", "API.Host.Test.", True),
        ("other.test, api.host.test", "api.host.test", True),
        ("other.test api.host.test", "api.host.test", True),
        ("host.test:443", "api.host.test", True),
        ("host.test:8443", "api.host.test", False),
        ("api", "api.host.test", False),
        (",,", "api.host.test", False),
        (".", "api.host.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "api.host.test", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("1.2.3", "10.1.2.3", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("[2001:db8::1]", "2001:db8:0::1", True),
        ("[2001:db8::1]:80", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8::1", True),
    ],
)
def test_no_proxy(no_proxy: str, hostname: str, exempt: bool) -> None:
    """Every documented form of NO_PROXY, and what only looks like one."""
    way = choose({"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}, hostname=hostname)
    assert way == ("None" if exempt else "proxy p:1")


@pytest.mark.parametrize("hostname", ["localhost", "a.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_is_direct(hostname: str) -> None:
    """What listens on this machine is never asked through a proxy."""
    assert choose({"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://p:1"}, hostname=hostname) == "None"
