"""How does a batch of operations reach the store of limits? One call of one script, and an end to it in time.

redis-py (decision 0013) is imported when a link is made: who keeps limits in memory needs none of it. What it raises
may hold what the address does, a password; operators read sentences of `valkey_trouble.py` instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from moonpool.state.asks import LEASE_S
from moonpool.state.valkey_trouble import LinkError, explained

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


def _trust(files: Mapping[str, str]) -> ssl.SSLContext:
    """TLS 1.2 or newer, names checked, and nobody trusted but `ssl_ca_certs` (without it: the system's authorities).
    redis-py would trust the system's besides. Raises LinkError for files that cannot be used."""
    authority, certificate = files.get("ssl_ca_certs"), files.get("ssl_certfile")
    name = "ssl_ca_certs"
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            name = "ssl_certfile"
            # A key with a password is refused, not asked for at the terminal.
            context.load_cert_chain(certificate, files.get("ssl_keyfile"), password=str)
    except OSError as error:
        why = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "it does not hold what it must"
        raise LinkError(f"names a file in {name} that cannot be used ({why})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _secured(url: str) -> tuple[str, dict[str, Any]]:
    """The address without what is about TLS, and what the client has to be told instead."""
    from redis.asyncio import SSLConnection

    class Secured(SSLConnection):
        def __init__(self, trust: ssl.SSLContext, **options: Any) -> None:
            super().__init__(**options)
            self.ssl_context.context = trust

    address, _, files = url.partition("?")
    return address.replace("rediss", "redis", 1), {
        "connection_class": Secured,
        "trust": _trust(dict(parse_qsl(files))),
    }


class Link:
    """One connection, opened when it is needed. One call at a time."""

    def __init__(self, url: str, *, store_clock: bool = True, call_s: float = CALL_S) -> None:
        """`store_clock` False: the time is what each call says. Raises LinkError for files of the address that cannot
        be used."""
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import NoScriptError

        scheme, mark, rest = url.partition("://")
        url = _SCHEMES.get(scheme, scheme) + mark + rest
        secured: dict[str, Any] = {}
        if url.startswith("rediss:"):
            url, secured = _secured(url)
        self._no_script = NoScriptError
        self._store_clock = store_clock
        self._call_s = call_s
        self._text = _SCRIPT.read_text("utf-8")
        # Deadlines are ours, for a whole call; and who tries again is the breaker, not the library.
        self._client = redis.asyncio.Redis.from_url(
            url,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            client_name="moonpool",
            **secured,
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
            raise explained(error, met=bool(self._sha)) from None

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
