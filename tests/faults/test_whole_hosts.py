"""Two providers that die, hang, fail, come back or lie, with their own record of what they did: RELIABILITY cases 14,
15 and 30 to 34, the minutes among them driven."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import force_setattr

from faults.driven import FLASH, before_twins, by_clock, pass_time
from faults.sink import Clock
from faults.stage import Answer, Stage, chat, only, records, stage, streamed, until, whole_body
from faults.storm import forget, middle, served, storm, well
from faults.upstream import answer
from moonpool.relay.fleet import RETRIES_FIRST
from moonpool.relay.health import EJECT_S, ROOM_FIRST
from moonpool.settings import Log, Streams
from moonpool.settings_hosts import Routing
from moonpool.twin.log import Served

FAILOVER_S = 0.25
ASIDE = Routing(affinity=False)
"""Who has the conversation's cache does not matter here."""


def ask(here: Stage, **more: Any) -> Any:
    return here.ask(chat(model=FLASH, **more))


# 14: the first of two is gone.


@pytest.mark.parametrize("at_once", [1, 10])
def test_a_provider_that_dies_under_load_is_not_noticed(tmp_path: Path, at_once: int) -> None:
    """Case 14: the preferred twin goes down between and under requests, its running streams with it, and comes back.
    At least 99.9 % read a whole answer, all the same one, each paid once; attempts stay in the budget."""
    count = 600

    async def run() -> tuple[list[tuple[Answer, float]], list[int]]:
        async with before_twins(tmp_path, [{"slow_ms": 1}], None, streams=Streams(continuation="same")) as (
            here,
            twins,
        ):
            asking = asyncio.create_task(storm(here, count, at_once, model=FLASH))
            await twins[0].until(lambda: len(twins[0].served) >= 30)
            await twins[0].down()
            await twins[1].until(lambda: len(twins[1].served) >= 300)
            await twins[0].up()
            found = await asking
            await here.quiet()
            return found, [len(twin.served) for twin in twins]

    found, asked = uvloop.run(run())
    assert served(found) >= 0.999
    assert len({got.text for got, _ in found if well(got)}) == 1
    assert sum(asked) <= 1.2 * count + RETRIES_FIRST
    assert asked[1] >= 300
    rows = records(tmp_path / "moonpool.db")
    assert len(rows) == count
    assert sum(row.kind == "posted" for row in rows) >= 0.999 * count


def test_failing_over_from_a_dead_provider_takes_no_time_to_speak_of(tmp_path: Path) -> None:
    """Case 14: each request finds out by itself that the twin is gone, and takes at most 250 ms more than before."""

    async def run() -> tuple[list[tuple[Answer, float]], list[tuple[Answer, float]], list[Any]]:
        async with before_twins(tmp_path, None, None) as (here, twins):
            usual = await storm(here, 30, 1, model=FLASH)
            await twins[0].down()
            late = []
            for _ in range(30):
                forget(here)
                late += await storm(here, 1, 1, model=FLASH)
            await here.quiet()
            return usual, late, list(twins[1].served)

    usual, late, second = uvloop.run(run())
    assert [well(got) for got, _ in usual + late] == [True] * 60
    assert middle(late) - middle(usual) <= FAILOVER_S
    assert [at.ended for at in second] == ["whole"] * 30
    assert [row.attempts for row in records(tmp_path / "moonpool.db")] == [1] * 30 + [2] * 30


