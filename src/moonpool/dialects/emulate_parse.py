"""What in a model's text is a call of a function, what a JSON object, what neither? Incremental.

The markup that was agreed on (emulate_prompt.py) becomes ToolCall events while it comes: first the name, once it is
known to be one of the functions, then the text of the arguments as it is written. `wrong` says, in words for the
model, what was the first thing that cannot stand; nothing is read behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moonpool.dialects.emulate_prompt import CLOSE, OPEN
from moonpool.dialects.json_scan import Scan
from moonpool.words import ToolCall

CALLS_MAX: Final = 128
TRIES_MAX: Final = 16
_ARGUMENTS: Final = ("arguments", "parameters")
_FENCE: Final = "```"

Required = Mapping[str, Sequence[str]]
"""Functions by name, each with the arguments that it needs."""


def unfenced(text: str) -> str | None:
    """`text` without blanks and the opening of a code fence before it; None while that is not known."""
    text = text.lstrip()
    if text and _FENCE.startswith(text[:3]):
        _, found, text = text.partition("\n")
        if not found:
            return None
        return text.lstrip() or None
    return text or None


class Calls:
    """`feed` and `close` give pieces in order: texts (str) and parts of calls. `count` is how many calls are complete,
    `begun` whether the opening of another was given out; `made` are (name, arguments) of the complete ones."""

    def __init__(self, functions: Required, parallel: bool, slot: int = 0) -> None:
        self.wrong = ""
        self.begun = False
        self.made: list[tuple[str, Any]] = []
        self._functions = functions
        self._parallel = parallel
        self._first_slot = slot
        self._state = "start"
        self._rest = ""
        self._new()

    @property
    def count(self) -> int:
        return len(self.made)

    def _new(self) -> None:
        self._scan = Scan()
        self._scanned = 0
        self._name = ""
        self._known = ""
        self._arguments: list[str] = []  # as they came; `_waiting` of them were not given
        self._waiting: list[str] = []
        self._key = ""
        self.begun = False

    def feed(self, text: str) -> list[str | ToolCall]:
        out: list[str | ToolCall] = []
        self._rest += text
        before = None
        while not self.wrong and before != (self._state, self._rest):
            before = (self._state, self._rest)
            getattr(self, f"_{self._state}")(out)
        return out

    def close(self, cut: bool) -> list[str | ToolCall]:
        """The text is over; `cut`: not by the model's own will."""
        out: list[str | ToolCall] = []
        if self.wrong:
            return out
        if self._state in ("opening", "call"):
            if not self._complete(out) and not cut:
                self.wrong = self.wrong or "the call breaks off before its end"
            return out
        if self._state in ("start", "text", "bare") and self._rest:
            out.append(self._rest)
            self._rest = ""
        return out

    # One method for each state; each takes from `_rest` what it can decide.

    def _start(self, out: list[str | ToolCall]) -> None:
        """Nothing but blanks so far. Some models forget the marks: an object that looks like a call is one."""
        text = unfenced(self._rest)
        if text is None:
            return
        if text[0] == "{":
            self._state = "bare"
        elif not OPEN.startswith(text) or text.startswith(OPEN):
            self._state = "text"

    def _bare(self, out: list[str | ToolCall]) -> None:
        text = unfenced(self._rest) or ""
        scan = self._scan
        for character in text[self._scanned :]:
            self._scanned += 1
            scan.take(character)
            if scan.broken or (scan.within and scan.key not in ("name", *_ARGUMENTS)):
                self._no_call()
                return
            if scan.done:
                break
        if not scan.done:
            return
        said = _read(text[: self._scanned])
        if type(said) is not dict or said.get("name") not in self._functions or not set(_ARGUMENTS) & set(said):
            self._no_call()
            return
        self._new()
        self._rest = text
        self._state = "call"

    def _no_call(self) -> None:
        self._new()
        self._state = "text"

    def _text(self, out: list[str | ToolCall]) -> None:
        text, mark, after = self._rest.partition(OPEN)
        if mark:
            if text.strip():
                out.append(text.rstrip())
            self._rest, self._state = after, "opening"
            return
        kept = len(text) - _held(text)
        if kept:
            out.append(text[:kept])
            self._rest = text[kept:]

    def _opening(self, out: list[str | ToolCall]) -> None:
        text = unfenced(self._rest)
        if text is None:
            return
        self._rest = text
        if text[0] != "{":
            self.wrong = f"behind {OPEN} stands no JSON object"
        else:
            self._new()
            self._state = "call"

    def _call(self, out: list[str | ToolCall]) -> None:
        scan = self._scan
        for at, character in enumerate(self._rest):
            added = scan.take(character)
            if scan.within == "name":
                self._name += added
            elif scan.within in _ARGUMENTS and self._key in ("", scan.within):
                self._key = scan.within
                self._arguments.append(added)
                self._waiting.append(added)
            if scan.broken or scan.done:
                self._give(out)
                # A last brace that was forgotten before the closing mark is no matter.
                if not self._complete(out):
                    self.wrong = self.wrong or "the call is no valid JSON"
                    return
                self._rest = self._rest[at + scan.done :]
                more = self._parallel and self._first_slot + self.count < CALLS_MAX
                self._state = "between" if more else "over"
                return
        self._rest = ""
        self._give(out)

    def _between(self, out: list[str | ToolCall]) -> None:
        """Behind a call only another one counts: models go on, and make up its result."""
        text = self._rest.lstrip()
        for aside in (CLOSE, _FENCE):
            text = text.removeprefix(aside).lstrip()
        self._rest = text
        if text.startswith(OPEN):
            self._rest, self._state = text[len(OPEN) :], "opening"
        elif not any(mark.startswith(text) for mark in (OPEN, CLOSE, _FENCE)):
            self._state = "over"

    def _over(self, out: list[str | ToolCall]) -> None:
        self._rest = ""

    # The call that is being read.

    def _known_name(self) -> bool:
        """Whether the name is complete and one of the functions; another one is wrong."""
        if self._known:
            return True
        if not self._name or (self._scan.within == "name" and not self._scan.done):
            return False
        name = _read(self._name)
        if type(name) is not str or name not in self._functions:
            self.wrong = f"there is no function {str(name)[:64]!r}, only {', '.join(self._functions)}"
            return False
        self._known = name
        return True

    def _give(self, out: list[str | ToolCall]) -> None:
        """What of the arguments can be handed on. Those in a string are not what they will be."""
        if self._known_name() and self._arguments and self._arguments[0] == "{":
            self._part(out, "".join(self._waiting))

    def _part(self, out: list[str | ToolCall], arguments: str) -> None:
        self._waiting.clear()
        slot = self._first_slot + self.count
        if not self.begun:
            self.begun = True
            out.append(ToolCall(slot, None, self._known, arguments))
        elif arguments:
            out.append(ToolCall(slot, None, None, arguments))

    def _complete(self, out: list[str | ToolCall]) -> bool:
        """Close the call, if all of it is there and right."""
        if not self._known_name():
            self.wrong = self.wrong or "the call has no name"
            return False
        text = whole = "".join(self._arguments)
        arguments = {} if text == "null" or (self._scan.done and not text) else _read(text)
        if type(arguments) is str:
            text, arguments = arguments, _read(arguments)
        if type(arguments) is not dict:
            return False
        missing = [name for name in self._functions[self._known] if name not in arguments]
        if missing:
            self.wrong = f"the call of {self._known} lacks {', '.join(missing)}"
            return False
        if text is not whole:
            self._part(out, text)
        else:
            self._part(out, "".join(self._waiting) if text.startswith("{") else "{}")
        self.made.append((self._known, arguments))
        self.begun = False
        return True


