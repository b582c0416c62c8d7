"""Keys of a whole Moonpool: what ends with a key, what a key may, where a secret is seen, what guesses learn."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import pytest
from msgspec.structs import replace

from faults.stage import MODEL, ROLE, Client, Stage, chat, good, play, records, streamed, until, words
from faults.upstream import stall
from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.relay.path import authenticate
from moonpool.settings_edge import Edge
from moonpool.words import Account, Arrival, Key, Limits

SECRET = "key-that-is-lost"
KEY_ID = "AbCdEfGhIjKl"
BENCH = Account("bench", "bench", True, 100)
OTHER = "deepseek-reasoner"
ANY_GUESSES = Edge(drain_s=0, wrong_keys_per_minute=0)
"""Without the brake (test_whole_guesses.py)."""


def broken_off(request: Any) -> Any:
    """Two words, and then nothing more for ever."""
    return [*streamed(ROLE, *words(2), end=False), stall]


def good_or_stall(request: Any) -> Any:
    return broken_off(request) if b"slow" in request.body else good(request)


async def lose(here: Stage, limits: Limits | None = None, secret: str = SECRET, key_id: str = KEY_ID) -> None:
    """One more key of the account, that will be lost."""
    await here.app.store.keys.create(Key(key_id, "bench", "lost", time.time(), limits=limits), key_rules.digest(secret))


async def slow_streams(here: Stage, count: int, **options: Any) -> list[Client]:
    clients = [await here.open(chat(user="slow"), key=SECRET, **options) for _ in range(count)]
    for client in clients:
        await client.until(b"word1")
    return clients


async def ends_revoked(client: Client, message: str) -> None:
    """What was delivered stays; then the error event, and the stream's proper end."""
    got = await client.rest()
    assert got.complete
    assert got.text == "word0 word1 "
    assert got.failure is not None
    assert (got.failure["code"], got.failure["message"]) == ("invalid_api_key", message)


def charged(path: Path) -> int:
    """Of all that was ended, what delivered something is charged for that, and nothing else is. Gives the number of the
    former."""
    found = [record for record in records(path) if record.cause == "account.revoked"]
    for record in found:
        delivered = record.kind == "posted"
        assert record.kind in {"posted", "voided"}
        assert (record.completion > 0, record.owed_pico > 0, record.estimated) == (delivered,) * 3
    return sum(record.kind == "posted" for record in found)


def test_deleting_a_key_under_load(tmp_path: Path) -> None:
    """Case 98, one process: while many requests run with it the key is deleted. None that is sent after the answer is
    served, those in flight are over within a second, and what they delivered is charged; other keys notice nothing."""
    served_after, refused_after, others = 0, 0, 0

    async def act(here: Stage) -> None:
        nonlocal served_after, refused_after, others
        await lose(here)
        deleted = asyncio.Event()
        served = 0

        async def ask_on(number: int) -> None:
            nonlocal served, served_after, refused_after
            while refused_after < 200:
                sent_after = deleted.is_set()
                got = await here.ask(chat(number % 2 == 0), key=SECRET)
                assert got.status in {200, 401}
                if sent_after:
                    served_after += got.status == 200
                    refused_after += got.status == 401
                served += got.status == 200

        async def others_too() -> None:
            nonlocal others
            while not deleted.is_set() or others < 20:
                got = await here.ask(chat(False))
                assert got.status == 200
                others += 1

        streams = await slow_streams(here, 20)
        tasks = [asyncio.ensure_future(work) for work in (*map(ask_on, range(20)), others_too())]
        await until(lambda: served >= 100)
        began = time.monotonic()
        assert await here.app.store.keys.delete(KEY_ID, time.time())
        deleted.set()
        for stream in streams:
            await ends_revoked(stream, "The API key was deleted.")
        assert time.monotonic() - began < 1.0
        await asyncio.gather(*tasks)

    _, path = play(tmp_path, good_or_stall, act=act)
    assert served_after == 0
    assert refused_after >= 200
    assert others >= 20
    assert charged(path) >= 20


