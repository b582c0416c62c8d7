"""relay/conceal.py: what of a host's words stays in the log."""

from __future__ import annotations

import pytest

from moonpool.errors import Problem
from moonpool.relay.conceal import DETAIL_CHARS_MAX, WRITTEN_CHARS_MAX, conceal, unquote
from moonpool.words import Call


@pytest.mark.parametrize(
    ("detail", "written", "left"),
    [
        ("host: 500 overloaded", "Tell me of rain.", "host: 500 overloaded"),
        ("cannot read 'Tell me of rain.' now", "Tell me of rain.", "cannot read '…' now"),
        ("bad: 请介绍一下大语言模型。!", "你好\n请介绍一下大语言模型。", "bad: …!"),
        ("of rain", "of rain", "…"),
        ("rain", "of rain", "rain"),
        ("", "of rain", ""),
        ("host: 500", "", "host: 500"),
    ],
)
def test_quotations_go_and_other_words_stay(detail: str, written: str, left: str) -> None:
    """A run that stands in the request is one mark; the host's own words are still there to be read."""
    assert unquote(detail, written) == left


def test_texts_at_any_depth_and_of_any_length() -> None:
    """A tool's description is the client's as much as a prompt; a host that says much says little in the log, and
    where the request is too long to be searched, nothing."""
    fields = {"tools": [{"function": {"description": "the way to the lighthouse"}}]}
    problem = Problem("upstream.failed", detail="host: the way to the lighthouse " + "z" * 5000)
    conceal(problem, "", Call("id", "chat", "m", False, fields, b""))
    assert "lighthouse" not in problem.detail
    assert len(problem.detail) <= DETAIL_CHARS_MAX
    problem = Problem("upstream.failed", detail="host: the way to the lighthouse")
    conceal(problem, "", Call("id", "chat", "m", False, fields, b" " * (WRITTEN_CHARS_MAX + 1)))
    assert problem.detail == "…"
