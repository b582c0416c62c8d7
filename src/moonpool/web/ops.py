"""What a machine asks of a running server: is it alive, is it ready, how is it doing.

Rules: an answer costs no look-up in the store, so that it comes at once whatever else is slow; nothing here names
an account, a key or a person; every label comes from a bounded set (models and hosts are catalogue rows, a name that
is no row is ""). Names follow Prometheus: seconds and bytes as units, `_total` for what only grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from moonpool import __version__
from moonpool.errors import ERRORS
from moonpool.relay.fleet import Fleet
from moonpool.relay.meters import BUCKETS_S, Histogram
from moonpool.relay.platform import Platform

JSON: Final = "application/json"
Page = tuple[int, str, bytes]


class Meter(Struct, frozen=True):
    """A row of docs/reference/metrics.md: what /metrics shows under `name`, told apart by `labels`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    says: str


METERS: Final = (
    Meter("moonpool_info", "gauge", ("version",), "Always 1; the label says which version runs."),
    Meter(
        "moonpool_requests_total",
        "counter",
        ("model", "host", "status"),
        "Requests that ended, by the model asked for, the host that answered and the status sent.",
    ),
    Meter(
        "moonpool_ends_total",
        "counter",
        ("cause",),
        "Requests that ended, by cause: a finish reason, or one of our error codes.",
    ),
    Meter("moonpool_tokens_total", "counter", ("model", "class"), "Tokens used; `completion` includes `reasoning`."),
    Meter("moonpool_first_byte_seconds", "histogram", (), "From a request's arrival to the first byte of its answer."),
    Meter("moonpool_request_seconds", "histogram", (), "From a request's arrival to the end of its answer."),
    Meter("moonpool_answers_open", "gauge", (), "Answers under way now."),
    Meter("moonpool_streams_open", "gauge", (), "Streamed answers under way now."),
    Meter("moonpool_streams_detached", "gauge", (), "Resumable streams that run while their client is gone."),
    Meter("moonpool_resume_bytes", "gauge", (), "Bytes kept of resumable streams."),
    Meter("moonpool_connections_open", "gauge", (), "Client connections that are open now."),
    Meter(
        "moonpool_connections_total",
        "counter",
        ("end",),
        "Client connections `accepted`, `refused` because there were too many, `cut` because the client took nothing.",
    ),
    Meter("moonpool_arrivals_total", "counter", (), "Requests read whole, whatever became of them."),
    Meter(
        "moonpool_ledger_holds", "gauge", ("state",), "Holds ever made, and how many are open or ended in which way."
    ),
    Meter("moonpool_ledger_tokens", "gauge", ("class",), "Tokens in the ledger since it was made."),
    Meter(
        "moonpool_host_trouble",
        "gauge",
        ("host", "model", "trouble"),
        "1 for a model at a host that is not asked now: `open`, `ejected`, `cooling`, or `parked` (its key or bill).",
    ),
    Meter("moonpool_host_running", "gauge", ("host", "model"), "Requests that run at a host now; model in its words."),
    Meter("moonpool_requests_waiting", "gauge", (), "Requests that wait for a host to have room."),
    Meter("moonpool_retries_refused_total", "counter", (), "Attempts not made: the budget of retries was spent."),
    Meter("moonpool_cache_hits_total", "counter", ("account",), "Answers whose beginning was in the account's cache."),
    Meter("moonpool_embedded_ready", "gauge", (), "1 when the embedded model answers; absent when it is switched off."),
    Meter("moonpool_store_ready", "gauge", (), "1 when the ledger can be written."),
    Meter("moonpool_limits_ready", "gauge", (), "1 when the store of limits answers; always with limits in memory."),
    Meter(
        "moonpool_limits_nodes",
        "gauge",
        (),
        "Processes that share the limits, as this one was last told: what its share is while their store is lost.",
    ),
    Meter("moonpool_loop_stalls_total", "counter", (), "Times that the event loop stood still for over a second."),
    Meter("moonpool_loop_stalled_seconds_total", "counter", (), "How long it stood still in these times."),
    Meter(
        "moonpool_thoughts_total",
        "counter",
        ("what",),
        "Reasoning of answers that was `kept`, and messages into which it was `restored`.",
    ),
    Meter("moonpool_thoughts_stored", "gauge", (), "Reasoning of answers in the database; absent without a vault."),
    Meter(
        "moonpool_guesses_total",
        "counter",
        ("kind", "what"),
        "Requests whose `key` or `token` was `wrong`, or `braked`: not looked at after too many wrong ones from there.",
    ),
    Meter("moonpool_log_lines_lost_total", "counter", (), "Log lines dropped because writing them was too slow."),
)
_SAYS: Final = {meter.name: meter for meter in METERS}
_FINISHES: Final = {"", "stop", "length", "tool_calls", "content_filter", "insufficient_system_resource"}
_TOKEN_CLASSES: Final = ("prompt_miss", "prompt_hit", "completion", "reasoning")


