"""Keys: what every key store promises, whatever database is below."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from conformance.backends import PREPAID, STORES, opened, run
from moonpool.errors import Problem
from moonpool.ledger.keys import digest
from moonpool.state.base import Store
from moonpool.words import Account, Key

pytestmark = pytest.mark.parametrize("backend", STORES)

_KEY = Key("AbCdEfGhIjKl", "acme", "laptop", 5.0, None, {"usage": "chunk"})
_DIGEST = digest("the text of a key")


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
        await store.keys.create(_KEY, _DIGEST)
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
    the key, and nothing they did brings it back."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.keys.create(_KEY, _DIGEST)
        deleted = asyncio.Event()

        async def look() -> None:
            while not deleted.is_set():
                found = store.keys.find(_DIGEST)
                after = deleted.is_set()
                assert not (after and await found)
                store.keys.used(_KEY.id, 8.0)
                await asyncio.sleep(0)
            assert await store.keys.find(_DIGEST) is None

        async def change() -> None:
            while not deleted.is_set():
                await store.keys.save_account(Account("acme", "Acme", concurrency=7))

        async def delete() -> None:
            assert await store.keys.delete(_KEY.id, 9.0)
            deleted.set()
            assert await store.keys.find(_DIGEST) is None

        await asyncio.gather(*(look() for _ in range(10)), change(), delete())
        assert await store.keys.find(_DIGEST) is None
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
        assert await store.keys.find(_DIGEST) == (_KEY, PREPAID)
        await store.stop()

    run(walk())
