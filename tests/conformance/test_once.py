"""Requests with an `Idempotency-Key`: what every store promises about doing one once, whatever database is below."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conformance.backends import POSTPAID, STORES, VAULT_SECRET, a_hold, a_resolution, run
from moonpool.state.base import Asking, Begun, Once, OnceBounds, Progress, Store, StoreInUse, Told
from moonpool.state.once import GRACE_S
from moonpool.words import Price, Usage

pytestmark = pytest.mark.parametrize("backend", STORES)

DAY_S = 86_400.0
TOLD = Told(200, "application/json", [("x-moonpool-host", "a-host")], b'{"id":"1"}')
OTHER_SECRET = "the secret of somebody else, as long as it must be"


def asks(request_id: str, key: str = "k", *, at: float = 1000.0, digest: bytes = b"d" * 32, **more: Any) -> Asking:
    return Asking(more.pop("scope", "account:credit"), key, digest, request_id, at, **more)


@contextlib.asynccontextmanager
async def opened(
    backend: str, folder: Path, bounds: OnceBounds | None = None, secret: str = VAULT_SECRET
) -> AsyncIterator[tuple[Store, Once]]:
    store = STORES[backend](folder)
    store.remember_with(secret, bounds or OnceBounds())  # type: ignore[attr-defined]
    await store.start()
    await store.keys.save_account(POSTPAID)
    assert store.once is not None
    try:
        yield store, store.once
    finally:
        await store.stop()


async def all_at_once(once: Once, *which: Asking) -> list[str]:
    async def begin(each: Asking) -> str:
        return str(await once.begin(each))

    return sorted(await asyncio.gather(*map(begin, which)))


def told(found: Begun | Told) -> bytes:
    assert isinstance(found, Told), found
    assert (found.status, found.content_type, list(found.fields)) == (200, TOLD.content_type, TOLD.fields)
    assert found.body is not None
    return found.body


def test_done_once_and_told_again(backend: str, tmp_path: Path) -> None:
    """The first that asks may begin; until it has ended others are told that it runs; afterwards they get its answer,
    after a restart too. Another request under the key is a mismatch, before and after."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            assert await once.begin(asks("1")) == "new"
            assert await once.begin(asks("2")) == "running"
            assert await once.begin(asks("3", digest=b"e" * 32)) == "mismatch"
            once.finish(asks("1"), TOLD)
            assert told(await once.begin(asks("4"))) == TOLD.body
            assert await once.begin(asks("5", digest=b"e" * 32)) == "mismatch"
        async with opened(backend, tmp_path) as (_, once):
            assert told(await once.begin(asks("6"))) == TOLD.body

    run(walk())


def test_one_of_many(backend: str, tmp_path: Path) -> None:
    """Of fifty that ask at once with one key, one begins and 49 are told that it runs; with fifty keys all begin."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            assert await all_at_once(once, *(asks(f"a{each}") for each in range(50))) == ["new"] + ["running"] * 49
            assert set(await all_at_once(once, *(asks(f"b{each}", f"k{each}") for each in range(50)))) == {"new"}

    run(walk())


def test_scopes_never_meet(backend: str, tmp_path: Path) -> None:
    """The same key of another account, of an operator, or with another account's name as a part of it, is another key
    (case 113)."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            assert await once.begin(asks("1")) == "new"
            once.finish(asks("1"), TOLD)
            scopes = ("account:acme", "actor:credit", "account:credi", "account:credit\nk", "account:CREDIT", "")
            for at, scope in enumerate(scopes):
                assert await once.begin(asks(f"2{at}", scope=scope)) == "new", scope
            assert told(await once.begin(asks("3"))) == TOLD.body

    run(walk())


def test_dropped_is_new(backend: str, tmp_path: Path) -> None:
    """What was dropped had never begun: the next one begins, whatever it asks."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            for each in range(3):
                first = asks(str(each), digest=bytes([each]) * 32)
                assert await once.begin(first) == "new"
                once.drop(first)

    run(walk())


def test_for_a_day(backend: str, tmp_path: Path) -> None:
    """An answer is kept for its time, to the second; then the key is new, for any request, swept or not. What runs is
    not forgotten."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            for key in ("k", "swept", "runs"):
                assert await once.begin(asks(f"1{key}", key)) == "new"
            once.finish(asks("1k"), TOLD)
            once.finish(asks("1swept", "swept"), TOLD)
            end = 1000.0 + DAY_S
            once.sweep(end - 0.001)
            for key in ("k", "swept"):
                assert told(await once.begin(asks(f"2{key}", key, at=end - 0.001))) == TOLD.body
            assert await once.begin(asks("3k", at=end, digest=b"e" * 32)) == "new"
            once.sweep(end)
            assert await once.begin(asks("3swept", "swept", at=end - 1)) == "new"  # a clock that stands still
            assert await once.begin(asks("3runs", "runs", at=end)) == "running"
            once.finish(asks("3k", at=end), Told(200, TOLD.content_type, TOLD.fields, b"new"))
            found = await once.begin(asks("4k", at=end + 1, digest=b"e" * 32))
            assert told(found) == b"new"

    run(walk())


