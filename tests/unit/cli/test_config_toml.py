"""`config show` writes TOML that reads back as the same."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moonpool.cli.config import _lines

_values = st.recursive(
    st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _values, max_size=5))
def test_round_trip(table: dict[str, Any]) -> None:
    """Any table of text, numbers, truth, lists and tables is written so that TOML reads the same."""
    text = "\n".join(f"{path} = {value}" for path, value in _lines(table, ""))
    assert tomllib.loads(text) == table
