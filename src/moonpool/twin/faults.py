"""Which request goes wrong, and how? Rows of a script: what they wait for, and what happens then.

A row counts the model requests that fit its `path`, `model` and `key`, from 1; `request` and `every` speak of that
count, `probability` is drawn from the seed, the row and the count, so that the same script and the same requests meet
the same faults. The first row that fits is the one; a row may name several things (slow, then cut). Events are those
of a stream, its first with the role included; where a whole answer has none, "after k events" means before its first
byte for 0 and after half of it for more.
"""

from __future__ import annotations

import datetime
import fnmatch
import random
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from moonpool.errors import ERRORS
from moonpool.settings import ConfigError, nearest

_Count = Annotated[int, Meta(ge=0)]
_Span = Annotated[float, Meta(ge=0)]
_Every = Annotated[float, Meta(gt=0)]
_Chance = Annotated[float, Meta(ge=0, le=1)]


def _says(text: str, **bounds: Any) -> Meta:
    return Meta(description=text, **bounds)


class Fault(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A row of `[[fault]]`."""

    request: Annotated[int | list[int], _says("Which of the requests that fit, counted from 1; one or several.")] = 0
    every: Annotated[int, _says("Each k-th of the requests that fit.", ge=0)] = 0
    probability: Annotated[_Chance | None, _says("How likely, from 0 to 1, drawn from the seed.")] = None
    times: Annotated[int, _says("At most so often; 0: no limit.", ge=0)] = 0
    path: Annotated[str, _says("The path fits; * stands for anything.")] = ""
    model: Annotated[str, _says("The model fits; * stands for anything.")] = ""
    key: Annotated[str, _says("The key fits; * stands for anything.")] = ""

    refuse: Annotated[
        Literal["", "reset", "close", "busy"],
        _says("No answer: the connection is reset or closed; or the provider's 503."),
    ] = ""
    problem: Annotated[str, _says("Refuse as the provider would for this code of our error table.")] = ""
    rate_limit: Annotated[
        str | None, _says("429 with this Retry-After: -1, a date, 999999, a word; empty: none. now+N: a date.")
    ] = None
    status: Annotated[int, _says("Another status for `problem` or `rate_limit`; 200 makes it an error in a 200.")] = 0
    octet_stream: Annotated[bool, _says("A refusal is called application/octet-stream.")] = False
    html: Annotated[bool, _says("200 with a page of HTML, as a captive portal or a proxy sends it.")] = False
    stall_after: Annotated[_Count | None, _says("Say nothing more after k events; 0: no answer at all.")] = None
    cut_after: Annotated[_Count | None, _says("Close after k events, in the middle of the body.")] = None
    end_after: Annotated[_Count | None, _says("End the body cleanly after k events: no last chunk, no end mark.")] = (
        None
    )
    reset_after_bytes: Annotated[_Count | None, _says("Reset the connection after N bytes of the body.")] = None
    error_after: Annotated[_Count | None, _says("An error inside the 200 after k events: `problem`, if given.")] = None
    garbage_after: Annotated[_Count | None, _says("Bytes that mean nothing after k events, then the end.")] = None
    usage: Annotated[
        Literal["", "negative", "huge", "zero", "missing", "twice"], _says("A usage that cannot be right.")
    ] = ""
    finish: Annotated[str, _says("Another finish_reason, as content_filter or insufficient_system_resource.")] = ""
    alive_s: Annotated[_Span, _says("Before the answer, nothing but comments or blank lines for so long.")] = 0.0
    alive_every_s: Annotated[_Every, _says("How often meanwhile.")] = 1.0
    first_ms: Annotated[_Span, _says("So long before the first byte, of a refusal too.")] = 0.0
    slow_ms: Annotated[_Span, _says("So long before each event.")] = 0.0

    def effects(self) -> list[str]:
        """The names of what happens, as they are written in the row."""
        names = (name for name in self.__struct_fields__ if name not in WHEN)
        return [name for name in names if getattr(self, name) != getattr(_NOTHING, name)]


WHEN: Final = ("request", "every", "probability", "times", "path", "model", "key")
"""Fields that say when, or how; the others say what."""
_NOTHING: Final = Fault()


class _Script(Struct, frozen=True, forbid_unknown_fields=True):
    seed: int | None = None
    fault: list[dict[str, Any]] = []


class Faults:
    """A script at work: it counts, so one of these is for one twin."""

    def __init__(self, rows: Iterable[Fault] = (), seed: int = 0) -> None:
        self.rows = tuple(rows)
        self.seed = seed
        self._fitting = [0] * len(self.rows)
        self._taken = [0] * len(self.rows)

    def pick(self, path: str, model: str, key: str) -> Fault | None:
        """What becomes of the next model request. Every row counts, also those behind the one that is picked."""
        picked = None
        for at, row in enumerate(self.rows):
            if not all(_like(text, has) for text, has in ((row.path, path), (row.model, model), (row.key, key))):
                continue
            self._fitting[at] += 1
            if picked is None and self._due(at, row):
                self._taken[at] += 1
                picked = row
        return picked

    def _due(self, at: int, row: Fault) -> bool:
        count = self._fitting[at]
        if row.times and self._taken[at] >= row.times:
            return False
        if row.request and count not in (row.request if type(row.request) is list else (row.request,)):
            return False
        if row.every and count % row.every:
            return False
        chance = row.probability
        return chance is None or random.Random(f"{self.seed} {at} {count}").random() < chance


def _like(pattern: str, text: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(text, pattern)


def load(path: Path, seed: int | None = None) -> Faults:
    """A script from a file. `seed` goes before the file's. Raises ConfigError with file, key and the nearest name."""
    file = str(path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(file, "", f"cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(file, "", f"is not TOML: {error}.") from None
    for name in table:
        if name not in _Script.__struct_fields__:
            raise ConfigError(file, name, f"is not known{nearest(name, _Script.__struct_fields__)}")
    try:
        script = msgspec.convert(table, _Script)
    except msgspec.ValidationError as error:
        raise ConfigError(file, "fault", f"{error}.") from None
    rows = [read_row(row, file, f"fault[{at}]") for at, row in enumerate(script.fault)]
    return Faults(rows, seed if seed is not None else script.seed or 0)


def read_row(table: dict[str, Any], file: str = "", key: str = "fault") -> Fault:
    """One row. Raises ConfigError."""
    for name in table:
        if name not in Fault.__struct_fields__:
            raise ConfigError(file, f"{key}.{name}", f"is not known{nearest(name, Fault.__struct_fields__)}")
    try:
        row = msgspec.convert(table, Fault)
    except msgspec.ValidationError as error:
        raise ConfigError(file, key, f"{error}.") from None
    if row.problem and row.problem not in ERRORS:
        raise ConfigError(file, f"{key}.problem", f"{row.problem!r} is not known{nearest(row.problem, ERRORS)}")
    if not row.effects():
        raise ConfigError(file, key, "says when, but not what goes wrong.")
    return row


def retry_after(said: str, now: float) -> str:
    """The header's value; `now+N` is the HTTP date in N seconds."""
    if not said.startswith("now"):
        return said
    moment = datetime.datetime.fromtimestamp(now + float(said[3:] or 0), datetime.UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
