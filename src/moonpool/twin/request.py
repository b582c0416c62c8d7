"""What happens to one request at the twin? Script first, then the door, the rules, and the answer.

The order is the provider's: a key is looked at before a body, a body before its rules, concurrency before the answer.
Everything runs in callbacks of the loop; what takes time waits in the outlet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from moonpool.catalog.rules import apply
from moonpool.dialects.base import Encoder
from moonpool.dialects.names import SEARCHED
from moonpool.errors import Problem
from moonpool.ledger.money import cost
from moonpool.relay.writer import Fields
from moonpool.twin import strict
from moonpool.twin.accounts import account_of, key_of
from moonpool.twin.faults import Fault, retry_after
from moonpool.twin.log import Served, shortened
from moonpool.twin.outlet import JSON, Outlet
from moonpool.twin.pages import OPEN, PAGES, Asked
from moonpool.twin.providers import Part, Provider
from moonpool.twin.service import Service
from moonpool.twin.shape import reshape
from moonpool.web.answer import Exchange
from moonpool.words import (
    CHAT,
    COMPLETION,
    Arrival,
    Call,
    Event,
    Finished,
    Found,
    Frame,
    Metered,
    Operation,
    Started,
    Usage,
)

OPERATIONS: Final[Mapping[str, Operation]] = {"chat": CHAT, "completion": COMPLETION}
_PAGE: Final = b"<!doctype html><html><head><title>Sign in</title></head><body>Sign in to continue</body></html>"
_ASKED: Final = ("stream", "max_tokens", "thinking", "reasoning_effort", "tool_choice", "response_format", "user_id")
_HUGE: Final = 900_000_000
_encode: Final = msgspec.json.Encoder().encode


class Request:
    """One request. Also the taker of its answer (backend.Taker)."""

    def __init__(self, service: Service, arrival: Arrival, exchange: Exchange) -> None:
        self._service = service
        self._arrival = arrival
        self._exchange = exchange
        self._key = key_of(arrival.headers)
        account = account_of(self._key)
        service.totals.begun += 1
        self._served = Served(
            service.totals.begun,
            arrival.id,
            service.clock(),
            arrival.method,
            arrival.path,
            account=shortened(account),
            key=shortened(self._key),
        )
        service.begin(self._served)
        self._account = account
        self._entered = ""
        self._fault: Fault | None = None
        self._part: Part | None = None
        self._call: Call | None = None
        self._encoder: Encoder
        self._outlet: Outlet
        self._prompt = Usage()
        self._usage: Usage | None = None
        self._tokens = 0
        self._raw: dict[str, Any] = {}

    def run(self) -> None:
        service, arrival, served = self._service, self._arrival, self._served
        kind, beta, tail = route(service.provider, arrival.method, arrival.path)
        served.kind = kind
        operation = OPERATIONS.get(kind)
        if operation is not None:
            self._raw = _peek(arrival.body)
            served.model = str(self._raw.get("model", ""))[:128]
            served.stream = self._raw.get("stream") is True
            served.asked = _summary(self._raw)
            if service.content:
                served.content = self._raw
            self._fault = service.faults.pick(arrival.path, served.model, self._key)
            served.fault = self._fault.effects() if self._fault is not None else []
        self._outlet = self._make_outlet()
        try:
            if not kind:
                raise Problem("caller.not_found")
            if operation is None:
                self._page(kind, tail)
            elif not self._told_by_script():
                self._answer(operation, beta)
        except Problem as problem:
            self._refuse(problem)

    def _make_outlet(self) -> Outlet:
        stream = self._served.stream
        code = (self._fault.problem if self._fault is not None else "") or "platform.fault"
        failure = self._service.dialect.render_problem(Problem(code), in_stream=stream)
        fields: Fields = [
            (name, value.replace("{id}", self._arrival.id)) for name, value in self._service.provider.fields.items()
        ]
        if stream:
            fields.append(("cache-control", "no-cache"))
        return Outlet(self._exchange, self._served, self._fault, self._over, fields, stream=stream, failure=failure)

    # Script, pages, refusals.

    def _told_by_script(self) -> bool:
        """Whether the script refuses the request before anybody looks at it. Raises Problem."""
        fault = self._fault
        if fault is None:
            return False
        if fault.refuse in ("reset", "close"):
            self._outlet.hang_up(reset=fault.refuse == "reset")
        elif fault.html:
            self._outlet.page(_PAGE, "text/html; charset=utf-8", "failed")
        elif fault.refuse == "busy":
            raise Problem("platform.overloaded")
        elif fault.problem and fault.error_after is None:
            raise Problem(fault.problem)
        elif fault.rate_limit is not None:
            raise Problem("platform.queue_full")
        else:
            return False
        return True

    def _page(self, kind: str, tail: str) -> None:
        service = self._service
        if kind not in OPEN:
            service.accounts.check(self._key)
        page = PAGES[kind](Asked(service.provider, service.parts, service.accounts, self._key, tail))
        self._outlet.page(_encode(page))

    def _refuse(self, problem: Problem) -> None:
        """The provider's own body, status and type."""
        fault, dialect = self._fault, self._service.dialect
        status = dialect.status_of(problem)
        if fault is not None:
            status = fault.status or (429 if fault.rate_limit is not None else status)
        fields: Fields = []
        if fault is not None and fault.rate_limit:
            fields.append(("retry-after", retry_after(fault.rate_limit, self._service.clock())))
        kind = self._service.provider.bad_request_type if status == 400 else JSON
        if fault is not None and fault.octet_stream:
            kind = "application/octet-stream"
        if self._served.kind in self._service.provider.errors_in_200:
            status, kind = 200, JSON
        self._served.problem = problem.code
        self._outlet.refuse(status, kind, fields, dialect.render_problem(problem, in_stream=False))

    # An answer.

    def _answer(self, operation: Operation, beta: bool) -> None:
        service, served = self._service, self._served
        service.accounts.check(self._key)
        service.accounts.check_rights(self._key, forbids=service.forbids)
        call, part = self._ruled(operation, beta)
        served.stream = call.stream
        count, limit = service.accounts.enter(self._account, part.routed, part.limit)
        served.at_once = count
        if count > limit:
            raise Problem("account.concurrency", self._sentence("concurrency", {"now": count, "most": limit}))
        self._entered = part.routed
        self._part = part
        self._call = call
        switches = {"usage": "chunk" if "usage_apart" in service.provider.shape else "finish"}
        identity = service.identity(served.number, part.routed)
        self._encoder = service.dialect.encoder(call, identity, False, switches)
        if call.fields.get("enable_search"):
            self.say((Started(model=part.routed + SEARCHED), Found(_FOUND)), 0)
        self._outlet.source = service.backend.answer(call, self)

    def _ruled(self, operation: Operation, beta: bool) -> tuple[Call, Part]:
        """The call as the provider takes it. Raises Problem, in its words."""
        service, provider = self._service, self._service.provider
        body = self._arrival.body
        kept = {name: value for name, value in self._raw.items() if name not in provider.ignores}
        if provider.switch:
            kept = _switched(kept, provider.switch)
        if kept.get(provider.continues) is True:
            kept = _continued(kept)
        if kept != self._raw:
            body = _encode(kept)
        call = service.dialect.parse_call(operation, body, self._arrival.id)
        part = service.parts.get(call.model)
        if part is None:
            names = ", ".join(name for name, known in service.parts.items() if known.listed)
            facts = {"names": names, "name": call.model[:128], "model": call.model[:128]}
            raise Problem("caller.unknown_model", self._sentence("unknown_model", facts), param="model")
        if call.fields.get("max_tokens") is None and "max_tokens" in kept:
            kept.pop("max_tokens")
        self._prompt = service.accounts.prompt(self._account, part.routed, call.fields)
        model = replace(part.model, name=call.model)
        seen = strict.Seen(
            kept,
            call,
            model,
            beta,
            self._prompt.prompt_hit + self._prompt.prompt_miss,
            call.output_max or 0,
            provider.stops_max,
        )
        broken = strict.first_broken(seen, part.strict)
        if broken is not None:
            code = "caller.too_long" if broken[0] == "context" else "caller.invalid_value"
            raise Problem(code, self._sentence(*broken))
        return apply(call, model), part

    def _sentence(self, name: str, facts: Mapping[str, Any]) -> str | None:
        said = self._service.says.get(name)
        return said.format(**facts) if said is not None else None

    # What the backend says.

    def say(self, events: tuple[Event, ...], tokens: int) -> None:
        fault = self._fault
        if fault is not None and fault.finish:
            events = tuple(
                Finished(fault.finish, event.index) if type(event) is Finished else event for event in events
            )
        self._tokens += tokens
        self._push(self._encoder.feed(Frame(b"", events)), tokens)

    def over(self, usage: Usage | None, problem: Problem | None) -> None:
        if problem is not None:
            if self._served.status:
                self._served.problem = problem.code
                self._outlet.push(self._service.dialect.render_problem(problem, in_stream=True))
                self._outlet.finish()
            else:
                self._refuse(problem)
            return
        counted = usage or Usage(completion=self._tokens)
        if usage is None or not (usage.prompt_miss or usage.prompt_hit):
            counted = replace(counted, prompt_miss=self._prompt.prompt_miss, prompt_hit=self._prompt.prompt_hit)
        self._usage = counted
        told = self._told_usage(counted)
        out = b"" if told is None else self._encoder.feed(Frame(b"", (Metered(told),)))
        self._push(out + self._encoder.finish(), 0 if self._served.stream else self._tokens)
        self._outlet.finish()

    def _told_usage(self, usage: Usage) -> Usage | None:
        """What the client is told, by script not always the truth."""
        how = self._fault.usage if self._fault is not None else ""
        if how == "missing":
            return None
        if how == "negative":
            return replace(usage, prompt_miss=-usage.prompt_miss - 1, completion=-usage.completion - 1)
        if how == "huge":
            return replace(usage, prompt_miss=_HUGE, completion=_HUGE)
        return Usage() if how == "zero" else usage

    def _push(self, data: bytes, tokens: int) -> None:
        """Bytes of the answer, an event at a time in a stream, in the provider's shape."""
        if not data:
            return
        twice = self._fault is not None and self._fault.usage == "twice"
        *before, last = reshape(data, self._served.stream, self._service.provider.shape, twice=twice)
        for piece in before:  # the role goes before the first token
            self._outlet.push(piece)
        self._outlet.push(last, tokens)

    # The end.

    def _over(self, how: str) -> None:
        """The outlet says that it is over: what was it worth?"""
        service, served = self._service, self._served
        served.ended = "failed" if how == "whole" and served.problem else how
        served.over_at = service.clock()
        if self._entered:
            service.accounts.leave(self._account, self._entered)
            self._bill()
        service.totals.add(served)
        service.over(served)

    def _bill(self) -> None:
        """A stream that ended early costs what was said of it; a whole answer what it took, if it was ever made."""
        served, part = self._served, self._part
        assert part is not None
        if self._usage is not None and self._outlet.said >= self._tokens:
            usage = self._usage
        elif self._outlet.said:
            said = self._outlet.said
            reasoning = min(said, self._usage.reasoning) if self._usage is not None else 0
            usage = replace(self._prompt, completion=said, reasoning=reasoning)
        elif served.events:
            usage = self._prompt
        else:
            return
        if self._call is not None and self._call.fields.get("enable_search"):
            usage = replace(usage, searches=1)
        price = part.model.price_at(served.at)
        served.usage = usage
        served.billed_pico = cost(usage, price)
        served.currency = price.currency
        self._service.accounts.bill(self._account, served.billed_pico)


