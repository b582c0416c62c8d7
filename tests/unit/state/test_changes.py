"""state/changes.py: what other processes see of changes, and how they take them over."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import PREPAID, opened, run
from moonpool.errors import Problem
from moonpool.ledger.keys import digest
from moonpool.state.base import SWITCH_S, Revoked, Token, User
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Key, Limits

_USER = User("u-1", "ada", roles={"acme": "owner"})


def _revisions(folder: Path) -> dict[str, int]:
    connection = sqlite3.connect(folder / "moonpool.db")
    try:
        return dict(connection.execute("SELECT what, revision FROM changes").fetchall())
    finally:
        connection.close()


async def _store(folder: Path) -> SqliteStore:
    store = await opened("sqlite", folder)
    assert isinstance(store, SqliteStore)
    return store


def test_each_change_counts_up_once(tmp_path: Path) -> None:
    """What changes somebody's rights counts up its number by one; what was refused, changed nothing or only notes a
    last use does not."""

    async def walk() -> None:
        store = await _store(tmp_path)
        keys, people = store.keys, store.people
        steps: list[tuple[Callable[[], Awaitable[Any]], str | None]] = [
            (lambda: keys.create(Key("one", "acme"), digest("one")), "keys"),
            (lambda: keys.create(Key("one", "acme"), digest("two")), None),
            (lambda: keys.create(Key("two", "acme"), digest("one")), None),
            (lambda: keys.change(Key("one", "acme", "name")), "keys"),
            (lambda: keys.change(Key("none", "acme", "name")), None),
            (lambda: keys.rotate("one", digest("two"), 1.0), "keys"),
            (lambda: keys.rotate("one", digest("two"), 1.0), None),
            (lambda: keys.switch_product("acme", "search", True, 5.0), None),
            (lambda: keys.switch_product("acme", "search", False, 5.0), "accounts"),
            (lambda: keys.switch_product("acme", "search", True, 6.0), None),
            (lambda: keys.switch_product("acme", "search", True, 5.0 + SWITCH_S), "accounts"),
            (lambda: keys.save_account(replace(PREPAID, concurrency=7)), "accounts"),
            (lambda: keys.save_account(replace(PREPAID, id="other")), None),
            (keys.write_used, None),
            (lambda: keys.delete("one", 9.0), "keys"),
            (lambda: keys.delete("one", 9.0), None),
            (lambda: people.save_user(_USER), "people"),
            (lambda: people.save_user(replace(_USER, id="u-2")), None),
            (lambda: people.issue(Token("t-1", "u-1"), digest("t")), "people"),
            (lambda: people.issue(Token("t-2", "u-1"), digest("t")), None),
            (lambda: people.issue(Token("t-2", "u-2"), digest("v")), None),
            (people.write_used, None),
            (lambda: people.issue(Token("t-3", "u-1"), digest("w")), "people"),
            (lambda: people.revoke("t-3", 9.0), "people"),
            (lambda: people.revoke("t-3", 9.0), None),
            (lambda: people.delete_user("u-1", 9.0), "people"),
            (lambda: people.delete_user("u-1", 9.0), None),
            (lambda: people.save_user(_USER), None),
        ]
        for number, (step, what) in enumerate(steps):
            keys.used("one", float(number))
            people.used("t-1", float(number))
            before = _revisions(tmp_path)
            with contextlib.suppress(Problem):
                await step()
            expected = dict(before)
            if what is not None:
                expected[what] = expected.get(what, 0) + 1
            assert _revisions(tmp_path) == expected, f"step {number}"
        await store.stop()

    run(walk())


def _elsewhere(folder: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """What another process commits to the same database."""
    connection = sqlite3.connect(folder / "moonpool.db")
    with connection:
        for text, values in statements:
            connection.execute(text, values)
    connection.close()


def test_what_others_changed_is_taken_over(tmp_path: Path) -> None:
    """After `refresh` keys, accounts and users are as the database says; what is over is told to those who listen."""

    async def walk() -> None:
        store = await _store(tmp_path)
        for name in ("gone", "ended", "changed", "same"):
            await store.keys.create(Key(name, "acme"), digest(name))
        await store.keys.create(Key("off", "credit"), digest("off"))
        await store.people.save_user(_USER)
        await store.people.issue(Token("t-1", "u-1"), digest("t"))
        same = store.keys.find(digest("same"))
        told: list[Revoked] = []
        store.keys.listen(told.append)
        _elsewhere(
            tmp_path,
            ("UPDATE keys SET deleted_at = 1 WHERE id = ?", ("gone",)),
            ("UPDATE keys SET limits = ? WHERE id = ?", ('{"expires_at": 1.0}', "ended")),
            ("UPDATE keys SET name = 'new', digest = ? WHERE id = ?", (digest("renewed"), "changed")),
            ("UPDATE accounts SET disabled = 1 WHERE id = ?", ("credit",)),
            ("UPDATE users SET deleted_at = 1 WHERE id = ?", ("u-1",)),
        )
        await store.keys.refresh()
        await store.people.refresh()
        assert sorted(told, key=lambda each: each.key) == [
            Revoked(account="credit", why="This account was disabled."),
            Revoked("ended", why="The API key has expired."),
            Revoked("gone"),
        ]
        assert await store.keys.find(digest("gone")) is None
        assert await store.keys.find(digest("changed")) is None
        assert await store.keys.find(digest("renewed")) == (Key("changed", "acme", "new"), PREPAID)
        assert await store.keys.find(digest("ended")) == (Key("ended", "acme", limits=Limits(1.0)), PREPAID)
        assert store.keys.find(digest("same")) is same, "what did not change is not made anew"
        found = await store.keys.find(digest("off"))
        assert found is not None
        assert found[1].disabled
        assert await store.people.users() == []
        assert await store.people.find(digest("t"), 1.0) is None
        await store.keys.refresh()
        assert len(told) == 3, "told once"
        await store.stop()

    run(walk())


@pytest.mark.parametrize("what", ["keys", "people"])
def test_a_refresh_that_cannot_be_read_changes_nothing(tmp_path: Path, what: str) -> None:
    """Where the database cannot be asked, what is known stays as it was."""

    async def walk() -> None:
        store = await _store(tmp_path)
        await store.keys.create(Key("one", "acme"), digest("one"))
        await store.stop()
        with pytest.raises(Problem):
            await getattr(store, what).refresh()
        assert await store.keys.find(digest("one")) is not None

    run(walk())
