"""A whole server that is killed with some two hundred streams open, again and again, and three books that must agree:
the database, what the host issued, and what the clients read.

Each client has an account of its own and asks one thing after another, so the holds of an account, in the order of
their numbers, are its requests: which dispatch belongs to which record needs no word of the product. Chance has a
seed; when exactly the kill strikes, the machine decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from faults.stage import DONE, HOST_KEY, MODEL, ROLE, Client, Served, event, last, sound, whole_body
from faults.upstream import STREAM_HEAD, Peer, Request, Step, answer, chunk
from moonpool.ledger.funds import Pack
from moonpool.state.base import Deposit
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account, Key, Limits

CLIENTS = 200
MISS, HIT, OUT = 2_000_000, 200_000, 3_000_000  # pico-units a token: 2, 0.2 and 3 yuan a million
NOTED_S = 2.0
"""How often the server notes how far its streams have come."""
SLACK_S = 1.0
"""What a busy machine may add to that: a turn of the pulse and a commit that come late."""

Funds = Literal["credit", "ample", "packs", "hourly", "limited", "poor"]
_FUNDS: tuple[Funds, ...] = ("credit", "credit", "ample", "packs", "hourly", "limited", "poor")
_TEXT = "abcdefgh " * 4


def after(span_s: float) -> asyncio.Future[None]:
    """Time on the wire: hosts speak at their own pace."""
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_later(span_s, lambda: passed.done() or passed.set_result(None))
    return passed


def funds_of(slot: int) -> Funds:
    return _FUNDS[slot % len(_FUNDS)]


def tokens_of(chars: int) -> int:
    """About 0.3 token for an English character, rounded up (PROVIDERS 1.12)."""
    return -(-3 * chars // 10)


def price_of(usage: dict[str, int]) -> int:
    return (
        usage["prompt_cache_miss_tokens"] * MISS
        + usage["prompt_cache_hit_tokens"] * HIT
        + usage["completion_tokens"] * OUT
    )


# The host's book


@dataclass
class Dispatch:
    """What the host was asked, and what it issued when: (time, characters so far)."""

    at: float
    stream: bool
    issued: list[tuple[float, int]] = field(default_factory=list)
    usage: dict[str, int] | None = None
    usage_at: float = 0.0

    def chars(self, until: float) -> int:
        return max((chars for at, chars in self.issued if at <= until), default=0)


class Witness:
    """A host that writes down what it issues, under the name its client gave the request. `told` hears of each
    moment of an answer: `asked`, `head`, `word`, `usage`, `end`."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.told: Callable[[str], None] = lambda moment: None
        self.seen: dict[str, list[Dispatch]] = defaultdict(list)

    def __call__(self, request: Request) -> Iterator[Step]:
        asked = json.loads(request.body)
        mine = Dispatch(time.monotonic(), bool(asked.get("stream")))
        self.seen[asked["user"]].append(mine)
        self.told("asked")
        chance = self.chance
        pieces = chance.choice((1, 4, 60, 60))
        pace_s = chance.uniform(0.05, 0.25)
        usage = {
            "prompt_tokens": 30,
            "prompt_cache_hit_tokens": 10,
            "prompt_cache_miss_tokens": 20,
            "completion_tokens": tokens_of(pieces * len(_TEXT)) + chance.randrange(9),
        }
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]

        def tell(chars: int) -> Step:
            async def step(peer: Peer) -> None:
                mine.issued.append((time.monotonic(), chars))
                await peer.send(chunk(event({"content": _TEXT})))
                self.told("word")
                await after(pace_s)

            return step

        async def pause(peer: Peer) -> None:
            await after(pace_s)

        async def head(peer: Peer) -> None:
            await peer.send(STREAM_HEAD + chunk(ROLE))
            self.told("head")

        async def end(peer: Peer) -> None:
            mine.usage, mine.usage_at = usage, time.monotonic()
            if mine.stream:
                await peer.send(chunk(last(usage)))
                self.told("usage")
                await peer.send(chunk(DONE) + b"0\r\n\r\n")
                self.told("end")
            else:
                await peer.send(answer(whole_body(_TEXT * pieces, usage)))

        if not mine.stream:
            return iter([pause, end])
        return iter([pause, head, *(tell((at + 1) * len(_TEXT)) for at in range(pieces)), end])


# The clients' book


@dataclass
class Asked:
    """One request as its client saw it. `status` is 0 where no head came; `ended` when the whole answer was there."""

    name: str
    stream: bool
    leave_after: int | None
    status: int = 0
    id: str = ""
    chars: int = 0
    ended: float | None = None
    left: bool = False


