"""What has this answer said? Kept only for those who need it: to go on where it broke off, to remember its reasoning.

Of the first candidate only; who keeps it does so for answers of one. Bounded: what is longer than CHARS_MAX is not
kept at all (`whole` is False then), and so nobody goes on from half of it.
"""

from __future__ import annotations

from typing import Final

from moonpool.words import Event, Finished, Reasoning, Text, ToolCall

CHARS_MAX: Final = 2_000_000


class Said:
    """`reasoning` and `text` are joined when asked for; `calls` are [id, name, arguments] by slot; `reasoned` tells an
    empty thinking from none."""

    __slots__ = ("_chars", "_reasoning", "_text", "calls", "finished", "reasoned", "whole")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._chars = 0
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self.calls: list[list[str]] = []
        self.finished = self.reasoned = False
        self.whole = True

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def text(self) -> str:
        return "".join(self._text)

    def add(self, event: Event) -> None:
        kind = type(event)
        if kind is Text:
            self._keep(self._text, event.text)  # type: ignore[union-attr]
        elif kind is Reasoning:
            self.reasoned = True
            self._keep(self._reasoning, event.text)  # type: ignore[union-attr]
        elif kind is ToolCall:
            self._call(event)  # type: ignore[arg-type]
        elif kind is Finished:
            self.finished = True

    def _keep(self, where: list[str], text: str) -> None:
        self._chars += len(text)
        if self._chars > CHARS_MAX:
            self.whole = False
        elif text:
            where.append(text)

    def _call(self, event: ToolCall) -> None:
        calls = self.calls
        while len(calls) <= event.slot:
            calls.append(["", "", ""])
        call = calls[event.slot]
        call[0] = call[0] or event.id or ""
        call[1] = call[1] or event.name or ""
        self._chars += len(event.arguments)
        if self._chars > CHARS_MAX:
            self.whole = False
        else:
            call[2] += event.arguments
