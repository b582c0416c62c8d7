"""One value that comes later, and a way to run a coroutine on it without a task.

The path of a request waits twice: for its hold to be durable and for its answer to end. Both times the
thing waited for happens inside a callback of the event loop. `Later` resumes the waiting coroutine right
there, in the same callback, where an `asyncio.Future` would schedule another turn of the loop, and `drive`
runs a coroutine with nothing around it, where `asyncio.Task` copies a context and adds a turn for each step.
Measured with `make bench`: see docs/decisions/0002-no-task-per-request.md.

A `Later` also speaks the protocol of futures, so `await later` works inside an ordinary task: tests, the CLI
and the admin API do so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_UNSET: Any = object()


class Later(Generic[T]):
    """A value set once by `set` or `fail`, awaited by at most one coroutine.

    Setting it twice is a programming error and raises RuntimeError: whoever may be late asks `done` first.
    The waiter runs inside `set`, before it returns; so `set` is the last thing a callback does.
    """

    __slots__ = ("_asyncio_future_blocking", "_error", "_value", "_waiter")

    def __init__(self) -> None:
        self._value: Any = _UNSET
        self._error: BaseException | None = None
        self._waiter: Callable[[Any], object] | None = None
        self._asyncio_future_blocking = False

    def done(self) -> bool:
        return self._value is not _UNSET or self._error is not None

    def set(self, value: T) -> None:
        if self._value is not _UNSET or self._error is not None:
            raise RuntimeError("this Later was set before")
        self._value = value
        if self._waiter is not None:
            self._waiter(self)

    def fail(self, error: BaseException) -> None:
        if self.done():
            raise RuntimeError("this Later was set before")
        self._error = error
        if self._waiter is not None:
            self._waiter(self)

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        if self._value is _UNSET:
            raise asyncio.InvalidStateError("not set yet")
        return self._value  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, None, T]:
        if self._value is _UNSET and self._error is None:
            self._asyncio_future_blocking = True
            yield self
        if self._error is None and self._value is not _UNSET:
            return self._value  # type: ignore[no-any-return]
        return self.result()

    # What asyncio.Task asks of anything that is awaited inside it.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Any = None) -> None:
        if self.done():
            asyncio.get_running_loop().call_soon(partial(wake, self))
        elif context is None:
            self._waiter = wake
        else:
            # A task: it must not be entered from within another one, so it gets its own turn of the loop.
            call_soon: Callable[..., object] = asyncio.get_running_loop().call_soon
            self._waiter = partial(call_soon, wake)

    def remove_done_callback(self, wake: Callable[[Any], object]) -> int:
        gone = int(self._waiter is not None)
        self._waiter = None
        return gone

    def cancel(self, msg: Any = None) -> bool:
        """A task that waits here was cancelled: let it see so; the value may still come, to nobody."""
        if self.done():
            return False
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            gone: Later[T] = Later()
            gone._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
            waiter(gone)
        return True


class _Driven:
    """Not a closure: one that hands itself on would be a cycle, and garbage for the collector with every request."""

    __slots__ = ("_lost", "_send")

    def __init__(self, coroutine: Coroutine[Any, None, None], lost: Callable[[BaseException], None]) -> None:
        self._send = coroutine.send
        self._lost = lost

    def wake(self, _: Any = None) -> None:
        try:
            waited_for = self._send(None)
        except StopIteration:
            return
        except BaseException as error:
            self._lost(error)
            if not isinstance(error, Exception):
                raise
            return
        waited_for._asyncio_future_blocking = False
        if type(waited_for) is Later:
            waited_for._waiter = self.wake  # it is not done, or it would not have been waited for
        else:
            waited_for.add_done_callback(self.wake)


def drive(coroutine: Coroutine[Any, None, None], lost: Callable[[BaseException], None]) -> None:
    """Run `coroutine` until it first waits, and on from there whenever what it waits for is there.

    It may await a `Later` or an `asyncio.Future`, nothing that needs `asyncio.current_task()`.
    `lost` gets whatever the coroutine lets escape: a fault of ours, to be logged.
    """
    _Driven(coroutine, lost).wake()
