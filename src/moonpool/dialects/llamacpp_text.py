"""What in a model's free text is answer, and what the opening of a tool call? (Thinking: think.py.)

Rules: pure, incremental: any slicing of a text gives the same result in the end, and what cannot be decided yet is
held back, never longer than it must be.
"""

from __future__ import annotations

import re
from typing import Final


class Guard:
    """Holds back the end of a text as long as it matches `pattern`, a regular expression that ends in `\\Z`."""

    __slots__ = ("_pattern", "held")

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.held = ""

    def feed(self, text: str) -> str:
        text = self.held + text
        found = self._pattern.search(text)
        cut = found.start() if found else len(text)
        self.held = text[cut:]
        return text[:cut]


def _beginning(text: str) -> str:
    """A pattern for any beginning of `text`, the empty one too; a blank in it is any number of blanks."""
    pattern = ""
    for character in reversed(text):
        pattern = r"\s*" + pattern if character == " " else f"(?:{re.escape(character)}{pattern})?"
    return pattern


# How small models dress a tool call: a fence, a tag, a brace, the way tools are listed. Held until a tool's name comes.
CALL_DRESS: Final = re.compile(
    r"(?:\s|`{1,3}(?:json|jso|js|j)?|</?[a-z_]{0,20}>?|\[)*"
    + _beginning('{ "type": "function", "function": { ')
    + r"\Z"
)
BLANKS: Final = re.compile(r"\s+\Z")

_TEMPLATE_MARKS: Final = re.compile(rb"<(?=(?:\||\xef\xbd\x9c)[^<>\s|\\\"]{1,80}?(?:\||\xef\xbd\x9c)>)")
_STAND_IN: Final = "\ufdd0"  # no character, by Unicode's own word
_STAND_IN_BYTES: Final = _STAND_IN.encode()


def without_marks(body: bytes) -> bytes:
    """A text, or texts in JSON, of which none is read as a mark of the chat template (`<|…|>`, `<｜…｜>`): in place of
    the `<` of each is a stand-in, for `pieces`."""
    body = body.replace(_STAND_IN_BYTES, b"")
    return _TEMPLATE_MARKS.sub(_STAND_IN_BYTES, body) if b"|>" in body or b"\xef\xbd\x9c>" in body else body


def holds_stand_in(prompt: str) -> bool:
    return _STAND_IN in prompt


def pieces(prompt: str, opening: list[int]) -> str | list[str | int]:
    """`prompt` as texts and tokens in turn, as llama.cpp takes them: what stood in for `<` is `opening`, the tokens of
    `<`; what follows it is then plain text."""
    if _STAND_IN not in prompt:
        return prompt
    mixed: list[str | int] = []
    for place, part in enumerate(prompt.split(_STAND_IN)):
        if place:
            mixed += opening
        if part:
            mixed.append(part)
    return mixed


def before_suffix(held: str, suffix: str) -> str:
    """The blanks between a filled-in middle and the suffix that the model has begun to repeat.

    The model indents the repeated line as it belongs; the suffix brings its own blanks: what is kept is the
    difference, so that the line stands where the model meant it to stand.
    """
    lead = suffix[: len(suffix) - len(suffix.lstrip())]
    if "\n" in lead:
        return ""
    line_at = held.rfind("\n") + 1
    return held[: max(line_at, len(held) - len(lead))]


def first_line(suffix: str) -> str | None:
    """The line of a suffix whose return in the middle means that the middle is over; None if it says too little."""
    line = suffix.strip().partition("\n")[0].strip()
    return line if len(line) >= 8 else None
