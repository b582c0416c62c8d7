"""Which limiter does a setting name?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from moonpool.state.base_limits import Limiter
from moonpool.state.memory import MemoryLimiter


def open_limiter(url: str, call_s: float, lost: Callable[[str], object], note: Callable[..., object]) -> Limiter:
    """`memory://`, or the address of a Valkey or Redis, whose calls may take `call_s`. `lost` is told the request whose
    lease ended while it ran; `note` what operators should know."""
    if url == "memory://":
        return MemoryLimiter(lost)
    from moonpool.state.valkey import ValkeyLimiter
    from moonpool.state.valkey_link import Link

    return ValkeyLimiter(Link(url, call_s=call_s), lost, node=os.urandom(8).hex(), clock=time.monotonic, note=note)
