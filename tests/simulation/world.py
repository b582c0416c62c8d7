"""A world of customers, a cashier, a host, a disk and processes that crash, lived through from a seed, day by day.

Everything that happens comes from the seed. What must be true at the end of a day says judge.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults.stage import DONE
from moonpool import app
from moonpool.app import App
from moonpool.errors import Problem
from moonpool.ledger.funds import Pack
from moonpool.relay import offer, pulse
from moonpool.relay.journal import Journal
from moonpool.settings import Embedded, Log, Settings, Streams, Vault
from moonpool.state import sqlite
from moonpool.state.base import Deposit
from moonpool.state.sqlite import SqliteStore
from moonpool.web.data import DataPlane
from moonpool.words import Account, Arrival, Key, Limits
from simulation.machine import TEXT, Crashed, Disk, SimulatedHost, SimulatedThread, Time, VirtualLoop, chat

MISS, HIT, OUT = 2_000_000, 200_000, 3_000_000
DAY_S, BUSY_S, QUIET_S = 86_400.0, 900.0, 400.0
BEGIN = 1_798_732_800.0
NOTED_S = 3.0
"""The progress of a stream is noted every two seconds, and a commit may take its time."""
YUAN = 10**12
PRODUCTS = ("deepseek-chat", "another")

# name -> post-paid, credit, at once, what is there at first, the key's limit of a day
ACCOUNTS: dict[str, tuple[bool, int | None, int, int, int | None]] = {
    "credit": (True, None, 3, 0, None),
    "hourly": (True, YUAN // 2000, 4, YUAN // 1000, None),
    "ample": (False, None, 2, 100 * YUAN, None),
    "poor": (False, None, 5, YUAN // 200, None),
    "limited": (False, None, 3, 10 * YUAN, YUAN // 120),
    "packs": (False, None, 3, YUAN // 20, None),
}


@dataclass(eq=False)
class Asked:
    """One request as its client saw it; `first_at`: some of its text came. `lost`: the process died meanwhile."""

    name: str
    account: str
    id: str
    stream: bool
    at: float
    status: int = 0
    chars: int = 0
    first_at: float = 0.0
    ended: float = 0.0
    whole: bool = False
    lost: float = 0.0
    barred: bool = False


class Client:
    """A Writer. Leaves after `leave_after` pieces, if it is told to."""

    def __init__(self, now: Time, asked: Asked, leave_after: int | None, over: Callable[[], None]) -> None:
        self._now, self._asked, self._leave_after, self._over = now, asked, leave_after, over
        self._listener: Any = None
        self._gone = False

    def listen(self, listener: Any) -> None:
        self._listener = listener

    def whole(self, status: int, content_type: str, fields: Any, body: bytes) -> None:
        if not self._gone:
            self._asked.status, self._asked.whole = status, True
            self._asked.chars = body.count(TEXT.encode()) * len(TEXT) if status == 200 else 0
            self._ended()

    def start(self, status: int, content_type: str, fields: Any) -> None:
        if not self._gone:
            self._asked.status = status

    def write(self, data: bytes) -> None:
        if self._gone:
            return
        self._asked.chars += data.count(TEXT.encode()) * len(TEXT)
        if self._asked.chars and not self._asked.first_at:
            self._asked.first_at = self._now.at
        self._asked.whole = DONE in data
        if self._leave_after is not None and self._asked.chars >= self._leave_after * len(TEXT):
            asyncio.get_running_loop().call_soon(self.leave)

    def leave(self) -> None:
        if not self._gone:
            self._ended()
            if self._listener is not None:
                self._listener.gone()

    def end(self) -> None:
        if not self._gone:
            self._ended()

    def cut(self) -> None:
        if not self._gone:
            self._ended()

    def _ended(self) -> None:
        self._gone = True
        self._asked.ended = self._now.at
        self._over()


class Notes(Journal):
    """Keeps what was our fault; says nothing."""

    def __init__(self, *values: Any, **more: Any) -> None:
        super().__init__(*values, **more)
        self.faults: list[str] = []

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def write(self, line: Any) -> None: ...
    def note(self, event: str, **facts: Any) -> None: ...

    def fault(self, where: str, error: BaseException) -> None:
        if not isinstance(error, Crashed):
            self.faults.append(f"{where}: {error!r}")


@contextlib.contextmanager
def instead(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """(owner, name, what stands there within)."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, other in places:
        setattr(owner, name, other)
    try:
        yield
    finally:
        for owner, name, other in before:
            setattr(owner, name, other)