async def one(server: Served, secret: str, asked: Asked) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say something."}],
        "stream": asked.stream,
        "user": asked.name,
        "max_tokens": 4000,
    }
    client: Client | None = None
    try:
        client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Authorization": f"Bearer {secret}"})
        asked.status = await client.head()
        asked.id = client.fields["x-request-id"]
        if "content-length" in client.fields:
            whole = await client.rest()
            if whole.status == 200:
                asked.chars = len(whole.json["choices"][0]["message"]["content"])
        else:
            while await client.piece():
                asked.chars = client.body.count(_TEXT.encode()) * len(_TEXT)
                if asked.leave_after is not None and asked.chars >= asked.leave_after * len(_TEXT):
                    asked.left = True
                    client.reset()
                    return
        asked.ended = time.monotonic()
    finally:
        if client is not None:
            client.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()


async def customer(server: Served, slot: int, turn: int, chance: random.Random, book: list[Asked]) -> None:
    """Ask one thing after another until the server is gone."""
    await after(chance.uniform(0, 0.2))
    number = 0
    while True:
        number += 1
        stream = chance.random() < 0.85
        leaves = chance.randrange(1, 6) if stream and chance.random() < 0.2 else None
        asked = Asked(f"{slot}-{turn}-{number}", stream, leaves)
        book.append(asked)
        try:
            await one(server, f"key-of-{slot}", asked)
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError):
            return
        if asked.status != 200:
            return
        await after(0.3)


# The server


async def furnish(path: Path, clients: int = CLIENTS) -> None:
    """An account with a key for each client, of every kind of funds there is."""
    store = SqliteStore(path)
    await store.start()
    now = time.time()

    async def one_more(slot: int) -> None:
        kind, name = funds_of(slot), f"a{slot}"
        await store.keys.save_account(
            Account(name, name, kind in {"credit", "hourly"}, credit_pico=10**15 if kind == "hourly" else None)
        )
        limits = Limits(day_pico=10**13, month_pico=10**14) if kind == "limited" else None
        await store.keys.create(
            Key(f"k{slot:011}", name, name, now, limits=limits), hashlib.sha256(f"key-of-{slot}".encode()).digest()
        )
        if kind in {"ample", "packs", "limited"}:
            await store.books.deposit(Deposit(f"d{slot}", name, "topped_up", 10**15, "CNY", "", now))
            await store.books.deposit(Deposit(f"g{slot}", name, "granted", 10**9, "CNY", "", now))
        if kind == "poor":
            await store.books.deposit(Deposit(f"d{slot}", name, "topped_up", 2 * 10**10, "CNY", "", now))
        if kind == "packs":
            for at, product in enumerate(("", MODEL)):
                pack = Pack(f"p{slot}-{at}", name, "paid", product, "tokens", 10_000, "", now, now + 86400.0)
                await store.books.add_pack(pack)

    await asyncio.gather(*(one_more(slot) for slot in range(clients)))
    await store.stop()


def configure(server: Served, base_url: str) -> None:
    price = '{ valid_from = 2020-01-01, prompt_miss = "2", prompt_hit = "0.2", completion = "3" }'
    server.config.write_text(
        "[embedded]\nenabled = false\n[edge]\ndrain_s = 1.0\n[log]\nrequests = false\n"
        f'[hosts.mine]\nbase_url = "{base_url}"\ndialect = "deepseek"\napi_key = "{HOST_KEY}"\n'
        f'[models.{MODEL}]\nhosts = ["mine"]\nprices = [{price}]\n'
    )


@dataclass
class Row:
    """A hold and its end. `units` came from packs."""

    id: str
    kind: str
    cause: str
    miss: int
    hit: int
    completion: int
    estimated: bool
    owed_pico: int
    units: int


def rows(path: Path) -> dict[str, list[Row]]:
    """Account -> its holds, in the order of their numbers."""
    found: dict[str, list[Row]] = defaultdict(list)
    connection = sqlite3.connect(path)
    try:
        for account, *row in connection.execute(
            "SELECT h.account, h.id, r.kind, r.cause, r.prompt_miss, r.prompt_hit, r.completion, r.estimated,"
            " r.owed_pico, (SELECT coalesce(sum(t.amount_pico), 0) FROM transfers t"
            " WHERE t.seq = h.seq AND t.credit = 'used')"
            " FROM holds h LEFT JOIN resolutions r ON r.hold_seq = h.seq ORDER BY h.seq"
        ):
            found[account].append(Row(*row))
    finally:
        connection.close()
    return found


@dataclass
class Tally:
    """What was seen, so that a test can say that it saw something. `lost_s` is the most that a killed stream had
    issued and was not charged for, in seconds of the stream."""

    kills: int = 0
    dispatches: int = 0
    open: int = 0
    noted: int = 0
    lost_s: float = 0.0
    lost_tokens: int = 0
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))