def test_an_answer_of_before_changes_nothing(backend: str, tmp_path: Path) -> None:
    """A request that ends when its key belongs to another one by now, neither answers nor frees it."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            assert await once.begin(asks("1")) == "new"
            once.drop(asks("1"))
            assert await once.begin(asks("2")) == "new"
            once.finish(asks("1"), TOLD)
            once.drop(asks("1"))
            assert await once.begin(asks("3")) == "running"

    run(walk())


@pytest.mark.parametrize(
    ("held", "kind", "owed_pico", "repeatable", "expected"),
    [
        (False, None, 0, True, "new"),
        (True, "recovered", 0, True, "new"),
        (True, "recovered", 5, True, "lost"),
        (True, "posted", 5, True, "lost"),
        (True, "posted", 0, True, "new"),
        (True, "voided", 0, True, "new"),
        (False, None, 0, False, "lost"),
    ],
)
def test_interrupted(
    backend: str, tmp_path: Path, held: bool, kind: Any, owed_pico: int, repeatable: bool, expected: str
) -> None:
    """A request whose process ended before it was answered: it may be done again where it owed nothing and may be
    repeated; else the key is lost, for all of its time and for any body. So no key is ever paid twice."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (store, once):
            first = asks("1", repeatable=repeatable)
            assert await once.begin(first) == "new"
            if held:
                assert await store.books.hold(a_hold("1")) == "held"
                assert await once.begin(asks("2")) == "running"
                if kind == "recovered":
                    usage = Usage(3, 0, 5, 0, estimated=True)
                    row = Progress("1", usage, owed_pico, 0, "a-host", "CNY", Price(), 1001.0)
                    store.books.progress([row] if owed_pico else [])
                else:
                    resolution = a_resolution("1", kind, owed_pico, usage=Usage(3, 2, 5, 1))
                    assert await store.books.resolve(resolution) == "resolved"
                assert await once.begin(asks("2")) == "running", "it is not stored yet"
        async with opened(backend, tmp_path) as (store, once):
            if kind == "recovered":
                assert await store.books.recover(2.0) == 1
            assert await once.begin(asks("3", digest=b"e" * 32, at=2000.0)) == "mismatch"
            assert await once.begin(asks("4", at=2000.0, repeatable=repeatable)) == expected
            again = await once.begin(asks("5", at=2000.0, repeatable=repeatable))
            assert again == ("running" if expected == "new" else "lost")

    run(walk())


def test_many_processes_wait_before_they_judge(backend: str, tmp_path: Path) -> None:
    """Where others work on the database too, a request that nobody seems to be at is `running` while its hold is open,
    and for a while after; then one of all that ask takes it over."""

    async def walk() -> None:
        async with opened(backend, tmp_path) as (store, once):
            once._shelf._grace_s = GRACE_S  # type: ignore[attr-defined]
            assert await store.books.hold(a_hold("1")) == "held"
            for key, request_id in (("held", "1"), ("k", "2")):
                assert await once.begin(asks(request_id, key)) == "new"
            once._shelf.alive.clear()  # type: ignore[attr-defined] - as another process sees it
            assert await once.begin(asks("3", at=1000.0 + GRACE_S - 1)) == "running"
            racers = [asks(f"4{each}", at=1000.0 + GRACE_S) for each in range(9)]
            assert await all_at_once(once, *racers) == ["new"] + ["running"] * 8
            assert await once.begin(asks("5", "held", at=1000.0 + DAY_S / 2)) == "running"
            assert await store.books.resolve(a_resolution("1", "voided")) == "resolved"  # at 2.0
            assert await once.begin(asks("6", "held", at=2.0 + GRACE_S - 1)) == "running"
            assert await once.begin(asks("7", "held", at=2.0 + GRACE_S)) == "new"

    run(walk())


