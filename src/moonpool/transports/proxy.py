"""Through which proxy does a host's traffic go, if any?

Settings are those of the environment that curl and others read (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, upper
or lower case, the lower case first), but handed in as a mapping: nothing here reads the environment. Loopback
never goes through a proxy, because the embedded model listens there.

Forms of NO_PROXY, parted by commas or blanks: `*`; `example.com` and `.example.com` (the name itself and what
ends in it); `10.0.0.0/8`; an address; each with `:port` if only that port is meant.
Sources: curl's manual ("Environment"), Go's net/http/httpproxy for the CIDR form and the loopback rule.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}


class Proxy:
    """Where the proxy listens and what it wants to be told. Its credentials are in no `repr` and no message."""

    __slots__ = ("authorization", "hostname", "port", "secure")

    def __init__(self, hostname: str, port: int, secure: bool, authorization: bytes) -> None:
        self.hostname = hostname
        self.port = port
        self.secure = secure
        self.authorization = authorization

    def __str__(self) -> str:
        return f"proxy {self.hostname}:{self.port}"


class Proxies:
    """The proxies of a mapping such as `os.environ`; other names in it are ignored."""

    __slots__ = ("_exempt", "_urls")

    def __init__(self, environment: Mapping[str, str]) -> None:
        def read(name: str) -> str:
            return (environment.get(name) or environment.get(name.upper()) or "").strip()

        self._urls = {"http": read("http_proxy"), "https": read("https_proxy")}
        self._exempt = read("no_proxy").replace(",", " ").lower().split()

    def choose(self, scheme: str, hostname: str, port: int) -> Proxy | None:
        """The proxy for an origin, None for a direct way. Raises ValueError (no secret in it) for a proxy
        address that cannot be used."""
        url = self._urls.get(scheme, "")
        if not url or _is_loopback(hostname) or any(_exempts(entry, hostname, port) for entry in self._exempt):
            return None
        return parse_proxy(url, f"{scheme.upper()}_PROXY")


def parse_proxy(url: str, name: str) -> Proxy:
    """`http://user:password@host:port`, any part but the host left out. Raises ValueError naming `name`."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        hostname, port = parts.hostname, parts.port
    except ValueError:
        hostname, port, parts = None, None, urlsplit("")
    if not hostname:
        raise ValueError(f"{name} is no proxy address")
    if parts.scheme not in _PORTS:
        raise ValueError(f"{name} names a proxy of the kind {parts.scheme}; only http and https are spoken")
    authorization = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + base64.b64encode(pair.encode())
    return Proxy(hostname, port or _PORTS[parts.scheme], parts.scheme == "https", authorization)


def _is_loopback(hostname: str) -> bool:
    address = _address(hostname)
    if address is None:
        return hostname == "localhost" or hostname.endswith(".localhost")
    return address.is_loopback


def _address(hostname: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(hostname.strip("[]"))
    except ValueError:
        return None


def _exempts(entry: str, hostname: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(hostname)
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    exempt = entry
    if entry.startswith("["):
        exempt, _, rest = entry[1:].partition("]")
        only = rest.removeprefix(":")
    elif entry.count(":") == 1:
        exempt, _, only = entry.partition(":")
    else:
        only = ""
    if only and only != str(port):
        return False
    if address is not None:
        return address == _address(exempt)
    exempt = exempt.removeprefix("*").strip(".")
    name = hostname.lower().rstrip(".")
    return bool(exempt) and (name == exempt or name.endswith("." + exempt))
