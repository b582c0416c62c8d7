"""later.py: values that come later and coroutines without tasks."""

from __future__ import annotations

import asyncio

import pytest

from moonpool.later import Later, drive


def test_a_driven_coroutine_goes_on_inside_set() -> None:
    """`set` returns only after the waiting coroutine ran on to its next wait."""
    seen: list[object] = []
    first: Later[int] = Later()
    second: Later[int] = Later()

    async def walk() -> None:
        seen.append(await first)
        seen.append(await second)

    drive(walk(), seen.append)
    assert seen == []
    first.set(1)
    assert seen == [1]
    second.set(2)
    assert seen == [1, 2]


def test_a_value_that_is_there_already_is_not_waited_for() -> None:
    """Awaiting a set Later does not suspend."""
    seen: list[object] = []
    ready: Later[str] = Later()
    ready.set("x")

    async def walk() -> None:
        seen.append(await ready)

    drive(walk(), seen.append)
    assert seen == ["x"]


def test_a_failure_is_raised_where_it_is_awaited() -> None:
    """`fail` raises its error in the coroutine; what escapes it goes to `lost`."""
    lost: list[BaseException] = []
    later: Later[int] = Later()

    async def walk() -> None:
        await later

    drive(walk(), lost.append)
    later.fail(ValueError("no"))
    assert [type(error) for error in lost] == [ValueError]


def test_setting_twice_is_refused() -> None:
    """A value is set at most once, whichever way."""
    later: Later[int] = Later()
    later.set(1)
    with pytest.raises(RuntimeError):
        later.set(2)
    with pytest.raises(RuntimeError):
        later.fail(ValueError())
    assert later.result() == 1


def test_tasks_and_driven_coroutines_may_both_wait() -> None:
    """A Later works under asyncio.Task, also when set before, and a driven coroutine may await a future."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        later: Later[int] = Later()
        loop.call_soon(later.set, 5)
        early: Later[int] = Later()
        early.set(6)
        future: asyncio.Future[int] = loop.create_future()
        loop.call_soon(future.set_result, 7)
        seen: asyncio.Future[int] = loop.create_future()

        async def walk() -> None:
            seen.set_result(await future)

        drive(walk(), seen.set_exception)
        return [await later, await early, await seen]

    assert asyncio.run(main()) == [5, 6, 7]


def test_a_cancelled_task_leaves_the_value_to_nobody() -> None:
    """Cancelling a task that waits ends the task; setting the value afterwards harms nothing."""

    async def main() -> bool:
        later: Later[int] = Later()

        async def wait() -> int:
            return await later

        task = asyncio.get_running_loop().create_task(wait())
        await asyncio.wait({task}, timeout=0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            later.set(1)
            return True
        return False

    assert asyncio.run(main())


def test_a_task_may_set_what_another_task_waits_for() -> None:
    """The waiting task gets a turn of its own; the setting one goes on undisturbed."""

    async def main() -> list[str]:
        seen: list[str] = []
        later: Later[str] = Later()

        async def wait() -> None:
            seen.append(await later)

        async def give() -> None:
            later.set("given")
            seen.append("gave")

        waiting = asyncio.create_task(wait())
        await asyncio.wait({waiting}, timeout=0)
        await asyncio.create_task(give())
        await waiting
        return seen

    assert asyncio.run(main()) == ["gave", "given"]
