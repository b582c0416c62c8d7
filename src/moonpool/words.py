"""The nouns every room shares: pure records, no behaviour; imports nothing of ours.

Amounts are integers of 10^-12 of a currency (`_pico`). Times are seconds since 1970 in UTC (`_at`, float) or
spans of seconds (`_s`). Tokens are counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

Operation = Literal["chat", "completion"]
CHAT: Final = "chat"
COMPLETION: Final = "completion"

# What a call may ask of a model beyond plain text; compared with what a catalogue row says it `can`.
# `prefix_thinking`: to go on with a thinking that is given (PROVIDERS 1.11), where `prefix` goes on with an answer.
Need = Literal["tools", "thinking", "json_object", "prefix", "prefix_thinking", "fim", "logprobs", "n"]

Headers = Mapping[str, str]
"""Header fields with lower-case names; a field that came twice is joined by ", "."""


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one answer, and web searches made for it. `prompt_tokens` on the wire is hit + miss; `completion`
    includes `reasoning`."""

    prompt_miss: int = 0
    prompt_hit: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False
    searches: int = 0


class Price(Struct, frozen=True, gc=False):
    """Pico-units of `currency` per token, and per search, from `valid_from` (ISO date). Named as `Usage` is, so cost is
    a sum. `version` names this price in the books."""

    prompt_miss: int = 0
    prompt_hit: int = 0
    completion: int = 0
    currency: str = "CNY"
    valid_from: str = "1970-01-01"
    searches: int = 0
    version: str = ""


class Prices(Protocol):
    """A price that changes with time (catalog/prices.py)."""

    def at(self, at: float) -> Price:
        """What holds at this moment, in Unix seconds."""


class Call(Struct, frozen=True):
    """One request, parsed once and never mutated.

    `fields` is the client's JSON after the rules of the model were applied; `adjusted` names what the rules
    (or the parser) dropped, clamped or mapped, in the words of the header `x-moonpool-adjusted`. `refuse`: the key
    wants an error where something would have to be adjusted. `emulated` are needs that we see to ourselves, because
    the model cannot (they are not among `needs` any more).
    """

    id: str
    operation: Operation
    model: str
    stream: bool
    fields: dict[str, Any]
    raw: bytes
    include_usage: bool = False
    output_max: int | None = None
    thinking: bool = False
    needs: frozenset[str] = frozenset()
    adjusted: tuple[str, ...] = ()
    refuse: bool = False
    emulated: frozenset[str] = frozenset()


# One piece of an answer. `index` is the candidate (choices[index]).


class Started(Struct, frozen=True, gc=False):
    """The answer has begun; what the host calls it. Any of these may be unknown (None)."""

    id: str | None = None
    model: str | None = None
    created: int | None = None
    fingerprint: str | None = None


class Text(Struct, frozen=True):
    text: str
    index: int = 0
    logprobs: Any = None


class Reasoning(Struct, frozen=True):
    text: str
    index: int = 0
    logprobs: Any = None


class ToolCall(Struct, frozen=True, gc=False):
    """A part of a tool call: `slot` counts the calls of one candidate from 0; id and name come with its first part."""

    slot: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    index: int = 0


class Found(Struct, frozen=True):
    """What a web search found: objects of {index, url, name, snippet, icon, site, published_time} (contract 4)."""

    results: tuple[dict[str, Any], ...]
    index: int = 0


class Metered(Struct, frozen=True, gc=False):
    usage: Usage


class Finished(Struct, frozen=True, gc=False):
    reason: str
    index: int = 0


class Failed(Struct, frozen=True):
    """The host said, inside an answer that had begun, that it failed. `problem` is an errors.Problem."""

    problem: Any


Event = Started | Text | Reasoning | ToolCall | Found | Metered | Finished | Failed


class Frame(Struct, frozen=True):
    """One piece of an answer: what it means and the bytes it came as.

    In a stream one Frame is one SSE event, `raw` its whole text with the blank line that ends it. A whole answer
    is a stream of one Frame whose `raw` is the body. `events` is () for comments and for the `[DONE]` mark.
    """

    raw: bytes
    events: tuple[Event, ...] = ()


