"""Tables for spreadsheets, of any length: pages are fetched, written and forgotten one by one.

Rules: RFC 4180 (commas, CRLF, quotes doubled), UTF-8. A cell whose text a spreadsheet would run as a formula is led by
an apostrophe (RELIABILITY case 114); a number is left alone, also one below zero. When the client takes nothing for a
while, no page is fetched; when something fails in the middle, the connection is cut, so that nobody takes a part for
the whole.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.later import Later
from moonpool.relay.reply import JSON
from moonpool.relay.writer import Fields, Writer

TEXT: Final = "text/csv; charset=utf-8"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")

Page = tuple[Sequence[Sequence[Any]], str | None]
"""Rows, and the mark of the next page."""


class Csv(Struct, frozen=True):
    """An answer as a table: its file's name, its heads, and how to get the page after a mark."""

    name: str
    heads: Sequence[str]
    page: Callable[[str | None], Awaitable[Page]]


def wanted(query_format: str | None, accept: str) -> bool:
    """Does a client ask for CSV: by `format=csv`, or by accepting nothing else?"""
    if query_format is not None:
        return query_format == "csv"
    return accept.partition(";")[0].strip().lower() == "text/csv"


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = "'" + text
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    return "".join(",".join(map(cell, row)) + "\r\n" for row in rows).encode()


async def send(csv: Csv, writer: Writer, *, head_only: bool = False) -> None:
    """Stream it. The first page comes before the head, so that a question that cannot be answered is a plain error."""
    rows, after = await csv.page(None)
    tap = _Tap()
    fields: Fields = [("content-disposition", f'attachment; filename="{csv.name}.csv"')]
    writer.start(200, TEXT, fields)
    writer.listen(tap)
    writer.write(lines([csv.heads]))
    try:
        while not (tap.over or head_only):
            writer.write(lines(rows))
            if after is None:
                break
            rows, after = await csv.page(after)
            if tap.waiting is not None:
                await tap.waiting
    except BaseException:
        writer.cut()
        raise
    writer.end()


async def answer(status: int, page: object, writer: Writer, fields: Fields) -> None:
    """An answer of the admin API: JSON with these header fields, or a table."""
    if isinstance(page, Csv):
        await send(page, writer)
    else:
        writer.whole(status, JSON, fields, msgspec.json.encode(page))


class _Tap:
    """Whether the client takes what it is sent."""

    def __init__(self) -> None:
        self.over = False
        self.waiting: Later[None] | None = None

    def gone(self) -> None:
        self.over = True
        self.resume()

    def pause(self) -> None:
        if self.waiting is None:
            self.waiting = Later()

    def resume(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.set(None)

    def probe(self) -> None:
        """There is nothing to say that means nothing."""
