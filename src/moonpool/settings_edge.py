"""Settings of the edge: what clients may use, before anybody knows who they are."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Annotated, Any

from msgspec import Meta, Struct


def _of(help_text: str, **bounds: Any) -> Any:
    return Meta(description=help_text, **bounds)


class Edge(Struct, frozen=True, forbid_unknown_fields=True):
    """What clients may use, before anybody knows who they are."""

    head_s: Annotated[float, _of("Seconds a client has for the head of a request.", gt=0)] = 10.0
    body_s: Annotated[float, _of("Seconds a client has for the body of a request.", gt=0)] = 30.0
    idle_s: Annotated[float, _of("Seconds a connection may wait for its next request.", gt=0)] = 75.0
    stall_s: Annotated[float, _of("Seconds a client may take nothing while an answer waits for it.", gt=0)] = 30.0
    drain_s: Annotated[float, _of("Seconds running answers have to end when the server stops.", ge=0)] = 30.0
    body_bytes_max: Annotated[int, _of("Largest body of a request, in bytes.", ge=1024)] = 4 * 1024 * 1024
    high_water_bytes: Annotated[
        int, _of("Bytes that may wait for a client before the host is read no further.", ge=4096)
    ] = 32 * 1024
    connections_max: Annotated[
        int, _of("Client connections at once; 0 takes half of the process's descriptors.", ge=0)
    ] = 0
    wrong_keys_per_minute: Annotated[
        int,
        _of(
            "Wrong keys, and wrong tokens, that may come from one address (IPv6: a /64) in a minute; then those that "
            "are not in use wait until it is over. 0: any number.",
            ge=0,
        ),
    ] = 60
    trusted_proxies: Annotated[
        list[str],
        _of(
            "Addresses and networks (10.0.0.0/8) of reverse proxies whose X-Forwarded-For is believed: the client's "
            "address is then the one that it names."
        ),
    ] = []


def wrong_with_proxies(addresses: Iterable[str]) -> str | None:
    """What is wrong with these networks, in a sentence; None if they can be used."""
    try:
        for each in addresses:
            ip_network(each)
    except ValueError as error:
        return f"lists addresses and networks like 10.0.0.0/8: {error}."
    return None
