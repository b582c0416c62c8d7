"""`config show` writes TOML that reads back as the same, without secrets."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.cli.config import _lines, _without_secrets
from moonpool.settings import Settings

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


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ("valkey://me:secret@cache:6379/0", "valkey://me:****@cache:6379/0"),
        ("rediss://:se@cret@cache?ssl_ca_certs=/ca.pem", "rediss://:****@cache?ssl_ca_certs=/ca.pem"),
        ("unix://me:secret@/run/s", "unix://me:****@/run/s"),
        ("unix:///run/s?db=1&password=secret&x=y", "unix:///run/s?db=1&password=****&x=y"),
        ("valkey://cache:6379/0", "valkey://cache:6379/0"),
        ("env:LIMITS", "env:LIMITS"),
    ],
)
def test_the_password_of_limits_is_masked(limits: str, shown: str) -> None:
    """Wherever an address may have one; the rest of it is shown."""
    assert _without_secrets(Settings(limits=limits))["limits"] == shown
