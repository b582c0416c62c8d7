"""Keys: what every key store promises, whatever database is below."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import PREPAID, STORES, opened, run
from moonpool.errors import Problem
from moonpool.ledger.keys import digest
from moonpool.state.base import SWITCH_S, Revoked, Store
from moonpool.words import Account, Key, Limits

pytestmark = pytest.mark.parametrize("backend", STORES)

_KEY = Key("AbCdEfGhIjKl", "acme", "laptop", 5.0, None, {"usage": "chunk"})
_DIGEST = digest("the text of a key")
_NEW, _NEWER = digest("the next text of it"), digest("the text after that")
_LIMITS = Limits(
    4e9, frozenset({"a-model", "b-model"}), ("10.0.0.0/8", "::1/128"), 60, 100_000, 5, 12_500_000_000_000, 10**14
)
_LATER = 4e9


async def _refused(work: object) -> str | None:
    with pytest.raises(Problem) as caught:
        await work  # type: ignore[misc]
    assert caught.value.code == "caller.invalid_value"
    return caught.value.param


async def _reopened(store: Store, backend: str, folder: Path) -> Store:
    await store.stop()
    return await opened(backend, folder)


def test_a_key_is_found_by_its_digest(backend: str, tmp_path: Path) -> None:
    """After `create` a key is found with its account, after a restart too; another digest finds nothing."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        assert await store.keys.find(_DIGEST) is None
        assert await store.keys.get(_KEY.id) is None
        await store.keys.create(_KEY, _DIGEST)
        assert await store.keys.get(_KEY.id) == _KEY
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        store = await _reopened(store, backend, tmp_path)
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        assert await store.keys.find(digest("another text")) is None
        await store.stop()

    run(walk())


def test_deletion_is_final(backend: str, tmp_path: Path) -> None:
    """A deleted key is never found or listed again, and neither its id nor its text can come back."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        assert await store.keys.delete(_KEY.id, 9.0)
        for _ in range(2):
            assert await store.keys.find(_DIGEST) is None
            assert await store.keys.list() == []
            assert not await store.keys.delete(_KEY.id, 10.0)
            assert await _refused(store.keys.create(_KEY, _DIGEST)) == "key"
            assert await _refused(store.keys.create(_KEY, digest("new text"))) == "key"
            assert await _refused(store.keys.create(Key("another_id__", "acme"), _DIGEST)) == "key"
            assert await store.keys.find(digest("new text")) is None
            assert await store.keys.ever("acme")
            assert not await store.keys.ever("credit")
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_finding_never_races_a_deletion(backend: str, tmp_path: Path) -> None:
    """However look-ups, uses and a change of the account interleave with a deletion, none after its answer finds
    the key, and nothing they did brings it back. A node that is kept too busy to ask whether something changed finds
    nobody."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        deleted = asyncio.Event()

        async def found() -> Any:
            try:
                return await store.keys.find(_DIGEST)
            except Problem as problem:
                if problem.code != "platform.storage":
                    raise
                return None

        async def look() -> None:
            while not deleted.is_set():
                await found()
                store.keys.used(_KEY.id, 8.0)
                await asyncio.sleep(0)
            assert await found() is None

        async def change() -> None:
            while not deleted.is_set():
                await store.keys.save_account(Account("acme", "Acme", concurrency=7))

        async def delete() -> None:
            assert await store.keys.delete(_KEY.id, 9.0)
            deleted.set()
            assert await found() is None

        await asyncio.gather(*(look() for _ in range(10)), change(), delete())
        assert await found() is None
        store = await _reopened(store, backend, tmp_path)
        assert await store.keys.find(_DIGEST) is None
        await store.stop()

    run(walk())


def test_deleting_at_once(backend: str, tmp_path: Path) -> None:
    """Of many deletions of one key at once exactly one is told that it did it."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        answers = await asyncio.gather(*(store.keys.delete(_KEY.id, 9.0) for _ in range(5)))
        assert sorted(answers) == [False] * 4 + [True]
        await store.stop()

    run(walk())


def test_creating_at_once(backend: str, tmp_path: Path) -> None:
    """Of many creations of one key at once exactly one succeeds."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        works = (store.keys.create(_KEY, _DIGEST) for _ in range(5))
        answers = await asyncio.gather(*works, return_exceptions=True)
        assert [answer for answer in answers if answer is None] == [None]
        assert len(await store.keys.list()) == 1
        await store.stop()

    run(walk())


