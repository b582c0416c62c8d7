"""A key that is dead stays dead, whatever is on its way at that moment: over a real database, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conformance.backends import PREPAID, opened, run
from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger.keys import digest
from moonpool.state import keystore
from moonpool.state.base import SWITCH_S
from moonpool.state.sqlite import SqliteStore
from moonpool.state.thread import Database, Jobs
from moonpool.words import Key, Limits

_KEY = Key("AbCdEfGhIjKl", "acme", "laptop", 5.0)
_TEXT, _NEXT = digest("the text of a key"), digest("its next text")
_LATER = 4e9


class SlowReader:
    """The store's own jobs; but what was read of all keys is told only when `told` is set, after jobs that came later:
    as it is where several threads read a database."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.read = asyncio.Event()
        self.told = asyncio.Event()
        self.reads = 0

    def call(self, work: Callable[[Database], Any]) -> Later[Any]:
        if work is not keystore._load:
            return self._jobs.call(work)
        later: Later[Any] = Later()
        task = asyncio.ensure_future(self._slowly(work, later))
        task.add_done_callback(lambda done: done.result())
        return later

    async def _slowly(self, work: Callable[[Database], Any], later: Later[Any]) -> None:
        found = await self._jobs.call(work)
        self.reads += 1
        self.read.set()
        await self.told.wait()
        later.set(found)


async def _store(folder: Path) -> tuple[SqliteStore, SlowReader]:
    store = await opened("sqlite", folder)
    assert isinstance(store, SqliteStore)
    slow = SlowReader(store._thread)
    store.keys._thread = slow
    await store.keys.create(_KEY, _TEXT)
    return store, slow


_ENDS: dict[str, Callable[[SqliteStore], Awaitable[Any]]] = {
    "deleted": lambda store: store.keys.delete(_KEY.id, 9.0),
    "ended": lambda store: store.keys.change(replace(_KEY, limits=Limits(expires_at=9.0))),
    "rotated": lambda store: store.keys.rotate(_KEY.id, _NEXT, 9.0),
    "disabled": lambda store: store.keys.save_account(replace(PREPAID, disabled=True)),
}


def _is_dead(store: SqliteStore, what: str) -> bool:
    found = store.keys.find(_TEXT).result()
    if what in {"deleted", "rotated"}:
        return found is None
    assert found is not None
    return not store.keys.stands(found[0].id)


@pytest.mark.parametrize("what", _ENDS)
def test_a_late_look_up_brings_nothing_back(tmp_path: Path, what: str) -> None:
    """Case 99: a look-up has read the row, the deletion is committed and answered, then the look-up writes what it read
    into memory: the key is dead all the same. So are one whose end was set, an old text, and an account's keys."""

    async def walk() -> None:
        store, slow = await _store(tmp_path)
        late = asyncio.ensure_future(store.keys.refresh())
        await slow.read.wait()
        await _ENDS[what](store)
        assert _is_dead(store, what)
        slow.told.set()
        await late
        assert slow.reads == 2, "what was read before the change is read again"
        assert _is_dead(store, what)
        await store.stop()
        store = await opened("sqlite", tmp_path)  # type: ignore[assignment]
        assert what == "disabled" or _is_dead(store, what)
        await store.stop()

    run(walk())


def test_using_a_dead_key_renews_nothing(tmp_path: Path) -> None:
    """Case 100: the key is used on and on, before, while and after it is deleted; last uses are written, everything is
    read anew, the account changes: from the deletion's answer on it is never found."""

    async def walk() -> None:
        store, slow = await _store(tmp_path)
        slow.told.set()
        over, dead, found_alive = asyncio.Event(), False, 0

        async def use() -> None:
            nonlocal found_alive
            while not over.is_set():
                found = store.keys.find(_TEXT).result()
                assert found is None or not dead
                found_alive += found is not None
                store.keys.used(_KEY.id, 8.0)
                await asyncio.sleep(0)

        users = [asyncio.ensure_future(use()) for _ in range(10)]
        await asyncio.gather(store.keys.write_used(), store.keys.refresh())
        assert await store.keys.delete(_KEY.id, 9.0)
        dead = True
        for number in range(20):
            await asyncio.gather(
                store.keys.write_used(),
                store.keys.refresh(),
                store.keys.save_account(replace(PREPAID, concurrency=1 + number)),
            )
        over.set()
        await asyncio.gather(*users)
        assert found_alive
        assert await store.keys.list() == []
        await store.stop()

    run(walk())


def test_nothing_makes_a_deleted_key_again(tmp_path: Path) -> None:
    """Case 102: neither its id, nor its text, nor the text it had before comes back, by whatever way one tries; not
    after restarts either. There is no way to restore."""

    async def walk() -> None:
        store, slow = await _store(tmp_path)
        slow.told.set()
        await store.keys.rotate(_KEY.id, _NEXT, _LATER)
        await store.keys.create(Key("other_id____", "acme"), digest("other"))
        await store.keys.delete(_KEY.id, 9.0)
        for _ in range(3):
            for attempt in (
                store.keys.create(_KEY, _TEXT),
                store.keys.create(_KEY, digest("new")),
                store.keys.create(replace(_KEY, id="new_id______"), _TEXT),
                store.keys.create(replace(_KEY, id="new_id______"), _NEXT),
                store.keys.rotate("other_id____", _TEXT, _LATER),
                store.keys.rotate("other_id____", _NEXT, _LATER),
            ):
                with pytest.raises(Problem):
                    await attempt
            assert not await store.keys.change(_KEY)
            assert not await store.keys.rotate(_KEY.id, digest("new"), _LATER)
            assert not await store.keys.delete(_KEY.id, 10.0)
            await store.keys.save_account(PREPAID)
            await store.keys.switch_product("acme", "chat", False, SWITCH_S)
            await store.keys.refresh()
            for text in (_TEXT, _NEXT, digest("new")):
                assert await store.keys.find(text) is None
            assert [key.id for key in await store.keys.list()] == ["other_id____"]
            await store.stop()
            store = await opened("sqlite", tmp_path)  # type: ignore[assignment]
        await store.stop()

    run(walk())
