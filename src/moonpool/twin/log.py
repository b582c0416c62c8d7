"""What did the twin see and do, and what would it have billed? One record for each request, a witness for tests.

A record is there from the moment a request came, and is written as a line of JSON when it is over. Nothing that was
said stands in it unless that is asked for; keys are shortened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct, field

from moonpool.ledger.money import exact
from moonpool.words import Usage


class Served(Struct, omit_defaults=True):
    """One request. Times are Unix seconds.

    `kind` is the operation or page, "" for an address that does not exist. `asked` are the fields that matter, with
    counts instead of texts. `fault` names what the script did. `events` and `sent_bytes` are what was given to the
    socket of the body. `ended`: "" while it runs; `whole`; `refused` (an error with its own status); `failed` (an error
    inside the answer); `cut`, `reset`, `ended early`, by script; `gone`: the client closed first. `billed_pico` is what
    it would have cost, `usage` what was really used, whatever was told to the client. `at_once` counts the account's
    requests of this model while this one began, itself included.
    """

    number: int
    id: str
    at: float
    method: str
    path: str
    kind: str = ""
    account: str = ""
    key: str = ""
    model: str = ""
    stream: bool = False
    asked: dict[str, Any] = field(default_factory=dict)
    fault: list[str] = field(default_factory=list)
    status: int = 0
    problem: str = ""
    events: int = 0
    sent_bytes: int = 0
    ended: str = ""
    over_at: float = 0.0
    at_once: int = 0
    usage: Usage = Usage()
    billed_pico: int = 0
    currency: str = ""
    content: Any = None


def line(served: Served) -> dict[str, Any]:
    """A record as it is written: the amount as people read it."""
    found: dict[str, Any] = msgspec.to_builtins(served)
    pico = found.pop("billed_pico", 0)
    if pico:
        found["billed"] = exact(pico)
    return found


class Totals:
    """What there was in all: requests by how they ended, by status, by fault; tokens and money."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = 0
        self._ended: dict[str, int] = {}
        self._statuses: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self._tokens = dict.fromkeys(("prompt_miss", "prompt_hit", "completion", "reasoning"), 0)
        self._billed: dict[str, int] = {}

    def add(self, served: Served) -> None:
        """One that is over."""
        self.over += 1
        _count(self._ended, served.ended)
        _count(self._statuses, str(served.status))
        for name in served.fault:
            _count(self._faults, name)
        for name in self._tokens:
            self._tokens[name] += getattr(served.usage, name)
        if served.billed_pico:
            self._billed[served.currency] = self._billed.get(served.currency, 0) + served.billed_pico

    def page(self, peaks: dict[str, int]) -> dict[str, Any]:
        """`peaks`: the most requests at once, by account. A status 0 is an answer that never began."""
        return {
            "requests": self.begun,
            "running": self.begun - self.over,
            "ended": dict(self._ended),
            "statuses": dict(self._statuses),
            "faults": dict(self._faults),
            "tokens": dict(self._tokens),
            "billed": {currency: exact(pico) for currency, pico in self._billed.items()},
            "at_once_max": {shortened(account): count for account, count in peaks.items()},
        }


def _count(where: dict[str, int], name: str) -> None:
    where[name] = where.get(name, 0) + 1


def shortened(key: str) -> str:
    """Enough to tell keys apart, not to use one."""
    return f"{key[:7]}…{key[-4:]}" if len(key) > 14 else key


class Lines:
    """Writes records to a file, one line each; None: nowhere."""

    def __init__(self, out: BinaryIO | None) -> None:
        self._out = out
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode

    def write(self, record: dict[str, Any]) -> None:
        if self._out is not None:
            self._out.write(self._encode(record) + b"\n")
            self._out.flush()
