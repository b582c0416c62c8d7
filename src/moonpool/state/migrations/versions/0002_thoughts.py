"""The vault: thoughts and the marks that find them."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, Text

revision = "0002"
down_revision = "0001"

_INTEGER = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "thoughts",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("account", Text, nullable=False),
        Column("marks", LargeBinary, nullable=False),
        Column("sealed", LargeBinary, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    op.create_index("thoughts_of_account", "thoughts", ["account", "seq"])
    op.create_index("thoughts_by_end", "thoughts", ["expires_at"])
    op.create_table(
        "thought_marks",
        Column("mark", LargeBinary, primary_key=True),
        Column("seq", _INTEGER, nullable=False),
        Column("shared", Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("thought_marks_of", "thought_marks", ["seq"])
