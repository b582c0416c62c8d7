"""Rows of the catalogue that were said at run time: what every store of them promises, whatever database is below."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from conformance.backends import STORES, opened, run
from moonpool.state.base_catalogue import KeptRow

pytestmark = pytest.mark.parametrize("backend", STORES)

PRICE = {"valid_from": "2026-11-01", "prompt_miss": "1", "prompt_hit": "0.1", "completion": "2"}
MODEL = KeptRow("models", "small", {"hosts": ["far"], "prices": [PRICE]}, 5.0)
HOST = KeptRow("hosts", "far", {"base_url": "http://127.0.0.1:9/v1"}, 6.0)
YEAR = KeptRow("holidays", "china", {"2027": {"off": ["2027-01-01"]}}, 7.0)


def test_what_was_said_is_kept(backend: str, tmp_path: Path) -> None:
    """By section and name; what is said again replaces all that was; a restart forgets nothing, and what was forgotten
    does not come back."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        rows = store.kept_rows
        assert (list(rows.list()), rows.revision) == ([], 0)
        for row in (MODEL, HOST, YEAR):
            assert await rows.set(row, rows.revision)
        again = KeptRow("models", "small", {"alias": "large"}, 8.0)
        assert await rows.set(again, rows.revision)
        assert list(rows.list()) == [YEAR, HOST, again]
        await store.stop()
        store = await opened(backend, tmp_path)
        rows = store.kept_rows
        assert (list(rows.list()), rows.revision) == ([YEAR, HOST, again], 4)
        assert await rows.delete("models", "small", 4)
        await store.stop()
        store = await opened(backend, tmp_path)
        assert list(store.kept_rows.list()) == [YEAR, HOST]
        await store.stop()

    run(walk())


def test_of_two_changes_at_once_one_is_made(backend: str, tmp_path: Path) -> None:
    """Whoever looked before another change was made changes nothing, and is told so."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        rows = store.kept_rows
        assert await asyncio.gather(rows.set(HOST, 0), rows.set(MODEL, 0)) == [True, False]
        assert not await rows.delete("hosts", "far", 0)
        assert (list(rows.list()), rows.revision) == ([HOST], 1)
        assert await rows.set(MODEL, 1)
        await store.stop()
        store = await opened(backend, tmp_path)
        assert (list(store.kept_rows.list()), store.kept_rows.revision) == ([HOST, MODEL], 2)
        await store.stop()

    run(walk())


def test_each_change_is_told(backend: str, tmp_path: Path) -> None:
    """To who listens, after it is durable; what changed nothing is not."""

    async def walk() -> None:
        store: Any = await opened(backend, tmp_path)
        rows = store.kept_rows
        told: list[int] = []
        rows.listen(lambda: told.append(len(rows.list())))
        await rows.set(HOST, 0)
        await rows.set(MODEL, 1)
        await rows.set(YEAR, 1)
        await rows.delete("hosts", "far", 2)
        assert told == [1, 2, 1]
        await rows.refresh()
        assert told == [1, 2, 1]
        await store.stop()

    run(walk())