def handle(platform: Platform, path: str) -> Page | None:
    """(status, content type, body) for a GET of `path`; None when the path is none of ours."""
    page = _PAGES.get(path)
    return page(platform) if page is not None else None


def health(_: Platform) -> Page:
    """The process runs and its event loop turns."""
    return _json(200, {"status": "ok", "version": __version__})


def ready(platform: Platform) -> Page:
    """200 when a request would be answered now; 503 with the reasons otherwise."""
    parts = platform.parts()
    reasons, also = unready(parts), warnings(parts)
    page = {"status": "waiting" if reasons else "ready", "reasons": reasons}
    return _json(503 if reasons else 200, page | ({"warnings": also} if also else {}))


def unready(parts: Mapping[str, Any]) -> dict[str, str]:
    """Part -> what it waits for, of relay.platform.Platform.parts; empty when everything is there."""
    reasons: dict[str, str] = {}
    if parts["store"] != "ok":
        reasons["store"] = str(parts["store"])
    loop = parts.get("loop")
    if loop is not None and loop["trouble"] is not None:
        reasons["loop"] = loop["trouble"]
    embedded = parts.get("embedded")
    if embedded is not None and embedded["state"] != "ready":
        reasons["embedded"] = f"the embedded model is {embedded['state']}"
    return reasons


def warnings(parts: Mapping[str, Any]) -> dict[str, str]:
    """Part -> what is wrong with it though requests are taken: without the store of limits all but those whose accounts
    have any are served, and for its first minute those too."""
    limits = str(parts.get("limits", "ok"))
    return {} if limits == "ok" else {"limits": limits}


def metrics(platform: Platform) -> Page:
    return 200, CONTENT_TYPE_LATEST, generate_latest(_Scrape(platform))


def front(_: Platform) -> Page:
    """For a person who opens the address in a browser."""
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Moonpool</title>"
        "<h1>Moonpool is running</h1><p>API clients: use this address followed by <code>/v1</code> as base URL, "
        "and a key from <code>moonpool keys create</code>.</p>"
        "<p><a href=/health>health</a> <a href=/ready>ready</a> <a href=/metrics>metrics</a></p></html>\n"
    )
    return 200, "text/html; charset=utf-8", page.encode()


_PAGES: Final = {"/health": health, "/ready": ready, "/metrics": metrics, "/": front}


def _json(status: int, page: object) -> Page:
    return status, JSON, msgspec.json.encode(page)