def test_lists(backend: str, tmp_path: Path) -> None:
    """Keys are listed oldest first, of one account or of all, without anything secret."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        for number, account in enumerate(("acme", "credit", "acme")):
            await store.keys.create(Key(f"id{number}", account, created_at=10.0 - number), digest(f"text {number}"))
        assert [key.id for key in await store.keys.list()] == ["id2", "id1", "id0"]
        assert [key.id for key in await store.keys.list("acme")] == ["id2", "id0"]
        assert await store.keys.list("nobody") == []
        await store.stop()

    run(walk())


def test_the_last_use_is_remembered(backend: str, tmp_path: Path) -> None:
    """The last use of a key is listed at once and survives a restart; uses of what is no key do no harm."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        assert (await store.keys.list())[0].last_used_at is None
        for at in (20.0, 21.0, 22.0):
            store.keys.used(_KEY.id, at)
        store.keys.used("nobody", 23.0)
        assert (await store.keys.list())[0].last_used_at == 22.0
        store = await _reopened(store, backend, tmp_path)
        assert (await store.keys.list())[0].last_used_at == 22.0
        await store.stop()

    run(walk())


def test_accounts(backend: str, tmp_path: Path) -> None:
    """A first start makes `default`, which may owe; accounts are made and changed by id, and names are unique."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        default = await store.keys.account("default")
        assert default == Account("default", "default", post_paid=True)
        assert await store.keys.account("nobody") is None
        await store.keys.create(_KEY, _DIGEST)
        changed = Account("acme", "Acme & Sons", post_paid=True, concurrency=3)
        await store.keys.save_account(changed)
        assert await store.keys.find(_DIGEST) == (_KEY, changed)
        assert await store.keys.account("Acme & Sons") == changed
        assert await store.keys.account("Acme") is None
        assert await _refused(store.keys.save_account(Account("other", "Acme & Sons"))) == "name"
        assert await _refused(store.keys.create(Key("id", "nobody"), digest("text"))) == "account"
        assert [account.id for account in await store.keys.accounts()] == ["default", "acme", "credit"]
        await store.stop()
        store = STORES[backend](tmp_path)
        await store.start()
        assert await store.keys.find(_DIGEST) == (_KEY, changed)
        assert await store.keys.account("default") == default
        await store.stop()

    run(walk())


def test_guesses_cost_nothing(backend: str, tmp_path: Path) -> None:
    """A hundred thousand unknown digests are refused at once, without a look-up each and without being remembered."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        for guess in range(100_000):
            found = store.keys.find(guess.to_bytes(32, "big"))
            assert found.done()  # type: ignore[attr-defined]
            assert found.result() is None  # type: ignore[attr-defined]
            if guess % 1000 == 0:
                await asyncio.sleep(0)  # a loop that stands still for a second cannot confirm that a key stands
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        await store.stop()

    run(walk())


@pytest.mark.parametrize("limits", [_LIMITS, Limits(day_pico=0), Limits(models=frozenset({"a-model"})), None])
def test_limits_are_kept(backend: str, tmp_path: Path, limits: Limits | None) -> None:
    """What a key may do is found with it, after a restart too, to the last digit."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        key = replace(_KEY, limits=limits)
        await store.keys.create(key, _DIGEST)
        for _ in range(2):
            assert await store.keys.find(_DIGEST) == (key, PREPAID)
            assert await store.keys.list() == [key]
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_what_is_no_limit_is_not_kept(backend: str, tmp_path: Path) -> None:
    """A limit that cannot be is refused at creation and change, and nothing of the rest happens."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        wrong = replace(_KEY, name="new", limits=Limits(addresses=("10.0.0.0/33",)))
        assert await _refused(store.keys.create(wrong, _DIGEST)) == "limits.addresses"
        assert await store.keys.find(_DIGEST) is None
        await store.keys.create(_KEY, _DIGEST)
        assert await _refused(store.keys.change(wrong)) == "limits.addresses"
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        await store.stop()

    run(walk())


