"""A whole Moonpool whose keys and tokens are guessed at from one address, which others share."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from admin_rig import token_of
from faults.driven import by_clock
from faults.sink import Clock
from faults.stage import KEY, Answer, Stage, chat, good, play
from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.relay.path import authenticate
from moonpool.settings_edge import Edge
from moonpool.words import Arrival, Key

WRONG_MAX = 5
BRAKED = {"edge": Edge(drain_s=0, wrong_keys_per_minute=WRONG_MAX)}
NEAR, FAR = "127.0.0.1", "127.0.0.2"


def _made(seed: int, prefix: str = key_rules.PREFIX) -> tuple[str, str]:
    return key_rules.make(random.Random(seed).randbytes, prefix)


async def _get(here: Stage, secret: str, peer: str = NEAR, path: str = "/v1/models") -> Answer:
    client = await here.connect(local_addr=(peer, 0))
    client.send("GET", path, b"", {"Authorization": f"Bearer {secret}"})
    try:
        return await client.rest()
    finally:
        client.close()


async def _key(here: Stage, key_id: str, secret: str, used_at: float | None = None) -> None:
    key = Key(key_id, "bench", "of a test", time.time(), used_at)
    await here.app.store.keys.create(key, key_rules.digest(secret))


async def _guess_on(here: Stage, first: int = 0, path: str = "/v1/models", prefix: str = key_rules.PREFIX) -> None:
    """As many wrong ones as an address may send."""
    for seed in range(first, first + WRONG_MAX):
        assert (await _get(here, _made(seed, prefix)[1], path=path)).status == 401


def _same(one: Answer, other: Answer) -> bool:
    """But for what is each request's own."""
    own = {"x-request-id", "date"}
    fields = [{name: value for name, value in got.fields.items() if name not in own} for got in (one, other)]
    return fields[0] == fields[1] and (one.status, one.body) == (other.status, other.body)


def test_an_address_that_guesses_is_braked(tmp_path: Path, capfd: Any) -> None:
    """Case 105: after so many wrong keys an address is told 429 and how long to wait, for whatever is not in use there;
    a right key that nobody used is told the same, byte for byte. A key in use goes on, chats included; so does one that
    was used elsewhere; another address notices nothing. When the minute is over it may again. The log says it once for
    each time."""
    clock = Clock()
    moved_id, moved = _made(1_000)
    idle_id, idle = _made(1_001)

    async def act(here: Stage) -> None:
        await _key(here, moved_id, moved)
        await _key(here, idle_id, idle)
        assert (await _get(here, moved, FAR)).status == 200
        assert (await here.ask(chat(False))).status == 200
        await _guess_on(here)
        clock.at += 17.5
        wrong = await _get(here, _made(99)[1])
        assert (wrong.status, wrong.error["type"]) == (429, "rate_limit_error")
        assert wrong.error["code"] == "rate_limit_exceeded"
        assert "Wait as many seconds as Retry-After says" in wrong.error["message"]
        assert (wrong.fields["retry-after"], wrong.fields["x-should-retry"]) == ("43", "true")
        assert _same(wrong, await _get(here, idle))
        assert _same(wrong, await _get(here, "a text that is no key"))
        assert (await here.ask(chat(), key=idle)).status == 429
        for stream in (False, True):
            assert (await here.ask(chat(stream))).status == 200
        assert (await _get(here, KEY)).status == 200
        assert (await _get(here, moved)).status == 200
        assert (await here.get("/v1/models", fields={})).status == 401
        assert (await _get(here, _made(98)[1], FAR)).status == 401
        assert (await _get(here, idle, FAR)).status == 200
        page = (await here.get("/metrics")).body.decode()
        assert f'moonpool_guesses_total{{kind="key",what="wrong"}} {WRONG_MAX + 1}.0' in page
        assert 'moonpool_guesses_total{kind="key",what="braked"} 4.0' in page
        clock.at += 42.5
        await _guess_on(here, first=50)
        assert (await _get(here, _made(99)[1])).status == 429

    play(tmp_path, good, act=act, prepare=by_clock(clock), **BRAKED)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    braked = [line for line in lines if line["event"] == "address braked"]
    assert [(line["address"], line["kind"], line["wrong"]) for line in braked] == [(NEAR, "key", WRONG_MAX)] * 2


