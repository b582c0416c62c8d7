"""Rows of the catalogue that are kept here, over those of the file."""

from alembic import op
from sqlalchemy import JSON, Column, Float, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "catalogue_rows",
        Column("section", Text, primary_key=True),
        Column("name", Text, primary_key=True),
        Column("row", JSON, nullable=False),
        Column("created_at", Float, nullable=False),
    )