def test_a_key_is_changed(backend: str, tmp_path: Path) -> None:
    """Name, switches and limits change from the moment of the answer, the rest of a key never; limits can be taken
    away again; what is no key is not changed."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        wanted = Key(_KEY.id, "credit", "desk", 77.0, 78.0, {"usage": "finish"}, _LIMITS)
        now_is = replace(_KEY, name="desk", switches={"usage": "finish"}, limits=_LIMITS)
        assert await store.keys.change(wanted)
        assert await store.keys.find(_DIGEST) == (now_is, PREPAID)
        store = await _reopened(store, backend, tmp_path)
        assert await store.keys.find(_DIGEST) == (now_is, PREPAID)
        assert await store.keys.change(_KEY)
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        assert not await store.keys.change(Key("nobody", "acme"))
        await store.keys.delete(_KEY.id, 9.0)
        assert not await store.keys.change(wanted)
        store = await _reopened(store, backend, tmp_path)
        assert await store.keys.find(_DIGEST) is None
        assert await store.keys.list() == []
        await store.stop()

    run(walk())


def test_a_key_is_rotated(backend: str, tmp_path: Path) -> None:
    """From the answer on the new text is the key's; the old one finds the same key, with the end of its time, until
    then; history stays, as the id does."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        assert await store.keys.rotate(_KEY.id, _NEW, _LATER)
        for _ in range(2):
            assert await store.keys.find(_NEW) == (_KEY, PREPAID)
            assert await store.keys.find(_DIGEST) == (replace(_KEY, limits=Limits(_LATER)), PREPAID)
            assert await store.keys.list() == [_KEY]
            store = await _reopened(store, backend, tmp_path)
        assert await store.keys.change(replace(_KEY, limits=_LIMITS))
        assert await store.keys.rotate(_KEY.id, _NEWER, _LATER - 1)
        for _ in range(2):
            assert await store.keys.find(_DIGEST) is None, "the text before the last one ended"
            assert await store.keys.find(_NEW) == (
                replace(_KEY, limits=replace(_LIMITS, expires_at=_LATER - 1)),
                PREPAID,
            )
            assert await store.keys.find(_NEWER) == (replace(_KEY, limits=_LIMITS), PREPAID)
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_rotation_is_for_good(backend: str, tmp_path: Path) -> None:
    """No text of a key, present or past its time, becomes another's; what is no key is not rotated; a deleted key has
    no text at all."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        other = Key("another_id__", "acme")
        await store.keys.create(_KEY, _DIGEST)
        await store.keys.create(other, _NEWER)
        assert await _refused(store.keys.rotate(_KEY.id, _NEWER, _LATER)) == "key"
        assert await _refused(store.keys.rotate(_KEY.id, _DIGEST, _LATER)) == "key"
        assert await store.keys.rotate(_KEY.id, _NEW, 1.0)
        assert await store.keys.find(_DIGEST) is None, "its time was over before"
        assert await _refused(store.keys.rotate(other.id, _DIGEST, _LATER)) == "key"
        assert await _refused(store.keys.create(Key("third_id____", "acme"), _DIGEST)) == "key"
        assert not await store.keys.rotate("nobody", digest("text"), _LATER)
        assert await store.keys.rotate(other.id, digest("text"), _LATER)
        assert await store.keys.delete(other.id, 9.0)
        assert not await store.keys.rotate(other.id, digest("new text"), _LATER)
        for _ in range(2):
            for text in (_DIGEST, _NEWER, digest("text"), digest("new text")):
                assert await store.keys.find(text) is None
            assert await store.keys.find(_NEW) == (_KEY, PREPAID)
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


async def _until_none(store: Store, text: bytes) -> None:
    async with asyncio.timeout(10):
        while await store.keys.find(text) is not None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


def test_an_old_text_ends_by_itself(backend: str, tmp_path: Path) -> None:
    """When its time is over the old text of a rotated key finds nothing, and the new one goes on."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        assert await store.keys.rotate(_KEY.id, _NEW, time.time() + 0.1)
        assert await store.keys.find(_DIGEST) is not None
        await _until_none(store, _DIGEST)
        assert await store.keys.find(_NEW) == (_KEY, PREPAID)
        await store.stop()

    run(walk())


