"""Random work of clients at a cluster, a nemesis that harms it, and what may be said of their history afterwards.

A client notes each thing it does: when it asked, whom, and how that ended: `ok`, `failed` (it has not happened), or
`unknown` (nobody told). What is unknown is asked again under the same id when everything is healed.

`wrong(...)` knows the promises (RELIABILITY 4.2) and nothing of the product: it reads the clients' notes, the host's
record and, in plain SQL, the database.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from faults.cluster import ASK_S, PIECES, Cluster, Node, asks, eventually, usage_of
from faults.stage import MODEL

ACCOUNTS = ("acme", "poor")
LIMIT = 4
DEPOSIT = "0.00005"
DEPOSIT_PICO = 5 * 10**7
GIFT = {"fund": "granted", "amount": "0.0005", "currency": "CNY"}
KNOWN_S = 1.0
"""So long after it was answered a change holds on all nodes."""
CODES = 40


@dataclass
class Op:
    """`what` is asked about `name`: a tag, the id of a deposit or a key, a code."""

    what: str
    name: str
    account: str
    node: Node
    at: float
    outcome: str = "unknown"
    status: int = 0
    id: str = ""
    again: bool = False
    ended_at: float = 0.0


@dataclass
class OwnKey:
    id: str
    text: str
    made_at: float
    asked_to_delete: bool = False
    deleted_at: float = float("inf")


@dataclass
class Work:
    """What all clients do and remember. `seed` decides what they want; when they get it, the machine does."""

    here: Cluster
    seed: int
    codes: list[str]
    ops: list[Op] = field(default_factory=list)
    keys: list[OwnKey] = field(default_factory=list)
    kills: list[tuple[Node, float]] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)
    over: bool = False

    async def client(self, number: int) -> None:
        chance = random.Random(f"{self.seed} client {number}")
        wants: list[tuple[int, Callable[[random.Random, Op], Awaitable[None]], str]] = [
            (40, self._whole, "whole"),
            (25, self._stream, "stream"),
            (10, self._hang_up, "hang up"),
            (8, self._deposit, "deposit"),
            (8, self._redeem, "redeem"),
            (4, self._make_key, "make key"),
            (3, self._delete_key, "delete key"),
            (12, self._use_key, "use key"),
        ]
        count = 0
        while not self.over:
            count += 1
            ((_, act, what),) = chance.choices(wants, [each[0] for each in wants])
            account = chance.choice(ACCOUNTS)
            op = Op(what, f"{account}/{number}-{count}", account, chance.choice(self.here.nodes), time.monotonic())
            self.ops.append(op)
            try:
                async with asyncio.timeout(ASK_S):
                    await act(chance, op)
            except (ConnectionRefusedError, LookupError):  # nobody was asked
                op.outcome = "failed"
            except (OSError, EOFError, TimeoutError, ValueError):
                op.outcome = "unknown"
            op.ended_at = time.monotonic()

    # Requests

    async def _whole(self, chance: random.Random, op: Op, key: str = "", stream: bool = False) -> None:
        client = await op.node.open(asks(op.name, stream=stream), key=key or f"key-of-{op.account}")
        try:
            op.status = await client.head()
            op.id = client.fields["x-request-id"]
            found = await client.rest()
            if op.status != 200:
                op.outcome = "failed"
            elif found.complete and (not stream or found.failure is None):
                op.outcome = "ok"
        finally:
            client.reset()

    async def _stream(self, chance: random.Random, op: Op) -> None:
        await self._whole(chance, op, stream=True)

    async def _hang_up(self, chance: random.Random, op: Op) -> None:
        client = await op.node.open(asks(op.name), key=f"key-of-{op.account}")
        try:
            op.status = await client.head()
            op.id = client.fields["x-request-id"]
            if op.status != 200:
                op.outcome = "failed"
            elif chance.random() < 0.5:
                await client.until(b"word0")
        finally:
            client.reset()

    # Money

    async def _deposit(self, chance: random.Random, op: Op) -> None:
        op.name = op.name.replace("/", ".")
        await self._change(op, "POST", f"/accounts/{op.account}/deposits", self.deposit(op.name))

    async def _redeem(self, chance: random.Random, op: Op) -> None:
        op.name = chance.choice(self.codes)
        page = await self._change(op, "POST", f"/accounts/{op.account}/redeem", {"code": op.name})
        op.again = bool(page.get("again"))

    async def _change(self, op: Op, method: str, path: str, body: object = None) -> Any:
        answer = await self.here.admin(op.node, method, path, body)
        op.status = answer.status
        # A 5xx may come of an answer of the database that was lost.
        op.outcome = "ok" if answer.status < 300 else "unknown" if answer.status >= 500 else "failed"
        return answer.page

    @staticmethod
    def deposit(name: str) -> dict[str, str]:
        return {"fund": "topped_up", "amount": DEPOSIT, "currency": "CNY", "id": name}

    # Keys

    async def _make_key(self, chance: random.Random, op: Op) -> None:
        page = await self._change(op, "POST", "/keys", {"account": op.account, "name": "random"})
        if op.outcome == "ok":
            self.keys.append(OwnKey(page["id"], page["key"], time.monotonic()))

    async def _delete_key(self, chance: random.Random, op: Op) -> None:
        key = chance.choice([each for each in self.keys if not each.asked_to_delete])
        op.name, key.asked_to_delete = key.id, True
        op.at = time.monotonic()
        await self._change(op, "DELETE", f"/keys/{key.id}")
        if op.outcome == "ok":
            key.deleted_at = time.monotonic()
        elif op.status == 404 and op.at > key.made_at + KNOWN_S:
            op.what = "delete live key"

    async def _use_key(self, chance: random.Random, op: Op) -> None:
        """One that is known to all, or that nobody may know any more."""
        live = [each for each in self.keys if not each.asked_to_delete]
        key = chance.choice(live if chance.random() < 0.5 else self.keys)
        alive, op.at = not key.asked_to_delete, time.monotonic()
        dead = op.at > key.deleted_at + KNOWN_S
        await self._whole(chance, op, key.text, stream=chance.random() < 0.5)
        if dead:
            op.what = "use dead key"
        elif alive and not key.asked_to_delete and op.at > key.made_at + KNOWN_S:
            op.what = "use live key"

    # Harm

    async def nemesis(self, for_s: float) -> None:
        """One harm after the other, each for a while that the clients' work measures."""
        chance = random.Random(f"{self.seed} nemesis")
        begun = time.monotonic()
        # Whether it was written, when the answer is lost, is the hardest thing to know.
        harms = ["kill", "stop", "cut both", "mute database"]
        harms += [f"{how} {what}" for how in ("cut", "stall", "mute") for what in ("database", "limits")]
        while time.monotonic() < begun + for_s:
            turn = chance.sample(harms, len(harms))
            for harm in turn:
                if time.monotonic() > begun + for_s:
                    break
                node = chance.choice(self.here.nodes)
                self.harmed.append(f"{time.monotonic() - begun:.1f} s {harm} {node.folder.name}")
                await self._harm(harm, node)
                await self._pass(chance.randint(20, 100), chance.uniform(0.5, 3.5))
                await self.heal(node)
                await self._pass(chance.randint(10, 40), chance.uniform(0.2, 1.0))

    async def _pass(self, dispatches: int, within_s: float) -> None:
        """Until the host was asked so much more, or nobody could."""
        asked, deadline = self.here.host.dispatches, time.monotonic() + within_s
        goal = len(asked) + dispatches
        await eventually(lambda: len(asked) >= goal or time.monotonic() > deadline, "time passes")

    async def _harm(self, harm: str, node: Node) -> None:
        if harm == "kill":
            self.kills.append((node, time.monotonic()))
            await node.kill()
            return
        if harm == "stop":
            node.signal(signal.SIGSTOP)
            return
        how, what = harm.split(" ")
        for link in (node.database, node.limits) if what == "both" else (getattr(node, what),):
            if how == "mute":
                # The name of the model is written with each hold and each end of one, and read with none.
                link.mute(MODEL.encode() if link is node.database else b"")
            else:
                (link.cut if how == "cut" else link.stall)()

    async def heal(self, node: Node) -> None:
        node.database.heal()
        node.limits.heal()
        if node.runs:
            node.signal(signal.SIGCONT)
        else:
            await node.start()

    # Afterwards

    async def finish(self) -> None:
        """Ask again, under the same id, what nobody knows the end of."""
        for op in [each for each in self.ops if each.outcome == "unknown"]:
            if op.what == "deposit":
                await self._change(op, "POST", f"/accounts/{op.account}/deposits", self.deposit(op.name))
                assert op.outcome == "ok", op
            elif op.what == "delete key" and op.name in {each.id for each in self.keys}:
                await self._change(op, "DELETE", f"/keys/{op.name}")