# 15: it accepts, and says nothing.


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """A host where the system takes connections that nobody ever accepts."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["mute", "deaf"])
def test_who_accepts_and_never_answers_is_left_after_ten_minutes(tmp_path: Path, how: str, stream: bool) -> None:
    """Case 15: the default deadline for the first content, by a driven clock. With another twin that one serves; the
    client heard keep-alives meanwhile, and pays for what it read. The mute one saw us hang up."""
    clock = Clock()

    async def run(base_url: str) -> None:
        mute = [{"stall_after": 0}]
        async with before_twins(tmp_path, mute, None, prepare=by_clock(clock)) as (here, twins):
            if how == "deaf":
                _point(here, "twin0", base_url)
            client = await here.open(chat(stream, model=FLASH))
            transport = here.app.transports["http"]
            await until(lambda: _running(transport), "it is asked")
            await pass_time(here, clock, 590)
            await client.until(b"\n", 50)
            assert not twins[1].served, "it is waited for"
            await pass_time(here, clock, 11)
            got = await client.rest()
            assert got.status == 200
            assert (got.text if stream else got.json["choices"][0]["message"]["content"]) != ""
            if how == "mute":
                await twins[0].until(lambda: [at.ended for at in twins[0].served] == ["gone"])

    with deaf() as base_url:
        uvloop.run(run(base_url))
    record = only(tmp_path / "moonpool.db")
    assert (record.kind, record.attempts, record.host, record.estimated) == ("posted", 2, "twin1", False)


@pytest.mark.parametrize("keepalive_s", [0, 10])
def test_who_never_answers_and_is_alone_is_a_504(tmp_path: Path, keepalive_s: int) -> None:
    """Case 15: nobody else: 504 with keep-alives off, an error event after them; nothing is owed, and what the provider
    may want for it is unknown."""
    clock = Clock()

    async def run() -> Answer:
        options = {"prepare": by_clock(clock), "streams": Streams(continuation="off", keepalive_s=keepalive_s)}
        async with before_twins(tmp_path, [{"stall_after": 0}], **options) as (here, twins):
            client = await here.open(chat(model=FLASH))
            await twins[0].until(lambda: twins[0].served)
            await pass_time(here, clock, 605)
            return await client.rest()

    got = uvloop.run(run())
    if keepalive_s:
        assert got.failure is not None
        assert (got.status, got.failure["code"], got.complete) == (200, "upstream_timeout", True)
        assert got.body.count(b": keep-alive") >= 59
    else:
        assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    record = only(tmp_path / "moonpool.db")
    assert (record.kind, record.cause, record.owed_pico) == ("voided", "upstream.timeout", 0)


def _point(here: Stage, name: str, base_url: str) -> None:
    """Let a host's row lead elsewhere."""
    model = here.app.platform.catalogue.find(FLASH)
    (host,) = [target.host for target in model.targets if target.host.name == name]
    force_setattr(host, "base_url", base_url)


def _running(transport: Any) -> bool:
    return any(exchange.connection is not None for exchange in transport.active)


# 30 to 33: minutes of failures.


async def seconds(here: Stage, clock: Clock, span_s: int, each: int) -> list[list[Answer]]:
    """`each` requests in each of so many seconds."""
    found = []
    for _ in range(span_s):
        found.append([got for got, _ in await storm(here, each, 4, model=FLASH)])
        await pass_time(here, clock, 1)
    return found


FAILS = [{"problem": "upstream.failed"}]


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_minute_in_which_everything_fails(tmp_path: Path, hosts: int) -> None:
    """Case 30: all twins fail for a minute under load. Attempts stay below 1.2 times the requests; breakers open, and
    then each twin sees one probe a second; who is refused hears when to come back."""
    clock, each = Clock(), 30

    async def run() -> tuple[list[list[Answer]], list[list[int]]]:
        async with before_twins(tmp_path, *[FAILS] * hosts, prepare=by_clock(clock)) as (here, twins):
            found, asked = [], []
            for _ in range(60):
                before = [len(twin.served) for twin in twins]
                found += await seconds(here, clock, 1, each)
                asked.append([len(twin.served) - count for twin, count in zip(twins, before, strict=True)])
            return found, asked

    found, asked = uvloop.run(run())
    assert sum(map(sum, asked)) <= 1.2 * 60 * each + RETRIES_FIRST
    assert max(count for second in asked[1:] for count in second) <= 1, asked
    statuses = Counter(got.status for second in found for got in second)
    assert set(statuses) <= {502, 503}
    assert statuses[503] >= 0.9 * 60 * each
    assert all(1 <= int(got.fields["retry-after"]) <= 30 for row in found for got in row if got.status == 503)


def test_a_provider_that_fails_at_times_for_minutes(tmp_path: Path) -> None:
    """Case 31: three of ten fail, for six minutes. The other twin serves, nobody notices, and the state of the bad one
    changes less than three times in any minute."""
    clock = Clock()

    async def run() -> tuple[list[list[Answer]], list[int]]:
        script = [{**FAILS[0], "probability": 0.3}]
        async with before_twins(tmp_path, script, None, prepare=by_clock(clock), routing=ASIDE) as (here, _):
            found, changes = [], []
            for _ in range(360):
                found += await seconds(here, clock, 1, 4)
                changes.append(_place(here, "twin0").health.changes)
            return found, changes

    found, changes = uvloop.run(run())
    answers = [got for second in found for got in second]
    assert sum(map(well, answers)) >= 0.99 * len(answers)
    assert changes[-1] >= 1, "it was ejected"
    assert max(after - before for before, after in zip(changes, changes[60:], strict=False)) < 3


