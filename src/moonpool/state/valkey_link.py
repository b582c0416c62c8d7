"""How does a batch of operations reach the store of limits? One call of one script, and an end to it in time.

redis-py (decision 0013) is imported when a link is made: who keeps limits in memory needs none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from moonpool.state.asks import LEASE_S

CALL_S: Final = 0.1
"""A call that takes longer has failed: whoever waits for it is answered without the store."""
PREFIX: Final = "moonpool:"
_SCRIPT: Final = Path(__file__).with_name("limiter.lua")
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}


_EARLY_S: Final = 0.001
_STALL_S: Final = 0.01


def _be_fair(timeout: asyncio.Timeout, due: float) -> None:
    """If this process stood still meanwhile, what it did not read is not the store's fault: time to read it now."""
    now = asyncio.get_running_loop().time()
    if now > due + _STALL_S:
        timeout.reschedule(now + 2 * _STALL_S)


class LinkError(Exception):
    """The store did not answer in time, or not what it must. The sentence may be shown to operators."""


class Link:
    """One connection, opened when it is needed. One call at a time."""

    def __init__(self, url: str, *, store_clock: bool = True, call_s: float = CALL_S) -> None:
        """`store_clock` False: the time is what each call says."""
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import NoScriptError

        scheme, mark, rest = url.partition("://")
        self._no_script = NoScriptError
        self._store_clock = store_clock
        self._call_s = call_s
        self._text = _SCRIPT.read_text("utf-8")
        # Deadlines are ours, for a whole call; and who tries again is the breaker, not the library.
        self._client = redis.asyncio.Redis.from_url(
            _SCHEMES.get(scheme, scheme) + mark + rest,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            client_name="moonpool",
        )
        self._sha = ""

    async def call(self, ops: Sequence[Any], now: float) -> list[Any]:
        """The answers to these operations, in order. Raises LinkError within CALL_S."""
        args = (PREFIX, LEASE_S, "" if self._store_clock else repr(now), msgspec.msgpack.encode(ops))
        loop = asyncio.get_running_loop()
        due = loop.time() + self._call_s
        try:
            async with asyncio.timeout_at(due) as timeout:
                check = loop.call_at(due - _EARLY_S, _be_fair, timeout, due)
                try:
                    return await self._run(args)
                finally:
                    check.cancel()
        except Exception as error:  # the edge of a library: whatever it raises, somebody waits for an answer
            # No message of its: it may hold what the address does, a password.
            raise LinkError(f"{type(error).__name__} from the store of limits") from None

    async def _run(self, args: tuple[Any, ...]) -> list[Any]:
        if not self._sha:
            self._sha = await self._client.script_load(self._text)
        try:
            packed = await self._client.evalsha(self._sha, 0, *args)
        except self._no_script:
            # Another store, or one that was started anew, where nobody has told it the script yet.
            packed = await self._client.eval(self._text, 0, *args)
        return msgspec.msgpack.decode(packed, type=list[Any])

    async def close(self) -> None:
        await self._client.aclose()
