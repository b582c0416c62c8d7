"""Prices that were agreed with accounts, as durable facts: what base.py is for the rest of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct


class Override(Struct, frozen=True):
    """What an account pays for a model instead of the list's price, from the first moment of a day in Beijing (ISO
    date) until another of its rows begins. `price` is a catalog.rows.AgreedRow as plain data."""

    account: str
    model: str
    valid_from: str
    price: Mapping[str, Any]
    created_at: float


class Overrides(Protocol):
    """Prices that were agreed with accounts."""

    def list(self, account: str | None = None) -> Sequence[Override]:
        """By account, model and day; of one account (its id) or of all."""

    async def set(self, override: Override) -> None:
        """Keep it, in the place of what was there for this account, model and day."""

    async def delete(self, account: str, model: str, valid_from: str | None = None) -> int:
        """Forget those of this model, or the one that begins on this day. Returns how many there were."""

    def listen(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after each change."""
