"""Bodies of requests: with a length, or in chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.web.body import Chunked, Sized

WHOLE = b'5\r\nhello\r\n0006;a=b;c="d"\r\n world\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n'
SAID = b"hello world0123456789"


def read(reader: Chunked | Sized, data: bytes, cuts: list[int]) -> bytes:
    """Feed `data` cut at `cuts`; returns what the reader left."""
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        used = reader.feed(data[start:stop], 0)
        if reader.done:
            return data[start + used :]
        assert used == stop - start
    return b""


@given(st.lists(st.integers(0, len(WHOLE))))
def test_chunks_are_the_same_for_any_cuts(cuts: list[int]) -> None:
    """The network decides where reads end; it decides nothing else."""
    reader = Chunked(100)
    assert read(reader, WHOLE + b"GET", cuts) == b"GET"
    assert bytes(reader.data) == SAID


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.binary(max_size=5))
def test_a_sized_body_takes_its_length_and_no_more(body: bytes, cuts: list[int], rest: bytes) -> None:
    """What follows is the next request's."""
    reader = Sized(len(body))
    cuts = [min(cut, len(body)) for cut in cuts]
    assert (read(reader, body + rest, cuts) if body else rest) == rest
    assert bytes(reader.data) == body
    assert reader.done


@pytest.mark.parametrize(
    "data",
    [
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1 \r\na\r\n",
        b" 1\r\na\r\n",
        b"\r\n",
        b"g\r\n",
        b"0" * 16 + b"1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1\r\naxx1\r\n",
        b"1\r\na\rx\n",
        b"1;a\n\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;a\0b\r\na\r\n",
        b"1\r\r\na\r\n",
        b"1_0\r\n",
        "١\r\n".encode(),
        b"1;" + b"x" * 300 + b"\r\na\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n\r\r\n",
        b"0\r\n" + b"X: " + b"a" * 300 + b"\r\n\r\n",
        b"0\r\n" + b"X: a\r\n" * 3000 + b"\r\n",
        (b"1;" + b"x" * 200 + b"\r\na\r\n") * 100,
    ],
)
def test_chunks_that_are_refused(data: bytes) -> None:
    """Sizes, line ends, extensions and trailers are read strictly and bounded (case 147), whole or byte by byte."""
    for cuts in ([], list(range(len(data)))):
        with pytest.raises(Problem) as caught:
            read(Chunked(1000), data, cuts)
        assert caught.value.code == "caller.malformed"


def test_an_endless_line_is_refused_before_it_ends() -> None:
    """Nothing grows while we wait for a line end."""
    reader = Chunked(1000)
    for _ in range(255):
        reader.feed(b"0", 0)
    with pytest.raises(Problem):
        reader.feed(b"0", 0)


@pytest.mark.parametrize("data", [b"65\r\n", b"ffffffffffffffff\r\n", b"64\r\n" + b"a" * 100 + b"\r\n1\r\n"])
def test_too_much_is_refused_when_it_is_announced(data: bytes) -> None:
    """A size that passes the limit is refused before its bytes come (case 161)."""
    with pytest.raises(Problem) as caught:
        Chunked(100).feed(data, 0)
    assert caught.value.code == "caller.too_large"


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_any_bytes_are_chunks_or_a_problem(data: bytes, cuts: list[int]) -> None:
    """And the same for any cuts."""

    def outcome(places: list[int]) -> object:
        reader = Chunked(50)
        try:
            left = read(reader, data, places)
        except Problem as problem:
            return problem.code
        return (reader.done, bytes(reader.data), left)

    assert outcome([]) == outcome([min(cut, len(data)) for cut in cuts])
