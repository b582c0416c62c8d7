"""Vault: what every vault promises, whatever is below."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.backends import VAULTS, run
from moonpool.state.base import Thought, Vault, VaultBounds
from moonpool.state.vault import DatabaseVault

pytestmark = pytest.mark.parametrize("backend", VAULTS)

_BOUNDS = VaultBounds(ttl_s=100.0, memory_bytes_max=1 << 20, bytes_max=1 << 20, rows_max=50, account_bytes_max=1 << 19)


def _mark(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def _thought(name: str, account: str = "acme", reasoning: str = "", calls: tuple[str, ...] = ()) -> Thought:
    return Thought(account, tuple(_mark(call) for call in calls), _mark(name), reasoning or f"about {name}")


async def _find(vault: Vault, *names: str, account: str = "acme", now: float = 1.0) -> dict[str, str]:
    if isinstance(vault, DatabaseVault):
        await vault.written()
    found = await vault.find(account, [_mark(name) for name in names], now)
    return {name: found[_mark(name)] for name in names if _mark(name) in found}


def test_found_by_any_mark(backend: str, tmp_path: Path) -> None:
    """A thought is found by the mark of its turn and by that of each of its calls, as it was written; an empty one is
    found too, an unknown mark finds nothing."""

    async def walk() -> None:
        async with VAULTS[backend](tmp_path, _BOUNDS) as vault:
            assert await _find(vault, "turn") == {}
            vault.keep(_thought("turn", reasoning="月\n\x00 \ud800", calls=("a", "b")), 0.0)
            vault.keep(Thought("acme", (), _mark("empty"), ""), 0.0)
            text = "月\n\x00 \ud800"
            assert await _find(vault, "turn", "a", "b", "c", "empty") == {
                "turn": text,
                "a": text,
                "b": text,
                "empty": "",
            }
            assert await _find(vault) == {}

    run(walk())


def test_never_of_another_account(backend: str, tmp_path: Path) -> None:
    """The same marks of two accounts are two things, and a third account finds neither."""

    async def walk() -> None:
        async with VAULTS[backend](tmp_path, _BOUNDS) as vault:
            vault.keep(_thought("turn", "acme", "of acme", ("call",)), 0.0)
            assert await _find(vault, "turn", "call", account="credit") == {}
            vault.keep(_thought("turn", "credit", "of credit", ("call",)), 0.0)
            assert await _find(vault, "turn", "call") == {"turn": "of acme", "call": "of acme"}
            assert await _find(vault, "turn", "call", account="credit") == {"turn": "of credit", "call": "of credit"}
            assert await _find(vault, "turn", "call", account="") == {}
            assert await _find(vault, "turn", "call", account="acm") == {}

    run(walk())


def test_a_mark_that_came_twice(backend: str, tmp_path: Path) -> None:
    """A call's mark that two answers have finds neither; a turn's finds the newer."""

    async def walk() -> None:
        async with VAULTS[backend](tmp_path, _BOUNDS) as vault:
            vault.keep(_thought("one", calls=("call_0", "x"), reasoning="first"), 0.0)
            assert await _find(vault, "call_0") == {"call_0": "first"}
            vault.keep(_thought("two", calls=("call_0", "y"), reasoning="second"), 0.0)
            assert await _find(vault, "call_0", "x", "y", "one", "two") == {
                "x": "first",
                "y": "second",
                "one": "first",
                "two": "second",
            }
            vault.keep(_thought("one", reasoning="again"), 0.0)
            assert await _find(vault, "one") == {"one": "again"}

    run(walk())


def test_it_ends(backend: str, tmp_path: Path) -> None:
    """From `ttl_s` on a thought is unknown, swept or not."""

    async def walk() -> None:
        async with VAULTS[backend](tmp_path, _BOUNDS) as vault:
            vault.keep(_thought("old"), 0.0)
            vault.keep(_thought("new"), 50.0)
            assert await _find(vault, "old", "new", now=99.0) == {"old": "about old", "new": "about new"}
            assert await _find(vault, "old", "new", now=100.0) == {"new": "about new"}
            vault.sweep(120.0)
            assert await _find(vault, "old", "new", now=1.0) == {"new": "about new"}

    run(walk())


def test_bounds(backend: str, tmp_path: Path) -> None:
    """One account's thoughts never take more than its share, all of them never more than there is; the oldest go."""
    bounds = VaultBounds(100.0, 60_000, 60_000, 1000, 20_000)

    async def walk() -> None:
        async with VAULTS[backend](tmp_path, bounds) as vault:
            vault.keep(_thought("other", "credit"), 0.0)
            names = [f"n{number}" for number in range(40)]
            for name in names:
                vault.keep(_thought(name, reasoning="x" * 1000), 0.0)
            left = list(await _find(vault, *names))
            assert left
            assert left == names[-len(left) :]
            assert len(left) <= 20
            assert await _find(vault, "other", account="credit") == {"other": "about other"}
            vault.keep(_thought("huge", reasoning="x" * 30_000), 0.0)
            assert await _find(vault, "huge") == {}
            for account in range(8):
                vault.keep(_thought("each", f"account {account}", "x" * 15_000), 0.0)
            assert await _find(vault, "each", account="account 0") == {}
            assert await _find(vault, "each", account="account 7") == {"each": "x" * 15_000}

    run(walk())