class World:
    def __init__(self, seed: str, folder: Path, image: bytes, catalogues: dict[str, Any]) -> None:
        self.chance = random.Random(seed)
        self.folder, self.catalogues = folder, catalogues
        self.now = Time(BEGIN)
        self.disk = Disk(image)
        self.host = SimulatedHost(self.now, random.Random(f"host {seed}"))
        self.asked: list[Asked] = []
        self.barred: list[str] = []
        self.keys: dict[str, str] = {}
        self.deposits: dict[str, Deposit] = {}
        self.packs: dict[str, Pack] = {}
        self.told: set[str] = set()
        self.ids = 0
        self.counts: dict[str, int] = {}
        self.running = 0
        self.crashed: list[float] = []
        self.todo: list[tuple[float, Callable[[], None]]] = []
        self.begun: list[Callable[[], Any]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.next_at = 0.0
        self.sick: list[tuple[float, float]] = []
        self.wake: asyncio.Future[None] | None = None
        self.data: DataPlane
        self.app: App
        self.loop: VirtualLoop
        self.thread: SimulatedThread

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # Processes

    def _open_store(self, settings: Settings, environ: object = None) -> SqliteStore:
        def thread(connect: object) -> SimulatedThread:
            self.thread = SimulatedThread(self.disk, self.loop, self.chance)
            return self.thread

        with instead((sqlite, "WriterThread", thread)):
            return SqliteStore(settings.store_path(), clock=self.now.time)

    def _new_ids(self) -> Callable[[], str]:
        def new_id() -> str:
            self.ids += 1
            return f"{self.ids:032x}"

        return new_id

    @contextlib.contextmanager
    def _stage(self) -> Iterator[None]:
        """What the app asks of its machine is the world's while it starts and runs."""

        def build(settings: Settings, *more: Any) -> Any:
            if "" not in self.catalogues:
                self.catalogues[""] = genuine(settings, *more)
            return self.catalogues[""]

        async def listen(house: App) -> None:
            self.data = DataPlane(house.platform)

        async def beat(house: App) -> None:
            await self._pulse(house)

        genuine = offer.build
        with instead(
            (app, "time", self.now),
            (offer, "build", build),
            (app, "Journal", Notes),
            (app, "open_store", self._open_store),
            (app, "request_ids", self._new_ids),
            (App, "_listen", listen),
            (App, "_beat", beat),
            (App, "_watch", lambda house: None),  # its thread goes by the time of the real world
            (App, "_transports", lambda house, weights: {"http": self.host}),
        ):
            yield

    def _settings(self) -> Settings:
        price = {"valid_from": "2020-01-01", "prompt_miss": "2", "prompt_hit": "0.2", "completion": "3"}
        return Settings(
            home=str(self.folder),
            embedded=Embedded(enabled=False),
            vault=Vault(enabled=False),
            streams=Streams(continuation="off"),
            log=Log(requests=False),
            hosts={"mine": {"base_url": "http://127.0.0.1:9", "dialect": "deepseek", "api_key": "a key"}},
            models={"deepseek-chat": {"hosts": ["mine"], "prices": [price]}},
        )

    async def _pulse(self, house: App) -> None:
        """What the app does once a second: while nothing runs only when something is due."""
        turn, every = 0, pulse.EXPIRE_EVERY
        while True:
            began = self.now.at
            step = 1
            if not (house.platform.active or self.running):
                minutes = int(max(0.0, min(60.0, (self.next_at - began) // 60.0) - 2.0))
                step = every - turn % every + minutes * every
            self.wake = self.loop.create_future()
            timer = self.loop.call_later(step * pulse.PULSE_S, _wake, self.wake)
            await self.wake
            timer.cancel()
            turn += max(1, round(self.now.at - began))
            house.revocations.beat()
            await pulse.beat(house.platform, turn)

    def live_process(self, until: float) -> bool:
        """One process, from its start to its end. Whether it stopped by itself rather than crashed."""
        self.loop = self.host.loop = VirtualLoop(self.now)
        self.host.running.clear()
        self.running, self.wake = 0, None
        weather = (self._sickens, self._heals, self._calms)
        for at, do in [each for each in self.todo if each[0] <= self.now.at and each[1] in weather]:
            self._do(at, do)  # whether a process runs or not
        asyncio.set_event_loop(self.loop)
        try:
            with self._stage():
                self.loop.run_until_complete(self._process(until))
        except (Crashed, Problem) as end:
            if isinstance(end, Problem) and end.code != "platform.storage":
                raise
            self.count("crashes")
            self.crashed.append(self.now.at)
            self.now.at += 1.0
            self.disk.dies = lambda text: False
            self.disk.reset()
            self.app.store._unlock()  # as the system does for a process that is gone
            for asked in self.asked:
                if not asked.ended:
                    asked.lost = asked.ended = self.crashed[-1]
            return False
        finally:
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            asyncio.set_event_loop(None)
        return True

    async def _process(self, until: float) -> None:
        self.app = App(self._settings(), {})
        await self.app.start()
        for thing in list(self.begun):
            self._begin(thing)
        for at, do in self.todo:
            self.loop.call_at(max(at, self.now.at), self._do, at, do)
        await self._at(until)
        await self.day_ends()
        if self.chance.random() < 0.3:
            raise Crashed
        await self.app.store.stop()

    async def _at(self, when: float) -> None:
        passed: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_at(when, _wake, passed)
        await passed

    def _do(self, at: float, do: Callable[[], None]) -> None:
        """Something planned: it is done once, whatever becomes of it."""
        self.todo.remove((at, do))
        self.next_at = min((when for when, _ in self.todo), default=float("inf"))
        do()

    def _begin(self, thing: Callable[[], Any]) -> None:
        """Something that is done again and again until it is known that it was: after errors, after crashes."""
        if thing not in self.begun:
            self.begun.append(thing)

        async def run() -> None:
            try:
                await thing()
            except Problem as problem:
                if problem.code != "platform.storage":
                    raise
                self.count("refused by the disk")
                self.loop.call_later(20.0, self._begin, thing)
            else:
                self.begun.remove(thing)

        self.tasks.add(task := self.loop.create_task(run()))
        task.add_done_callback(self.tasks.discard)

    # What customers do

    def ask(self, account: str, *, plain: bool = False) -> Asked:
        chance = self.chance
        barred = not plain and self.barred and chance.random() < 0.05
        secret = chance.choice(self.barred) if barred else self.keys[account]
        stream = plain or chance.random() < 0.8
        asked = Asked(f"{account}/{len(self.asked)}", account, self.app.platform.new_id(), stream, self.now.at)
        asked.barred = secret in self.barred
        self.asked.append(asked)
        self.running += 1
        leave = chance.randrange(1, 5) if not plain and stream and chance.random() < 0.15 else None
        client = Client(self.now, asked, leave, self._over)
        body = chat(asked.name, stream, chance.choice((100, 1000)))
        if not plain and chance.random() < 0.05:
            self.loop.call_later(chance.uniform(0.0, 5.0), client.leave)
        self.send(asked, client, secret, body)
        return asked

    def send(self, asked: Asked, client: Client, secret: str, body: bytes) -> None:
        """What the socket's side does with a request that it has read."""
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        arrival = Arrival(asked.id, "POST", "/v1/chat/completions", "", headers, body, "127.0.0.1", self.now.at)
        if self.wake is not None:
            _wake(self.wake)
        self.data.take(arrival, client)  # type: ignore[arg-type]

    def _over(self) -> None:
        self.running -= 1

    async def _deposit(self, deposit: Deposit) -> None:
        await self.app.store.books.deposit(deposit)
        self.told.add(deposit.id)

    async def _pack(self, pack: Pack) -> None:
        await self.app.store.books.add_pack(pack)
        self.told.add(pack.id)

    async def _rotate(self, account: str, old: str, new: str) -> None:
        keys = self.app.store.keys
        await keys.delete(key_id(old), self.now.at)
        if old not in self.barred:
            self.barred.append(old)
        if await keys.find(digest(new)) is None:
            await keys.create(a_key(account, new, self.now.at), digest(new))
        self.keys[account] = new

    async def _switch(self, account: str, product: str, on: bool) -> None:
        with contextlib.suppress(Problem):  # it may have been switched within the hour
            await self.app.store.keys.switch_product(account, product, on, self.now.at)

    # Days

    def plan(self, day: int) -> float:
        """What is to happen; the end of the busy time."""
        chance = self.chance
        begin = BEGIN + day * DAY_S + chance.uniform(3600.0, DAY_S - 7200.0)
        end = begin + BUSY_S
        self.host.calm = False
        found: list[tuple[float, Callable[[], None]]] = []
        for number in range(60):
            at, account = chance.uniform(begin, end), chance.choice(list(ACCOUNTS))
            kind = chance.choices(("ask", "burst", "deposit", "pack", "rotate", "switch"), (60, 12, 8, 6, 4, 4))[0]
            name = f"{day}-{number}"
            if kind == "deposit":
                fund: Any = chance.choice(("granted", "topped_up"))
                amount = chance.randrange(1, YUAN // 500)
                deposit = Deposit(f"d{name}", account, fund, amount, "CNY", "", at)
                self.deposits[deposit.id] = deposit
                found.append((at, partial(self._begin, partial(self._deposit, deposit))))
            elif kind == "pack":
                unit: Any = "tokens"
                pack = Pack(f"p{name}", account, chance.choice(("trial", "paid")), chance.choice(PRODUCTS), unit,
                            chance.randrange(1, 5000), "", at, at + chance.choice((60.0, 1e6)))  # fmt: skip
                self.packs[pack.id] = pack
                found.append((at, partial(self._begin, partial(self._pack, pack))))
            elif kind == "rotate":
                found.append((at, partial(self._rotates, account, f"key of {account} {name}")))
            elif kind == "switch":
                switch = partial(self._switch, account, chance.choice(PRODUCTS), chance.random() < 0.5)
                found.append((at, partial(self._begin, switch)))
            else:
                for _ in range(1 if kind == "ask" else 9):
                    found.append((at, partial(self.ask, account)))  # type: ignore[arg-type]
        for _ in range(chance.randrange(4)):
            found.append((chance.uniform(begin, end), self._crash_soon))
        if chance.random() < 0.4:
            at = chance.uniform(begin, end)
            found += [(at, self._sickens), (at + chance.uniform(1.0, 60.0), self._heals)]
        found.append((end + 1.0, self._calms))
        self.todo += sorted(found, key=lambda each: each[0])
        self.next_at = self.todo[0][0]
        return end

    def _rotates(self, account: str, new: str) -> None:
        self._begin(partial(self._rotate, account, self.keys[account], new))

    def _crash_soon(self) -> None:
        """At once, or right before one of the next statements."""
        left = self.chance.choice((0, self.chance.randrange(1, 40)))
        if not left:
            raise Crashed

        def dies(text: str) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        self.disk.dies = dies

    def _sickens(self) -> None:
        slow, share, chance = self.chance.random() < 0.3, self.chance.choice((0.1, 1.0)), self.chance
        self.sick.append((self.now.at, float("inf")))
        if slow:
            self.disk.slow_s = 0.5
            return

        def sick(text: str, ran: bool) -> Exception | None:
            hit = text != "ROLLBACK" and chance.random() < share / 2
            return sqlite3.OperationalError("disk I/O error") if hit else None

        self.disk.sick = sick

    def _heals(self) -> None:
        if self.sick:
            self.sick[-1] = self.sick[-1][0], min(self.sick[-1][1], self.now.at)
        self.disk.slow_s = 0.0
        self.disk.sick = lambda text, ran: None

    def _calms(self) -> None:
        self._heals()
        self.disk.dies = lambda text: False
        self.host.calm = True

    async def day_ends(self) -> None:
        """Everything has come to rest: what should hold does (judge.py)."""
        raise NotImplementedError


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def key_id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def a_key(account: str, secret: str, at: float) -> Key:
    limit = ACCOUNTS[account][4]
    limits = None if limit is None else Limits(day_pico=limit, month_pico=20 * limit)
    return Key(key_id(secret), account, secret, at, limits=limits)


def an_account(name: str) -> Account:
    post_paid, credit, at_once, _, _ = ACCOUNTS[name]
    return Account(name, name, post_paid, at_once, credit)
