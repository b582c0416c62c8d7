"""Events: any slicing of the bytes gives the same, and what is written has no line's end that anybody could see."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects.sse import Events, event, safe
from strategies import slicings

_PIECES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data:  c",
        b"data",
        b"data:",
        b"data: ",
        b": note",
        b":",
        b"event: x",
        b"id: 1",
        b"database: z",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"x" * 30,
        "你".encode(),
        b"\xff",
    ]
)
streams = st.lists(_PIECES, max_size=20).map(b"".join)


def read(pieces: list[bytes], bytes_max: int) -> tuple[list[bytes], str]:
    reader = Events(bytes_max)
    found = [value for piece in pieces for value in reader.feed(piece)]
    found += reader.finish()
    return found, reader.broken.code if reader.broken else ""


def by_the_standard(data: bytes, bytes_max: int) -> tuple[list[bytes], str]:
    """The same, told line by line."""
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = []
    for block in [part.strip(b"\n") for part in text.split(b"\n\n")]:
        if len(block) > bytes_max:
            return found, "upstream.too_large"
        values = []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                values.append(value.removeprefix(b" "))
        if values:
            found.append(b" ".join(values))
    return found, ""


@given(streams, st.sampled_from([25, 60, 1 << 20]), st.data())
def test_any_slicing_reads_the_same(data: bytes, bytes_max: int, draw: st.DataObject) -> None:
    """Whole, byte by byte or cut anywhere: the same events and the same end, which are those of the standard."""
    expected = by_the_standard(data, bytes_max)
    assert read([data], bytes_max) == expected
    assert read([data[at : at + 1] for at in range(len(data))], bytes_max) == expected
    assert read(draw.draw(slicings(data)), bytes_max) == expected


@given(st.binary(max_size=300), st.data())
def test_any_bytes_parse_or_end_in_the_one_error(data: bytes, draw: st.DataObject) -> None:
    """Arbitrary bytes never raise; slicing them changes nothing (RELIABILITY case 168)."""
    assert read(draw.draw(slicings(data)), 64) == read([data], 64)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_the_bound(size: int) -> None:
    """An event of 1 MiB passes, one byte more ends the reading; what came before it is still given."""
    big = b"data: " + b"x" * (size - 6) + b"\n\n"
    for pieces in (
        [b"data: 1\n\n" + big],
        [b"data: 1\n\n", *(big[at : at + 65536] for at in range(0, len(big), 65536))],
    ):
        found, broken = read(pieces, 1 << 20)
        assert found[0] == b"1"
        assert (len(found), broken) == ((2, "") if size == 1 << 20 else (1, "upstream.too_large"))


def test_an_endless_line_is_not_kept() -> None:
    """A line without an end is dropped when it passes the bound, not collected (RELIABILITY case 25)."""
    reader = Events()
    for _ in range(800):
        assert reader.feed(b"x" * 65536) == []
    assert reader.broken is not None
    assert len(reader._rest) == 0


HOSTILE = "a\rb\nc\r\nd\n\ndata: [DONE]\n\ne\u2028f\u2029g\x85h\x0bi\x0cj\x1ck\x7f你🎉"


def test_written_events_are_one_line_for_everybody() -> None:
    """No reader, not even one that splits at every line end Unicode knows, sees more than one line."""
    raw = event({"text": HOSTILE})
    assert raw.endswith(b"\n\n")
    assert len(raw.decode().rstrip("\n").splitlines()) == 1
    assert json.loads(raw[6:])["text"] == HOSTILE
    assert read([raw], 1 << 20)[0] == [raw[6:-2]]


@given(st.text())
def test_safe_keeps_the_meaning(text: str) -> None:
    """What is escaped reads the same."""
    raw = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert json.loads(safe(raw).decode("utf-8", "surrogatepass")) == text
    assert not {"\u2028", "\u2029", "\x85"} & set(safe(raw).decode("utf-8", "surrogatepass"))
