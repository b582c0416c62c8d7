"""A world in which one account asks for much more than its host has room for, while others ask for little.

The host has so many places, and answers each request as long as was asked for. Those who ask for little come at a
steady pace; when they come and how long they are answered is the seed's, so that a world with the crowd and one without
it differ in nothing else.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from faults.stage import DONE, ROLE, event, last
from moonpool.app import App
from moonpool.settings import Settings
from moonpool.settings_hosts import Routing
from moonpool.words import Account, Host, Key, Outbound
from simulation.machine import TEXT, Dispatch, SimulatedHost, chat
from simulation.world import BEGIN, Asked, Client, World, digest, key_id

CROWD = "a"
OTHERS = ("b", "c", "d")
PLACES = 32
WAITING = 100
PACE = 3.0
"""Requests a second of the others in all. They take a second on average, those of the crowd twenty."""
ALONE_S = 10.0
TOGETHER_S = 60.0
LATE_S = 5.0
_PIECES = 4
_TOKENS_PER_S = 100


class SteadyHost(SimulatedHost):
    """Is never unwell. What it takes for one request is that request's own, whatever else runs there."""

    seed = ""
    together = 0

    def send(self, host: Host, outbound: Outbound, sink: Any) -> Any:
        self._chance = random.Random(f"{self.seed} {json.loads(outbound.body)['user']}")
        inbound = super().send(host, outbound, sink)
        self.together = max(self.together, sum(map(len, self.running.values())))
        return inbound

    def _play(self, dispatch: Dispatch, inbound: Any, sink: Any, tokens_max: int) -> None:
        span_s = tokens_max / _TOKENS_PER_S
        at = self._chance.uniform(0.2, 0.4)
        inbound.later(at, sink.head, 200, {"content-type": "text/event-stream"})
        inbound.later(at, sink.data, ROLE)
        for piece in range(_PIECES):
            inbound.later(at + piece * (span_s - at) / _PIECES, sink.data, event({"content": TEXT}))
        completion = -(-3 * _PIECES * len(TEXT) // 10)
        usage = {"prompt_tokens": 30, "completion_tokens": completion, "total_tokens": 30 + completion}

        def ends() -> None:
            inbound.close()  # its place is free before anybody hears of it
            sink.data(last(usage) + DONE)
            sink.end(None)

        inbound.later(span_s, ends)


class Crowd(World):
    """The others ask for a while, then for longer beside the crowd, if there is one: PLACES + WAITING requests at once,
    and one more for each that ends."""

    def __init__(self, seed: str, folder: Path, image: bytes, *, crowd: bool) -> None:
        super().__init__(seed, folder, image, {})
        self.seed, self.crowd = seed, crowd
        self.host = self.steady = SteadyHost(self.now, self.chance)
        self.steady.seed = seed
        self.numbers = dict.fromkeys((CROWD, *OTHERS), 0)
        self.begin = BEGIN

    def live(self) -> None:
        assert self.live_process(BEGIN)

    def _settings(self) -> Settings:
        settings = super()._settings()
        hosts = {name: {**row, "concurrency": PLACES} for name, row in settings.hosts.items()}
        return replace(settings, hosts=hosts, routing=Routing(queue_s=3600.0))

    async def _process(self, until: float) -> None:
        self.app = App(self._settings(), {})
        await self.app.start()
        keys = self.app.store.keys
        for name in (CROWD, *OTHERS):
            await keys.save_account(Account(name, name, post_paid=True, concurrency=PLACES + WAITING))
            await keys.create(Key(key_id(name), name, name, BEGIN), digest(name))
        self.begin = self.now.at + ALONE_S
        end = self.begin + TOGETHER_S
        for account in OTHERS:
            at, chance = self.now.at, random.Random(f"{self.seed} {account}")
            while (at := at + chance.expovariate(PACE / len(OTHERS))) < end:
                self.loop.call_at(at, self._asks, account, chance.randint(50, 150))
        for _ in range(PLACES + WAITING if self.crowd else 0):
            self.loop.call_at(self.begin, self._crowds)
        await self._at(end)
        await self.app.store.stop()

    def _crowds(self) -> None:
        if self.now.at < self.begin + TOGETHER_S:
            self._asks(CROWD, self.chance.randint(1500, 2500), self._crowds)

    def _asks(self, account: str, tokens: int, again: Callable[[], None] | None = None) -> None:
        self.numbers[account] += 1
        asked = Asked(f"{account}/{self.numbers[account]}", account, self.app.platform.new_id(), True, self.now.at)
        self.asked.append(asked)
        self.running += 1

        def over() -> None:
            self._over()
            if again is not None:
                self.loop.call_soon(again)

        self.send(asked, Client(self.now, asked, None, over), account, chat(asked.name, True, tokens))

    def firsts(self) -> list[float]:
        """How long the others waited for the first of their text beside the crowd, sorted, s; infinite for one who
        waits still, after LATE_S at least."""
        return sorted(
            each.first_at - each.at if each.first_at else math.inf
            for each in self.asked
            if each.account in OTHERS and self.begin <= each.at < self.now.at - LATE_S
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values, by nearest rank."""
    return values[math.ceil(percent / 100 * len(values)) - 1]
