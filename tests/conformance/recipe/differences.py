"""Where the provider's own library and we say different things, and why: rows of differences.toml, typed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

FILE: Final = Path(__file__).with_name("differences.toml")
TAKEN: Final = "taken"


class Said(Struct, frozen=True):
    """What each answers to a request: "taken", with receipts behind a colon, or the message of its refusal."""

    library: str
    twin: str
    server: str

    @property
    def agree(self) -> bool:
        return all(self.library == said or _both_take(self.library, said) for said in (self.twin, self.server))


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[request]]`. Who is absent says what the library says."""

    name: str
    why: str
    library: str
    twin: str = ""
    server: str = ""

    @property
    def said(self) -> Said:
        return Said(self.library, self.twin or self.library, self.server or self.library)


class Differences(Struct, frozen=True, forbid_unknown_fields=True):
    """`why` are reasons by their short names, the rest is what they explain: rows of requests, and what is said
    differently in answers."""

    why: dict[str, str]
    request: list[Row] = []
    answer: dict[str, str] = {}


def read() -> Differences:
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), Differences)


def as_row(name: str, said: Said) -> str:
    """The row that such a difference would have."""
    lines = ["[[request]]", f"name = {_quoted(name)}", 'why = "?"', f"library = {_quoted(said.library)}"]
    for who in ("twin", "server"):
        text = getattr(said, who)
        if text != said.library and not _both_take(said.library, text):
            lines.append(f"{who} = {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _both_take(one: str, other: str) -> bool:
    return one.partition(":")[0] == other.partition(":")[0] == TAKEN


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
