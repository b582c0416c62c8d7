"""Prices that were agreed with accounts: what every store of them promises, whatever database is below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from conformance.backends import STORES, opened, run
from moonpool.state import tables
from moonpool.state.base_prices import Override

pytestmark = pytest.mark.parametrize("backend", STORES)

PRICE = {"prompt_miss": "1", "prompt_hit": "0.1", "completion": "2", "peak": {"calendar": "weekdays", "factor": "2"}}
FIRST = Override("acme", "deepseek-chat", "2026-11-01", PRICE, 5.0)
LATER = Override("acme", "deepseek-chat", "2026-12-01", {"factor": "1"}, 6.0)
OTHER = Override("credit", "deepseek-chat", "2026-11-01", {"factor": "0.8"}, 7.0)


def test_what_was_agreed_is_kept(backend: str, tmp_path: Path) -> None:
    """By account, model and day; what is said again of a day replaces it; a restart forgets nothing."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        assert list(store.overrides.list()) == []
        for override in (LATER, OTHER, FIRST):
            await store.overrides.set(override)
        changed = Override("acme", "deepseek-chat", "2026-12-01", {"factor": "0.9"}, 8.0)
        await store.overrides.set(changed)
        assert list(store.overrides.list()) == [FIRST, changed, OTHER]
        assert list(store.overrides.list("credit")) == [OTHER]
        await store.stop()
        store = await opened(backend, tmp_path)
        assert list(store.overrides.list()) == [FIRST, changed, OTHER]
        await store.stop()

    run(walk())


def test_what_is_forgotten_does_not_come_back(backend: str, tmp_path: Path) -> None:
    """One day of a model, or all of its days; nobody else's; and it says how many there were."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        for override in (FIRST, LATER, OTHER):
            await store.overrides.set(override)
        assert await store.overrides.delete("acme", "deepseek-chat", "2027-01-01") == 0
        assert await store.overrides.delete("acme", "deepseek-chat", "2026-12-01") == 1
        assert list(store.overrides.list()) == [FIRST, OTHER]
        await store.overrides.set(LATER)
        assert await store.overrides.delete("acme", "deepseek-chat") == 2
        assert await store.overrides.delete("acme", "deepseek-chat") == 0
        await store.stop()
        store = await opened(backend, tmp_path)
        assert list(store.overrides.list()) == [OTHER]
        await store.stop()

    run(walk())


def test_each_change_is_told_and_counted(backend: str, tmp_path: Path) -> None:
    """To who listens, after it is durable; and in `changes`, by which another process sees that there was one. What
    changed nothing is neither."""

    def revision(database: Any) -> int:
        with database.engine.connect() as connection:
            found = connection.execute(select(tables.changes.c.revision).where(tables.changes.c.what == "overrides"))
            return int(found.scalar() or 0)

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        told: list[int] = []
        store.overrides.listen(lambda: told.append(len(store.overrides.list())))
        await store.overrides.set(FIRST)
        await store.overrides.set(LATER)
        await store.overrides.delete("acme", "deepseek-r1")
        await store.overrides.delete("acme", "deepseek-chat")
        assert told == [1, 2, 0]
        assert await store._thread.call(revision) == 3  # type: ignore[attr-defined]
        await store.overrides.refresh()  # type: ignore[attr-defined]
        assert told == [1, 2, 0]
        await store.stop()

    run(walk())
