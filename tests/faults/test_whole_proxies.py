"""A whole server behind a reverse proxy that it trusts, and before strangers who claim to be one."""

from __future__ import annotations

import time
from pathlib import Path

from faults.stage import KEY, Answer, Stage, good, play
from moonpool.ledger import keys as key_rules
from moonpool.settings_edge import Edge
from moonpool.words import Key, Limits

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
HOME, ABROAD = "203.0.113.9", "198.51.100.4"
WRONG_MAX = 3


async def _get(here: Stage, secret: str, peer: str, client: str) -> Answer:
    """What `client` asks, as somebody at `peer` tells it."""
    connection = await here.connect(local_addr=(peer, 0))
    fields = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": client}
    connection.send("GET", "/v1/models", b"", fields)
    try:
        return await connection.rest()
    finally:
        connection.close()


def test_keys_of_networks_behind_a_proxy(tmp_path: Path) -> None:
    """Case 125: a key that is bound to a network works from there through the proxy, not from elsewhere through it, and
    not for a stranger who says that he is one. Wrong keys count for who sent them, and not for the proxy."""
    bound = "sk-bound-to-a-network-0123456789abcdef"

    async def act(here: Stage) -> None:
        limits = Limits(addresses=("203.0.113.0/24",))
        await here.app.store.keys.create(Key("k1", "bench", "", time.time(), limits=limits), key_rules.digest(bound))
        assert (await _get(here, bound, PROXY, HOME)).status == 200
        assert (await _get(here, bound, PROXY, f"{HOME}, {ABROAD}")).status == 403
        assert (await _get(here, bound, STRANGER, HOME)).status == 403
        for number in range(WRONG_MAX):
            assert (await _get(here, f"sk-wrong-{number}", PROXY, ABROAD)).status == 401
        assert (await _get(here, "sk-wrong-again", PROXY, ABROAD)).status == 429
        assert (await _get(here, "sk-wrong-elsewhere", PROXY, HOME)).status == 401
        assert (await _get(here, KEY, PROXY, HOME)).status == 200

    edge = Edge(drain_s=0, wrong_keys_per_minute=WRONG_MAX, trusted_proxies=[PROXY])
    play(tmp_path, good, act=act, edge=edge)


def test_nobody_is_trusted_unless_he_is_named(tmp_path: Path) -> None:
    """Case 125: without the setting the field says nothing."""
    bound = "sk-bound-to-a-network-0123456789abcdef"

    async def act(here: Stage) -> None:
        limits = Limits(addresses=("203.0.113.0/24",))
        await here.app.store.keys.create(Key("k1", "bench", "", time.time(), limits=limits), key_rules.digest(bound))
        assert (await _get(here, bound, PROXY, HOME)).status == 403

    play(tmp_path, good, act=act)
