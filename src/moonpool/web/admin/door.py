"""Where requests to the admin API come in: at the server's port, with a token of a user, and at the socket in its home,
whose file mode is the permission.

Rules: the port looks here only at what is no address of the data plane. A request without a good token is refused
before anything of it is read. Answers may hold a secret, so no cache may keep them. Few run at once: an operator's
program must not take the time of those who chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.relay.brake import lately
from moonpool.relay.platform import Platform
from moonpool.relay.reply import JSON, refuse
from moonpool.relay.writer import Fields, Writer
from moonpool.state.base import Told
from moonpool.web import csv, openapi, payments
from moonpool.web.admin.routing import BASE, SOCKET, Actor, Answer
from moonpool.web.admin.table import handle
from moonpool.web.once import change_once
from moonpool.words import Arrival

RUNNING_MAX: Final = 64
_FIELDS: Final[Fields] = [("cache-control", "no-store")]
_WRONG: Final = "The token is missing or wrong."


class Door:
    """Takes what is meant for the admin API, the payment webhook and the description of both."""

    def __init__(self, platform: Platform, channels: Mapping[str, str]) -> None:
        """`channels`: the secret of each payment channel; without any there is no webhook."""
        self._platform = platform
        self._channels = channels
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, arrival: Arrival, writer: Writer) -> bool:
        """A request at the port. False when its path is none of ours."""
        path = arrival.path
        if path.startswith(BASE + "/"):
            self._start(writer, lambda: self._with_token(arrival))
        elif path == payments.PATH and self._channels:
            self._start(writer, lambda: self._pay(arrival))
        elif path == openapi.PATH and arrival.method in {"GET", "HEAD"}:
            writer.whole(200, JSON, [("cache-control", "max-age=300")], openapi.document())
        else:
            return False
        return True

    def at_socket(self, arrival: Arrival, writer: Writer) -> None:
        self._start(writer, lambda: self._handle(arrival, SOCKET))

    async def _with_token(self, arrival: Arrival) -> Told | Answer:
        return await self._handle(arrival, await authenticate(self._platform, arrival))

    async def _handle(self, arrival: Arrival, actor: Actor) -> Told | Answer:
        """Once, where an `Idempotency-Key` says so: to the one who asked before, the answer from before."""
        platform = self._platform

        async def run() -> Answer:
            return await handle(platform, arrival.method, arrival.path, arrival.query, arrival.body, actor)

        if arrival.method == "GET":
            return await run()
        return await change_once(platform.answers.store, arrival, actor.id, platform.clock(), run)

    async def _pay(self, arrival: Arrival) -> Told:
        status, page = await payments.take(self._platform, arrival, self._channels)
        return Told(status, JSON, [], msgspec.json.encode(page))

    def _start(self, writer: Writer, work: Callable[[], Awaitable[Told | Answer]]) -> None:
        if len(self._tasks) >= RUNNING_MAX:
            refuse(writer, Problem("platform.overloaded", retry_after_s=1), self._platform.client)
            return
        task = asyncio.get_running_loop().create_task(self._answer(writer, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, writer: Writer, work: Callable[[], Awaitable[Told | Answer]]) -> None:
        try:
            told = await work()
            if isinstance(told, Told):
                writer.whole(told.status, told.content_type, [*told.fields, *_FIELDS], told.body or b"")
            else:
                await csv.answer(*told, writer, _FIELDS)
        except Problem as problem:
            refuse(writer, problem, self._platform.client)
        except Exception as error:  # the edge: a fault of a route must leave a line and an answer
            self._platform.journal.fault("admin", error)
            refuse(writer, Problem("platform.fault"), self._platform.client)


async def authenticate(platform: Platform, arrival: Arrival) -> Actor:
    """Whose token is it? Only `Authorization: Bearer` counts. Raises account.invalid_key, and account.guesses for one
    that is not in use where too many wrong ones came from (relay/brake.py)."""
    field = arrival.headers.get("authorization", "")
    scheme, _, text = field.partition(" ")
    text = text.strip()
    if not text or scheme.lower() != "bearer":
        raise Problem("account.invalid_key", _WRONG)
    brake, people, now, ticks = platform.token_brake, platform.people, platform.clock(), platform.monotonic()
    digest = key_rules.digest(text)
    wait_s = brake.wait_s(arrival.peer, digest, ticks)
    # A text that cannot be a token is not looked up.
    found = await people.find(digest, now) if key_rules.well_formed(text, key_rules.TOKEN_PREFIX) else None
    if wait_s and (found is None or not lately(found[0].last_used_at, now)):
        raise brake.refusal(wait_s)
    if found is None:
        brake.missed(arrival.peer, digest, ticks)
        raise Problem("account.invalid_key", _WRONG)
    brake.remember(arrival.peer, field, digest)
    token, user = found
    people.used(token.id, now)
    name = f"{user.name} ({user.id}, token {token.id})"
    return Actor(name, f"user:{user.id}", user.operator, user.roles, arrival.peer)
