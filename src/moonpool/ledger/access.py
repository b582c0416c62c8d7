"""May this key be used now, from there, for that model? The limits of a key that need no counting.

Those that count (rates, concurrency, money) are the limiter's and the books'. Whether a client is in the networks of a
key is found out once, not for each of its requests.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import isfinite
from typing import Final

from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.words import Limits

NUMBER_MAX: Final = 2**63 - 1
"""What a database can hold."""
_PEERS_MAX: Final = 16_384
_NONE: Final = Limits()

Network = IPv4Network | IPv6Network


def checked(limits: Limits | None) -> Limits | None:
    """Limits as they are kept: addresses as networks ("10.0.0.1" is "10.0.0.1/32"), None if nothing is limited.

    Raises Problem("caller.invalid_value") for what cannot be a limit, `param` as in the admin API.
    """
    if limits is None or limits == _NONE:
        return None
    for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        if not 0 <= getattr(limits, name) <= NUMBER_MAX:
            raise _unfit(name, "is a whole number, 0 for no limit")
    for name, amount in (("day", limits.day_pico), ("month", limits.month_pico)):
        if amount is not None and not 0 <= amount <= NUMBER_MAX:
            raise _unfit(name, "is an amount of money, not below zero")
    if limits.expires_at is not None and not (isfinite(limits.expires_at) and limits.expires_at > 0):
        raise _unfit("expires_at", "is a moment in Unix seconds")
    if "" in limits.models:
        raise _unfit("models", "names models")
    try:
        found = networks(limits.addresses)
    except ValueError as error:
        raise _unfit("addresses", f"lists addresses and networks like 10.0.0.0/8: {error}") from None
    return replace(limits, addresses=tuple(map(str, found)))


def networks(addresses: tuple[str, ...]) -> tuple[Network, ...]:
    """Raises ValueError with a reason."""
    return tuple(map(ip_network, addresses))


def admit(limits: Limits, peer: str, at: float) -> None:
    """May a key with these limits be used by `peer` (an address as the socket says it) at this moment?

    Raises Problem: account.invalid_key past its end, account.forbidden from another address.
    """
    if limits.expires_at is not None and at >= limits.expires_at:
        raise Problem("account.invalid_key", "This API key has expired.")
    if limits.addresses and not _within(peer, limits.addresses):
        raise Problem("account.forbidden", "This API key may not be used from this address.")


@lru_cache(_PEERS_MAX)
def _within(peer: str, addresses: tuple[str, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:  # a UNIX socket
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # what a socket for both versions calls a client of the old one
    return any(address in network for network in networks(addresses))


def lists(limits: Limits | None, model: str) -> bool:
    """Is this model (its name in the catalogue) one that a key with these limits may use?"""
    return limits is None or not limits.models or model in limits.models


def _unfit(name: str, must_be: str) -> Problem:
    return Problem("caller.invalid_value", f"{name} {must_be}.", param=f"limits.{name}")