class JsonText:
    """Of a text, the one JSON object in it: `feed` gives its text as it comes, without what stands around it. `hold`:
    nothing is given before the object is complete, and a brace that begins none is passed over wherever that is seen.
    `given`: some of it was."""

    def __init__(self, required: Sequence[str], hold: bool) -> None:
        self.wrong = ""
        self.given = self.done = False
        self._required = required
        self._hold = hold
        self._tries = 0
        self._rest = ""
        self._scan: Scan | None = None
        self._begin()

    def _begin(self) -> None:
        self._raw = ""  # behind the brace, as it came
        self._whole: list[str] = []  # the object's text; `_waiting` of it was not given
        self._waiting: list[str] = []

    def feed(self, text: str) -> str:
        out = ""
        self._rest += text
        while self._rest and not self.done and not self.wrong:
            if self._scan is None:
                _, brace, self._rest = self._rest.partition("{")
                if brace:
                    self._begin()
                    self._scan = Scan()
                    self._keep(self._scan.take(brace))
                continue
            out += self._take(self._scan)
        return out

    def _take(self, scan: Scan) -> str:
        text, self._rest = self._rest, ""
        for at, character in enumerate(text):
            added = scan.take(character)
            if scan.broken:
                out = self._give() if scan.sure and not self._hold else ""
                self._tries += 1
                if self.given or self._tries > TRIES_MAX:
                    self.wrong = "the answer is no valid JSON"
                else:
                    self._rest, self._scan = self._raw + text, None
                return out
            self._keep(added)
            if scan.done:
                self._rest = text[at + 1 :]
                self.done = True
                out = "" if self._hold else self._give()
                self._check()
                return out if self.wrong else out + self._give()
        self._raw += text
        return self._give() if scan.sure and not self._hold else ""

    def _give(self) -> str:
        text = "".join(self._waiting)
        self._waiting.clear()
        self.given = True
        return text

    def _keep(self, text: str) -> None:
        self._whole.append(text)
        self._waiting.append(text)

    def _check(self) -> None:
        said = _read("".join(self._whole))
        missing = [name for name in self._required if name not in said]
        if missing:
            self.wrong = f"the object lacks {', '.join(missing)}"

    def close(self, cut: bool) -> str:
        """The text is over; what is left of it where it was cut."""
        if self.done or self.wrong:
            return ""
        if cut:
            return self._give() if self._scan else ""
        self.wrong = "the object breaks off before its end" if self._scan else "there is no JSON object in it"
        return ""


def _held(text: str) -> int:
    """How many characters at the end may belong to a mark, or stand as blanks before one."""
    marked = next((n for n in range(min(len(text), len(OPEN) - 1), 0, -1) if OPEN.startswith(text[-n:])), 0)
    before = text[: len(text) - marked]
    return marked + len(before) - len(before.rstrip())


def _read(text: str) -> Any:
    """The value; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


__all__ = ["CLOSE", "Calls", "JsonText", "Required"]
