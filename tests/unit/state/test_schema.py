"""state/schema.py: from any known schema to ours, and no further."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from conformance.backends import VAULT_SECRET, run
from moonpool.errors import Problem
from moonpool.state import schema, tables
from moonpool.state.base import Thought, VaultBounds
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account


def test_steps_lead_to_the_tables(tmp_path: Path) -> None:
    """A database that got all steps has exactly the tables the program works with."""
    engine = create_engine(f"sqlite:///{tmp_path}/m.db")
    with engine.connect() as connection:
        schema.migrate(connection)
        assert schema.revision(connection) == tables.REVISION
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        schema.migrate(connection)
    engine.dispose()


def test_the_newest_step_is_ours() -> None:
    """REVISION names the last step, and the steps are one line."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [tables.REVISION]


def test_the_first_schema_is_brought_forward(tmp_path: Path) -> None:
    """A database that the first version made gets the vault's tables, and keeps what is in it."""
    path = tmp_path / "m.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(path) as plain:
        plain.execute("INSERT INTO accounts VALUES ('acme', 'Acme', 0, 7, 1.0)")
    plain.close()

    async def walk() -> None:
        store = SqliteStore(path)
        store.seal_with(VAULT_SECRET, VaultBounds())
        await store.start()
        assert await store.keys.account("Acme") == Account("acme", "Acme", concurrency=7)
        assert store.vault is not None
        store.vault.keep(Thought("acme", (), b"t" * 16, "kept"), 1.0)
        await store.stop()

    run(walk())
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT count(*) FROM thoughts").fetchone() == (1,)
    plain.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database that a newer program made is left alone, with a sentence that says so."""

    async def first() -> None:
        store = SqliteStore(tmp_path / "m.db")
        await store.start()
        await store.stop()

    async def refused() -> None:
        with pytest.raises(Problem, match="schema 9999, made by a newer Moonpool; this one knows schemas up to 0004"):
            await SqliteStore(tmp_path / "m.db").start()

    run(first())
    with sqlite3.connect(tmp_path / "m.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = (tmp_path / "m.db").read_bytes()
    run(refused())
    assert (tmp_path / "m.db").read_bytes() == before


def test_insert_texts() -> None:
    """The driver's statements are made from the tables: every column, in order, as often as asked."""
    text = tables.insert_text(tables.transfers, 2)
    assert text == (
        "INSERT INTO transfers (seq, leg, debit, credit, amount_pico, currency) VALUES (?,?,?,?,?,?),(?,?,?,?,?,?)"
    )
    text = tables.upsert_text(tables.balances, 1)
    assert text.endswith(
        "ON CONFLICT (account, currency) DO UPDATE SET granted_pico = excluded.granted_pico, "
        "topped_up_pico = excluded.topped_up_pico, held_pico = excluded.held_pico, "
        "post_paid_pico = excluded.post_paid_pico"
    )
