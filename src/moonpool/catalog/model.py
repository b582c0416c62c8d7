"""The records that a request meets: a model with its rules compiled and its targets resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from moonpool.catalog.prices import Schedule
from moonpool.words import CHAT, Call, Price, Target

Thinking = Literal["always", "never", "default_on", "default_off"]
Replay = Literal["keep", "drop", "reject"]
Routing = Literal["order", "weight", "least_busy", "price"]


class Check(Struct, frozen=True, gc=False):
    """The rule of one field, ready to run. `low` None: no range; `above`: `low` itself is out of it."""

    low: float | None = None
    high: float = 0.0
    above: bool = False
    message: str = ""
    drop: bool = False
    refuse: str = ""


class Bound(Struct, frozen=True, gc=False):
    """Which values of a field have an effect, while the model thinks and while it does not: (low, high); None: all."""

    field: str
    thinking: tuple[float, float] | None = None
    plain: tuple[float, float] | None = None


class Model(Struct, frozen=True):
    """A name that clients ask for. Lengths in tokens; `created` in Unix seconds.

    `can` is what the row says and at least one target can (`mixed`: they differ in it); `checks` are by field, `bounds`
    hang on the thinking; `defaults` are filled in where a field is absent; `system` and `text_only` are what becomes of
    system messages and of contents that are lists (`peculiar`: messages have to be looked at); `efforts` maps the words
    of `reasoning_effort`; `unsupported` are the sentences about a need that is not met; `thinking_max` is what may be
    thought beyond max_tokens; `targets` are in order of preference, `routing` is how one is chosen; `emulate` is what
    we see to ourselves where they cannot; `json_word` what becomes of JSON mode without that word; `prices` is what
    clients pay; `product` whose packs and switch its use goes by; `searches` whether a host of it may search the web.
    """

    name: str
    window: int
    output_max: int
    output_default: int
    output_default_thinking: int
    output_default_effort_max: int
    output_default_sent: bool
    fim_output_max: int
    limit_counts_thinking: bool
    thinking_max: int
    thinking: Thinking
    thinking_forced_tools: Literal["kept", "thinking_off"]
    can: frozenset[str]
    mixed: bool
    routing: Routing
    emulate: frozenset[str]
    json_word: Literal["refuse", "add"]
    replay: Replay
    peculiar: bool
    system: Literal["keep", "merge"]
    text_only: bool
    checks: Mapping[str, Check]
    bounds: tuple[Bound, ...]
    defaults: tuple[tuple[str, Any], ...]
    efforts: Mapping[str, str]
    unsupported: Mapping[str, str]
    prices: Schedule
    product: str
    searches: bool
    targets: tuple[Target, ...]
    owned_by: str
    created: int

    def price_at(self, at: float) -> Price:
        """What clients pay at this time (Unix seconds); before the first price, the first."""
        prices = self.prices
        return prices.price if prices.since <= at < prices.until else prices.find(at)

    def targets_for(self, needs: frozenset[str]) -> tuple[Target, ...]:
        """The targets that can all of it, in order of preference."""
        if not self.mixed:
            return self.targets
        return tuple(target for target in self.targets if needs <= target.can)

    def tokens_max(self, call: Call) -> int:
        """The most tokens an answer to `call` can have, thinking and all candidates included: what a hold covers."""
        tokens = call.output_max or self.output_max
        if call.thinking and not self.limit_counts_thinking:
            tokens += self.thinking_max
        if call.emulated:
            tokens *= 2  # what was missed is asked for once more
        candidates = call.fields.get("n") if call.operation == CHAT else None
        return tokens * candidates if candidates else tokens

    def searches_max(self, call: Call) -> int:
        """The most web searches that an answer to `call` can be charged with: what a hold covers."""
        return 1 if self.searches and call.fields.get("enable_search") else 0
