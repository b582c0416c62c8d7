"""state/vault.py, shelf.py, sealing.py: what is in the database, who can read it, and what happens when it fails."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from conformance.backends import VAULT_SECRET, a_hold, a_resolution, run
from faults.disk import Disk
from faults.stage import until
from moonpool.state.base import Thought, VaultBounds
from moonpool.state.sealing import Sealer, key_file
from moonpool.state.sqlite import SqliteStore
from moonpool.state.vault import DatabaseVault
from moonpool.words import Account

_BOUNDS = VaultBounds(ttl_s=100.0)
_TURN, _CALL = b"t" * 16, b"c" * 16
_CANARY = "a canary of the vault"


def _thought(reasoning: str = _CANARY, account: str = "credit") -> Thought:
    return Thought(account, (_CALL,), _TURN, reasoning)


async def _opened(
    folder: Path, secret: str = VAULT_SECRET, disk: Disk | None = None
) -> tuple[SqliteStore, DatabaseVault]:
    path = folder / "m.db"
    store = SqliteStore(path) if disk is None else SqliteStore(path, connection_class=disk.connection_class)
    store.seal_with(secret, _BOUNDS)
    await store.start()
    assert store.vault is not None
    return store, store.vault


def test_it_outlives_a_restart_sealed(tmp_path: Path) -> None:
    """After a restart a thought is found by each mark; neither it nor its marks stand anywhere in the files."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        vault.keep(_thought(), 1.0)
        await vault.written()
        for content in await asyncio.to_thread(lambda: [file.read_bytes() for file in tmp_path.iterdir()]):
            assert _CANARY.encode() not in content
            assert _TURN not in content
            assert _CALL not in content
        vault.keep(Thought("credit", (), b"x" * 16, "kept while stopping"), 1.0)
        await store.stop()
        store, vault = await _opened(tmp_path)
        assert vault.trouble is None
        assert await vault.find("credit", [_TURN, _CALL, b"x" * 16, b"y" * 16], 2.0) == {
            _TURN: _CANARY,
            _CALL: _CANARY,
            b"x" * 16: "kept while stopping",
        }
        assert await vault.find("acme", [_TURN, _CALL], 2.0) == {}
        assert await vault.find("credit", [_TURN], 101.0) == {}
        await store.stop()

    run(walk())


def test_another_key_reads_nothing(tmp_path: Path) -> None:
    """With a lost or changed key everything is unknown, and said to be; new thoughts are kept as ever."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        vault.keep(_thought(), 1.0)
        await store.stop()
        store, vault = await _opened(tmp_path, "another secret, just as long as it")
        assert "vault.key" in str(vault.trouble)
        assert await vault.find("credit", [_TURN, _CALL], 2.0) == {}
        vault.keep(_thought("new"), 1.0)
        await store.stop()
        store, vault = await _opened(tmp_path, "another secret, just as long as it")
        assert await vault.find("credit", [_TURN, _CALL], 2.0) == {_TURN: "new", _CALL: "new"}
        await store.stop()

    run(walk())


@pytest.mark.parametrize(
    "change", ["UPDATE thoughts SET account = 'acme'", "UPDATE thoughts SET sealed = zeroblob(60)"]
)
def test_a_row_that_was_changed_is_unknown(change: str, tmp_path: Path) -> None:
    """Account and marks are bound to the text: a row that somebody moved or changed is not read, for nobody."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        vault.keep(_thought(), 1.0)
        await store.stop()
        with sqlite3.connect(tmp_path / "m.db") as connection:
            connection.execute(change)
        connection.close()
        store, vault = await _opened(tmp_path)
        assert vault.trouble is not None
        assert await vault.find("credit", [_TURN, _CALL], 2.0) == {}
        assert await vault.find("acme", [_TURN, _CALL], 2.0) == {}
        await store.stop()

    run(walk())


def test_a_mark_cannot_be_pointed_elsewhere(tmp_path: Path) -> None:
    """A mark that was pointed at another thought of the account does not find it."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        vault.keep(Thought("credit", (), b"1" * 16, "one"), 1.0)
        vault.keep(Thought("credit", (), b"2" * 16, "two"), 1.0)
        await store.stop()
        with sqlite3.connect(tmp_path / "m.db") as connection:
            connection.execute("UPDATE thought_marks SET seq = (SELECT max(seq) FROM thoughts)")
        connection.close()
        store, vault = await _opened(tmp_path)
        assert await vault.find("credit", [b"1" * 16], 2.0) == {}
        assert await vault.find("credit", [b"2" * 16], 2.0) == {b"2" * 16: "two"}
        await store.stop()

    run(walk())


def test_what_the_database_knew_of_a_mark(tmp_path: Path) -> None:
    """A mark that another answer had before the restart is known to be shared once the new one is written."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        vault.keep(_thought("before"), 1.0)
        await store.stop()
        store, vault = await _opened(tmp_path)
        vault.keep(Thought("credit", (_CALL,), b"n" * 16, "after"), 1.0)
        await vault.written()
        assert await vault.find("credit", [_CALL, _TURN, b"n" * 16], 2.0) == {_TURN: "before", b"n" * 16: "after"}
        await store.stop()

    run(walk())


