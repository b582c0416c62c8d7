"""The first schema: accounts, keys, the books."""

from alembic import op
from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, ForeignKey, Integer, LargeBinary, Text

revision = "0001"
down_revision = None

_INTEGER = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    _accounts_and_keys()
    _books()


def _accounts_and_keys() -> None:
    op.create_table(
        "accounts",
        Column("id", Text, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("post_paid", Boolean, nullable=False),
        Column("concurrency", Integer, nullable=False),
        Column("created_at", Float, nullable=False),
    )
    op.create_table(
        "keys",
        Column("id", Text, primary_key=True),
        Column("digest", LargeBinary, nullable=False, unique=True),
        Column("account", Text, ForeignKey("accounts.id"), nullable=False),
        Column("name", Text, nullable=False),
        Column("switches", JSON, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("last_used_at", Float),
        Column("deleted_at", Float),
    )


def _books() -> None:
    _records()
    _derived()


def _records() -> None:
    op.create_table(
        "holds",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("id", Text, nullable=False, unique=True),
        Column("account", Text, nullable=False),
        Column("key_id", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("host", Text, nullable=False),
        Column("amount_pico", _INTEGER, nullable=False),
        Column("currency", Text, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    op.create_table(
        "resolutions",
        Column("hold_seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("kind", Text, nullable=False),
        Column("prompt_miss", _INTEGER, nullable=False),
        Column("prompt_hit", _INTEGER, nullable=False),
        Column("completion", _INTEGER, nullable=False),
        Column("reasoning", _INTEGER, nullable=False),
        Column("estimated", Boolean, nullable=False),
        Column("owed_pico", _INTEGER, nullable=False),
        Column("cost_pico", _INTEGER, nullable=False),
        Column("host", Text, nullable=False),
        Column("cause", Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("resolved_at", Float, nullable=False),
    )
    op.create_table(
        "transfers",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("leg", Integer, primary_key=True, autoincrement=False),
        Column("debit", Text, nullable=False),
        Column("credit", Text, nullable=False),
        Column("amount_pico", _INTEGER, nullable=False),
        Column("currency", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deposits",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("id", Text, nullable=False, unique=True),
        Column("account", Text, nullable=False),
        Column("fund", Text, nullable=False),
        Column("amount_pico", _INTEGER, nullable=False),
        Column("currency", Text, nullable=False),
        Column("note", Text, nullable=False),
        Column("created_at", Float, nullable=False),
    )


def _derived() -> None:
    op.create_table(
        "balances",
        Column("account", Text, primary_key=True),
        Column("currency", Text, primary_key=True),
        Column("granted_pico", _INTEGER, nullable=False),
        Column("topped_up_pico", _INTEGER, nullable=False),
        Column("held_pico", _INTEGER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "totals",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("commits", _INTEGER, nullable=False),
        Column("last_seq", _INTEGER, nullable=False),
        Column("first_open", _INTEGER, nullable=False),
        Column("holds", _INTEGER, nullable=False),
        Column("posted", _INTEGER, nullable=False),
        Column("voided", _INTEGER, nullable=False),
        Column("expired", _INTEGER, nullable=False),
        Column("recovered", _INTEGER, nullable=False),
        Column("prompt_miss", _INTEGER, nullable=False),
        Column("prompt_hit", _INTEGER, nullable=False),
        Column("completion", _INTEGER, nullable=False),
        Column("reasoning", _INTEGER, nullable=False),
    )
    op.execute(
        "INSERT INTO totals VALUES (1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    )
