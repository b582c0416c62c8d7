"""What stands in the head of a request to a host, made once and kept as bytes.

An `Origin` is a host's address and credential taken apart; `Heads` are the request heads to it, by path. The
only part that differs from one request to the next is the length of the body.
Sources: RFC 9110 (fields), RFC 9112 section 3.2 (origin form and absolute form).
"""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from moonpool.words import Outbound

_PORTS: Final = {"http": 80, "https": 443}
_HEADS_MAX: Final = 64
_JOINED_BYTES_MAX: Final = 65536

# RFC 9110 5.6.2 and 5.5, without what is no visible ASCII in a target.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")


class Origin(Struct, frozen=True):
    """A base URL taken apart. `authority` is what stands in Host; `prefix` is put before each path;
    `basic` is the Authorization that stood in the URL, if one did. `str()` shows no secret."""

    scheme: str
    hostname: str
    port: int
    prefix: str
    authority: str
    basic: str = ""

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_origin(base_url: str) -> Origin:
    """Raises ValueError, with nothing of the URL in its text, because it may hold a password."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
        hostname = (parts.hostname or "").encode("idna" if not base_url.isascii() else "ascii").decode()
    except (ValueError, UnicodeError):
        raise ValueError("base_url is no URL") from None
    if parts.scheme not in _PORTS or not hostname or not _TARGET.fullmatch(hostname):
        raise ValueError("base_url is no http or https URL")
    prefix = parts.path.rstrip("/")
    if prefix and not _TARGET.fullmatch(prefix):
        raise ValueError("the path in base_url has characters that no address can have")
    shown = f"[{hostname}]" if ":" in hostname else hostname
    authority = shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"
    basic = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        basic = "Basic " + base64.b64encode(pair.encode()).decode()
    return Origin(parts.scheme, hostname, port or _PORTS[parts.scheme], prefix, authority, basic)


class Heads:
    """Request heads to one origin with one credential.

    `proxy_authorization` is given (maybe empty) when requests go to a plain proxy, in absolute form, and None
    when they go to the host itself or through a tunnel.
    """

    __slots__ = ("_always", "_heads", "_origin", "_prefix")

    def __init__(self, origin: Origin, api_key: str, user_agent: str, proxy_authorization: bytes | None = None) -> None:
        """Raises ValueError for a key that cannot stand in a header."""
        self._origin = origin
        self._prefix = origin.prefix if proxy_authorization is None else f"{origin}{origin.prefix}"
        fields = [("Host", origin.authority)]
        if api_key:
            fields.append(("Authorization", f"Bearer {api_key}"))
        elif origin.basic:
            fields.append(("Authorization", origin.basic))
        if proxy_authorization:
            fields.append(("Proxy-Authorization", proxy_authorization.decode()))
        fields.append(("User-Agent", user_agent))
        fields.append(("Accept-Encoding", "identity"))
        try:
            self._always = _render(fields)
        except ValueError:
            raise ValueError("the host's API key has characters that no header can carry") from None
        self._heads: dict[tuple[str, str, bool], bytes] = {}

    def render(self, outbound: Outbound) -> tuple[bytes, ...]:
        """A whole request, in one piece unless the body is long. Raises ValueError for what cannot be sent."""
        head = self._heads.get((outbound.path, outbound.method, outbound.stream)) or self._make(outbound)
        body = outbound.body
        if outbound.headers:
            head += _render(outbound.headers)
        if not body and outbound.method == "GET":
            return (head + b"\r\n",)
        if len(body) > _JOINED_BYTES_MAX:
            return (b"%bContent-Length: %d\r\n\r\n" % (head, len(body)), body)
        return (b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body),)

    def _make(self, outbound: Outbound) -> bytes:
        target = f"{self._prefix}{outbound.path}" or "/"
        if not _TARGET.fullmatch(target) or not _TOKEN.fullmatch(outbound.method):
            raise ValueError("the method or path of a request has characters that it cannot have")
        accept = "text/event-stream" if outbound.stream else "application/json"
        fields = [("Accept", accept)]
        if outbound.method != "GET" or outbound.body:
            fields.append(("Content-Type", "application/json"))
        head = f"{outbound.method} {target} HTTP/1.1\r\n".encode("ascii") + self._always + _render(fields)
        if len(self._heads) < _HEADS_MAX:
            self._heads[(outbound.path, outbound.method, outbound.stream)] = head
        return head


def _render(fields: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> bytes:
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the header field {name!r} cannot be sent")
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
