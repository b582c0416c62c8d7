"""Which address does a request come from, where reverse proxies stand in between?

Rules:
- Nobody is believed but a proxy that the settings name (`edge.trusted_proxies`): header fields of all others say
  nothing, and the address is the one that connects.
- Each proxy appends whom it saw to `X-Forwarded-For`. So it is read from its end, and the first address that is none of
  our proxies is the client; what stands before that the client may have written itself.
- A part that is no address ends the reading: the client is then who handed it on.

Sources: RELIABILITY 3.6 (forwarded headers count only from configured peers), case 125.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from moonpool.words import Arrival

FIELD: Final = "x-forwarded-for"
_KNOWN_MAX: Final = 4096

Address = IPv4Address | IPv6Address


class Proxies:
    """Those at these addresses and networks, whose word counts."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(ip_network, networks))
        # The same clients come by the same proxies again and again.
        self._client = lru_cache(_KNOWN_MAX)(self._read)

    def see(self, arrival: Arrival) -> None:
        """Put the client's address in the place of a proxy's."""
        field = arrival.headers.get(FIELD)
        if field is not None:
            arrival.peer = self._client(arrival.peer, field)

    def _read(self, peer: str, field: str) -> str:
        client, near = peer, address_of(peer)
        for part in reversed(field.split(",")):
            if near is None or not any(near in network for network in self._networks):
                break
            near = address_of(part.strip())
            if near is not None:
                client = str(near)
        return client


def address_of(text: str) -> Address | None:
    """Of an address, with a port or without; of IPv4 inside IPv6 that. None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
