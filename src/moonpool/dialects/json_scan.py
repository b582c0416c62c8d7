"""Is this still the beginning of a JSON object, and where is one in it? Character by character.

Strict as JSON is, but for two things that models do: a raw line break or tab in a string is taken, and written as its
escape; a name without quotes is taken as a key, and gets them. What `take` gives back, joined, is the object's text.
"""

from __future__ import annotations

import re
from typing import Final, Literal

DEPTH_MAX: Final = 64
_WORD: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null", re.ASCII)
_WORD_CHARACTERS: Final = frozenset("-+.0123456789abcdefghijklmnopqrstuvwxyzE")
_NAME_BEGINS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$")
_BLANK: Final = frozenset(" \t\r\n")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ENDS: Final = {"}": "{", "]": "["}

_State = Literal[
    "root", "first_key", "key", "bare", "colon", "value", "first_item", "after", "string", "escape", "hex", "word"
]  # fmt: skip


class Scan:
    """`done`: the object is complete; `broken`: it never will be; `sure`: more than a brace speaks for one. `key` is
    the outermost object's last key, `within` that key if the character last taken belongs to its value."""

    __slots__ = ("_hex", "_inside", "_is_key", "_stack", "_state", "_word", "broken", "done", "key", "sure", "within")

    def __init__(self) -> None:
        self._state: _State = "root"
        self._stack: list[str] = []
        self._word = ""
        self._hex = 0
        self._is_key = False
        self._inside = False
        self.done = self.broken = self.sure = False
        self.key = ""
        self.within = ""

    def take(self, character: str) -> str:
        """What it adds to the object's text. To be called until `done` or `broken`."""
        self.within = ""
        state = self._state
        if state == "word":
            if character in _WORD_CHARACTERS:
                self._word += character
                return self._kept(character)
            if _WORD.fullmatch(self._word) is None:
                return self._break()
            self._ended()
            state = self._state
        if state == "bare":
            return self._bare(character)
        if state == "string":
            return self._string(character)
        if state == "escape":
            self._state, self._hex = ("hex", 4) if character == "u" else ("string", 0)
            return self._kept(character) if character in '"\\/bfnrtu' else self._break()
        if state == "hex":
            self._hex -= 1
            self._state = "hex" if self._hex else "string"
            return self._kept(character) if character in _HEX else self._break()
        if character in _BLANK:
            return self._kept(character) if self._inside else character
        return self._structure(character, state)

    def _kept(self, character: str) -> str:
        if self._inside:
            self.within = self.key
        elif self._is_key and self._state in ("string", "escape", "hex") and len(self._stack) == 1:
            self.key += character
        return character

    def _break(self) -> str:
        self.broken = True
        return ""

    def _string(self, character: str) -> str:
        if character == '"':
            kept = character
            if self._inside:
                self.within = self.key
            if self._is_key:
                self._state, self._is_key = "colon", False
            else:
                self._ended()
            return kept
        if character == "\\":
            self._state = "escape"
            return self._kept(character)
        if character < " ":
            return self._kept(_ESCAPES.get(character) or f"\\u{ord(character):04x}")
        return self._kept(character)

    def _bare(self, character: str) -> str:
        if character in _NAME_BEGINS or character in "0123456789-":
            if len(self._stack) == 1:
                self.key += character
            return self._kept(character)
        self._state = "colon"
        return '"' + self.take(character)

    def _structure(self, character: str, state: _State) -> str:
        stack = self._stack
        if state == "root":
            if character != "{":
                return self._break()
            stack.append(character)
            self._state = "first_key"
            return character
        if state == "colon":
            self._state = "value"
            if character != ":":
                return self._break()
            self.sure = True
            return self._kept(character)
        if state in ("first_key", "key") and character in _NAME_BEGINS:
            if len(stack) == 1:
                self.key = character
            self._state = "bare"
            return '"' + self._kept(character)
        if state in ("first_key", "key") and character == '"':
            if len(stack) == 1:
                self.key = ""
            kept = self._kept(character)
            self._state, self._is_key = "string", True
            return kept
        if state == "after" and character == ",":
            self._state = "key" if stack[-1] == "{" else "value"
            return self._kept(character)
        if state in ("after", "first_key", "first_item") and _ENDS.get(character) == stack[-1]:
            stack.pop()
            if self._inside:
                self.within = self.key
            if stack:
                self._ended()
            else:
                self.done = self.sure = True
            return character
        if state in ("value", "first_item"):
            return self._value(character)
        return self._break()

    def _value(self, character: str) -> str:
        if len(self._stack) == 1:
            self._inside = True
        self.within = self.key if self._inside else ""
        if character in "{[":
            if len(self._stack) >= DEPTH_MAX:
                return self._break()
            self._stack.append(character)
            self._state = "first_key" if character == "{" else "first_item"
        elif character == '"':
            self._state = "string"
        elif character in _WORD_CHARACTERS:
            self._state, self._word = "word", character
        else:
            return self._break()
        return character

    def _ended(self) -> None:
        """A value is over."""
        self._state = "after"
        if len(self._stack) == 1:
            self._inside = False
