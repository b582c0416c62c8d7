"""A process killed at any moment: every answer it gave stays true, and the books stay sound."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.backends import POSTPAID, a_hold, a_resolution, run
from faults.auditor import audit, written
from moonpool.state.base import StoreInUse
from moonpool.state.sqlite import SqliteStore

_CHILD = Path(__file__).with_name("store_child.py")


def _start(database: Path, prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_CHILD), str(database), prefix], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def _killed_after(child: subprocess.Popen[str], lines: int) -> list[str]:
    """Read so many lines, kill, and give all that the child had said by then."""
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    child.kill()
    said += child.stdout.readlines()
    child.wait(30)
    child.stdout.close()
    # The last line may have been cut by the kill.
    return [line.strip() for line in said if line.endswith("\n")]


def test_killed_twenty_times(tmp_path: Path) -> None:
    """After each of twenty kills: what was reported durable is there, each hold has one resolution at most, and the
    auditor, who shares no code with the product, finds nothing. In the end recovery leaves nothing open."""
    database = tmp_path / "m.db"
    chance = random.Random(20)
    holds: set[str] = set()
    resolutions: set[str] = set()
    for turn in range(20):
        # Early kills hit opening and recovery, later ones the work.
        said = _killed_after(_start(database, f"t{turn}"), chance.choice((0, 1, 2, chance.randrange(3, 1500))))
        holds |= {line[2:] for line in said if line.startswith("H ")}
        resolutions |= {line[2:] for line in said if line.startswith("P ")}
        if not database.exists() or not said:
            continue
        assert audit(database) == []
        ids, resolved = written(database)
        assert holds <= ids
        assert resolutions <= set(resolved)
    assert len(holds) > 500
    assert len(resolutions) > 100

    async def walk() -> None:
        store = SqliteStore(database)
        await store.start()
        left = (await store.books.totals())["open"]
        assert await store.books.recover(time.time()) == left
        assert (await store.books.totals())["open"] == 0
        await store.stop()

    run(walk())
    assert audit(database) == []
    ids, resolved = written(database)
    assert ids == set(resolved)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one process has a database open another is told which; when that one is killed, the next one starts."""
    database = tmp_path / "m.db"
    child = _start(database, "c")
    assert child.stdout is not None
    assert child.stdout.readline() == "O\n"

    async def refused() -> None:
        with pytest.raises(StoreInUse, match=f"process {child.pid}"):
            await SqliteStore(database).start()

    async def allowed() -> None:
        store = SqliteStore(database)
        await store.start()
        await store.stop()

    try:
        run(refused())
    finally:
        _killed_after(child, 0)
    run(allowed())
    assert audit(database) == []


def test_recovery_is_quick(tmp_path: Path) -> None:
    """Ten thousand open holds are recovered in one transaction and in less than two seconds."""

    async def walk() -> None:
        store = SqliteStore(tmp_path / "m.db")
        await store.start()
        await store.keys.save_account(POSTPAID)
        waiting = [store.books.hold(a_hold(f"r{each}", 10)) for each in range(10_500)]
        for each in range(500):
            store.books.resolve(a_resolution(f"r{each}"))
        for later in waiting:
            await later
        await store.stop()
        store = SqliteStore(tmp_path / "m.db")
        start = time.monotonic()
        await store.start()
        assert await store.books.recover(5.0) == 10_000
        assert time.monotonic() - start < 2.0
        await store.stop()

    run(walk())
    assert audit(tmp_path / "m.db") == []
