"""Which limiter does a setting name?"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from moonpool.state.base_limits import Limiter
from moonpool.state.memory import MemoryLimiter


def open_limiter(url: str, call_s: float, lost: Callable[[str], object], note: Callable[..., object]) -> Limiter:
    """`memory://`, or the address of a Valkey or Redis, whose calls may take `call_s`. `lost` is told the request whose
    lease ended while it ran; `note` what operators should know. Raises LinkError for files of the address that cannot
    be used."""
    if url == "memory://":
        return MemoryLimiter(lost)
    from moonpool.state.valkey import ValkeyLimiter
    from moonpool.state.valkey_link import Link

    return ValkeyLimiter(Link(url, call_s=call_s), lost, node=os.urandom(8).hex(), clock=time.monotonic, note=note)


def ask_limits(url: str, call_s: float) -> str | None:
    """Why the store of limits at this address cannot be used, in a sentence; None when it can. As a process that comes
    and goes; outside of any event loop."""
    from moonpool.state.valkey_trouble import LinkError

    async def ask() -> str | None:
        limiter = open_limiter(url, call_s, lambda request_id: None, lambda event, **facts: None)
        await limiter.start(time.monotonic())
        trouble = limiter.trouble()
        await limiter.stop()
        return trouble

    try:
        return asyncio.run(ask())
    except LinkError as error:
        return str(error)