def _place(here: Stage, name: str) -> Any:
    return next(site for site in here.app.platform.fleet.sites() if site.host == name)


def test_a_provider_that_comes_back_is_not_overrun(tmp_path: Path) -> None:
    """Case 32: gone for five minutes, then back under load: one probe looks, then two run at once, and one more with
    each answer that has begun, as the twin itself counts. Nobody waits for it, and nobody fails."""
    clock, first_s = Clock(), 0.03

    async def run() -> tuple[list[Answer], list[Served]]:
        options = {"prepare": by_clock(clock), "routing": ASIDE}
        slow = [{"slow_ms": 1, "first_ms": first_s * 1000}]
        async with before_twins(tmp_path, slow, None, **options) as (here, twins):
            await ask(here)
            await twins[0].down()
            found = [got for second in await seconds(here, clock, 300, 2) for got in second]
            past = len(twins[0].served)
            await twins[0].up()
            await pass_time(here, clock, 31)
            found += [got for got, _ in await storm(here, 400, 40, model=FLASH)]
            await here.quiet()
            return found, twins[0].served[past:]

    found, back = uvloop.run(run())
    assert all(map(well, found))
    assert back[0].at_once == 1
    assert len(back) > 10, "it serves again"
    for one in back:
        begun = sum(other.at + 0.9 * first_s <= one.at for other in back)
        assert one.at_once <= max(1, begun and ROOM_FIRST + begun - 1), f"{begun} have begun"


def test_when_all_are_ejected_the_least_bad_is_tried(tmp_path: Path) -> None:
    """Case 33: one twin fails every second time, the other every third: both are ejected, and the better one is tried
    nevertheless. When both are dead, 503 says when to come back."""
    clock = Clock()

    async def run() -> tuple[list[Answer], list[int], list[Answer]]:
        scripts = [[{**FAILS[0], "every": every}] for every in (2, 3)]
        model = {"routing": "least_busy"}
        async with before_twins(tmp_path, *scripts, prepare=by_clock(clock), model=model, routing=ASIDE) as (
            here,
            twins,
        ):
            for _ in range(100):
                await ask(here)
            assert [_place(here, f"twin{at}").health.trouble for at in (0, 1)] == ["ejected"] * 2
            before = [len(twin.served) for twin in twins]
            panic = [await ask(here) for _ in range(30)]
            asked = [len(twin.served) - count for twin, count in zip(twins, before, strict=True)]
            for twin in twins:
                await twin.down()
            for _ in range(30):
                await ask(here)
            return panic, asked, [await ask(here) for _ in range(5)]

    panic, asked, dead = uvloop.run(run())
    assert asked[1] >= 30, "the least bad is asked"
    assert asked[1] > asked[0]
    assert sum(map(well, panic)) >= 20
    assert {got.status for got in panic} <= {200, 502}
    assert {got.status for got in dead} == {503}
    assert all(1 <= int(got.fields["retry-after"]) <= EJECT_S for got in dead)


# 34: an answer in another's name.


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_in_another_name_is_logged_and_billed_as_asked(tmp_path: Path, stream: bool, capfd: Any) -> None:
    """Case 34: another model, another request: the client reads the name it asked for, the price is that one's, and the
    log says what the host called itself."""
    prices = [{"valid_from": "2020-01-01", "prompt_miss": "1", "prompt_hit": "1", "completion": "2"}]
    other = b'"gigantic-model"'
    body = whole_body().replace(b'"deepseek-chat"', other)
    event = (
        b'data: {"id":"of-another","model":"gigantic-model","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    )
    end = (
        b'data: {"id":"of-yet-another","model":"gigantic-model","choices":[{"index":0,"delta":{},'
        b'"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}\n\n'
        b"data: [DONE]\n\n"
    )
    steps = streamed(event, end) if stream else [answer(body)]

    async def run() -> Answer:
        async with stage(tmp_path, lambda _: steps, model={"prices": prices}, log=Log(requests=True)) as here:
            return await here.ask(chat(stream))

    got = uvloop.run(run())
    assert other not in got.body
    said = got.events[0] if stream else got.json
    assert said["model"] == "deepseek-chat"
    record = only(tmp_path / "moonpool.db")
    assert (record.model, record.owed_pico) == ("deepseek-chat", 11 * 1_000_000 + 7 * 2_000_000)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["model"], line["answered_model"]) == ("deepseek-chat", "gigantic-model")
