"""Users and their tokens: what every store promises of them, whatever database is below."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import STORES, opened, run
from moonpool.errors import Problem
from moonpool.ledger.keys import digest
from moonpool.state.base import Store, Token, User

pytestmark = pytest.mark.parametrize("backend", STORES)

_ADA = User("u-ada", "ada", True, 5.0)
_BOB = User("u-bob", "bob", False, 6.0, {"acme": "owner", "credit": "member"})
_TOKEN = Token("t-1", "u-bob", "laptop", 7.0)
_DIGEST = digest("the text of a token")


async def _refused(work: Any) -> str | None:
    with pytest.raises(Problem) as caught:
        await work
    assert caught.value.code == "caller.invalid_value"
    return caught.value.param


async def _reopened(store: Store, backend: str, folder: Path) -> Store:
    await store.stop()
    return await opened(backend, folder)


async def _with_people(backend: str, folder: Path) -> Store:
    store = await opened(backend, folder)
    for user in (_BOB, _ADA):
        await store.people.save_user(user)
    return store


def test_users_are_kept(backend: str, tmp_path: Path) -> None:
    """Users are listed oldest first, with their roles, after a restart too; at first there is none."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        assert await store.people.users() == []
        await store.stop()
        store = await _with_people(backend, tmp_path)
        for _ in range(2):
            assert await store.people.users() == [_ADA, _BOB]
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_users_are_changed(backend: str, tmp_path: Path) -> None:
    """Name, roles and whether somebody is an operator change as a whole; when a user was made does not."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        await store.people.issue(_TOKEN, _DIGEST)
        changed = User("u-bob", "robert", True, 6.0, {"credit": "owner"})
        await store.people.save_user(replace(changed, created_at=99.0))
        for _ in range(2):
            assert await store.people.users() == [_ADA, changed]
            assert await store.people.find(_DIGEST, 8.0) == (_TOKEN, changed)
            store = await _reopened(store, backend, tmp_path)
        await store.people.save_user(replace(changed, roles={}))
        store = await _reopened(store, backend, tmp_path)
        assert (await store.people.users())[1].roles == {}
        await store.stop()

    run(walk())


def test_what_users_cannot_be(backend: str, tmp_path: Path) -> None:
    """A name that is taken and a role in no account are refused, and nothing changes by it."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        assert await _refused(store.people.save_user(User("u-new", "ada", False, 7.0, {"acme": "owner"}))) == "name"
        assert await _refused(store.people.save_user(replace(_BOB, name="ada", roles={}))) == "name"
        assert await _refused(store.people.save_user(replace(_BOB, roles={"nobody": "owner"}))) == "roles"
        for _ in range(2):
            assert await store.people.users() == [_ADA, _BOB]
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_a_deleted_user_stays_deleted(backend: str, tmp_path: Path) -> None:
    """With a user go its tokens, at once; neither its id nor a text of its tokens comes back; its name is free."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        await store.people.issue(_TOKEN, _DIGEST)
        assert await store.people.delete_user("u-bob", 9.0)
        for _ in range(2):
            assert await store.people.users() == [_ADA]
            assert await store.people.tokens() == []
            assert await store.people.find(_DIGEST, 10.0) is None
            assert not await store.people.delete_user("u-bob", 10.0)
            assert not await store.people.revoke(_TOKEN.id, 10.0)
            assert await _refused(store.people.save_user(_BOB)) == "id"
            assert await _refused(store.people.issue(replace(_TOKEN, id="t-2"), digest("new text"))) == "user"
            assert await _refused(store.people.issue(replace(_TOKEN, user="u-ada"), digest("new text"))) == "token"
            assert await _refused(store.people.issue(Token("t-3", "u-ada"), _DIGEST)) == "token"
            store = await _reopened(store, backend, tmp_path)
        second = User("u-bob-2", "bob", False, 11.0)
        await store.people.save_user(second)
        assert await store.people.delete_user("u-bob-2", 12.0)
        await store.people.save_user(User("u-bob-3", "bob", False, 13.0))
        assert [user.id for user in await store.people.users()] == ["u-ada", "u-bob-3"]
        await store.stop()

    run(walk())


def test_a_token_is_found_by_its_digest(backend: str, tmp_path: Path) -> None:
    """After `issue` a token is found with its user, after a restart too; another digest finds nothing."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        assert await store.people.find(_DIGEST, 8.0) is None
        await store.people.issue(_TOKEN, _DIGEST)
        for _ in range(2):
            assert await store.people.find(_DIGEST, 8.0) == (_TOKEN, _BOB)
            assert await store.people.find(digest("another text"), 8.0) is None
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_a_token_ends_in_time(backend: str, tmp_path: Path) -> None:
    """Until its last moment a token is found, from then on it is not; it stays listed, so that one sees why."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        await store.people.issue(replace(_TOKEN, expires_at=50.0), _DIGEST)
        for _ in range(2):
            assert await store.people.find(_DIGEST, 49.999) is not None
            assert await store.people.find(_DIGEST, 50.0) is None
            assert [token.expires_at for token in await store.people.tokens()] == [50.0]
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_revoking_is_final(backend: str, tmp_path: Path) -> None:
    """A revoked token is never found or listed again, and neither its id nor its text comes back; of many who revoke
    it at once, one is told that it did."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        await store.people.issue(_TOKEN, _DIGEST)
        answers = await asyncio.gather(*(store.people.revoke(_TOKEN.id, 9.0) for _ in range(5)))
        assert sorted(answers) == [False] * 4 + [True]
        for _ in range(2):
            assert await store.people.find(_DIGEST, 8.0) is None
            assert await store.people.tokens() == []
            assert not await store.people.revoke(_TOKEN.id, 10.0)
            assert await _refused(store.people.issue(_TOKEN, digest("new text"))) == "token"
            assert await _refused(store.people.issue(replace(_TOKEN, id="t-2"), _DIGEST)) == "token"
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_a_token_and_its_user_at_once(backend: str, tmp_path: Path) -> None:
    """Issued while its user is deleted, a token is refused or dead; a change of the user does not bring it back."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        people = store.people
        await asyncio.gather(
            people.issue(_TOKEN, _DIGEST),
            people.delete_user("u-bob", 9.0),
            people.issue(replace(_TOKEN, id="t-2"), digest("second")),
            people.save_user(replace(_BOB, name="robert")),
            return_exceptions=True,
        )
        for _ in range(2):
            for text in (_DIGEST, digest("second")):
                assert await store.people.find(text, 10.0) is None
            assert await store.people.users() == [_ADA]
            assert await store.people.tokens() == []
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())


def test_tokens_are_listed(backend: str, tmp_path: Path) -> None:
    """Oldest first, of one user or of all, without anything secret, and with their last use, which survives a
    restart; uses of what is no token do no harm."""

    async def walk() -> None:
        store = await _with_people(backend, tmp_path)
        for number, user in enumerate(("u-bob", "u-ada", "u-bob")):
            await store.people.issue(Token(f"t-{number}", user, created_at=10.0 - number), digest(f"text {number}"))
        assert [token.id for token in await store.people.tokens()] == ["t-2", "t-1", "t-0"]
        assert [token.id for token in await store.people.tokens("u-bob")] == ["t-2", "t-0"]
        assert await store.people.tokens("nobody") == []
        for at in (20.0, 21.0):
            store.people.used("t-1", at)
        store.people.used("nobody", 22.0)
        for _ in range(2):
            assert [token.last_used_at for token in await store.people.tokens()] == [None, 21.0, None]
            store = await _reopened(store, backend, tmp_path)
        await store.stop()

    run(walk())
