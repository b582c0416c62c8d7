"""Who may do what: accounts, users, their tokens, keys, and what an account may use at what price.

Times are Unix seconds. `changes` counts up with every change of these tables, see there.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Integer, LargeBinary, Table, Text, false

from moonpool.state.columns import INTEGER, key_text, metadata, moment, number, text_column

accounts: Final = Table(
    "accounts",
    metadata,
    key_text("id"),
    text_column("name", unique=True),
    Column("post_paid", Boolean, nullable=False),
    Column("concurrency", Integer, nullable=False),
    moment("created_at"),
    Column("credit_pico", INTEGER),
    Column("disabled", Boolean, nullable=False, server_default=false()),
    number("requests_per_minute", server_default="0"),
    number("tokens_per_minute", server_default="0"),
)

users: Final = Table(
    "users",
    metadata,
    key_text("id"),
    text_column("name", unique=True),
    Column("operator", Boolean, nullable=False),
    moment("created_at"),
    Column("deleted_at", Float),
)

members: Final = Table(
    "members",
    metadata,
    Column("user", Text, ForeignKey("users.id"), primary_key=True),
    Column("account", Text, ForeignKey("accounts.id"), primary_key=True),
    text_column("role"),
)
"""`role` is `owner` or `member`."""

tokens: Final = Table(
    "tokens",
    metadata,
    key_text("id"),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("user", Text, ForeignKey("users.id"), nullable=False),
    text_column("name"),
    moment("created_at"),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("deleted_at", Float),
)
"""What a user shows to the admin API; kept as keys are."""

keys: Final = Table(
    "keys",
    metadata,
    key_text("id"),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("account", Text, ForeignKey("accounts.id"), nullable=False),
    text_column("name"),
    Column("switches", JSON, nullable=False),
    moment("created_at"),
    Column("last_used_at", Float),
    Column("deleted_at", Float),
    Column("limits", JSON),
    Column("old_digest", LargeBinary),
    Column("old_until", Float),
)
"""`limits` is a words.Limits or null; a key that was rotated is also known by its `old_digest` for a while."""

product_switches: Final = Table(
    "product_switches",
    metadata,
    key_text("account"),
    key_text("product"),
    Column("on", Boolean, nullable=False),
    moment("changed_at"),
)

overrides: Final = Table(
    "overrides",
    metadata,
    key_text("account"),
    key_text("model"),
    key_text("valid_from"),
    Column("price", JSON, nullable=False),
    moment("created_at"),
)
"""What an account pays for a model instead of the catalogue's price, from the first moment of a day in Beijing."""

catalogue_rows: Final = Table(
    "catalogue_rows",
    metadata,
    key_text("section"),
    key_text("name"),
    Column("row", JSON, nullable=False),
    moment("created_at"),
)
"""What is laid over the rows of the catalogue, as the tables of an operator's file are."""

changes: Final = Table("changes", metadata, key_text("what"), number("revision"))
"""Counted up in the transaction of each change of what all go by, so that other processes see that there was one."""
