"""The ledger's rules of funds as a text: what is asked, what is answered, and how the account stands then.

The account `acme` holds no credit, `credit` has it without bound, `hourly` is stopped when it was settled below zero.
A line is: what is asked -> answer : granted topped-up credit held [pack=used/held ...] [day=spent/held].
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from conformance.backends import STORES, a_deposit, audited, opened, run
from moonpool.ledger.funds import Pack
from moonpool.state import tables
from moonpool.state.base import Hold, Progress, Resolution, Store
from moonpool.words import Account, Limits, Price, Usage

HOURLY = Account("hourly", "Hourly", post_paid=True, credit_pico=0)
PRICE = Price(2, 1, 5, searches=100, version="list@2026/peak")
KEY = "AbCdEfGhIjKl"

# hold NAME AMOUNT tokens=N searches=N at=T limit=DAY product=P
# posted NAME miss+hit+completion [searches=N]: what that costs by PRICE is owed
RULES = {
    "one request spans a trial pack, a paid pack and money (case 84)": """
        topped_up d 1000                 -> deposited : 0 1000 0 0
        pack t trial 3                   -> deposited : 0 1000 0 0 t=0/0
        pack p paid 4                    -> deposited : 0 1000 0 0 t=0/0 p=0/0
        hold a 50 tokens=10              -> held      : 0 1000 0 15 t=0/3 p=0/4
        posted a 4+2+4                   -> resolved  : 0 996 0 0 t=3/0 p=4/0
    """,
    "a trial pack goes before a paid one that ends sooner": """
        pack p paid 9 until=50           -> deposited : 0 0 0 0 p=0/0
        pack t trial 9 until=90          -> deposited : 0 0 0 0 p=0/0 t=0/0
        hold a 50 tokens=9               -> held      : 0 0 0 0 p=0/0 t=0/9
        posted a 1+0+1                   -> resolved  : 0 0 0 0 p=0/0 t=2/0
    """,
    "a pack that ends between hold and settlement still pays (case 85)": """
        topped_up d 100                  -> deposited : 0 100 0 0
        pack p paid 9 until=50           -> deposited : 0 100 0 0 p=0/0
        hold a 50 tokens=9 at=49         -> held      : 0 100 0 0 p=0/9
        posted a 3+0+3 at=60             -> resolved  : 0 100 0 0 p=6/0
        hold b 50 tokens=9 at=60         -> held      : 0 100 0 50 p=6/0
        voided b 0+0+0                   -> resolved  : 0 100 0 0 p=6/0
    """,
    "a pack of another product pays nothing": """
        pack p paid 9 product=other      -> deposited : 0 0 0 0 p=0/0
        hold a 5 tokens=9                -> short     : 0 0 0 0 p=0/0
    """,
    "what packs cannot cover needs money, at the price of the dearest token": """
        topped_up d 14                   -> deposited : 0 14 0 0
        pack p paid 7                    -> deposited : 0 14 0 0 p=0/0
        hold a 99 tokens=10              -> short     : 0 14 0 0 p=0/0
        topped_up e 1                    -> deposited : 0 15 0 0 p=0/0
        hold a 99 tokens=10              -> held      : 0 15 0 15 p=0/7
        voided a 0+0+0                   -> resolved  : 0 15 0 0 p=0/0
    """,
    "packs are paid for: who owes money may use them": """
        topped_up d 10                   -> deposited : 0 10 0 0
        hold a 10                        -> held      : 0 10 0 10
        posted a 10+0+0                  -> resolved  : 0 -10 0 0
        hold b 0                         -> short     : 0 -10 0 0
        pack p paid 9                    -> deposited : 0 -10 0 0 p=0/0
        hold c 45 tokens=9               -> held      : 0 -10 0 0 p=0/9
        posted c 9+0+0                   -> resolved  : 0 -10 0 0 p=9/0
        hold d 5 tokens=1                -> short     : 0 -10 0 0 p=9/0
    """,
    "searches are paid by packs of calls, else as a fee": """
        topped_up d 500                  -> deposited : 0 500 0 0
        calls s paid 1                   -> deposited : 0 500 0 0 s=0/0
        hold a 250 tokens=10 searches=2  -> held      : 0 500 0 150 s=0/1
        posted a 1+0+1 searches=2        -> resolved  : 0 393 0 0 s=1/0
    """,
    "granted money, then topped-up money, then credit": """
        as credit
        granted g 10                     -> deposited : 10 0 0 0
        topped_up d 20                   -> deposited : 10 20 0 0
        hold a 999                       -> held      : 10 20 0 999
        posted a 20+0+0                  -> resolved  : 0 0 -10 0
        hold b 0                         -> held      : 0 0 -10 0
        posted b 0+5+0                   -> resolved  : 0 0 -15 0
    """,
    "what was used on credit is settled once an hour, and arrears stop the service (case 87)": """
        as hourly
        hold a 999                       -> held      : 0 0 0 999
        posted a 20+0+0                  -> resolved  : 0 0 -40 0
        hold b 9                         -> held      : 0 0 -40 9
        settle 7200                      -> 1         : 0 -40 0 9
        settle 7300                      -> 0         : 0 -40 0 9
        hold c 1                         -> short     : 0 -40 0 9
        posted b 1+0+0                   -> resolved  : 0 -40 -2 0
        settle 9000                      -> 0         : 0 -40 -2 0
        settle 10800                     -> 1         : 0 -42 0 0
        topped_up d 42                   -> deposited : 0 0 0 0
        hold c 1                         -> held      : 0 0 0 1
        restart                          -> 1         : 0 0 0 0
        settle 10900                     -> 0         : 0 0 0 0
    """,
    "credit is drawn from nothing where its product is off (case 86)": """
        as credit
        hold a 9                         -> held      : 0 0 0 9
        off chat                         -> off       : 0 0 0 9
        hold b 9                         -> short     : 0 0 0 9
        posted a 1+0+0                   -> resolved  : 0 0 -2 0
        hold b 0                         -> short     : 0 0 -2 0
        topped_up d 20                   -> deposited : 0 20 -2 0
        hold b 18                        -> held      : 0 20 -2 18
        posted b 1+0+0                   -> resolved  : 0 18 -2 0
    """,
    "a key spends no more than its day allows": """
        topped_up d 1000                 -> deposited : 0 1000 0 0
        hold a 60 limit=100              -> held      : 0 1000 0 60 day=0/60
        hold b 41 limit=100              -> budget    : 0 1000 0 60 day=0/60
        hold b 40 limit=100              -> held      : 0 1000 0 100 day=0/100
        posted a 5+0+0                   -> resolved  : 0 990 0 40 day=10/40
        hold c 51 limit=100              -> budget    : 0 990 0 40 day=10/40
        hold c 50 limit=100              -> held      : 0 990 0 90 day=10/90
        voided c 0+0+0                   -> resolved  : 0 990 0 40 day=10/40
        hold g 90 limit=100 at=90000     -> held      : 0 990 0 130
        posted b 30+0+0                  -> resolved  : 0 930 0 90 day=70/0
        restart                          -> 1         : 0 930 0 0 day=70/0
        hold e 31 limit=100              -> budget    : 0 930 0 0 day=70/0
        hold f 99                        -> held      : 0 930 0 99 day=70/0
    """,
    "a killed stream owes what it was last known to have come to (case 65)": """
        topped_up d 100                  -> deposited : 0 100 0 0
        pack p paid 2                    -> deposited : 0 100 0 0 p=0/0
        hold a 50 tokens=50              -> held      : 0 100 0 50 p=0/2
        hold b 20                        -> held      : 0 100 0 70 p=0/2
        known a 3+0+1                    -> known     : 0 100 0 70 p=0/2
        known a 3+0+4                    -> known     : 0 100 0 70 p=0/2
        restart                          -> 2         : 0 84 0 0 p=2/0
        posted a 9+9+9                   -> exists    : 0 84 0 0 p=2/0
    """,
    "what a killed stream owes goes on credit where there is credit": """
        as hourly
        topped_up d 3                    -> deposited : 0 3 0 0
        hold a 9                         -> held      : 0 3 0 9
        known a 1+0+1                    -> known     : 0 3 0 9
        restart                          -> 1         : 0 0 -4 0
        hold b 9                         -> held      : 0 0 -4 9
    """,
    "what was known counts for nothing once a request has ended": """
        topped_up d 100                  -> deposited : 0 100 0 0
        hold a 50                        -> held      : 0 100 0 50
        known a 3+0+1                    -> known     : 0 100 0 50
        posted a 1+0+1                   -> resolved  : 0 93 0 0
        restart                          -> 0         : 0 93 0 0
    """,
    "a pack comes once": """
        pack p paid 9                    -> deposited : 0 0 0 0 p=0/0
        pack p paid 9                    -> exists    : 0 0 0 0 p=0/0
        restart                          -> 0         : 0 0 0 0 p=0/0
        hold a 50 tokens=4               -> held      : 0 0 0 0 p=0/4
        restart                          -> 1         : 0 0 0 0 p=0/0
    """,
}

_LINE = re.compile(r"(\w+)((?: \S+)*) +-> (\w+) +: (-?\d+) (-?\d+) (-?\d+) (-?\d+)((?: \w+=\d+/\d+)*)")


class _Clerk:
    """Does what a line says with the books of one account."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self.folder, self.account = backend, folder, "acme"
        self.store: Store

    async def open(self) -> None:
        self.store = await opened(self.backend, self.folder)
        if await self.store.keys.account("Hourly") is None:
            await self.store.keys.save_account(HOURLY)

    async def do(self, verb: str, words: list[str]) -> Any:
        said = dict(word.split("=") for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        books, at = self.store.books, float(said.get("at", "10"))
        if verb in {"granted", "topped_up"}:
            return await books.deposit(a_deposit(plain[0], int(plain[1]), verb, self.account))
        if verb in {"pack", "calls"}:
            unit: Any = "tokens" if verb == "pack" else "calls"
            kind: Any = plain[1]
            pack = Pack(
                plain[0],
                self.account,
                kind,
                said.get("product", "chat"),
                unit,
                int(plain[2]),
                "",
                1.0,
                float(said.get("until", "999999")),
            )
            return await books.add_pack(pack)
        if verb == "hold":
            return await books.hold(self._hold(plain, said, at))
        if verb == "settle":
            return await books.settle_hours(float(plain[0]))
        if verb == "off":
            await self.store.keys.switch_product(self.account, plain[0], False, at)
            return "off"
        if verb == "restart":
            await self.store.stop()
            await self.open()
            return await self.store.books.recover(20.0)
        usage, owed = self._usage(plain[1], said)
        if verb == "known":
            books.progress([Progress(plain[0], replace(usage, estimated=True), owed, 0, "a-host", "CNY", PRICE, at)])
            return "known"
        kind = verb
        return await books.resolve(Resolution(plain[0], kind, usage, owed, 0, "a-host", "", 1, at, price=PRICE))

    def _hold(self, plain: list[str], said: dict[str, str], at: float) -> Hold:
        return Hold(
            plain[0],
            self.account,
            KEY,
            "a-model",
            "a-host",
            int(plain[1]),
            "CNY",
            at,
            at + 999999,
            said.get("product", "chat"),
            int(said.get("tokens", "0")),
            PRICE.completion,
            int(said.get("searches", "0")),
            PRICE.searches,
            Limits(day_pico=int(said["limit"])) if "limit" in said else None,
        )

    def _usage(self, text: str, said: dict[str, str]) -> tuple[Usage, int]:
        miss, hit, completion = map(int, text.split("+"))
        usage = Usage(miss, hit, completion, searches=int(said.get("searches", "0")))
        return usage, miss * 2 + hit + completion * 5 + usage.searches * 100

    async def stands(self) -> list[str]:
        found = await self.store.books.balance(self.account, "CNY")
        assert found is not None
        return [str(each) for each in (found.granted_pico, found.topped_up_pico, found.post_paid_pico, found.held_pico)]


@pytest.mark.parametrize("backend", STORES)
@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, backend: str, tmp_path: Path) -> None:
    """Every line is answered, and leaves account, packs and what the key spent as it says; the auditor agrees."""

    async def walk() -> None:
        clerk = _Clerk(backend, tmp_path)
        await clerk.open()
        for line in (line.strip() for line in RULES[rule].strip().splitlines()):
            if line.startswith("as "):
                clerk.account = line[3:]
                continue
            said = _LINE.fullmatch(line)
            assert said, line
            answer = await clerk.do(said[1], said[2].split())
            assert (str(answer), *await clerk.stands()) == said.group(3, 4, 5, 6, 7), line
            for word in said[8].split():
                name, _, counts = word.partition("=")
                assert await _counts(clerk.store, name) == counts, line
        await clerk.store.stop()
        assert audited(backend, tmp_path) == []

    run(walk())


async def _counts(store: Any, name: str) -> str:
    """USED/HELD of a pack, or of the first day of the key, as the database has it."""
    packs, spent = tables.pack_balances, tables.spent
    if name == "day":
        wanted = select(spent.c.spent_pico, spent.c.held_pico).where(spent.c.span == "day", spent.c.start < 0)
    else:
        wanted = select(packs.c.used, packs.c.held).where(packs.c.pack == name)

    def look(database: Any) -> Any:
        with database.engine.connect() as connection:
            return connection.execute(wanted).one()

    used, held = await store._thread.call(look)
    return f"{used}/{held}"
