"""Books: what every ledger promises, whatever database is below."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.backends import STORES, a_deposit, a_hold, a_resolution, audited, opened, run
from moonpool.errors import Problem
from moonpool.later import drive
from moonpool.state.base import Store
from moonpool.words import Account, Usage

pytestmark = pytest.mark.parametrize("backend", STORES)


@pytest.fixture(autouse=True)
def _sound(backend: str, tmp_path: Path) -> Iterator[None]:
    """Whatever a test did to the books, the auditor finds nothing wrong afterwards."""
    yield
    assert audited(backend, tmp_path) == []


async def _standing(store: Store, account: str = "acme", currency: str | None = None) -> tuple[int, int, int]:
    """(granted, its own money less what it owes on credit, held)."""
    found = await store.books.balance(account, currency)
    assert found is not None
    return found.granted_pico, found.topped_up_pico + found.post_paid_pico, found.held_pico


async def _counts(store: Store) -> dict[str, int]:
    return {name: count for name, count in (await store.books.totals()).items() if count}


def test_a_hold_and_its_post(backend: str, tmp_path: Path) -> None:
    """A hold lowers what is available, its post books what was used and releases the rest."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 100))
        assert await store.books.hold(a_hold("a", 60, "acme")) == "held"
        assert await _standing(store) == (0, 100, 60)
        assert await store.books.resolve(a_resolution("a", owed_pico=25, cost_pico=11)) == "resolved"
        assert await _standing(store) == (0, 75, 0)
        assert await _counts(store) == {
            "holds": 1,
            "posted": 1,
            "prompt_miss": 3,
            "prompt_hit": 2,
            "completion": 5,
            "reasoning": 1,
        }
        await store.stop()

    run(walk())


def test_holding_twice(backend: str, tmp_path: Path) -> None:
    """The second hold with an id answers "exists" and changes nothing: while the first is on its way, open, resolved,
    and after a restart."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        first, second = store.books.hold(a_hold("a", 10)), store.books.hold(a_hold("a", 10))
        assert (await second, await first) == ("exists", "held")
        assert await store.books.hold(a_hold("a", 99)) == "exists"
        assert await _standing(store, "credit") == (0, 0, 10)
        await store.books.resolve(a_resolution("a", owed_pico=4))
        assert await store.books.hold(a_hold("a", 10)) == "exists"
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await store.books.hold(a_hold("a", 10)) == "exists"
        assert await _standing(store, "credit") == (0, -4, 0)
        assert (await _counts(store))["holds"] == 1
        await store.stop()

    run(walk())


def test_a_repeated_hold_among_others(backend: str, tmp_path: Path) -> None:
    """Of holds that are written together only the repeated one answers "exists"; a resolution that came for it before
    that was known is a repetition too."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.hold(a_hold("a", 10))
        await store.books.resolve(a_resolution("a", owed_pico=4))
        waiting = [store.books.hold(a_hold(each, 10)) for each in ("b", "a", "c")]
        again = store.books.resolve(a_resolution("a", owed_pico=1_000, cost_pico=50))
        of_b = store.books.resolve(a_resolution("b", owed_pico=5))
        assert [await each for each in waiting] == ["held", "exists", "held"]
        assert (await again, await of_b) == ("exists", "resolved")
        assert await _standing(store, "credit") == (0, -9, 10)
        await store.books.resolve(a_resolution("c", "voided"))
        await store.stop()

    run(walk())


def test_at_most_one_resolution(backend: str, tmp_path: Path) -> None:
    """After a post, nothing else ends the hold: not a second post, not a void. An unknown id is "unknown"."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.hold(a_hold("a", 10))
        first, second = (
            store.books.resolve(a_resolution("a", owed_pico=7)),
            store.books.resolve(a_resolution("a", owed_pico=7)),
        )
        assert (await second, await first) == ("exists", "resolved")
        assert await store.books.resolve(a_resolution("a", "voided")) == "exists"
        assert await store.books.resolve(a_resolution("z")) == "unknown"
        assert await _standing(store, "credit") == (0, -7, 0)
        assert (await _counts(store))["posted"] == 1
        await store.stop()

    run(walk())


def test_a_void_owes_nothing(backend: str, tmp_path: Path) -> None:
    """A voided hold is released; whatever it says of owing, the client pays nothing, and a host's bill is booked."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 100))
        await store.books.hold(a_hold("a", 60, "acme"))
        assert await store.books.resolve(a_resolution("a", "voided", owed_pico=25, cost_pico=3)) == "resolved"
        assert await _standing(store) == (0, 100, 0)
        await store.stop()

    run(walk())