@pytest.mark.parametrize(
    "at", ["INSERT INTO thoughts", "INSERT INTO thought_marks", "COMMIT", "PRAGMA synchronous = FULL"]
)
def test_a_disk_that_fails_loses_thoughts_only(at: str, tmp_path: Path) -> None:
    """While nothing can be written, thoughts are found in memory and lost to the next process; money is untouched, and
    afterwards commits of the books wait for the disk as before."""
    disk = Disk()

    async def walk() -> None:
        store, vault = await _opened(tmp_path, disk=disk)
        await store.keys.save_account(Account("credit", "Credit", post_paid=True))
        failures = [sqlite3.OperationalError("disk I/O error")]
        disk.fail = lambda text: failures.pop() if failures and text.startswith(at) else None
        vault.keep(_thought(), 1.0)
        await vault.written()
        assert vault.lost == 1
        assert await vault.find("credit", [_TURN, b"?" * 16], 2.0) == {_TURN: _CANARY}
        assert not failures
        assert await store.books.hold(a_hold("h1")) == "held"
        assert await store.books.resolve(a_resolution("h1")) == "resolved"
        vault.keep(Thought("credit", (), b"x" * 16, "later"), 1.0)
        await vault.written()
        await store._thread.call(lambda database: synchronous.extend(database.cursor.execute("PRAGMA synchronous")))
        await store.stop()
        store, vault = await _opened(tmp_path)
        found = await vault.find("credit", [_TURN, b"x" * 16], 2.0)
        # What failed after the commit was written all the same.
        assert found.keys() - {_TURN} == {b"x" * 16}
        assert (_TURN in found) == at.startswith("PRAGMA")
        await store.stop()

    synchronous: list[tuple[int]] = []
    run(walk())
    assert synchronous == [(2,)]


def test_many_at_once(tmp_path: Path) -> None:
    """More thoughts than one write takes are all written, and all found with one question."""

    async def walk() -> None:
        marks = [number.to_bytes(16, "big") for number in range(1000)]
        store, vault = await _opened(tmp_path)
        for mark in marks:
            vault.keep(Thought("credit", (), mark, mark.hex()), 1.0)
        await store.stop()
        store, vault = await _opened(tmp_path)
        assert await vault.find("credit", marks, 2.0) == {mark: mark.hex() for mark in marks}
        vault.sweep(101.0)
        await until(lambda: vault.rows == 0)
        assert await vault.find("credit", marks, 2.0) == {}
        await store.stop()

    run(walk())


def test_a_closed_vault(tmp_path: Path) -> None:
    """After `stop` nothing fails: what memory knows is found, what comes is not kept."""

    async def walk() -> None:
        store, vault = await _opened(tmp_path)
        await store.stop()
        vault.keep(_thought(), 1.0)
        vault.sweep(2.0)
        assert await vault.find("credit", [_TURN, b"?" * 16], 2.0) == {_TURN: _CANARY}

    run(walk())


def test_sealing() -> None:
    """What is sealed opens with the same key, account and marks, with nothing else; two seals of one text differ."""
    sealer, other = Sealer(VAULT_SECRET), Sealer(VAULT_SECRET + "!")
    marks = [sealer.mark("a", _TURN), sealer.mark("a", _CALL)]
    sealed = sealer.seal("a", marks, "月 text")
    assert sealed != sealer.seal("a", marks, "月 text")
    assert Sealer(VAULT_SECRET).open("a", marks, sealed) == "月 text"
    assert sealer.open("b", marks, sealed) is None
    assert sealer.open("a", marks[::-1], sealed) is None
    assert sealer.open("a", marks, sealed[:-1]) is None
    assert sealer.open("a", marks, b"") is None
    assert other.open("a", marks, sealed) is None
    assert len({sealer.mark("a", _TURN), sealer.mark("b", _TURN), other.mark("a", _TURN), sealer.mark("a", _CALL)}) == 4


def test_the_key_file(tmp_path: Path) -> None:
    """It is made once, for its owner alone, and never again."""
    path = tmp_path / "vault.key"
    key_file(path)
    first = path.read_text()
    assert len(first.strip()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_file(path)
    assert path.read_text() == first