@pytest.mark.parametrize("how", ["disabled", "expires", "set to end"])
def test_what_else_ends_streams(tmp_path: Path, how: str) -> None:
    """Case 108 and rule 3.3: an account that is disabled and a key that reaches its end end what runs within a second,
    charged for what was delivered, and nothing new begins; a key whose end is put off works again, at once and for
    good."""
    status, code = (403, "forbidden") if how == "disabled" else (401, "invalid_api_key")

    async def act(here: Stage) -> None:
        keys = here.app.store.keys
        await lose(here, Limits(expires_at=time.time() + 2.0) if how == "expires" else None)
        streams = await slow_streams(here, 5)
        ends_at = time.time()
        if how == "disabled":
            await keys.save_account(replace(BENCH, disabled=True))
        elif how == "set to end":
            assert await keys.change(Key(KEY_ID, "bench", limits=Limits(expires_at=ends_at)))
        else:
            ends_at = (await keys.list())[-1].limits.expires_at  # type: ignore[union-attr, assignment]
        for stream in streams:
            await ends_revoked(
                stream, "This account was disabled." if how == "disabled" else "The API key has expired."
            )
        assert 0 <= time.time() - ends_at < 1.0
        got = await here.ask(chat(False), key=SECRET)
        assert (got.status, got.error["code"]) == (status, code)
        assert (await here.get("/v1/models", fields={"Authorization": f"Bearer {SECRET}"})).status == status
        await keys.save_account(BENCH)
        await keys.change(Key(KEY_ID, "bench", limits=Limits(expires_at=4e9)))
        client = await here.open(chat(user="slow"), key=SECRET)
        await client.until(b"word1")
        here.app.revocations.beat()
        assert here.app.platform.active, "what is allowed again goes on"
        client.reset()

    _, path = play(tmp_path, good_or_stall, act=act)
    assert charged(path) == 5


def test_requests_that_wait_end_too(tmp_path: Path) -> None:
    """Case 98: who waits for a host to have room, and who reads nothing for now because it will come back, lost the
    right as well: 401, and an error at the end of what can be fetched."""

    async def act(here: Stage) -> None:
        await lose(here)
        (left,) = await slow_streams(here, 1, fields={"x-moonpool-resume": "1"})
        stream_id = left.fields["x-moonpool-stream"]
        left.reset()
        await until(lambda: bool(here.app.platform.tapes.detached))
        waiting = await here.open(chat(False), key=SECRET)
        await until(lambda: len(here.app.platform.active) == 2 and here.app.platform.fleet.waiting == 1)
        assert await here.app.store.keys.delete(KEY_ID, time.time())
        got = await waiting.rest()
        assert (got.status, got.error["message"]) == (401, "The API key was deleted.")
        got = await here.get(f"/v1/streams/{stream_id}")
        assert got.text == "word0 word1 "
        assert got.failure is not None
        assert got.failure["code"] == "invalid_api_key"
        got = await here.get(f"/v1/streams/{stream_id}", fields={"Authorization": f"Bearer {SECRET}"})
        assert got.status == 401

    _, path = play(tmp_path, good_or_stall, act=act, host={"concurrency": 1})
    assert sorted((record.kind, record.cause) for record in records(path)) == [
        ("posted", "account.revoked"),
        ("voided", "account.revoked"),
    ]


def test_a_second_without_losses_costs_nothing(tmp_path: Path) -> None:
    """Nothing is looked at once a second while nobody lost a right, and what was lost is forgotten after a while."""

    async def act(here: Stage) -> None:
        revocations = here.app.revocations
        assert revocations._beats == {}
        await lose(here)
        await here.app.store.keys.delete(KEY_ID, time.time())
        assert revocations._beats
        for _ in range(60):
            revocations.beat()
        assert revocations._beats == {}

    play(tmp_path, good, act=act)


# What a key may.


def test_models_of_a_key(tmp_path: Path) -> None:
    """A key that names models is told of those and of no other: another one and one that does not exist are the same
    answer, word for word, in lists, pages and requests."""

    async def act(here: Stage) -> None:
        await lose(here, Limits(models=frozenset({MODEL})))
        await lose(here, Limits(models=frozenset({"none"})), "none-key", "none________")
        own = {"Authorization": f"Bearer {SECRET}"}
        assert [row["id"] for row in (await here.get("/v1/models", fields=own)).json["data"]] == [MODEL]
        assert (await here.get("/v1/models", fields={"Authorization": "Bearer none-key"})).json["data"] == []
        assert len((await here.get("/v1/models")).json["data"]) > 1
        assert (await here.ask(chat(False), key=SECRET)).status == 200
        asked = {}
        for name in (OTHER, "no-such-model"):
            got = await here.ask({**chat(False), "model": name}, key=SECRET)
            assert (got.status, got.error["code"], got.error["param"]) == (403, "forbidden", "model")
            page = await here.get(f"/v1/models/{name}", fields=own)
            assert page.status == 404
            asked[name] = got.body.replace(name.encode(), b"?"), page.body.replace(name.encode(), b"?")
        assert asked[OTHER] == asked["no-such-model"]
        assert (await here.ask(chat(False), key="none-key")).status == 403
        assert (await here.get(f"/v1/models/{OTHER}")).status == 200

    _, path = play(tmp_path, good, act=act, also=(OTHER,))
    assert len(records(path)) == 1