def test_the_truth_is_booked(backend: str, tmp_path: Path) -> None:
    """More than was held may be posted, even more than there is; the next hold is refused, one for nothing too."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 100))
        await store.books.hold(a_hold("a", 60, "acme"))
        assert await store.books.resolve(a_resolution("a", owed_pico=130)) == "resolved"
        assert await _standing(store) == (0, -30, 0)
        assert await store.books.hold(a_hold("b", 1, "acme")) == "short"
        assert await store.books.hold(a_hold("b", 0, "acme")) == "short"
        await store.books.deposit(a_deposit("d2", 30))
        assert await store.books.hold(a_hold("b", 0, "acme")) == "held"
        await store.stop()

    run(walk())


def test_granted_money_goes_first(backend: str, tmp_path: Path) -> None:
    """A post draws granted money before topped-up money."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 100))
        await store.books.deposit(a_deposit("g", 30, "granted"))
        for name, owed, left in (("a", 20, (10, 100, 0)), ("b", 20, (0, 90, 0)), ("c", 5, (0, 85, 0))):
            await store.books.hold(a_hold(name, owed, "acme"))
            await store.books.resolve(a_resolution(name, owed_pico=owed))
            assert await _standing(store) == left
        await store.stop()

    run(walk())


def test_who_may_hold(backend: str, tmp_path: Path) -> None:
    """Without money only nothing can be held; post-paid accounts may always hold; unknown accounts have no credit."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        assert await store.books.hold(a_hold("a", 0, "acme")) == "held"
        assert await store.books.hold(a_hold("b", 1, "acme")) == "short"
        assert await store.books.hold(a_hold("c", 10**15, "credit")) == "held"
        assert await store.books.hold(a_hold("d", 1, "nobody")) == "short"
        await store.keys.save_account(Account("acme", "Acme", post_paid=True))
        assert await store.books.hold(a_hold("b", 1, "acme")) == "held"
        assert (await store.books.balance("acme")).post_paid  # type: ignore[union-attr]
        assert await store.books.balance("nobody") is None
        await store.stop()

    run(walk())


def test_a_race_for_money(backend: str, tmp_path: Path) -> None:
    """With money for ten, exactly ten of fifty at once get it; what they give back can be had again."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 1009))

        async def race(turn: int) -> list[str]:
            waiting = [store.books.hold(a_hold(f"{turn}-{each}", 100, "acme")) for each in range(50)]
            return [await each for each in waiting]

        for turn in range(5):
            answers = await race(turn)
            assert sorted(answers) == ["held"] * 10 + ["short"] * 40
            assert await _standing(store) == (0, 1009, 1000)
            for each, answer in enumerate(answers):
                if answer == "held":
                    await store.books.resolve(a_resolution(f"{turn}-{each}", "voided"))
        await store.stop()

    run(walk())


def test_a_thousand_at_once(backend: str, tmp_path: Path) -> None:
    """A thousand requests that hold and post in each other's way leave exact sums."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)

        async def request(each: int) -> None:
            assert await store.books.hold(a_hold(f"r{each}", 1000 + each)) == "held"
            if each % 3 == 0:
                await asyncio.sleep(0)
            kind = "voided" if each % 10 == 0 else "posted"
            owed = 0 if kind == "voided" else each
            assert await store.books.resolve(a_resolution(f"r{each}", kind, owed, each // 2)) == "resolved"

        await asyncio.gather(*(request(each) for each in range(1000)))
        owed = sum(each for each in range(1000) if each % 10)
        assert await _standing(store, "credit") == (0, -owed, 0)
        counts = await _counts(store)
        assert (counts["holds"], counts["posted"], counts["voided"]) == (1000, 900, 100)
        assert counts["completion"] == 5000
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await _standing(store, "credit") == (0, -owed, 0)
        assert await _counts(store) == counts
        await store.stop()

    run(walk())


def test_recovery(backend: str, tmp_path: Path) -> None:
    """What an earlier process left held is resolved as recovered, once, and owes nothing."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.deposit(a_deposit("d", 100))
        for name in ("a", "b", "c"):
            await store.books.hold(a_hold(name, 20, "acme"))
        await store.books.resolve(a_resolution("b", owed_pico=7))
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await _standing(store) == (0, 93, 40)
        assert (await _counts(store))["open"] == 2
        await store.books.hold(a_hold("mine", 5, "acme"))
        assert await store.books.recover(50.0) == 2
        assert await store.books.recover(50.0) == 0
        assert await _standing(store) == (0, 93, 5)
        assert (await _counts(store))["recovered"] == 2
        assert await store.books.resolve(a_resolution("a", owed_pico=9)) == "exists"
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await store.books.recover(51.0) == 1
        await store.stop()

    run(walk())


def test_expiry(backend: str, tmp_path: Path) -> None:
    """Holds past their time that no living process works on expire; others, and one's own, do not."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        await store.books.hold(a_hold("early", 20, expires_at=10.0))
        await store.books.hold(a_hold("late", 20, expires_at=30.0))
        await store.stop()
        store = await opened(backend, tmp_path)
        await store.books.hold(a_hold("mine", 20, expires_at=10.0))
        assert await store.books.expire(9.9) == 0
        assert await store.books.expire(10.0) == 1
        assert await store.books.expire(20.0) == 0
        assert await _standing(store, "credit") == (0, 0, 40)
        assert await store.books.resolve(a_resolution("early")) == "exists"
        assert await store.books.resolve(a_resolution("late", owed_pico=1)) == "resolved"
        assert await store.books.resolve(a_resolution("mine", owed_pico=1)) == "resolved"
        await store.stop()

    run(walk())


def test_a_deposit_happens_once(backend: str, tmp_path: Path) -> None:
    """Twenty deliveries of one deposit are one deposit, after a restart too."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        answers = await asyncio.gather(*(store.books.deposit(a_deposit("d", 70)) for _ in range(20)))
        assert sorted(answers) == ["deposited"] + ["exists"] * 19
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await store.books.deposit(a_deposit("d", 70)) == "exists"
        assert await _standing(store) == (0, 70, 0)
        await store.stop()

    run(walk())


