"""The routes an API client uses, on all base URLs at once; each hands over to the relay and knows no rule.

Base URLs: shared contract section 1. Shape of the list of models: PROVIDERS 1.2; a model that the embedded model
answers for says so in `owned_by`. What a key reads of its account: account.py.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from moonpool.catalog.model import Model
from moonpool.errors import Problem
from moonpool.later import drive
from moonpool.ledger.access import lists
from moonpool.relay.path import authenticate, serve
from moonpool.relay.platform import Platform
from moonpool.relay.reply import JSON, refuse
from moonpool.relay.writer import Writer
from moonpool.web import csv
from moonpool.web.account import balance, billing_usage, subscription, token_usage, usage
from moonpool.words import CHAT, COMPLETION, Arrival, Operation

_AFTER_DIGITS_MAX: Final = 18
BASES: Final = ("", "/v1", "/beta", "/gateway/v1")

_encode = msgspec.json.Encoder().encode
Page = Callable[[Platform, Arrival], Coroutine[Any, None, Any]]


class DataPlane:
    """Takes an arrival if its path is one of ours. Whatever a route lets escape is a fault of ours: it is
    logged and the client gets `platform.fault`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        operations: tuple[tuple[str, Operation], ...] = (("/chat/completions", CHAT), ("/completions", COMPLETION))
        self._operations = {base + tail: operation for base in BASES for tail, operation in operations}
        self._pages = {base + tail: page for base in BASES for tail, page in _PAGES} | {"/api/usage/token": token_usage}
        self._stream_prefixes = tuple(base + "/streams/" for base in BASES)
        self._model_prefixes = tuple(base + "/models/" for base in BASES)

    def take(self, arrival: Arrival, writer: Writer) -> bool:
        """False when the path is none of ours."""
        path = arrival.path
        operation = self._operations.get(path)
        if operation is not None:
            if arrival.method == "POST":
                drive(serve(self._platform, arrival, operation, writer), lambda error: self._lost(error, writer))
            else:
                self._wrong_method(writer, "POST")
            return True
        page = self._pages.get(path) or (model if path.startswith(self._model_prefixes) else None)
        if page is None and not path.startswith(self._stream_prefixes):
            return False
        if arrival.method in {"GET", "HEAD"}:
            answer = resume(self._platform, arrival, writer) if page is None else self._answer(page, arrival, writer)
            drive(answer, lambda error: self._lost(error, writer))
        else:
            self._wrong_method(writer, "GET")
        return True

    async def _answer(self, page: Page, arrival: Arrival, writer: Writer) -> None:
        try:
            body = await page(self._platform, arrival)
            if isinstance(body, csv.Csv):
                await csv.send(body, writer, head_only=arrival.method == "HEAD")
            else:
                writer.whole(200, JSON, [], _encode(body))
        except Problem as problem:
            refuse(writer, problem, self._platform.client)

    def _wrong_method(self, writer: Writer, allowed: str) -> None:
        problem = Problem("caller.wrong_method", f"This address takes {allowed} only.")
        body = self._platform.client.render_problem(problem, in_stream=False)
        writer.whole(problem.status, JSON, [("allow", allowed)], body)

    def _lost(self, error: BaseException, writer: Writer) -> None:
        self._platform.journal.fault("data plane", error)
        try:
            refuse(writer, Problem("platform.fault"), self._platform.client)
        except RuntimeError:
            pass  # the answer had begun
        finally:
            writer.cut()  # nothing, where the answer went out whole


async def resume(platform: Platform, arrival: Arrival, writer: Writer) -> None:
    """GET /streams/{id}?after=N: the events after the N-th of a streamed answer, and what follows."""
    try:
        _, account = await authenticate(platform, arrival)
        after = _after(arrival.query)
        tape = platform.tapes.find(arrival.path.partition("/streams/")[2], account.id)
        if arrival.method == "HEAD":
            tape.peek(writer)
        else:
            tape.attach(writer, after)
    except Problem as problem:
        refuse(writer, problem, platform.client)


def _after(query: str) -> int:
    """How many events the client has read. Raises caller.invalid_value."""
    values = parse_qs(query, keep_blank_values=True).get("after", ["0"])
    if len(values) == 1 and len(values[0]) <= _AFTER_DIGITS_MAX and values[0].isascii() and values[0].isdecimal():
        return int(values[0])
    raise Problem("caller.invalid_value", "after must be a whole number: the events that were read.", param="after")


async def models(platform: Platform, arrival: Arrival) -> object:
    """GET /models: what this key may use."""
    key, _ = await authenticate(platform, arrival)
    return {"object": "list", "data": [_row(row) for row in platform.catalogue.models() if lists(key.limits, row.name)]}


async def model(platform: Platform, arrival: Arrival) -> object:
    """GET /models/{id}. Raises caller.not_found where the model does not exist, as OpenAI's API does, or not for this
    key."""
    key, _ = await authenticate(platform, arrival)
    name = arrival.path.partition("/models/")[2]
    for row in platform.catalogue.models():
        if row.name == name and lists(key.limits, name):
            return _row(row)
    raise Problem("caller.not_found", f"The model {name!r} does not exist.", param="model")


def _row(row: Model) -> dict[str, object]:
    return {"id": row.name, "object": "model", "created": row.created, "owned_by": row.owned_by}


_PAGES: Final[tuple[tuple[str, Page], ...]] = (
    ("/models", models),
    ("/user/balance", balance),
    ("/usage", usage),
    ("/dashboard/billing/subscription", subscription),
    ("/dashboard/billing/usage", billing_usage),
)
