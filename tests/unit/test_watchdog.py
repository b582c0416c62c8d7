"""A loop that stands still is seen by who does not run on it."""

from __future__ import annotations

from typing import Any

from moonpool.watchdog import LATE_S, LOOK_S, RECENT_S, Watchdog


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))


def _turning(dog: Watchdog, first: float, last: float) -> None:
    """Both sides look from `first` on, and before `last`."""
    now = first
    while now < last:
        dog.beat(now)
        dog.look(now)
        now += LOOK_S


def test_a_stall_is_told_once_with_the_place_where_it_stood() -> None:
    """Case 74: the stack is written while the loop stands, not after; then how long it was; then it is well again."""
    told = Told()
    dog = Watchdog(told.note, lambda: "File x, in y")
    _turning(dog, 100.0, 101.0)
    assert told.events == []
    for step in range(12):  # the loop's last turn was at 100.75
        dog.look(101.0 + step * LOOK_S)
    ((event, facts),) = told.events
    assert event == "loop stands still"
    assert facts["trace"] == "File x, in y"
    assert LATE_S < facts["since_s"] <= LATE_S + LOOK_S
    dog.beat(103.75)
    assert told.events[1:] == [("loop turns again", {"stood_s": 3.0})]
    assert (dog.stalls, dog.stalled_s) == (1, 3.0)
    assert dog.trouble(103.75 + RECENT_S - 0.1) == "the event loop stood still for 3.0 s; the log says where"
    assert dog.trouble(103.75 + RECENT_S) is None
    _turning(dog, 104.0, 106.0)
    assert len(told.events) == 2


def test_a_process_that_was_stopped_blames_nobody() -> None:
    """A machine that slept, or SIGSTOP: the thread stood still as well, and knows nothing of the loop."""
    told = Told()
    dog = Watchdog(told.note, lambda: "")
    _turning(dog, 100.0, 101.0)
    dog.look(500.0)
    dog.beat(500.1)
    _turning(dog, 500.25, 503.0)
    assert told.events == []
    assert dog.trouble(501.0) is None
