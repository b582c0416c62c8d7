"""Which part of a text is thinking that a model wrote into it? `<think>…</think>`, told apart while it comes.

Rules: pure, incremental: any slicing of a text gives the same result in the end, and what cannot be decided yet is
held back, never longer than it must be.
"""

from __future__ import annotations

from typing import Final

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_BLANK_LINES: Final = "\r\n"


def split_overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0


class ThinkSplitter:
    """Tells the inline `<think>…</think>` of a model that thinks by itself from its answer.

    `feed` and `flush` give (is thinking, text) pairs in order. `thinking`: the text begins inside the thinking.
    `first`: there is one thinking at most and nothing stands before it, so that later marks are text; an opening mark
    may be there or not where the text begins inside, and blank lines at the head of either part are swallowed.
    """

    __slots__ = ("_first", "_head", "_rest", "thinking")

    def __init__(self, thinking: bool = False, *, first: bool = False) -> None:
        self.thinking = thinking
        self._rest = ""
        self._first = first
        self._head = "open" if first else ""
        """What is looked for at the head of a part: "open", blank lines and an opening mark; "blank", the lines."""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        parts: list[tuple[bool, str]] = []
        rest = self._rest + text
        self._rest = ""
        while True:
            if self._head:
                rest = self._behead(rest)
                if self._head:
                    self._rest = rest
                    return parts
            if self._first and not self.thinking:
                if rest:
                    parts.append((False, rest))
                return parts
            mark = CLOSE if self.thinking else OPEN
            before, found, after = rest.partition(mark)
            if not found:
                held = split_overlap(rest, mark)
                self._rest = rest[len(rest) - held :]
                if len(rest) > held:
                    parts.append((self.thinking, rest[: len(rest) - held]))
                return parts
            if before:
                parts.append((self.thinking, before))
            self.thinking = not self.thinking
            self._head = "blank" if self._first else ""
            rest = after

    def _behead(self, rest: str) -> str:
        """`rest` without what is swallowed at a head; what is left is still looked for when `_head` is still set."""
        rest = rest.lstrip(_BLANK_LINES)
        if self._head == "open" and rest.startswith(OPEN):
            self.thinking, self._head = True, "blank"
            rest = rest[len(OPEN) :].lstrip(_BLANK_LINES)
        if rest and not (self._head == "open" and OPEN.startswith(rest)):
            self._head = ""
        return rest

    def flush(self) -> list[tuple[bool, str]]:
        rest, self._rest = self._rest, ""
        return [(self.thinking, rest)] if rest else []