class Outbound(Struct, frozen=True):
    """A request to a host, rendered by its dialect. `path` is appended to the host's base URL; `adjusted` are receipts
    of what this host needed to be different from what the client said."""

    path: str
    body: bytes = b""
    method: str = "POST"
    stream: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    adjusted: tuple[str, ...] = ()


class Host(Struct, frozen=True):
    """Where a model is served, who we are there, and how long we wait. A row of hosts.toml, resolved.

    `account` is whose concurrency, balance and cache the key uses: hosts that name one account share them.
    `concurrency` are its requests at once in all, `concurrency_by_model` those of one model (the host's own name for
    it); 0 or absent: no limit is known. `balance` are the paths that tell what is left there, from `base_url` without a
    /v1 at its end.
    """

    name: str
    dialect: str
    transport: str = "http"
    base_url: str = ""
    api_key: str = ""
    account: str = ""
    concurrency: int = 0
    concurrency_by_model: Mapping[str, int] = {}
    balance: tuple[str, ...] = ()
    connect_s: float = 5.0
    first_s: float = 600.0
    gap_s: float = 60.0
    total_s: float = 3600.0
    options: Mapping[str, Any] = {}


class Target(Struct, frozen=True):
    """A model at a host, with the host's own name for it, what it can do, what it costs us there (None: nothing is
    known) and dialect options.

    `weight` is its share among equals. `replay` is what becomes of reasoning that is sent back: `keep` it, `strip` it,
    `reject` it as the client's fault, or `fill` it: kept, and "" where it is missing (PROVIDERS 1.7).
    """

    host: Host
    model: str
    can: frozenset[str] = frozenset()
    prices: Prices | None = None
    options: Mapping[str, Any] = {}
    weight: int = 1
    replay: Literal["keep", "strip", "reject", "fill"] = "keep"


class Limits(Struct, frozen=True):
    """What a key may do at most; 0, None and nothing named: it has no limit of its own there.

    `models` are names of the catalogue, `addresses` networks ("10.0.0.0/8", "::1/128") a client must be in; rates
    are for a minute, `concurrency` is requests at once; `day_pico` and `month_pico` bound what is spent in each
    currency within a day or month of Beijing.
    """

    expires_at: float | None = None
    models: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrency: int = 0
    day_pico: int | None = None
    month_pico: int | None = None


class Key(Struct, frozen=True):
    """An API key as the data plane knows it; the secret itself is never kept.

    `id` is the public part (12 characters). `switches` are the per-key compatibility switches:
    `keepalive` ("comment" | "newline" | "off"), `usage` ("finish" | "chunk"), `conflicts` ("adapt" | "refuse"),
    `continuation` ("same" | "on" | "off"), `reasoning` ("restored" | "off"), `user_text` ("tagged" | "all" | "off"),
    `sees` ("own" | "account").
    `limits` is None for a key that may do whatever its account may.
    """

    id: str
    account: str
    name: str = ""
    created_at: float = 0.0
    last_used_at: float | None = None
    switches: Mapping[str, str] = {}
    limits: Limits | None = None


class Account(Struct, frozen=True):
    """Who pays. A `post_paid` account may use more than its funds: what it then owes is taken, hour by hour, from
    what it topped up, and it is served while that does not fall below -`credit_pico` (None: without bound).
    `concurrency` is requests at once and the rates are for a minute, over all of its keys, 0: no limit; a `disabled`
    account is not served; of the products in `products_off` it uses nothing on credit.
    """

    id: str
    name: str
    post_paid: bool = False
    concurrency: int = 100
    credit_pico: int | None = None
    disabled: bool = False
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    products_off: frozenset[str] = frozenset()


class Arrival(Struct, gc=False):
    """A request as the socket saw it: method, raw path (no query), query, header fields, body."""

    id: str
    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    peer: str
    at: float