class _Scrape(Collector):
    """One reading of a platform's meters in the types of prometheus_client."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def collect(self) -> Iterator[Metric]:
        platform, meters, parts = self._platform, self._platform.meters, self._platform.parts()
        yield _gauge("moonpool_info", {(__version__,): 1})
        yield _counter("moonpool_requests_total", {(m, h, str(s)): n for (m, h, s), n in meters.requests.items()})
        yield _counter("moonpool_ends_total", _bounded(meters.causes))
        yield _counter("moonpool_tokens_total", meters.tokens)
        yield _histogram("moonpool_first_byte_seconds", meters.first_byte)
        yield _histogram("moonpool_request_seconds", meters.total)
        active = tuple(platform.active)
        yield _gauge("moonpool_answers_open", {(): len(active)})
        yield _gauge("moonpool_streams_open", {(): sum(reply.stream for reply in active)})
        yield from _fleet(platform.fleet)
        yield _gauge("moonpool_streams_detached", {(): len(platform.tapes.detached)})
        yield _gauge("moonpool_resume_bytes", {(): platform.tapes.held})
        doors = parts["connections"]
        yield _gauge("moonpool_connections_open", {(): doors["open"]})
        ends = {(end,): doors[end] for end in ("accepted", "refused", "cut")}
        yield _counter("moonpool_connections_total", ends)
        yield _counter("moonpool_arrivals_total", {(): doors["requests"]})
        # Read now and then by the app, not for each scrape; absent until it was read once.
        ledger: Mapping[str, int] = parts.get("ledger") or {}
        holds = {(state,): n for state, n in ledger.items() if state not in _TOKEN_CLASSES}
        yield _gauge("moonpool_ledger_holds", holds)
        yield _gauge("moonpool_ledger_tokens", {(name,): ledger[name] for name in _TOKEN_CLASSES if name in ledger})
        embedded = parts.get("embedded")
        if embedded is not None:
            yield _gauge("moonpool_embedded_ready", {(): int(embedded["state"] == "ready")})
        yield _gauge("moonpool_store_ready", {(): int(parts["store"] == "ok")})
        yield _gauge("moonpool_limits_ready", {(): int(platform.limiter.trouble() is None)})
        yield _gauge("moonpool_limits_nodes", {(): platform.limiter.nodes})
        loop = parts.get("loop")
        if loop is not None:
            yield _counter("moonpool_loop_stalls_total", {(): loop["stalls"]})
            yield _counter("moonpool_loop_stalled_seconds_total", {(): loop["stalled_s"]})
        vault = parts.get("vault")
        yield _counter("moonpool_thoughts_total", {(what,): count for what, count in meters.thoughts.items()})
        if vault is not None:
            yield _gauge("moonpool_thoughts_stored", {(): vault["stored"]})
        brakes = {"key": platform.key_brake, "token": platform.token_brake}
        wrong = {(kind, "wrong"): brake.wrong for kind, brake in brakes.items()}
        braked = {(kind, "braked"): brake.braked for kind, brake in brakes.items()}
        yield _counter("moonpool_guesses_total", wrong | braked)
        yield _counter("moonpool_log_lines_lost_total", {(): platform.journal.lost})
        yield from ProcessCollector(registry=None).collect()


def _fleet(fleet: Fleet) -> Iterator[Metric]:
    """How hosts are doing. A model stands here under the host's own name for it: as many as there are rows."""
    sites = list(fleet.sites())
    troubled = {(site.host, site.model, site.health.trouble): 1 for site in sites if site.health.trouble}
    yield _gauge("moonpool_host_trouble", troubled)
    yield _gauge("moonpool_host_running", {(site.host, site.model): site.running for site in sites})
    yield _gauge("moonpool_requests_waiting", {(): fleet.waiting})
    yield _counter("moonpool_retries_refused_total", {(): fleet.refused_retries})
    records = fleet.affinity.records
    yield _counter("moonpool_cache_hits_total", {(account,): record.hit for account, record in records.items()})


def _bounded(causes: Mapping[str, int]) -> dict[tuple[str], int]:
    """Finish reasons are the host's words: those that nobody documents are counted as one."""
    counts: dict[tuple[str], int] = {}
    for cause, count in causes.items():
        label = (cause if cause in ERRORS or cause in _FINISHES else "other",)
        counts[label] = counts.get(label, 0) + count
    return counts


def _gauge(name: str, values: Mapping[Any, float]) -> Metric:
    return _fill(GaugeMetricFamily(name, _SAYS[name].says, labels=_SAYS[name].labels), values)


def _counter(name: str, values: Mapping[Any, float]) -> Metric:
    return _fill(CounterMetricFamily(name, _SAYS[name].says, labels=_SAYS[name].labels), values)


def _fill(family: Any, values: Mapping[Any, float]) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family  # type: ignore[no-any-return]


def _histogram(name: str, spans: Histogram) -> Metric:
    family = HistogramMetricFamily(name, _SAYS[name].says)
    bounds = [str(bound) for bound in BUCKETS_S] + ["+Inf"]
    family.add_metric((), list(zip(bounds, accumulate(spans.counts), strict=True)), spans.sum_s)
    return family
