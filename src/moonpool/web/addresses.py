"""Where may a message go whose address somebody else gave? To what is public only, unless the operator says otherwise.

Special is whatever reaches ourselves, the machines beside us, or the network's own services: loopback, private, shared
(100.64/10), link-local (169.254/16, where clouds keep credentials), multicast, reserved, and every form of IPv6 that
carries an IPv4 address, which counts as that address. Source: RELIABILITY 3.8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from moonpool.errors import Problem

URL_LENGTH_MAX: Final = 2000
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")

Address = tuple[int, str]
LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]


def is_special(text: str) -> bool:
    """Is this (an address, perhaps with a zone) anything but a public address?"""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if found.teredo is not None or found in _NAT64_LOCAL:
            return True
        if found in _NAT64:
            inside = IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is not None:
            found = inside
    return not found.is_global or found.is_multicast or found.is_reserved


def guarded(look_up: LookUp) -> LookUp:
    """As `look_up`; a name of which one address is special leads nowhere. What is judged is what is connected to."""

    async def resolve(hostname: str, port: int) -> Sequence[Address]:
        found = await look_up(hostname, port)
        if any(is_special(address) for _, address in found):
            raise OSError("the name leads to an address that is not public")
        return found

    return resolve


def check_url(url: str, *, private: bool) -> tuple[str, str]:
    """(base URL, path with query) of an address that a message may go to. Raises caller.invalid_value."""
    try:
        parts = urlsplit(url)
        hostname, port = parts.hostname or "", parts.port
    except ValueError:
        raise _unfit("is no URL") from None
    if len(url) > URL_LENGTH_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _unfit("has characters that no address can have")
    if parts.scheme not in ({"http", "https"} if private else {"https"}) or not hostname:
        raise _unfit("begins with https:// and a name")
    if parts.username is not None or parts.fragment:
        raise _unfit("holds neither a password nor a fragment")
    if not private and (_is_address(hostname) and is_special(hostname)):
        raise _unfit("leads to a public address")
    shown = f"[{hostname}]" if ":" in hostname else hostname
    base = f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")
    return base, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_address(hostname: str) -> bool:
    """Also in the forms that a resolver takes for one: `127.1`, `0x7f000001`, `2130706433`."""
    last = hostname.rstrip(".").rpartition(".")[2]
    return ":" in hostname or last.isdecimal() or last.lower().startswith("0x")


def _unfit(must: str) -> Problem:
    return Problem("caller.invalid_value", f"An address for messages {must}.", param="url")