def test_a_short_key_in_use_is_not_found(tmp_path: Path) -> None:
    """Case 105: a text that an operator declared may be short. Where it is used it goes on; a guesser elsewhere who
    hits it after too many wrong ones reads what any other guess reads. A long key that was used before the process
    began passes, one that was used long ago does not."""
    recent_id, recent = _made(1_000)
    stale_id, stale = _made(1_001)

    async def act(here: Stage) -> None:
        await _key(here, recent_id, recent, time.time() - 86_400.0)
        await _key(here, stale_id, stale, time.time() - 40 * 86_400.0)
        assert (await _get(here, KEY, FAR)).status == 200
        await _guess_on(here)
        hit = await _get(here, KEY)
        assert hit.status == 429
        assert _same(hit, await _get(here, "another word"))
        assert _same(hit, await _get(here, stale))
        assert (await _get(here, KEY, FAR)).status == 200
        assert (await _get(here, recent)).status == 200

    play(tmp_path, good, act=act, prepare=by_clock(Clock()), **BRAKED)


def test_a_dead_key_brakes_nobody(tmp_path: Path) -> None:
    """A program that goes on and on with a deleted key is told 401, and a new key at its address works at once."""
    dead_id, dead = _made(1_000)
    new_id, new = _made(1_001)

    async def act(here: Stage) -> None:
        await _key(here, dead_id, dead)
        assert (await _get(here, dead)).status == 200
        await here.app.store.keys.delete(dead_id, time.time())
        for _ in range(4 * WRONG_MAX):
            assert (await _get(here, dead)).status == 401
        await _key(here, new_id, new)
        assert (await _get(here, new)).status == 200

    play(tmp_path, good, act=act, **BRAKED)


def test_tokens_are_braked_too(tmp_path: Path) -> None:
    """Case 105: as keys, and by themselves: who guesses at tokens shuts no key out. A token in use goes on; a right one
    that nobody used waits."""
    clock, path, prefix = Clock(), "/admin/v1/accounts", key_rules.TOKEN_PREFIX

    async def act(here: Stage) -> None:
        platform = here.app.platform
        used, idle = [await token_of(platform, name, operator=True) for name in ("ann", "bob")]
        assert (await _get(here, used, path=path)).status == 200
        await _guess_on(here, path=path, prefix=prefix)
        wrong = await _get(here, _made(99, prefix)[1], path=path)
        assert (wrong.status, wrong.fields["retry-after"]) == (429, "60")
        for other in (idle, "no token"):
            assert _same(wrong, await _get(here, other, path=path))
        assert (await _get(here, used, path=path)).status == 200
        assert (await _get(here, idle, FAR, path=path)).status == 200
        assert (await here.get(path, fields={})).status == 401
        assert (await _get(here, _made(99)[1])).status == 401
        assert 'moonpool_guesses_total{kind="token",what="braked"} 3.0' in (await here.get("/metrics")).body.decode()
        clock.at += 60.0
        await _guess_on(here, first=50, path=path, prefix=prefix)

    play(tmp_path, good, act=act, prepare=by_clock(clock), **BRAKED)


def test_a_million_guesses_grow_nothing(tmp_path: Path) -> None:
    """Case 105, twelve thousand of them, of good form and of bad, from one address and from many: what is remembered of
    keys and of those who are known stays as large as it was, and no key stops working where it is used."""

    async def act(here: Stage) -> None:
        platform, keys, chance = here.app.platform, here.app.store.keys, random.Random(105)
        assert (await _get(here, KEY)).status == 200
        sizes = [len(kept) for kept in (keys._kept, keys._ready, keys._used)]
        known = platform.key_brake.sizes()
        codes = {"account.invalid_key": 0, "account.guesses": 0}
        body = key_rules.PREFIX + _made(1_000)[0]
        for number in range(12_000):
            secret = f"{body}{number:043d}"
            secret = f"word {number}" if number % 2 else secret + key_rules._checksum(secret)
            peer = NEAR if number % 4 < 2 else f"198.51.{chance.randrange(256)}.{chance.randrange(256)}"
            head = {"authorization": f"Bearer {secret}"}
            with pytest.raises(Problem) as caught:
                await authenticate(platform, Arrival("id", "GET", "/v1/models", "", head, b"", peer, time.time()))
            codes[caught.value.code] += 1
        assert [len(kept) for kept in (keys._kept, keys._ready, keys._used)] == sizes
        assert platform.key_brake.sizes()[:2] == known[:2]
        assert codes["account.guesses"] == 6_000 - WRONG_MAX
        assert (await _get(here, KEY)).status == 200

    play(tmp_path, good, act=act, prepare=by_clock(Clock()), **BRAKED)
