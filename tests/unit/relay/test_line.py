"""relay/line.py: whose turn is it?"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.later import drive
from moonpool.relay.line import Line


class Room:
    """`free` places; who gets one is written down."""

    def __init__(self) -> None:
        self.free = 0
        self.served: list[str] = []
        self.line = Line()

    def wait(self, account: str, name: str, now: float = 0.0) -> Any:
        waiter = self.line.join(account, self.again, now)

        async def waits() -> None:
            got = await waiter.turn
            self.served.append(name if got == "place" else f"{name}: {got.code}")

        drive(waits(), lambda error: None)
        return waiter

    def again(self) -> str | None:
        if not self.free:
            return None
        self.free -= 1
        return "place"

    def give(self, places: int) -> None:
        self.free += places
        self.line.serve()


def test_turns_go_round_the_accounts() -> None:
    """A thousand of one account wait behind themselves, not before another's one."""
    room = Room()
    for number in range(5):
        room.wait("big", f"big{number}")
    room.wait("small", "small0")
    for _ in range(6):
        room.give(1)
    assert room.served == ["big0", "small0", "big1", "big2", "big3", "big4"]
    assert room.line.waiting == 0


def test_who_has_the_turn_before_me() -> None:
    """All of my own, and of each other account as many as it has turns until mine."""
    room = Room()
    for account, count in (("big", 5), ("small", 1)):
        for number in range(count):
            room.wait(account, f"{account}{number}")
    assert [room.line.before(account) for account in ("big", "small", "new")] == [5 + 1, 1 + 2, 0 + 2]


def test_who_left_is_not_served() -> None:
    """The place goes to the next, and the one who left hears so once."""
    room = Room()
    first = room.wait("a", "first")
    room.wait("a", "second")
    first.gone()
    first.gone()
    room.give(1)
    assert room.served == ["first: caller.gone", "second"]


def test_who_waited_too_long_is_told() -> None:
    """Only they; the others keep their turn."""
    room = Room()
    room.wait("a", "old", now=0.0)
    room.wait("a", "young", now=9.0)
    room.line.late(10.0, 10.0, lambda: Problem("platform.queue_full"))
    assert room.served == ["old: platform.queue_full"]
    room.give(1)
    assert room.served[1:] == ["young"]


def test_one_that_needs_another_place_holds_up_nobody() -> None:
    """The first in turn cannot be served; another account's can."""
    room = Room()
    blocked = room.line.join("a", lambda: None, 0.0)
    room.wait("b", "b0")
    room.give(1)
    assert room.served == ["b0"]
    assert not blocked.turn.done()


def test_a_place_that_is_given_back_at_once_serves_the_next() -> None:
    """Who fails within its turn gives its place to the next, without anybody being served twice."""
    room = Room()

    def wait(name: str) -> None:
        waiter = room.line.join("a", room.again, 0.0)

        async def waits() -> None:
            await waiter.turn
            room.served.append(name)
            room.give(1)

        drive(waits(), lambda error: None)

    for number in range(200):
        wait(str(number))
    room.give(1)
    assert room.served == [str(number) for number in range(200)]
    assert room.free == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["join", "leave", "give"])), max_size=60))
def test_nobody_is_lost(steps: list[tuple[str, str]]) -> None:
    """Whatever comes: each waiter is served, or left, or still waits; never two of these, and the count is right."""
    room, here = Room(), []
    for number, (account, step) in enumerate(steps):
        if step == "join":
            here.append(room.wait(account, str(number)))
        elif step == "leave" and here:
            here[number % len(here)].gone()
        elif step == "give":
            room.give(1)
    assert len(room.served) == len({name.split(":")[0] for name in room.served})
    assert room.line.waiting == sum(not waiter.turn.done() for waiter in here)
