"""The kinds of columns our tables have, and the metadata they all belong to."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, Text

INTEGER: Final = BigInteger().with_variant(Integer, "sqlite")

metadata: Final = MetaData()


def text_column(name: str, **how: Any) -> Column[Any]:
    return Column(name, Text, nullable=False, **how)


def number(name: str, **how: Any) -> Column[Any]:
    """A whole number: a count, an amount, a number of a row."""
    return Column(name, INTEGER, nullable=False, **how)


def moment(name: str, **how: Any) -> Column[Any]:
    return Column(name, Float, nullable=False, **how)


def key_number(name: str) -> Column[Any]:
    """A part of the primary key that is given, not counted by the database."""
    return Column(name, INTEGER, primary_key=True, autoincrement=False)


def key_text(name: str) -> Column[Any]:
    """A part of the primary key that is a text."""
    return Column(name, Text, primary_key=True)
