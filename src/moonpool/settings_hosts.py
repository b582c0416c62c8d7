"""What an operator can set about hosts: which one gets a request, how long it may take, and the model that is brought
along; part of settings.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


def _of(help_text: str, **bounds: Any) -> Any:
    return Meta(description=help_text, **bounds)


class Routing(Struct, frozen=True, forbid_unknown_fields=True):
    """Which host gets a request, and how long one waits for a free one; a model's row may name another policy."""

    policy: Annotated[
        Literal["order", "weight", "least_busy", "price"],
        _of("How a host is chosen among those that can be used: as written, by weight, the idlest, the cheapest."),
    ] = "order"
    affinity: Annotated[
        bool, _of("Whether a conversation prefers the account where its beginning was found in the cache.")
    ] = True
    queue_max: Annotated[int, _of("Requests that may wait for one model's hosts; more are refused.", ge=0)] = 1000
    queue_s: Annotated[float, _of("Seconds a request may wait; one that would wait longer is refused.", ge=0)] = 30.0


class Upstream(Struct, frozen=True, forbid_unknown_fields=True):
    """How long hosts may take and how much they may send; a host's row may say otherwise for the first four."""

    connect_s: Annotated[float, _of("Seconds to connect to a host, TLS included.", gt=0)] = 5.0
    first_s: Annotated[float, _of("Seconds until a host sends the first content of an answer.", gt=0)] = 600.0
    gap_s: Annotated[float, _of("Seconds of silence allowed within an answer.", gt=0)] = 60.0
    total_s: Annotated[float, _of("Seconds a whole answer may take.", gt=0)] = 3600.0
    idle_s: Annotated[float, _of("Seconds an unused connection to a host is kept.", gt=0)] = 30.0
    connections_max: Annotated[int, _of("Connections to one host at once.", ge=1)] = 4096
    head_bytes_max: Annotated[int, _of("Largest head of a host's answer, in bytes.", ge=1024)] = 65536
    body_bytes_max: Annotated[int, _of("Largest body of a host's answer, in bytes.", ge=65536)] = 64 * 1024 * 1024


class Embedded(Struct, frozen=True, forbid_unknown_fields=True):
    """The model that Moonpool brings along."""

    enabled: Annotated[bool, _of("Whether the embedded model runs.")] = True
    model: Annotated[
        str, _of("A row of the catalogue's weights, or the path of a GGUF file of your own; empty for the first row.")
    ] = ""
    context: Annotated[int, _of("Tokens of context for each request.", ge=512)] = 8192
    parallel: Annotated[int, _of("Requests that run at once; more wait.", ge=1, le=64)] = 4
    threads: Annotated[int, _of("Threads that compute; 0 for one per core.", ge=0, le=256)] = 0
    thinking_budget_tokens: Annotated[int, _of("Most tokens of thinking at effort high.", ge=16)] = 512
    thinks: Annotated[
        Literal["auto", "yes", "no"], _of("Whether a GGUF of your own thinks by itself; auto asks its template.")
    ] = "auto"
    start_s: Annotated[float, _of("Seconds the model has to load.", gt=0)] = 120.0
