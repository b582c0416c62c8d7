"""A host whose name leads somewhere else, nowhere, or takes its time: RELIABILITY case 40, through the whole server.
The answers of the name service are the test's, the addresses are loopback's, the minutes are driven."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.driven import by_clock, pass_time
from faults.sink import Clock
from faults.stage import Answer, Stage, good, records, stage, until
from faults.storm import storm, well
from faults.upstream import Upstream
from moonpool.relay.health import FAILURES_MAX
from moonpool.settings_hosts import Routing

NAME = "provider.test"
ASIDE = {"routing": Routing(affinity=False)}
"""Who has the conversation's cache does not matter here."""
Look = Callable[[str, int], Awaitable[Sequence[tuple[int, str]]]]


def at(address: str) -> tuple[tuple[int, str], ...]:
    return ((socket.AF_INET, address),)


class Names:
    """A name service: `says` is its next answer, an error or addresses; it counts who asked."""

    def __init__(self, says: Any) -> None:
        self.says = says
        self.asked = 0

    async def __call__(self, hostname: str, port: int) -> Sequence[tuple[int, str]]:
        assert hostname == NAME
        self.asked += 1
        says = self.says() if callable(self.says) else self.says
        if isinstance(says, asyncio.Event):
            await says.wait()
            return at("127.0.0.1")
        if isinstance(says, BaseException):
            raise says
        return tuple(says)


def play(
    home: Path,
    names: Names,
    clock: Clock,
    act: Callable[[Stage, list[Upstream]], Awaitable[Any]],
    spare: bool = False,
    scheme: str = "http",
) -> Any:
    """Two hosts at one port of two loopback addresses, known by one name only; `spare`: one more host that has no name
    and comes second. They speak no TLS: to `https` they say nothing."""

    async def run() -> Any:
        async with Upstream(good) as one, Upstream(good, host="127.0.0.2", port=one.port) as other:
            row = {"base_url": f"{scheme}://{NAME}:{one.port}", "dialect": "deepseek", "api_key": "key-of-the-host"}
            rows = {"named": row}
            async with Upstream(good) as third:
                if spare:
                    rows["spare"] = {**row, "base_url": third.base_url}
                async with stage(home, rows=rows, prepare=by_clock(clock, resolve=names), **ASIDE) as here:
                    return await act(here, [one, other, third])

    return uvloop.run(run())


def test_a_name_that_flips_is_followed_and_not_asked_too_often(tmp_path: Path) -> None:
    """Case 40: with each answer another address. Whatever comes within the time an answer is kept goes to one address,
    with one look-up; later the other serves."""
    flips = [at("127.0.0.1"), at("127.0.0.2")]
    names, clock = Names(lambda: flips[names.asked % 2]), Clock()

    async def act(here: Stage, hosts: list[Upstream]) -> None:
        for turn in range(6):
            before = [len(host.requests) for host in hosts]
            found = await storm(here, 4, 2)
            await pass_time(here, clock, 10)
            found += await storm(here, 16, 8)
            assert all(well(got) for got, _ in found)
            asked = [len(host.requests) - count for host, count in zip(hosts, before, strict=True)]
            assert sorted(asked) == [0, 0, 20]
            assert asked[(turn + 1) % 2] == 20
            assert names.asked == turn + 1
            await pass_time(here, clock, 40)

    play(tmp_path, names, clock, act)
    assert {(row.kind, row.attempts) for row in records(tmp_path / "moonpool.db")} == {("posted", 1)}


def test_an_address_that_died_is_not_held_on_to(tmp_path: Path) -> None:
    """Case 40: the known address died and the name leads elsewhere by now: no client notices, though what is known
    would be kept a while."""
    names, clock = Names(at("127.0.0.1")), Clock()

    async def act(here: Stage, hosts: list[Upstream]) -> None:
        assert well(await here.ask())
        await hosts[0].__aexit__()
        names.says = at("127.0.0.2")
        assert all(well(got) for got, _ in await storm(here, 10, 2))
        assert len(hosts[1].requests) == 10
        assert names.asked == 2

    play(tmp_path, names, clock, act)


def test_an_address_that_swallows_everything_is_not_held_on_to(tmp_path: Path) -> None:
    """Case 40: the known address takes a connection and then nothing more comes of it: after `connect_s` another host
    serves, and whoever comes next asks for the name again, though what is known would be kept a while."""
    names, clock = Names(at("127.0.0.1")), Clock()

    async def act(here: Stage, hosts: list[Upstream]) -> None:
        for turn in range(3):
            client = await here.open()
            await hosts[0].until_open(1)
            await pass_time(here, clock, 6)
            assert well(await client.rest())
            assert names.asked == turn + 1

    play(tmp_path, names, clock, act, spare=True, scheme="https")


@pytest.mark.parametrize("spare", [True, False])
def test_a_name_that_does_not_exist_opens_the_breaker(tmp_path: Path, spare: bool) -> None:
    """Case 40: no such name: another host serves everybody, else 502 and then 503 with a time; the name service is
    asked no more than once a second when the breaker is open. When the name is back, so is the host."""
    names, clock = Names(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), Clock()

    async def act(here: Stage, hosts: list[Upstream]) -> list[Answer]:
        found = [await here.ask() for _ in range(40)]
        assert names.asked <= FAILURES_MAX + 1
        for _ in range(20):
            await pass_time(here, clock, 1)
            found += [await here.ask() for _ in range(5)]
        assert names.asked <= FAILURES_MAX + 1 + 20
        names.says = at("127.0.0.1")
        await pass_time(here, clock, 31)
        assert well(await here.ask())
        assert len(hosts[0].requests) == 1
        return found

    found = play(tmp_path, names, clock, act, spare)
    if spare:
        assert all(map(well, found))
    else:
        assert {got.status for got in found} == {502, 503}
        assert all(int(got.fields["retry-after"]) >= 1 for got in found if got.status == 503)
        assert not any(NAME.encode() in got.body for got in found), "no client hears how our hosts are called"


def test_a_slow_name_holds_nobody_up(tmp_path: Path) -> None:
    """Case 40: a look-up that takes for ever: who waits for it goes to another host after `connect_s`; there is one
    look-up, however many wait; nothing was sent, so no retry is taken from the budget; other requests are served
    meanwhile."""
    names, clock = Names(asyncio.Event), Clock()

    async def act(here: Stage, hosts: list[Upstream]) -> list[Answer]:
        waiting = [await here.open() for _ in range(8)]
        transport = here.app.transports["http"]
        await until(lambda: len(transport.active) == 8, "they wait for the name")  # type: ignore[attr-defined]
        probe = await here.get("/v1/models")
        assert probe.status == 200
        await pass_time(here, clock, 4)
        assert not hosts[2].requests
        await pass_time(here, clock, 2)
        found = [await client.rest() for client in waiting]
        assert names.asked == 1
        return found

    found = play(tmp_path, names, clock, act, spare=True)
    assert all(map(well, found))
    assert {(row.attempts, row.host) for row in records(tmp_path / "moonpool.db")} == {(2, "spare")}
