"""The records of the catalogue: a model with its rules and its hosts, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from moonpool.words import Price, Target


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to one field: a `range` (low, high; `above`: low itself is out) with the `message` of its 400, a
    `default`, `drop` (without effect, with a receipt) or `refuse` (a 400 with these words)."""

    range: tuple[float, float] | None = None
    above: bool = False
    message: str = ""
    default: Any = None
    drop: bool = False
    refuse: str = ""


class Model(Struct, frozen=True):
    """A name that clients ask for. Lengths in tokens; `created` in Unix seconds.

    `thinking_extra` is what may be thought beyond max_tokens; `targets` are in order of preference; `prices` are
    (valid from, Unix seconds; Price), oldest first.
    """

    name: str
    window: int
    output_max: int
    output_default: int
    output_default_thinking: int
    thinking: Literal["always", "never", "default_on", "default_off"]
    limit_counts_thinking: bool
    thinking_extra: int
    can: frozenset[str]
    replay: Literal["reject", "strip", "keep"]
    forced_tools: str
    rules: Mapping[str, Rule]
    defaults: tuple[tuple[str, Any], ...]
    efforts: Mapping[str, str]
    prices: tuple[tuple[float, Price], ...]
    targets: tuple[Target, ...]
    owned_by: str
    created: int

    def price_at(self, at: float) -> Price:
        """What a token costs at this time (Unix seconds)."""
        for start, price in reversed(self.prices):
            if at >= start:
                return price
        return self.prices[0][1]