def test_deposits_that_cannot_be(backend: str, tmp_path: Path) -> None:
    """An amount of nothing, a debt, more than can be booked, and an account nobody knows are refused."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        for wrong in (
            a_deposit("d", 0),
            a_deposit("d", -5),
            a_deposit("d", 2**63),
            a_deposit("d", 5, account="nobody"),
        ):
            with pytest.raises(Problem) as caught:
                await store.books.deposit(wrong)
            assert caught.value.code == "caller.invalid_value"
        assert await _standing(store) == (0, 0, 0)
        await store.stop()

    run(walk())


def test_amounts_that_cannot_be(backend: str, tmp_path: Path) -> None:
    """A hold beyond all bounds is refused; a resolution beyond them is booked as voided; both leave the books sound."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        for amount in (-1, 2**63, 10**30):
            with pytest.raises(Problem) as caught:
                await store.books.hold(a_hold("huge", amount))
            assert caught.value.code == "platform.fault"
        wrong = (
            a_resolution("a", owed_pico=2**63),
            a_resolution("b", cost_pico=-1),
            a_resolution("c", usage=Usage(10**30)),
            a_resolution("d", usage=Usage(1, 1, -1), owed_pico=5),
        )
        for resolution in wrong:
            assert await store.books.hold(a_hold(resolution.hold_id, 10)) == "held"
            assert await store.books.resolve(resolution) == "resolved"
        assert await _standing(store, "credit") == (0, 0, 0)
        assert await _counts(store) == {"holds": 4, "voided": 4}
        await store.stop()

    run(walk())


def test_debts_have_a_floor(backend: str, tmp_path: Path) -> None:
    """Debts never grow beyond what a 64-bit number holds."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        for each in range(100):
            await store.books.hold(a_hold(f"r{each}"))
            store.books.resolve(a_resolution(f"r{each}", owed_pico=10**17))
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await _standing(store, "credit") == (0, -92 * 10**17, 0)
        assert (await _counts(store))["voided"] == 8
        await store.stop()

    run(walk())


def test_currencies_are_apart(backend: str, tmp_path: Path) -> None:
    """Money of one currency covers nothing in another; without a word the currency that is used is shown."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        assert (await store.books.balance("acme")).currency == "CNY"  # type: ignore[union-attr]
        await store.books.deposit(a_deposit("d", 70, currency="USD"))
        assert await store.books.hold(a_hold("a", 10, "acme")) == "short"
        assert await store.books.hold(a_hold("a", 10, "acme", "USD")) == "held"
        await store.books.resolve(a_resolution("a", owed_pico=4))
        assert await _standing(store, "acme", "USD") == (0, 66, 0)
        assert await _standing(store, "acme", "CNY") == (0, 0, 0)
        assert (await store.books.balance("acme")).currency == "USD"  # type: ignore[union-attr]
        await store.stop()

    run(walk())


def test_what_is_resolved_as_the_books_close_is_written(backend: str, tmp_path: Path) -> None:
    """A hold that becomes durable while the store stops, and is resolved by whoever waited for it in the same moment,
    is no open hold at the next start: a request that comes in the last moment of a server is booked like any other."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)

        async def request() -> None:
            assert await store.books.hold(a_hold("late", 5)) == "held"
            store.books.resolve(a_resolution("late", "voided"))

        drive(request(), _raise)
        await store.stop()
        store = await opened(backend, tmp_path)
        assert await store.books.recover(50.0) == 0
        assert await _counts(store) == {"holds": 1, "voided": 1, "prompt_miss": 3, "prompt_hit": 2, "completion": 5} | {
            "reasoning": 1
        }
        await store.stop()

    run(walk())


def _raise(error: BaseException) -> None:
    raise error


def test_stopping_writes_what_is_pending(backend: str, tmp_path: Path) -> None:
    """What was accepted before `stop` is there at the next start, without anybody having waited for it."""

    async def walk() -> None:
        store = await opened(backend, tmp_path)
        waiting = [store.books.hold(a_hold(f"r{each}", 10)) for each in range(100)]
        for each in range(50):
            store.books.resolve(a_resolution(f"r{each}", owed_pico=1))
        await store.stop()
        assert [await each for each in waiting] == ["held"] * 100
        store = await opened(backend, tmp_path)
        assert await _standing(store, "credit") == (0, -50, 500)
        await store.stop()

    run(walk())
