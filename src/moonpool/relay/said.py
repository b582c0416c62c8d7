"""What has this answer said? Kept only for those who need it: to go on where it broke off, to remember its reasoning.

Of the first candidate only; who keeps it does so for answers of one. Bounded: what is longer than CHARS_MAX is not
kept at all (`whole` is False then), and so nobody goes on from half of it.
"""

from __future__ import annotations

from typing import Final

from moonpool.words import ToolCall

CHARS_MAX: Final = 2_000_000


class Said:
    """`thoughts` and `texts` are the parts as they came, put there by the pump; `calls` are [id, name, arguments] by
    slot; `whole` is False once it was too long to keep."""

    __slots__ = ("calls", "finished", "texts", "thoughts", "whole")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.thoughts: list[str] = []
        self.texts: list[str] = []
        self.calls: list[list[str]] = []
        self.finished = False
        self.whole = True

    def give_up(self) -> None:
        """It is too long: keep nothing."""
        finished = self.finished
        self.forget()
        self.finished, self.whole = finished, False

    @property
    def reasoned(self) -> bool:
        """Whether there was a thinking, be it empty."""
        return bool(self.thoughts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def call(self, event: ToolCall) -> None:
        calls = self.calls
        while len(calls) <= event.slot:
            calls.append(["", "", ""])
        call = calls[event.slot]
        call[0] = call[0] or event.id or ""
        call[1] = call[1] or event.name or ""
        call[2] += event.arguments
