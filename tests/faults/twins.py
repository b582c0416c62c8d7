"""What tests of the twin share: to ask one over a bare socket, and to run an act against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import uvloop

from faults.stage import Answer, Client
from moonpool.twin import Twin

T = TypeVar("T")
KEY = "sk-team.1"
FLASH = "deepseek-flash"
USER = {"role": "user", "content": "Hi"}


def play(act: Callable[[Twin], Awaitable[T]], provider: str = "deepseek", **options: Any) -> T:
    """Run `act` against a twin; afterwards nothing may run there, and the twin made no mistake."""

    async def run() -> T:
        async with Twin(provider, **options) as twin:
            found = await act(twin)
            await twin.until(lambda: all(served.ended for served in twin.served))
        assert twin.faults_of_ours == []
        return found

    return uvloop.run(run())


def chat(**more: Any) -> dict[str, Any]:
    return {"model": FLASH, "messages": [USER], **more}


@contextlib.asynccontextmanager
async def opened(
    twin: Twin, body: Any = None, path: str = "/chat/completions", key: str = KEY, method: str = ""
) -> AsyncIterator[Client]:
    """A request that was sent and of which nothing was read."""
    client = Client(*await asyncio.open_connection("127.0.0.1", twin.port))
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Authorization": f"Bearer {key}"} if key else {}
    client.send(method or ("GET" if body is None else "POST"), path, raw, fields)
    try:
        yield client
    finally:
        await client.closed()


async def ask(twin: Twin, body: Any = None, path: str = "/chat/completions", **options: Any) -> Answer:
    """The whole answer; status 0 where the connection ended without one."""
    async with opened(twin, body, path, **options) as client:
        try:
            return await client.rest()
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(client.status, client.fields, client.body, False)


def thought(answer: Answer) -> str:
    """The thinking of a stream."""
    return "".join(
        choice["delta"].get("reasoning_content") or ""
        for value in answer.events
        if value != "[DONE]"
        for choice in value.get("choices", ())
    )