def test_processes_that_race(backend: str, tmp_path: Path) -> None:
    """Two processes on one database, where it takes two: for each of many keys one of all that ask in either begins,
    also when some let theirs go, while answers are stored and make room for each other."""

    async def walk() -> None:
        bounds = OnceBounds(bytes_max=20_000, scope_bytes_max=9_000)
        async with opened(backend, tmp_path, bounds) as (_, first):
            if backend == "sqlite":
                with pytest.raises(StoreInUse):
                    await opened(backend, tmp_path, bounds).__aenter__()
                return
            async with opened(backend, tmp_path, bounds) as (_, second):
                chance = random.Random(1)
                begun: Counter[int] = Counter()

                async def ask(once: Once, key: int, number: int) -> None:
                    asking = asks(f"{key} {number}", str(key), at=1000.0 + number)
                    found = await once.begin(asking)
                    while found == "running" or (found == "new" and chance.random() < 0.3):
                        if found == "new":
                            once.drop(asking)
                        await asyncio.sleep(0)
                        found = await once.begin(asking)
                    if found == "new":
                        begun[key] += 1
                        once.finish(asking, Told(200, TOLD.content_type, TOLD.fields, chance.randbytes(400)))

                racers = [(key, number) for key in range(40) for number in range(8)]
                chance.shuffle(racers)
                await asyncio.gather(*(ask((first, second)[number % 2], key, number) for key, number in racers))
                assert begun == dict.fromkeys(range(40), 1)

    run(walk())


def test_bodies_are_sealed(backend: str, tmp_path: Path) -> None:
    """Nothing of an answer can be read in the database's files; with another secret it is lost, not new."""
    secret = b"sk-mp-" + b"a secret that an answer holds " * 40

    def raw() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    async def walk() -> None:
        async with opened(backend, tmp_path) as (_, once):
            for key in ("long", "short"):
                assert await once.begin(asks(f"1{key}", key)) == "new"
            once.finish(asks("1long", "long"), Told(201, "application/json", [], secret))
            once.finish(asks("1short", "short"), Told(201, "application/json", [], secret[:30]))
            found = await once.begin(asks("2", "long"))
            assert isinstance(found, Told)
            assert found.body == secret
            assert b"sk-mp-" not in raw()
        async with opened(backend, tmp_path, secret=OTHER_SECRET) as (_, once):
            assert await once.begin(asks("3", "long")) == "lost"
            assert await once.begin(asks("3", "short")) == "lost"

    run(walk())


def test_bounds(backend: str, tmp_path: Path) -> None:
    """Above the bytes of one scope its oldest bodies go, above those of all the oldest of all; the keys stay known, so
    that nothing is done twice. An answer that is larger than a bound is known without its body. After a restart the
    same bounds hold."""
    body = bytes(range(256)) * 2 + b"0123456789"  # short enough not to be compressed

    async def keep(once: Once, scope: str, key: str, at: float, data: bytes | None = None) -> None:
        first = asks(f"{scope} {key}", key, at=at, scope=scope)
        assert await once.begin(first) == "new"
        once.finish(first, Told(200, TOLD.content_type, TOLD.fields, data or body[:400]))

    async def state(once: Once, scope: str, count: int) -> str:
        found = [await once.begin(asks("x", str(each), at=3000.0, scope=scope)) for each in range(count)]
        return "".join("." if each == "lost" else "k" if isinstance(each, Told) else "?" for each in found)

    async def walk() -> None:
        bounds = OnceBounds(bytes_max=8_000, scope_bytes_max=4_000)  # a body of 400 takes 429
        async with opened(backend, tmp_path, bounds) as (_, once):
            for each in range(12):
                await keep(once, "a", str(each), 1000.0 + each)
            await keep(once, "big", "0", 1020.0, os.urandom(4_000))
            assert await state(once, "big", 1) == "."
            assert await state(once, "a", 12) == "....kkkkkkkk"
        async with opened(backend, tmp_path, bounds) as (_, once):
            await keep(once, "a", "12", 1030.0)
            assert await state(once, "a", 13) == "....kkkkkkkkk"
            await keep(once, "a", "13", 1031.0)
            assert await state(once, "a", 14) == "........kkkkkk"
            for each in range(9):
                await keep(once, "b", str(each), 2000.0 + each)
                await keep(once, "c", str(each), 2000.0 + each)
            assert await state(once, "a", 14) == "..............", "the oldest of all"
            both = await state(once, "b", 9) + await state(once, "c", 9)
            assert "?" not in both
            assert 14 <= both.count("k") <= 18
            once.sweep(1000.0 + 2 * DAY_S)
            assert await once.begin(asks("y", "0", at=1000.0, scope="a")) == "new", "swept rows are gone"

    run(walk())