Strike = Callable[[Served], Awaitable[None]]


class Trial:
    """A server in `folder` that is killed and started again. Fails with what does not agree."""

    def __init__(self, folder: Path, seed: str, clients: int = CLIENTS) -> None:
        self.folder, self.chance, self.clients = folder, random.Random(seed), clients
        self.witness = Witness(random.Random(f"host {seed}"))
        self.tally = Tally()
        self.known: dict[str, int] = defaultdict(int)

    async def at_random(self, server: Served) -> None:
        """Early kills hit streams that nobody has noted, late ones those that were noted once or twice."""
        await after(self.chance.choice((self.chance.uniform(0.05, 1.2), self.chance.uniform(2.2, 4.2))))
        server.signal(signal.SIGKILL)

    async def round(self, server: Served, turn: int, strike: Strike | None = None) -> None:
        """Clients ask until the server dies, of `strike` or by itself; then it is started and the books are compared.
        Several servers in one home may follow each other: `server` is the last one."""
        books: list[list[Asked]] = [[] for _ in range(self.clients)]
        clients = [
            asyncio.ensure_future(customer(server, slot, turn, random.Random(self.chance.random()), books[slot]))
            for slot in range(self.clients)
        ]
        await (strike or self.at_random)(server)
        killed = time.monotonic()
        assert await server.ended() == -signal.SIGKILL, server.said.decode()
        await asyncio.gather(*clients)
        await server.start()
        self.tally.kills += 1
        self.compare(server.path, turn, books, killed)

    def compare(self, path: Path, turn: int, books: list[list[Asked]], killed: float) -> None:
        sound(path)
        found = rows(path)
        for slot, book in enumerate(books):
            name = f"a{slot}"
            mine = found.get(name, [])[self.known[name] :]
            self.known[name] += len(mine)
            asked = [each for each in book if each.status in {0, 200}]
            # Whoever was not answered may have been held or not; whoever was, was.
            sure = sum(each.status == 200 for each in asked)
            assert sure <= len(mine) <= len(asked), f"{name}: {len(asked)} asked, {len(mine)} records"
            for each, row in zip(asked, mine, strict=False):
                assert each.id in {"", row.id}, "the answer carries the id of its record"
                dispatches = self.witness.seen.get(each.name, [])
                assert len(dispatches) <= 1, "one request is asked of the host once"
                self.judge(each, row, dispatches[0] if dispatches else None, killed, funds_of(slot))
            for each in book[len(mine) :]:
                assert each.name not in self.witness.seen, "a dispatch without a record"

    def judge(self, asked: Asked, row: Row, dispatch: Dispatch | None, killed: float, kind: Funds) -> None:
        """Is this record right, of all that is known of the request?"""
        tally = self.tally
        tally.kinds[row.kind] += 1
        tally.dispatches += dispatch is not None
        noted = killed - NOTED_S - SLACK_S
        assert row.kind in {"posted", "voided", "recovered"}, row
        if dispatch is None:
            assert (row.completion, row.owed_pico) == (0, 0), row
            return
        if asked.ended is not None and asked.ended < noted:
            assert row.kind == "posted", "what was answered long ago is booked"
        if row.kind == "posted" and not row.estimated:
            usage = dispatch.usage
            assert usage is not None
            assert (row.miss, row.hit, row.completion) == (20, 10, usage["completion_tokens"])
            if not row.units:
                assert row.owed_pico == price_of(usage)
            return
        # Our own count: not less than what is known to have come, not more than what was issued.
        issued = tokens_of(dispatch.chars(killed))
        assert row.completion <= issued, (row, issued)
        if row.kind == "recovered":
            tally.open += 1
            tally.noted += row.completion > 0
            least = tokens_of(dispatch.chars(noted)) if dispatch.stream else 0
            self._lost(dispatch, row.completion, issued, killed)
        else:
            least = tokens_of(asked.chars) if dispatch.stream else 0
        assert row.completion >= least, (row, least, dispatch.issued[-1], killed)
        if not row.units and kind != "packs":
            assert row.owed_pico == row.miss * MISS + row.hit * HIT + row.completion * OUT

    def _lost(self, dispatch: Dispatch, charged: int, issued: int, killed: float) -> None:
        if not dispatch.stream:
            return
        self.tally.lost_tokens = max(self.tally.lost_tokens, issued - charged)
        first = next((at for at, chars in dispatch.issued if tokens_of(chars) > charged), killed)
        self.tally.lost_s = max(self.tally.lost_s, killed - first)