def test_who_listens_is_told(backend: str, tmp_path: Path) -> None:
    """A deletion, the end of a key and the disabling of an account are told before they are answered, and once each."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        told: list[Revoked] = []
        store.keys.listen(told.append)
        for number in range(3):
            await store.keys.create(Key(f"id{number}", "acme", created_at=1.0 + number), digest(f"text {number}"))
        assert told == []
        assert await store.keys.delete("id0", 9.0)
        assert told == [Revoked("id0")]
        assert not await store.keys.delete("id0", 9.0)
        ended = Revoked("id1", why="The API key has expired.")
        assert await store.keys.change(Key("id1", "acme", limits=Limits(expires_at=time.time() + 0.1)))
        assert told == [Revoked("id0")]
        async with asyncio.timeout(10):
            while len(told) < 2:  # noqa: ASYNC110 - the keys are what tells
                await asyncio.sleep(0)
        assert told[1:] == [ended]
        assert await store.keys.change(Key("id2", "acme", limits=Limits(expires_at=1.0)))
        assert told[2:] == [replace(ended, key="id2")]
        off = replace(PREPAID, disabled=True)
        await store.keys.save_account(off)
        await store.keys.save_account(replace(off, concurrency=7))
        assert told[3:] == [Revoked(account="acme", why="This account was disabled.")]
        await store.keys.save_account(PREPAID)
        await store.stop()
        assert len(told) == 4

    run(walk())


def test_accounts_keep_everything(backend: str, tmp_path: Path) -> None:
    """Credit, rates and whether it is disabled are an account's own, found with its keys, after a restart too."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        changed = Account("acme", "Acme", True, 3, 10**17, True, 60, 10**6)
        await store.keys.save_account(changed)
        assert await store.keys.find(_DIGEST) == (_KEY, changed)
        await store.stop()
        for _ in range(2):
            store = STORES[backend](tmp_path)
            await store.start()
            assert await store.keys.account("Acme") == changed
            assert await store.keys.find(_DIGEST) == (_KEY, changed)
            await store.stop()

    run(walk())


async def _too_soon(work: Any) -> float:
    with pytest.raises(Problem) as caught:
        await work
    assert caught.value.code == "account.rate"
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_product_is_switched_once_an_hour(backend: str, tmp_path: Path) -> None:
    """What was never switched is on. A switch that changes nothing is no change; one that does stays an hour, to the
    second, each account's and each product's for itself; saving the account leaves switches alone."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        keys = store.keys

        async def off() -> frozenset[str]:
            account = await keys.account("Acme")
            assert account is not None
            return account.products_off

        await keys.create(_KEY, _DIGEST)
        await keys.switch_product("acme", "search", True, 90.0)
        assert await off() == frozenset()
        await keys.switch_product("acme", "search", False, 100.0)
        assert await off() == {"search"}
        assert await keys.find(_DIGEST) == (_KEY, replace(PREPAID, products_off=frozenset({"search"})))
        await keys.switch_product("acme", "search", False, 101.0)
        assert await _too_soon(keys.switch_product("acme", "search", True, 101.0)) == SWITCH_S - 1
        await keys.switch_product("acme", "chat", False, 102.0)
        await keys.switch_product("credit", "search", False, 103.0)
        await keys.save_account(replace(PREPAID, name="Acme", concurrency=7, products_off=frozenset({"none"})))
        assert await off() == {"search", "chat"}
        store = await _reopened(store, backend, tmp_path)
        keys = store.keys
        assert await off() == {"search", "chat"}
        await _too_soon(keys.switch_product("acme", "search", True, 99.0 + SWITCH_S))
        await keys.switch_product("acme", "search", True, 100.0 + SWITCH_S)
        assert await off() == {"chat"}
        await _too_soon(keys.switch_product("acme", "search", False, 101.0 + SWITCH_S))
        assert await _refused(keys.switch_product("nobody", "search", False, 1.0)) == "account"
        await store.stop()

    run(walk())


def test_switching_at_once(backend: str, tmp_path: Path) -> None:
    """Of many who switch a product to and fro at once, one is heard: it changes once."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        turns = (store.keys.switch_product("acme", "search", number % 2 == 0, 100.0) for number in range(20))
        answers = await asyncio.gather(*turns, return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert {getattr(answer, "code", "") for answer in refused} == {"account.rate"}
        account = await store.keys.account("Acme")
        assert account is not None
        assert account.products_off == {"search"}
        await store.stop()

    run(walk())
