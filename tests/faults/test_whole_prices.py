"""What a whole server charges, and what it owes, while prices change: by arrival, by hour, by agreement; and searches.

Amounts are checked against the database with plain sqlite3, and against sums written by hand.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.stage import (
    DONE,
    MODEL,
    ROLE,
    STREAM_HEAD,
    USAGE,
    Answer,
    Stage,
    chat,
    event,
    good,
    last,
    play,
    streamed,
    whole_body,
    words,
)  # fmt: skip
from faults.upstream import LAST_CHUNK, answer, chunk, close, gate
from moonpool.app import App
from moonpool.catalog.catalog import SEARCH
from moonpool.settings import Routing, Streams
from moonpool.state.base import Pack
from moonpool.state.base_prices import Override

MILLION = 10**6
CALENDAR = {"calendar": "every-day", "factor": "2"}
PRICES = [
    {
        "valid_from": "2026-01-01",
        "prompt_miss": "10",
        "prompt_hit": "1",
        "completion": "100",
        "searches": "5",
        "peak": CALENDAR,
    }
]
COSTS = [{**PRICES[0], "prompt_miss": "4", "prompt_hit": "0.5", "completion": "40", "searches": "3"}]
FEE = 5 * 10**9
HOST_FEE = 3 * 10**9


def owed(factor: int = 1) -> int:
    """What USAGE costs a client off peak, times `factor`."""
    return factor * (8 * 10 + 3 * 1 + 7 * 100) * MILLION


def costs(factor: int = 1) -> int:
    """What USAGE costs us."""
    return factor * (8 * 4 * MILLION + 3 * MILLION // 2 + 7 * 40 * MILLION)


def beijing(text: str) -> float:
    return datetime.datetime.fromisoformat(f"{text}+08:00").timestamp()


class Clock:
    """When requests arrive."""

    def __init__(self, text: str) -> None:
        self.at = beijing(text)

    def __call__(self) -> float:
        return self.at

    def prepare(self, app: App) -> None:
        app.server.clock = self


def served(*hosts: str, **more: Any) -> dict[str, Any]:
    """A row of the model whose hosts cost us money."""
    return {"prices": PRICES, "hosts": [{"name": host, "prices": COSTS} for host in hosts], **more}


@dataclass(frozen=True)
class Booked:
    kind: str
    owed_pico: int
    cost_pico: int
    searches: int
    price: str
    hosts: tuple[tuple[str, int], ...]
    """What went to each host, by leg."""
    fees_pico: int
    """What the client paid for searches, in legs of their own."""


def booked(path: Path) -> list[Booked]:
    connection = sqlite3.connect(path)
    try:
        found = []
        for seq, *row in connection.execute(
            "SELECT hold_seq, kind, owed_pico, cost_pico, searches, price FROM resolutions ORDER BY hold_seq"
        ):
            legs = connection.execute(
                "SELECT credit, amount_pico FROM transfers WHERE seq = ? AND debit = 'cost' ORDER BY leg", (seq,)
            )
            (fees,) = connection.execute(
                "SELECT coalesce(sum(amount_pico), 0) FROM transfers WHERE seq = ? AND credit = 'fees'", (seq,)
            ).fetchone()
            to_hosts = tuple((credit.removeprefix("host:"), amount) for credit, amount in legs)
            found.append(Booked(*row, to_hosts, fees))
        return found
    finally:
        connection.close()


# Case 82: what holds when a request arrives.


def test_the_price_at_arrival_is_charged(tmp_path: Path) -> None:
    """Case 82: peak begins while a stream runs: its price is that of its arrival, for the client and at the host; the
    next request, a moment later, pays the peak."""
    clock = Clock("2026-11-25T08:59:59.999")
    go = asyncio.Event()

    async def act(here: Stage) -> None:
        early = await here.open(chat())
        await early.until(b"word0")
        clock.at = beijing("2026-11-25T09:00:00")
        late = await here.ask(chat(stream=False))
        assert late.status == 200
        go.set()
        assert (await early.rest()).complete

    def script(request: Any) -> Any:
        if json.loads(request.body).get("stream"):
            return [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(last() + DONE), LAST_CHUNK]
        return good(request)

    _, path = play(tmp_path, script, act=act, model=served("host0"), prepare=clock.prepare)
    first, second = booked(path)
    assert (first.owed_pico, first.cost_pico) == (owed(), costs())
    assert (second.owed_pico, second.cost_pico) == (owed(2), costs(2))
    assert first.price == f"models.{MODEL}@2026-01-01"
    assert second.price == f"models.{MODEL}@2026-01-01/peak"


def test_what_is_agreed_during_a_stream_holds_for_the_next(tmp_path: Path) -> None:
    """Case 82: an account's own price that is set while its stream runs is charged from the next request on, for that
    model and account only; once it is unset, the list's."""
    clock = Clock("2026-11-25T20:00:00")
    go = asyncio.Event()
    agreed = Override("bench", MODEL, "2026-11-25", {"factor": "0.5"}, 0.0)

    async def act(here: Stage) -> None:
        running = await here.open(chat())
        await running.until(b"word0")
        await here.app.store.overrides.set(agreed)
        go.set()
        await running.rest()
        await here.ask(chat(stream=False))
        clock.at = beijing("2026-11-24T23:59:59.999")
        await here.ask(chat(stream=False))
        clock.at = beijing("2026-11-26T10:00:00")
        await here.ask(chat(stream=False))
        await here.app.store.overrides.delete("bench", MODEL)
        await here.ask(chat(stream=False))

    def script(request: Any) -> Any:
        if json.loads(request.body).get("stream"):
            return [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(last() + DONE), LAST_CHUNK]
        return good(request)

    _, path = play(tmp_path, script, act=act, model=served("host0"), prepare=clock.prepare)
    found = booked(path)
    assert [row.owed_pico for row in found] == [owed(), owed() // 2, owed(), owed(), owed(2)]
    own = f"own:bench/{MODEL}@2026-11-25*models.{MODEL}@2026-01-01"
    assert [row.price for row in found[1:4]] == [own, found[0].price, own + "/peak"]
    assert [row.cost_pico for row in found] == [costs(), costs(), costs(), costs(2), costs(2)]


def test_own_prices_outlive_a_restart(tmp_path: Path) -> None:
    """What was agreed holds from the first request of the next start."""
    clock = Clock("2026-11-25T20:00:00")

    async def agree(here: Stage) -> None:
        price = {"prompt_miss": "1", "prompt_hit": "1", "completion": "1"}
        await here.app.store.overrides.set(Override("bench", MODEL, "2026-11-01", price, 0.0))

    async def act(here: Stage) -> Answer:
        return await here.ask(chat(stream=False))

    options: dict[str, Any] = {"model": served("host0"), "prepare": clock.prepare}
    play(tmp_path, good, act=agree, **options)
    _, path = play(tmp_path, good, act=act, **options)
    (row,) = booked(path)
    assert (row.owed_pico, row.price) == (18 * MILLION, f"own:bench/{MODEL}@2026-11-01")


def test_the_cheapest_host_changes_with_the_hour(tmp_path: Path) -> None:
    """Routing by price goes by what a host costs at that hour: one that is cheap at night is dear at peak."""
    clock = Clock("2026-11-25T20:00:00")
    night = [{**COSTS[0], "peak": {"calendar": "every-day", "factor": "10"}}]
    always = [{**COSTS[0], "completion": "50", "peak": {"calendar": "every-day", "factor": "1"}}]
    hosts = [{"name": "host0", "prices": always}, {"name": "host1", "prices": night}]

    def prepare(app: App) -> None:
        clock.prepare(app)
        app.platform.fleet.clock = clock

    async def act(here: Stage) -> None:
        await here.ask(chat(stream=False))
        clock.at = beijing("2026-11-26T10:00:00")
        await here.ask(chat(stream=False))

    model = {"prices": PRICES, "hosts": hosts, "routing": "price"}
    routing = Routing(affinity=False)
    _, path = play(tmp_path, good, good, act=act, model=model, prepare=prepare, routing=routing)
    assert [row.hosts[0][0] for row in booked(path)] == ["host1", "host0"]


# Case 91: a search is charged once.

FOUND = {"index": 1, "url": "https://example.com", "name": "A page"}
SEARCHED = event({"role": "assistant", "content": "", "search_results": [FOUND]})
SEARCHES = {"host": {"searches": True}}


def searched_body() -> bytes:
    body = json.loads(whole_body())
    body["choices"][0]["message"]["search_results"] = [FOUND]
    return json.dumps(body).encode()


def ask_for(stream: bool) -> Callable[[Stage], Any]:
    async def act(here: Stage) -> Answer:
        return await here.ask(chat(stream, enable_search=True))

    return act


def searching(_: Any) -> Any:
    return streamed(SEARCHED, *words(2), last(), DONE)


@pytest.mark.parametrize("stream", [True, False])
def test_a_search_is_charged_with_the_answer(tmp_path: Path, stream: bool) -> None:
    """Case 91: tokens and one search, for the client and at the host, streamed and whole."""
    clock = Clock("2026-11-25T20:00:00")
    steps = streamed(SEARCHED, *words(2), last(), DONE) if stream else [answer(searched_body())]
    _, path = play(
        tmp_path, lambda _: steps, act=ask_for(stream), model=served("host0"), prepare=clock.prepare, **SEARCHES
    )
    (row,) = booked(path)
    assert (row.kind, row.searches) == ("posted", 1)
    assert (row.owed_pico, row.cost_pico) == (owed() + FEE, costs() + HOST_FEE)
    assert row.fees_pico == FEE


def test_a_pack_of_searches_pays_for_one(tmp_path: Path) -> None:
    """Whoever bought search calls pays for tokens only; the pack has one call less."""
    clock = Clock("2026-11-25T20:00:00")
    pack = Pack("p", "bench", "paid", SEARCH, "calls", 10, "", 0.0, 2e10)

    async def act(here: Stage) -> int:
        books = here.app.store.books
        await books.add_pack(pack)
        await here.ask(chat(True, enable_search=True))
        await here.quiet()
        (left,) = await books.packs("bench", clock.at)
        return left.used

    used, path = play(tmp_path, searching, act=act, model=served("host0"), prepare=clock.prepare, **SEARCHES)
    (row,) = booked(path)
    assert (used, row.searches, row.owed_pico, row.fees_pico) == (1, 1, owed(), 0)


def test_searches_that_a_host_counts_are_charged_as_counted(tmp_path: Path) -> None:
    """A model that searched by itself: what the usage says, whether results were shown or not."""
    clock = Clock("2026-11-25T20:00:00")
    usage = {**USAGE, "server_tool_use": {"web_search_requests": 3}}

    def script(request: Any) -> Any:
        shown = [SEARCHED] if request.number else [ROLE]
        return streamed(*shown, *words(2), last(usage), DONE)

    async def act(here: Stage) -> None:
        for _ in range(2):
            await here.ask(chat())

    _, path = play(tmp_path, script, act=act, model=served("host0"), prepare=clock.prepare)
    for row in booked(path):
        assert (row.searches, row.owed_pico, row.fees_pico) == (3, owed() + 3 * FEE, 3 * FEE)
        assert row.cost_pico == costs() + 3 * HOST_FEE


def test_a_search_costs_the_same_at_peak(tmp_path: Path) -> None:
    """Tokens cost twice as much then, a search does not."""
    clock = Clock("2026-11-25T10:00:00")
    _, path = play(tmp_path, searching, act=ask_for(True), model=served("host0"), prepare=clock.prepare, **SEARCHES)
    assert booked(path)[0].owed_pico == owed(2) + FEE


def test_what_was_asked_for_and_not_found_costs_nothing(tmp_path: Path) -> None:
    """Who asks for a search and gets an answer without one pays for tokens; its hold covered the search too."""
    clock = Clock("2026-11-25T20:00:00")

    async def act(here: Stage) -> None:
        for stream in (True, False):
            await here.ask(chat(stream, enable_search=True))
            await here.ask(chat(stream))

    _, path = play(tmp_path, good, act=act, model=served("host0"), prepare=clock.prepare, **SEARCHES)
    assert [(row.owed_pico, row.searches) for row in booked(path)] == [(owed(), 0)] * 4
    connection = sqlite3.connect(path)
    held = [amount for (amount,) in connection.execute("SELECT amount_pico FROM holds ORDER BY seq")]
    connection.close()
    body = len(json.dumps(chat(True, enable_search=True)).encode()) - len(json.dumps(chat(True)).encode())
    assert held[0] - held[1] == FEE + body * 10 * MILLION


def test_a_search_is_charged_once_whoever_made_how_many(tmp_path: Path) -> None:
    """Case 91: the first host searches and fails before it said anything, the second searches and answers: the client
    pays one search and one answer, we owe both hosts a search, each in a leg of its own."""
    clock = Clock("2026-11-25T20:00:00")

    def failing(_: Any) -> Any:
        return [STREAM_HEAD, chunk(SEARCHED), close]

    _, path = play(
        tmp_path,
        failing,
        searching,
        act=ask_for(True),
        model=served("host0", "host1"),
        prepare=clock.prepare,
        **SEARCHES,
    )
    (row,) = booked(path)
    assert (row.kind, row.searches, row.owed_pico, row.fees_pico) == ("posted", 1, owed() + FEE, FEE)
    paid = dict(row.hosts)
    assert paid["host1"] == costs() + HOST_FEE
    question = paid["host0"] - HOST_FEE
    assert 0 < question < 100 * 4 * MILLION, "our own count of the question, and nothing said"


def test_a_search_is_charged_once_when_another_goes_on(tmp_path: Path) -> None:
    """Case 91: a stream breaks off after its search and some words, and another host, which searches again, goes on
    with it: one search for the client, one at each host."""
    clock = Clock("2026-11-25T20:00:00")

    def broken(_: Any) -> Any:
        return [STREAM_HEAD, chunk(SEARCHED), chunk(words(1)[0]), close]

    _, path = play(
        tmp_path,
        broken,
        searching,
        act=ask_for(True),
        model=served("host0", "host1"),
        prepare=clock.prepare,
        streams=Streams(continuation="same"),
        **SEARCHES,
    )
    (row,) = booked(path)
    assert (row.kind, row.searches) == ("posted", 1)
    assert FEE < row.owed_pico < FEE + 2 * owed()
    assert row.cost_pico == costs() + HOST_FEE
    assert len(row.hosts) == 2
    assert all(amount > HOST_FEE for _, amount in row.hosts)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_search_of_a_host_that_failed_is_not_the_next_hosts(tmp_path: Path, goes_on: bool) -> None:
    """Case 91: the host that answers, or goes on, did not search: it charges us none. The client pays for the search
    where it read the results, and not where another answer came in the place of that one."""
    clock = Clock("2026-11-25T20:00:00")
    said = [chunk(words(1)[0])] if goes_on else []

    def failing(_: Any) -> Any:
        return [STREAM_HEAD, chunk(SEARCHED), *said, close]

    _, path = play(
        tmp_path,
        failing,
        good,
        act=ask_for(True),
        model=served("host0", "host1"),
        prepare=clock.prepare,
        streams=Streams(continuation="same"),
        **SEARCHES,
    )
    (row,) = booked(path)
    assert (row.kind, row.searches, row.fees_pico) == ("posted", int(goes_on), int(goes_on) * FEE)
    assert row.cost_pico == dict(row.hosts)["host1"] == costs()
    assert dict(row.hosts)["host0"] > HOST_FEE


@pytest.mark.parametrize("stream", [True, False])
def test_a_search_without_an_answer_is_ours_to_pay(tmp_path: Path, stream: bool) -> None:
    """Case 91: every host fails after its search and before a word: nothing was delivered, so the client owes nothing;
    what we owe is booked."""
    clock = Clock("2026-11-25T20:00:00")
    steps = [STREAM_HEAD, chunk(SEARCHED), close]
    _, path = play(
        tmp_path, lambda _: steps, act=ask_for(stream), model=served("host0"), prepare=clock.prepare, **SEARCHES
    )
    (row,) = booked(path)
    assert (row.kind, row.owed_pico, row.searches) == ("voided", 0, 0)
    if stream:
        assert row.cost_pico > HOST_FEE


def test_a_client_that_leaves_pays_for_the_search_it_was_shown(tmp_path: Path) -> None:
    """Case 91: with what it read; estimated, because the host never said its usage."""
    clock = Clock("2026-11-25T20:00:00")
    go = asyncio.Event()

    async def act(here: Stage) -> None:
        client = await here.open(chat(True, enable_search=True))
        await client.until(b"word0")
        client.reset()
        await here.quiet()
        go.set()

    def script(_: Any) -> Any:
        return [STREAM_HEAD, chunk(SEARCHED), chunk(words(1)[0]), gate(go), close]

    _, path = play(tmp_path, script, act=act, model=served("host0"), prepare=clock.prepare, **SEARCHES)
    (row,) = booked(path)
    assert (row.kind, row.searches) == ("posted", 1)
    assert FEE < row.owed_pico < FEE + owed()


def test_usage_of_the_stage_is_what_the_sums_say() -> None:
    """The sums above are of this usage."""
    assert (USAGE["prompt_cache_miss_tokens"], USAGE["prompt_cache_hit_tokens"], USAGE["completion_tokens"]) == (
        8,
        3,
        7,
    )
