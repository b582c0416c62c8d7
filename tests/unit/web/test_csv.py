"""web/csv.py: cells that no spreadsheet runs, and tables of any length in little memory."""

from __future__ import annotations

import asyncio
import csv as standard
import io

import pytest

from moonpool.later import Later
from moonpool.relay.writer import Fields, Listener
from moonpool.web import csv


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_formulas_are_led_by_an_apostrophe(first: str) -> None:
    """Case 114: a cell that a spreadsheet would run is text; what a reader of CSV gets is that text."""
    text = f'{first}HYPERLINK("http://x";"y"),1'
    (row,) = standard.reader(io.StringIO(csv.lines([[text]]).decode(), newline=""))
    assert row == ["'" + text]


def test_numbers_stay_numbers() -> None:
    """An amount below zero is no formula; what only begins like one is."""
    got = csv.lines([["-0.25", -3, 5, 1.5, None, True, "a,b", 'say "x"', "-1+1", "--1", "-0.2.5", "中文"]]).decode()
    assert got == '-0.25,-3,5,1.5,,true,"a,b","say ""x""",\'-1+1,\'--1,\'-0.2.5,中文\r\n'


def test_who_asks_for_csv() -> None:
    """By name or by accepting nothing else first; a program that takes anything gets JSON."""
    assert csv.wanted("csv", "application/json")
    assert csv.wanted(None, "text/csv; q=1, */*")
    assert not csv.wanted(None, "*/*")
    assert not csv.wanted("json", "text/csv")
    assert not csv.wanted(None, "")


class Client:
    """A writer that keeps what it was given, and stops reading when it is told to."""

    def __init__(self) -> None:
        self.said = b""
        self.how = ""
        self.listener: Listener | None = None

    def listen(self, listener: Listener | None) -> None:
        self.listener = listener

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        raise AssertionError("this is streamed")

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        self.how = f"{status} {content_type} {dict(fields)['content-disposition']}"

    def write(self, data: bytes) -> None:
        self.said += data

    def end(self) -> None:
        self.how += " end"

    def cut(self) -> None:
        self.how += " cut"


def test_pages_are_fetched_one_by_one_as_the_client_reads() -> None:
    """While the client takes nothing no page is fetched; when it is gone, none is fetched any more."""

    async def run() -> None:
        client = Client()
        asked: list[str | None] = []

        async def page(after: str | None) -> csv.Page:
            asked.append(after)
            at = int(after or 0)
            if at == 2:
                assert client.listener is not None
                client.listener.pause()
            return [[at, "x"]], str(at + 1)

        sending = asyncio.ensure_future(csv.send(csv.Csv("t", ("n", "what"), page), client))
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == [None, "1", "2"]
        assert client.said == b"n,what\r\n0,x\r\n1,x\r\n"
        assert client.listener is not None
        client.listener.gone()
        await sending
        assert asked == [None, "1", "2"]

    asyncio.run(run())


def test_a_table_ends_whole_or_is_cut() -> None:
    """A failure in the middle is seen by the client as one; a question that cannot be answered sends nothing."""

    async def run() -> None:
        answers: list[Later[csv.Page]] = [Later(), Later()]
        answers[0].set(([["a"]], "1"))
        answers[1].fail(ValueError("the disk"))

        async def page(after: str | None) -> csv.Page:
            return await answers[int(after or 0)]

        client = Client()
        with pytest.raises(ValueError, match="disk"):
            await csv.send(csv.Csv("t", ("n",), page), client)
        assert client.how == '200 text/csv; charset=utf-8 attachment; filename="t.csv" cut'
        answers[0] = answers[1]
        client = Client()
        with pytest.raises(ValueError, match="disk"):
            await csv.send(csv.Csv("t", ("n",), page), client)
        assert client.how == ""

    asyncio.run(run())