def test_addresses_of_a_key(tmp_path: Path) -> None:
    """A key works from its networks, on every route, and from nowhere else; what a client says of itself in its head
    changes nothing."""

    async def act(here: Stage) -> None:
        await lose(here, Limits(addresses=("127.0.0.0/8",)))
        await lose(here, Limits(addresses=("10.0.0.0/8", "::1/128")), "far-key", "far_________")
        assert (await here.ask(chat(False), key=SECRET)).status == 200
        claims = {"X-Forwarded-For": "10.1.2.3", "X-Real-IP": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
        for fields in ({}, claims):
            got = await here.ask(chat(False), key="far-key", fields=fields)
            assert (got.status, got.error["code"]) == (403, "forbidden")
            for path in ("/v1/models", "/v1/user/balance", f"/v1/models/{MODEL}", "/v1/streams/x"):
                got = await here.get(path, fields={"Authorization": "Bearer far-key", **fields})
                assert got.status == 403, path

    _, path = play(tmp_path, good, act=act)
    assert len(records(path)) == 1


def test_a_rotated_key(tmp_path: Path) -> None:
    """Both texts work until the old one's time is over, as one key with one history; then the new one alone."""

    async def act(here: Stage) -> None:
        keys = here.app.store.keys
        await lose(here)
        assert await keys.rotate(KEY_ID, key_rules.digest("its next text"), time.time() + 1.0)
        for text in (SECRET, "its next text"):
            assert (await here.ask(chat(False), key=text)).status == 200
        await until(lambda: keys.find(key_rules.digest(SECRET)).result() is None)
        assert (await here.ask(chat(False), key=SECRET)).status == 401
        assert (await here.ask(chat(False), key="its next text")).status == 200

    play(tmp_path, good, act=act)


# What is seen of secrets, and what guesses learn.


async def admin(here: Stage, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Ask at the socket in the server's home, as commands do."""
    reader, writer = await asyncio.open_unix_connection(str(here.app.settings.socket_path()))
    client = Client(reader, writer)
    client.send(method, f"/admin/v1{path}", b"" if body is None else json.dumps(body).encode())
    got = await client.rest()
    await client.closed()
    return got.status, got.body


def test_a_secret_is_seen_once(tmp_path: Path, capfd: Any) -> None:
    """Case 103: the answer that makes a key has its secret; no list, page, metric, log line or byte of the database has
    it, before or after it is used and deleted."""

    async def act(here: Stage) -> str:
        status, page = await admin(here, "POST", "/keys", {"account": "bench", "name": "seen"})
        assert status == 201
        made = json.loads(page)
        secret = made["key"]
        assert (await here.ask(chat(False), key=secret)).status == 200
        assert (await here.ask(chat(False), key=secret + "x")).status == 401
        seen = b""
        for _ in range(2):
            for path in ("/keys", "/keys?account=bench", "/accounts", "/totals", "/status", "/models", "/hosts"):
                status, page = await admin(here, "GET", path)
                assert status == 200
                seen += page
            for path in ("/metrics", "/ready", "/health", "/v1/models", "/v1/user/balance"):
                seen += (await here.get(path, fields={"Authorization": f"Bearer {secret}"})).body
            status, page = await admin(here, "DELETE", f"/keys/{made['id']}")
            seen += page
        secrets = secret[18:-6]
        assert made["id"].encode() in seen
        assert secrets.encode() not in seen
        return str(secrets)

    secret, path = play(tmp_path, good, act=act)
    said = capfd.readouterr()
    files = [file for file in path.parent.iterdir() if file.is_file()]
    assert path in files
    for text in (said.out.encode(), said.err.encode(), *(file.read_bytes() for file in files)):
        assert secret.encode() not in text


async def watched(here: Stage) -> list[str]:
    """Every statement that the database runs from now on."""
    statements: list[str] = []
    await here.app.store._thread.call(lambda database: database.connection.set_trace_callback(statements.append))
    return statements


def _arrival(secret: str) -> Arrival:
    return Arrival("id", "GET", "/v1/models", "", {"authorization": f"Bearer {secret}"}, b"", "127.0.0.1", time.time())


async def _refused(here: Stage, secret: str) -> None:
    with pytest.raises(Problem) as caught:
        await authenticate(here.app.platform, _arrival(secret))
    assert caught.value.code == "account.invalid_key"


def test_guesses_cost_nothing(tmp_path: Path) -> None:
    """Cases 104 and 105: a wrong checksum, a known id with a wrong secret (also right after that key was used), fifty
    thousand guesses of good form: 401 without one look-up in the database and without a byte of memory each."""

    async def act(here: Stage) -> None:
        chance = random.Random(105)
        key_id, secret = key_rules.make(chance.randbytes)
        await lose(here, secret=secret, key_id=key_id)
        assert (await here.ask(chat(False), key=secret)).status == 200
        statements = await watched(here)
        keys = here.app.store.keys
        sizes = [len(kept) for kept in (keys._kept, keys._ready, keys._used)]
        for _ in range(2):
            wrong_sum = secret[:-1] + ("0" if secret[-1] != "0" else "1")
            _, fresh = key_rules.make(chance.randbytes)
            same_id = key_rules.PREFIX + key_id + fresh[18:-6]
            same_id += key_rules._checksum(same_id)
            assert key_rules.well_formed(same_id)
            assert key_rules.public_id(same_id) == key_id
            for guess in (wrong_sum, same_id):
                got = await here.get("/v1/models", fields={"Authorization": f"Bearer {guess}"})
                assert (got.status, got.error["code"]) == (401, "invalid_api_key")
            assert (await here.get("/v1/models", fields={"Authorization": f"Bearer {secret}"})).status == 200
        body = key_rules.PREFIX + key_id
        for number in range(50_000):
            await _refused(here, f"{body}{number:043d}{key_rules._checksum(f'{body}{number:043d}')}")
        assert [len(kept) for kept in (keys._kept, keys._ready, keys._used)] == sizes
        assert not [text for text in statements if "keys" in text]

    play(tmp_path, good, act=act, edge=ANY_GUESSES)


def _welch(one: list[float], other: list[float]) -> float:
    return abs(fmean(one) - fmean(other)) / (variance(one) / len(one) + variance(other) / len(other)) ** 0.5


def test_the_time_of_an_answer_says_nothing(tmp_path: Path) -> None:
    """Case 107, small: a client cannot tell from the time of a 401 whether the id is unknown, the secret of a known one
    is wrong or the key was deleted: Welch's |t| < 4.5 over the calmer nine tenths of each. (That a key is right, the
    status says.)"""
    count = 1_000

    async def act(here: Stage) -> dict[str, list[float]]:
        chance = random.Random(107)
        key_id, secret = key_rules.make(chance.randbytes)
        gone_id, gone = key_rules.make(chance.randbytes)
        await lose(here, secret=secret, key_id=key_id)
        await lose(here, secret=gone, key_id=gone_id)
        await here.app.store.keys.delete(gone_id, time.time())

        def guess(kind: str) -> str:
            _, text = key_rules.make(chance.randbytes)
            if kind == "wrong":
                body = key_rules.PREFIX + key_id + text[18:-6]
                return body + key_rules._checksum(body)
            return {"unknown": text, "deleted": gone}[kind]

        taken: dict[str, list[float]] = {kind: [] for kind in ("unknown", "wrong", "deleted")}
        turns = [kind for kind in taken for _ in range(count)]
        chance.shuffle(turns)
        client = await here.connect()
        for kind in turns:
            client.status, client.body = 0, b""
            fields = {"Authorization": f"Bearer {guess(kind)}"}
            began = time.perf_counter()
            client.send("GET", "/v1/models", fields=fields)
            got = await client.rest()
            taken[kind].append(time.perf_counter() - began)
            assert got.status == 401
        return taken

    taken, _ = play(tmp_path, good, act=act, edge=ANY_GUESSES)
    calm = {kind: sorted(spans)[: count * 9 // 10] for kind, spans in taken.items()}
    found = {kind: _welch(calm["unknown"], spans) for kind, spans in calm.items()}
    assert max(found.values()) < 4.5, found


def test_the_last_use_is_no_write(tmp_path: Path) -> None:
    """Case 108: a request does not write that its key was used; the list says it at once, and the database is told
    later, all keys in one transaction."""

    async def act(here: Stage) -> None:
        await lose(here)
        statements = await watched(here)
        for _ in range(20):
            await here.get("/v1/models", fields={"Authorization": f"Bearer {SECRET}"})
            assert (await here.ask(chat(False), key=SECRET)).status == 200
        assert (await here.ask(chat(False))).status == 200
        assert not [text for text in statements if "keys" in text]
        used = {key.id: key.last_used_at for key in await here.app.store.keys.list()}
        assert time.time() - (used[KEY_ID] or 0) < 10
        await here.app.store.keys.write_used()
        assert sum("UPDATE keys" in text for text in statements) == 2

    play(tmp_path, good, act=act)
