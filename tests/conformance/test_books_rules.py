"""The rules of the ledger as a text that can be read: what is asked, what is answered, how the account stands then."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.backends import STORES, a_deposit, a_hold, a_resolution, opened, run

# <what is asked> -> <answer> : <granted> <topped up> <held>, of the pre-paid account
RULES = {
    "a hold is released by its end": """
        topped_up d 100    -> deposited : 0 100 0
        hold a 40          -> held      : 0 100 40
        posted a 30        -> resolved  : 0 70 0
        hold b 70          -> held      : 0 70 70
        voided b 0         -> resolved  : 0 70 0
    """,
    "each at most once": """
        topped_up d 100    -> deposited : 0 100 0
        topped_up d 100    -> exists    : 0 100 0
        hold a 40          -> held      : 0 100 40
        hold a 40          -> exists    : 0 100 40
        posted a 10        -> resolved  : 0 90 0
        posted a 10        -> exists    : 0 90 0
        voided a 0         -> exists    : 0 90 0
        expired a 0        -> exists    : 0 90 0
        recovered a 0      -> exists    : 0 90 0
        hold a 40          -> exists    : 0 90 0
        posted b 10        -> unknown   : 0 90 0
    """,
    "what is held cannot be held again": """
        topped_up d 100    -> deposited : 0 100 0
        hold a 60          -> held      : 0 100 60
        hold b 41          -> short     : 0 100 60
        hold b 40          -> held      : 0 100 100
        hold c 1           -> short     : 0 100 100
        hold c 0           -> held      : 0 100 100
        posted a 60        -> resolved  : 0 40 40
        hold d 1           -> short     : 0 40 40
        voided b 0         -> resolved  : 0 40 0
        hold d 1           -> held      : 0 40 1
    """,
    "granted money first, topped-up money below zero": """
        granted g 10       -> deposited : 10 0 0
        topped_up d 20     -> deposited : 10 20 0
        hold a 30          -> held      : 10 20 30
        posted a 15        -> resolved  : 0 15 0
        hold b 15          -> held      : 0 15 15
        posted b 20        -> resolved  : 0 -5 0
        hold c 0           -> short     : 0 -5 0
        granted g2 4       -> deposited : 4 -5 0
        hold c 0           -> short     : 4 -5 0
        granted g3 2       -> deposited : 6 -5 0
        hold c 1           -> held      : 6 -5 1
        posted c 1         -> resolved  : 5 -5 0
    """,
    "what was voided or expired is not paid for, what was recovered is": """
        topped_up d 100    -> deposited : 0 100 0
        hold a 10          -> held      : 0 100 10
        voided a 7         -> resolved  : 0 100 0
        hold b 10          -> held      : 0 100 10
        expired b 7        -> resolved  : 0 100 0
        hold c 10          -> held      : 0 100 10
        recovered c 7      -> resolved  : 0 93 0
    """,
}

_LINE = re.compile(r"(\w+) (\w+) (\d+) +-> (\w+) +: (-?\d+) (-?\d+) (-?\d+)")


@pytest.mark.parametrize("backend", STORES)
@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, backend: str, tmp_path: Path) -> None:
    """Every line is answered, and leaves the account, as it says."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        lines = [line.strip() for line in RULES[rule].strip().splitlines()]
        for line in lines:
            said = _LINE.fullmatch(line)
            assert said, line
            verb, name, amount = said[1], said[2], int(said[3])
            if verb in {"granted", "topped_up"}:
                answer: str = await store.books.deposit(a_deposit(name, amount, verb))
            elif verb == "hold":
                answer = await store.books.hold(a_hold(name, amount, "acme"))
            else:
                answer = await store.books.resolve(a_resolution(name, verb, amount))  # type: ignore[arg-type]
            found = await store.books.balance("acme")
            assert found is not None
            stands = (found.granted_pico, found.topped_up_pico, found.held_pico)
            assert (answer, *stands) == (said[4], *map(int, said.group(5, 6, 7))), line
        await store.stop()

    run(walk())
