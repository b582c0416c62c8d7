"""What Hypothesis may draw: slicings of bytes, JSON as text with all its freedoms, requests, answers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

WHITE = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])


@st.composite
def slicings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces of any size, empty ones too."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def json_strings(draw: st.DrawFn) -> str:
    """A JSON string as text: plain, or with escapes where none is needed, colons and quotes above all."""
    text = draw(
        st.text(st.sampled_from('ab":\\ \n{}[]é你\u2028🎉/') | st.characters(exclude_categories=["Cs"]), max_size=8)
    )
    text = text.replace("\x00", "")
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    written = "".join(
        "".join(f"\\u{unit:04x}" for unit in _units(sign)) if draw(st.booleans()) else json.dumps(sign)[1:-1]
        for sign in text
    )
    return f'"{written}"'


def _units(sign: str) -> list[int]:
    raw = sign.encode("utf-16-be")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


_leaves = st.one_of(
    json_strings(),
    st.sampled_from(["null", "true", "false", "0", "-1", "1.5", "1e3", "[]", "{}"]),
    st.integers(-(2**60), 2**60).map(str),
)


@st.composite
def _arrays(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(parts, max_size=4))
    return "[" + ",".join(draw(WHITE) + item + draw(WHITE) for item in items) + "]"


@st.composite
def _objects(draw: st.DrawFn, parts: st.SearchStrategy[str]) -> str:
    """Names come from few letters, so that some are there twice."""
    members = draw(
        st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a:"', '"c"', '""']), parts), max_size=4)
    )
    written = [f"{draw(WHITE)}{name}{draw(WHITE)}:{draw(WHITE)}{value}{draw(WHITE)}" for name, value in members]
    return "{" + ",".join(written) + "}"


json_values = st.recursive(_leaves, lambda parts: _arrays(parts) | _objects(parts), max_leaves=12)
json_objects = _objects(json_values)
"""JSON objects as text, names perhaps twice, white space anywhere, escapes anywhere."""

json_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts, max_size=3),
    max_leaves=8,
)
"""Anything that JSON can say, as Python values."""
