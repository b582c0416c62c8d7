"""What is kept beside the books: remembered reasoning, answers for who asks again, codes, alerts, the audit log.

Rule: rows of `audit` are written once and never changed.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, LargeBinary, Table, Text

from moonpool.state.columns import INTEGER, key_number, key_text, metadata, moment, number, text_column

thoughts: Final = Table(
    "thoughts",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("marks", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("thoughts_of_account", "account", "seq"),
    Index("thoughts_by_end", "expires_at"),
)
"""Sealed with a key that is not in here (sealing.py); `marks` are all of its marks, joined; `bytes` what it takes."""

thought_marks: Final = Table(
    "thought_marks",
    metadata,
    Column("mark", LargeBinary, primary_key=True),
    Column("seq", INTEGER, nullable=False),
    Column("shared", Boolean, nullable=False),
    Index("thought_marks_of", "seq"),
    sqlite_with_rowid=False,
)
"""Which thought a mark finds; `shared`: several had it, so it finds none."""

once: Final = Table(
    "once",
    metadata,
    key_text("account"),
    key_text("key"),
    Column("asked", LargeBinary, nullable=False),
    text_column("request_id"),
    Column("status", Integer),
    Column("headers", JSON),
    Column("body", LargeBinary),
    moment("created_at"),
    moment("expires_at"),
    Index("once_by_end", "expires_at"),
)
"""What a request with an `Idempotency-Key` was answered. `asked` is the SHA-256 of what was asked; without a `status`
it still runs, or its process was killed."""

codes: Final = Table(
    "codes",
    metadata,
    key_text("id"),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("gift", JSON, nullable=False),
    text_column("note"),
    moment("created_at"),
    Column("expires_at", Float),
)
"""Redemption codes, kept as keys are. That one was redeemed is a deposit or a pack with the id `code:ID`."""

alerts: Final = Table(
    "alerts",
    metadata,
    key_text("id"),
    text_column("account"),
    text_column("kind"),
    number("threshold_pico"),
    text_column("currency"),
    text_column("url"),
    Column("sealed", LargeBinary, nullable=False),
    moment("created_at"),
    text_column("fired_for"),
)
"""Whom to tell when money reaches a threshold; `sealed` is the secret the message is signed with; `fired_for` names
what it was last told of, so that it is told once."""

deliveries: Final = Table(
    "deliveries",
    metadata,
    key_text("id"),
    text_column("alert"),
    Column("body", JSON, nullable=False),
    Column("tries", Integer, nullable=False),
    moment("next_at"),
    Column("done_at", Float),
    text_column("trouble"),
    moment("created_at"),
)

audit: Final = Table(
    "audit",
    metadata,
    key_number("seq"),
    moment("at"),
    text_column("actor"),
    text_column("action"),
    text_column("target"),
    Column("detail", JSON, nullable=False),
    Column("before", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
"""Every change somebody made. `hash` is SHA-256 over the row and `before`, the hash of the row before it."""
