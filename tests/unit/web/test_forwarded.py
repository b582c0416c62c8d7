"""web/forwarded.py: whose word about an address counts."""

from __future__ import annotations

import pytest

from moonpool.web.forwarded import Proxies
from moonpool.words import Arrival

OURS = Proxies(["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"])


def seen(peer: str, field: str | None, proxies: Proxies = OURS) -> str:
    headers = {} if field is None else {"x-forwarded-for": field}
    arrival = Arrival("r", "GET", "/", "", headers, b"", peer, 0.0)
    proxies.see(arrival)
    return arrival.peer


@pytest.mark.parametrize(
    ("peer", "field", "client"),
    [
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9,10.1.2.3,10.0.0.1", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8:1::5", "2001:db8:9::1", "2001:db8:9::1"),
        ("127.0.0.1", "[2001:db8:9::1]:4711", "2001:db8:9::1"),
        ("127.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("127.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        # Everybody on the way is one of ours: the furthest is the client.
        ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
    ],
)
def test_a_trusted_proxy_is_believed(peer: str, field: str, client: str) -> None:
    """The client is the first address from the end that is none of our proxies."""
    assert seen(peer, field) == client


@pytest.mark.parametrize(
    ("peer", "field", "client"),
    [
        ("203.0.113.7", "10.0.0.1", "203.0.113.7"),  # who connects is not trusted
        ("127.0.0.1", "10.0.0.9, 203.0.113.9", "203.0.113.9"),  # what the client wrote itself
        ("127.0.0.1", "192.0.2.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, unknown", "127.0.0.1"),  # nobody knows who handed it on
        ("127.0.0.1", "203.0.113.9, nonsense, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", ", ,", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9\u00e4", "127.0.0.1"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("unix", "203.0.113.9", "unix"),
    ],
)
def test_claims_of_others_are_not(peer: str, field: str | None, client: str) -> None:
    """Case 125: a forged field changes nothing: not that of a stranger, and not what stands before a proxy's word."""
    assert seen(peer, field) == client
