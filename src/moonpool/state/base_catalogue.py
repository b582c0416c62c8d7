"""Rows of the catalogue that are kept in the store, as durable facts: what base.py is for the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class KeptRow(Struct, frozen=True):
    """What is laid over the catalogue's row `name` in `section` (hosts, models, calendars, holidays), as the tables of
    an operator's file are; `row` is plain data, as JSON has it. `created_at` in Unix seconds: when it was said."""

    section: str
    name: str
    row: Mapping[str, Any]
    created_at: float

    @property
    def key(self) -> tuple[str, str]:
        return self.section, self.name


class KeptRows(Protocol):
    """Rows of the catalogue, one for each name in a section."""

    @property
    def revision(self) -> int:
        """How many changes `list` knows of, of this process and of others."""

    def list(self) -> Sequence[KeptRow]:
        """By section and name."""

    async def refresh(self) -> None:
        """See what other processes changed."""

    async def set(self, row: KeptRow, seen: int) -> bool:
        """Keep it, in the place of what was there under its name. False, and nothing is kept, where there was another
        change since `revision` was `seen`: what the row was checked against does not hold any more."""

    async def delete(self, section: str, name: str, seen: int) -> bool:
        """Forget it; False as `set`."""

    def listen(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after each change."""