# What must be so.


def wrong(work: Work) -> list[str]:
    """What the history, the host and the database do not agree about; [] when all promises were kept."""
    return [*_of_requests(work), *_of_money(work), *_of_keys(work)]


def _of_requests(work: Work) -> list[str]:
    here, found = work.here, []
    rows = {
        row[0]: row[1:]
        for row in here.ask(
            "SELECT h.id, r.kind, r.prompt_miss, r.completion, r.estimated, r.owed_pico FROM holds h"
            " LEFT JOIN resolutions r ON r.hold_seq = h.seq"
        )
    }
    found += [f"hold {each} has no end" for each, row in rows.items() if row[0] is None]
    numbers = defaultdict(list)
    for dispatch in here.host.dispatches:
        numbers[dispatch.tag].append(dispatch.number)
    exact = {}
    for hold, (kind, prompt, completion, estimated, owed) in rows.items():
        if kind == "posted" and not estimated:
            number = (prompt - 1) * PIECES + completion - 1
            if number in exact:
                found.append(f"dispatch {number} was booked for {exact[number]} and {hold}")
            exact[number] = hold
            if not 0 <= number < len(here.host.dispatches):
                found.append(f"hold {hold} was booked for a dispatch that the host does not know")
            elif owed <= 0:
                found.append(f"hold {hold} cost nothing")
        elif kind == "voided" and owed:
            found.append(f"hold {hold} is voided and cost something")
    if len(here.host.dispatches) > len(rows):
        found.append(f"{len(here.host.dispatches)} dispatches and {len(rows)} holds")
    known = set()
    for op in work.ops:
        if op.what not in _REQUESTS or op.status != 200:
            continue
        row, asked = rows.get(op.id), numbers[op.name]
        known.add(op.id)
        if row is None or len(asked) != 1:
            found.append(f"{op} was served: {len(asked)} dispatches, record {row}")
        elif op.outcome == "ok" and row[0] == "posted" and exact.get(asked[0]) != op.id:
            found.append(f"{op} was not booked as the host counted: {row}, {usage_of(asked[0])}")
        elif op.outcome == "ok" and row[0] != "posted" and not _died(work, op):
            found.append(f"{op} was answered by a node that lived: {row}")
        elif row[0] == "voided" and op.what != "hang up":
            found.append(f"{op} was answered for nothing: {row}")
    tags = {op.name for op in work.ops if op.what in _REQUESTS and op.status == 200}
    others = sum(dispatch.tag not in tags for dispatch in here.host.dispatches)
    if others > len(rows.keys() - known):
        found.append(f"{others} more dispatches, and only {len(rows.keys() - known)} more records")
    return found


