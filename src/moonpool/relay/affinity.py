"""Which account has the beginning of this conversation in its cache? Learned from what hosts measured; pure.

A host caches the prompts it has read, for the account that asked. A conversation that comes back is longer by an answer
and a question, so its beginning is the whole of an earlier request: a digest of the messages up to each boundary finds
it. Whether it pays to go there is what the account has shown: of the answers for which a hit was expected, how many
had one (`prompt_cache_hit_tokens`). An account that never has any is not preferred. It is a wish and nothing else: a
host that cannot be used, or is full, is passed over.

Sources: PROVIDERS 1.9 (units end where a request or an answer ends; tools and effort stand before the messages),
PEERS B1 rows 36 to 38 (keys of one account share a cache; affinity must not forbid failover).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.words import Call, Price, Usage

KEPT_MAX: Final = 20_000
KEEP_S: Final = 3600.0
BOUNDARIES_MAX: Final = 32
"""How many boundaries, from the end, are looked at: who added more since the last request begins anew."""
DOUBT_AFTER: Final = 8
TRUST_SHARE_MIN: Final = 0.1

_encode: Final = msgspec.json.Encoder().encode
_HEAD: Final = ("tools", "thinking", "reasoning_effort", "response_format")


class Record(Struct):
    """Of one account: answers for which a hit was `expected`, how many of them `hit`, the tokens that were found, and
    what that saved us, pico-units by currency."""

    expected: int = 0
    hit: int = 0
    tokens: int = 0
    saved_pico: dict[str, int] = {}

    def is_trusted(self) -> bool:
        return self.expected < DOUBT_AFTER or self.hit >= self.expected * TRUST_SHARE_MIN


class Affinity:
    __slots__ = ("_places", "records")

    def __init__(self) -> None:
        self._places: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self.records: dict[str, Record] = {}

    def find(self, marks: Sequence[bytes], now: float) -> str | None:
        """The host account where the longest known beginning was last, None where none is known or worth it."""
        places = self._places
        for mark in reversed(marks[-BOUNDARIES_MAX:]):
            found = places.get(mark)
            if found is not None:
                account, at = found
                if now - at > KEEP_S:
                    del places[mark]
                    continue
                record = self.records.get(account)
                return account if record is None or record.is_trusted() else None
        return None

    def learn(
        self, marks: Sequence[bytes], account: str, usage: Usage, price: Price, expected: bool, now: float
    ) -> None:
        """An answer came from `account`; `expected`: a hit was. Only what the host itself counted is counted."""
        if marks:
            self._places[marks[-1]] = (account, now)
            self._places.move_to_end(marks[-1])
            if len(self._places) > KEPT_MAX:
                self._places.popitem(last=False)
        if not expected or usage.estimated:
            return
        record = self.records.get(account)
        if record is None:
            record = self.records[account] = Record(saved_pico={})
        record.expected += 1
        if usage.prompt_hit:
            record.hit += 1
            record.tokens += usage.prompt_hit
            saved = usage.prompt_hit * max(0, price.prompt_miss - price.prompt_hit)
            if saved:
                record.saved_pico[price.currency] = record.saved_pico.get(price.currency, 0) + saved


def marks_of(call: Call, tenant: str) -> list[bytes]:
    """A digest for the end of each message, which stands for everything before it. A tenant's own."""
    fields = call.fields
    state = blake2b(digest_size=16)
    head: list[Any] = [tenant, call.model, call.thinking, *(fields.get(name) for name in _HEAD)]
    state.update(_encode(head))
    marks = []
    for message in fields["messages"]:
        state.update(_encode(message))
        marks.append(state.digest())
    return marks