_FOUND: Final = (
    {
        "index": 1,
        "url": "https://example.com/twin",
        "name": "A page about twins",
        "snippet": "Twins look alike.",
        "icon": "https://example.com/icon.png",
        "site": "example.com",
        "published_time": 1_700_000_000,
    },
)


def route(provider: Provider, method: str, path: str) -> tuple[str, bool, str]:
    """(operation or page, whether what is in beta works there, what the path ends with where `*` stands); "" for an
    address that the provider has not."""
    said = provider.paths.get(f"{method} {path}")
    tail = ""
    if said is None:
        head, _, tail = path.rpartition("/")
        said = provider.paths.get(f"{method} {head}/*", "")
    kind, _, beta = said.partition(" ")
    return kind, beta == "beta", tail


def _peek(body: bytes) -> dict[str, Any]:
    """The fields of a body, {} for one that is no object: what is wrong with it is the dialect's to say."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if type(found) is dict else {}


def _switched(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """With the thinking turned on or off where this provider looks for it."""
    switch = fields.get(name)
    if type(switch) is not dict:
        return fields
    said = switch.get("thinking", switch.get("enable_thinking"))
    return fields if type(said) is not bool else {**fields, "thinking": {"type": "enabled" if said else "disabled"}}


def _continued(fields: dict[str, Any]) -> dict[str, Any]:
    """With the last message marked as the beginning of the answer."""
    messages = fields.get("messages")
    if type(messages) is not list or not messages or type(messages[-1]) is not dict:
        return fields
    return {**fields, "messages": [*messages[:-1], {**messages[-1], "prefix": True}]}


def _summary(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, without a word of it."""
    asked = {name: fields[name] for name in _ASKED if name in fields and name != "stream"}
    for name in ("messages", "tools"):
        if type(fields.get(name)) is list:
            asked[name] = len(fields[name])
    last = (fields.get("messages") or [None])[-1] if type(fields.get("messages")) is list else None
    if type(last) is dict and last.get("prefix") is True:
        asked["prefix"] = "thinking" if last.get("reasoning_content") and not last.get("content") else "answer"
    return asked