_REQUESTS = {"whole", "stream", "hang up", "use key", "use dead key", "use live key"}


def _died(work: Work, op: Op) -> bool:
    """Was its node killed before it could write down what it had answered?"""
    return any(node is op.node and op.at <= at <= op.ended_at + 10.0 for node, at in work.kills)


def _of_money(work: Work) -> list[str]:
    here, found = work.here, []
    rows = {row[0]: row[1:] for row in here.ask("SELECT id, account, amount_pico FROM deposits")}
    deposits = {op.name: op for op in work.ops if op.what == "deposit"}
    for name, op in deposits.items():
        expected = (op.account, DEPOSIT_PICO)
        if (op.outcome == "ok") != (rows.get(name) == expected):
            found.append(f"{op} and the books say {rows.get(name)}")
    winners: dict[str, Op] = {}
    for op in work.ops:
        if op.what == "redeem" and op.outcome == "ok":
            if not op.again and op.name in winners and not winners[op.name].again:
                found.append(f"twice: {op}, {winners[op.name]}")
            if op.name in winners and winners[op.name].account != op.account:
                found.append(f"two accounts: {op}, {winners[op.name]}")
            if op.name not in winners or not op.again:
                winners[op.name] = op
    given = Counter(row[0] for name, row in rows.items() if name.startswith("code:"))
    tried = {op.name for op in work.ops if op.what == "redeem" and op.outcome in {"ok", "unknown"}}
    if not len(winners) <= given.total() <= len(tried):
        found.append(f"{given.total()} codes were given, {len(winners)} answered so, {len(tried)} tried")
    strange = [name for name in rows if not (name in deposits or name.startswith(("code:", "first.")))]
    if strange:
        found.append(f"deposits of nobody: {strange}")
    below = here.ask("SELECT account FROM balances WHERE granted_pico + topped_up_pico + post_paid_pico < held_pico")
    return found + [f"{row[0]} is below zero" for row in below]


def _of_keys(work: Work) -> list[str]:
    found = [f"a deleted key was served: {op}" for op in work.ops if op.what == "use dead key" and op.status == 200]
    unknown = {("use live key", 401), ("delete live key", 404)}
    return found + [f"a key is not known: {op}" for op in work.ops if (op.what, op.status) in unknown]
