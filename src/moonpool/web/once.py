"""How does a change that an operator's program asks for with an `Idempotency-Key` happen once?

The rules are those of answers (relay/once.py), with two differences. Whose key it is depends on who asks, not on an
account. And a change that was interrupted is not made again: it may have been made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from moonpool.errors import Problem
from moonpool.relay.once import HEADER, REPLAYED, asking, refused
from moonpool.relay.reply import JSON
from moonpool.state.base import Once, Told
from moonpool.words import Arrival

WRITES: Final = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_UNKNOWN: Final = Told(500, "", (), None)


async def change_once(
    store: Once, arrival: Arrival, actor: str, now: float, run: Callable[[], Awaitable[tuple[int, object]]]
) -> Told:
    """What to answer: what `run` gives, or what it gave before to this actor under this key. Raises what `run` raises,
    caller.idempotency_*, caller.invalid_value for the key, platform.answer_lost, platform.storage."""
    if HEADER not in arrival.headers or arrival.method not in WRITES:
        return _told(*await run())
    request = asking(arrival, f"actor:{actor}", now, repeatable=False)
    found = await store.begin(request)
    if isinstance(found, Told):
        return Told(found.status, found.content_type, [*found.fields, REPLAYED], found.body)
    if found != "new":
        raise refused(found)
    told: Told | None = _UNKNOWN
    try:
        told = _told(*await run())
    except Problem as problem:
        if problem.row.retry == "later" or problem.code.startswith(("caller.", "account.")):
            told = None  # it was refused, and nothing was changed
        raise
    finally:
        if told is None:
            store.drop(request)
        else:
            store.finish(request, told)
    return told


def _told(status: int, page: object) -> Told:
    return Told(status, JSON, [], msgspec.json.encode(page))
