"""Streams that break off and go on elsewhere, over sockets: every event boundary, in the thinking and in the answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import force_setattr

from faults.speaker import ANSWER, THOUGHTS, Speaker
from faults.stage import KEY, Answer, Stage, chat, failed, records, stage, until
from faults.twins import thought
from faults.upstream import Peer, Request, Step, close, rst, stall
from moonpool.relay.fleet import Fleet
from moonpool.settings import Streams

PRICES = [{"valid_from": "2020-01-01", "prompt_miss": "1", "prompt_hit": "1", "completion": "2"}]
THINKING = {"thinking": "default_on", "can": ["thinking", "prefix", "prefix_thinking"], "prices": PRICES}
ON, SAME = Streams(continuation="on"), Streams(continuation="same")


async def fresh(here: Stage) -> None:
    """The hosts have no past."""
    platform = here.app.platform
    force_setattr(platform, "fleet", Fleet(platform.settings.routing, time.monotonic, platform.journal.note))


def play(home: Path, *hosts: Any, asks: int = 1, streams: Streams = SAME, **options: Any) -> tuple[list[Answer], Path]:
    """Ask so often, each time of hosts without a past."""

    async def run() -> tuple[list[Answer], Path]:
        async with stage(home, *hosts, streams=streams, model=THINKING, **options) as here:
            got = []
            for number in range(asks):
                await fresh(here)
                body = chat(messages=[{"role": "user", "content": f"ask {number}"}])
                got.append(await here.ask(body, path="/beta/chat/completions"))
                await here.quiet()
        return got, here.path

    return asyncio.run(run())


def number_of(request: Request) -> int:
    return int(json.loads(request.body)["messages"][0]["content"].removeprefix("ask "))


EVENTS = 1 + len(THOUGHTS) + len(ANSWER) + 1


@pytest.mark.parametrize("fault", [rst, close], ids=["rst", "fin"])
@pytest.mark.parametrize("thinks", [True, False], ids=["thinking", "plain"])
def test_a_stream_cut_at_every_event_boundary_is_the_same(tmp_path: Path, fault: Step, thinks: bool) -> None:
    """The client reads the text of an uncut stream, under one id, with one end, and is charged once."""
    count = EVENTS + 1 if thinks else EVENTS + 1 - len(THOUGHTS)
    breaks = Speaker(number_of, fault, thinks)
    goes_on = Speaker(lambda request: None, thinks=thinks)
    answers, path = play(tmp_path, breaks, goes_on, asks=count)
    for at, got in enumerate(answers):
        assert (got.status, got.failure, got.complete) == (200, None, True), at
        assert thought(got) == "".join(THOUGHTS if thinks else []), at
        assert got.text == "".join(ANSWER), at
        assert len({value["id"] for value in got.events if value != "[DONE]"}) == 1
        usages = [value["usage"] for value in got.events if value != "[DONE]" and value.get("usage")]
        assert len(usages) == 1
    rows = records(path)
    assert len(rows) == count
    assert {row.kind for row in rows} == {"posted"}
    continued = [at for at, got in enumerate(answers) if b": continued by host1\n\n" in got.body]
    assert continued == list(range(2, count - 1)), (
        "not before the first word, and not when only the end mark is missing"
    )
    for at in continued:
        assert (rows[at].attempts, rows[at].estimated) == (2, True)


def test_the_client_pays_once_and_we_owe_both(tmp_path: Path) -> None:
    """Two hosts worked: what the client pays is one answer, what we owe is a part to each."""
    breaks = Speaker(lambda request: 8)
    answers, path = play(tmp_path, breaks, Speaker(lambda request: None), host={"listed": True})
    (row,) = records(path)
    usage = next(value["usage"] for value in answers[0].events if value != "[DONE]" and value.get("usage"))
    assert (usage["prompt_tokens"] + usage["completion_tokens"]) == 20 + len(ANSWER) - 2
    assert (row.prompt, row.completion) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert row.owed_pico == row.prompt * 1_000_000 + row.completion * 2_000_000
    with sqlite3.connect(path) as ledger:
        owed = dict(ledger.execute("SELECT credit, amount_pico FROM transfers WHERE debit = 'cost'").fetchall())
    assert set(owed) == {"host:host0", "host:host1"}
    assert owed["host:host1"] == 20 * 1_000_000 + (len(ANSWER) - 2) * 2_000_000
    assert owed["host:host0"] > 0


def test_a_stream_that_breaks_again_goes_on_again(tmp_path: Path) -> None:
    """As long as there are attempts left: here the same host, over and over."""
    cuts = iter([4, 4, 5, None])
    answers, path = play(tmp_path, Speaker(lambda request: next(cuts)))
    assert (thought(answers[0]), answers[0].text) == ("".join(THOUGHTS), "".join(ANSWER))
    assert records(path)[0].attempts == 4


def test_it_gives_up_honestly(tmp_path: Path) -> None:
    """When there is nobody left: what was said stays, an error event ends it, and that was paid."""
    answers, path = play(tmp_path, Speaker(lambda request: 3))
    assert answers[0].failure is not None
    assert answers[0].failure["code"] == "upstream_incomplete"
    (row,) = records(path)
    assert (row.kind, row.estimated) == ("posted", True)


def test_a_dead_host_in_between_costs_nothing(tmp_path: Path) -> None:
    """Whoever cannot even be reached, or refuses, is passed over for the next."""
    breaks = Speaker(lambda request: 8)

    def refuses(request: Request) -> list[Step]:
        return failed("503 Service Unavailable", "busy")

    answers, _ = play(tmp_path, breaks, refuses, Speaker(lambda request: None))
    assert answers[0].text == "".join(ANSWER)
    assert b": continued by host2\n\n" in answers[0].body


def test_a_stalled_stream_goes_on(tmp_path: Path) -> None:
    """Silence beyond the gap is a break as well (RELIABILITY case 16, where it can be mended)."""
    answers, _ = play(tmp_path, Speaker(lambda request: 8, stall), Speaker(lambda request: None), host={"gap_s": 0.2})
    assert answers[0].text == "".join(ANSWER)


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"logprobs": True},
        {"n": 2},
    ],
    ids=["json", "tools", "logprobs", "n"],
)
def test_what_cannot_be_gone_on_with_ends_with_an_error(tmp_path: Path, body: dict[str, Any]) -> None:
    """An error event at once, and no other host is bothered."""
    can = {**THINKING, "can": ["thinking", "prefix", "prefix_thinking", "json_object", "tools", "logprobs", "n"]}
    second = Speaker(lambda request: None)

    async def run() -> Answer:
        async with stage(tmp_path, Speaker(lambda request: 8), second, streams=ON, model=can) as here:
            return await here.ask(chat(messages=[{"role": "user", "content": "json, ask 0"}], **body))

    got = asyncio.run(run())
    assert got.failure is not None
    assert second.asked == []


def test_only_the_same_model_goes_on_unless_more_is_allowed(tmp_path: Path) -> None:
    """Another model behind the same name is a stranger: by default it is not asked, with `on` it is; a key may say
    off."""
    second = Speaker(lambda request: None)
    rows = {"hosts": ["host0", {"name": "host1", "model": "another"}], **THINKING}

    async def run(streams: Streams, **switches: str) -> Answer:
        cuts = iter([8, 1, 1, 1, 1])
        home = tmp_path / f"{streams.continuation}-{len(switches)}"
        first = Speaker(lambda request: next(cuts), close)
        async with stage(home, first, second, streams=streams, model=rows) as here:
            key = await here.key("another-key-of-the-stage", **switches)
            return await here.ask(chat(messages=[{"role": "user", "content": "ask 0"}]), key=key)

    assert asyncio.run(run(SAME)).failure is not None
    assert second.asked == []
    assert asyncio.run(run(ON, continuation="off")).failure is not None
    assert second.asked == []
    assert asyncio.run(run(ON)).text == "".join(ANSWER)
    assert second.asked[0]["model"] == "another"


def test_a_client_that_leaves_is_not_continued(tmp_path: Path) -> None:
    """Nobody reads on, so nobody is asked."""
    second = Speaker(lambda request: None)

    async def run() -> None:
        async with stage(tmp_path, Speaker(lambda request: 8, stall), second, streams=SAME, model=THINKING) as here:
            client = await here.open(chat(messages=[{"role": "user", "content": "ask 0"}]))
            await client.until(b"sum")
            client.reset()
            await here.quiet()

    asyncio.run(run())
    assert second.asked == []


@pytest.mark.parametrize("there", [False, True])
def test_a_resumable_stream_goes_on_whether_or_not_its_client_is_there(tmp_path: Path, there: bool) -> None:
    """The client is cut, then the host: who comes back, before or after that, reads the same text, with one end, and is
    charged once. The remark on who goes on is no event, so the count is not disturbed."""
    go = asyncio.Event()

    async def break_off(peer: Peer) -> None:
        await go.wait()
        await rst(peer)

    async def run() -> tuple[bytes, Answer]:
        breaks, goes_on = Speaker(lambda request: 8, break_off), Speaker(lambda request: None)
        async with stage(tmp_path, breaks, goes_on, streams=SAME, model=THINKING) as here:
            first = await here.open(chat(), path="/beta/chat/completions", fields={"x-moonpool-resume": "1"})
            await first.until(b"sum")
            first.reset()
            tapes = here.app.platform.tapes
            await until(lambda: bool(tapes.detached), "the stream is detached")
            path = f"/v1/streams/{first.fields['x-moonpool-stream']}?after="
            fields = {"Authorization": f"Bearer {KEY}"}
            if there:
                second = await here.connect()
                second.send("GET", path + str(first.body.count(b"data: ")), fields=fields)
                await second.head()
            go.set()
            await here.quiet()
            return first.body, await second.rest() if there else await here.get(path + str(first.body.count(b"data: ")))

    begin, rest_of_it = asyncio.run(run())
    got = Answer(200, {}, begin + rest_of_it.body, rest_of_it.complete)
    assert (thought(got), got.text, got.failure) == ("".join(THOUGHTS), "".join(ANSWER), None)
    assert (b": continued by host1\n\n" in got.body) == there
    (row,) = records(tmp_path / "moonpool.db")
    assert (row.kind, row.attempts) == ("posted", 2)
