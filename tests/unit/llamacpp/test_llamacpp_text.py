"""Text told apart while it comes: thinking, answer, the dressing of a tool call."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects.llamacpp_text import (
    CALL_DRESS,
    Guard,
    before_suffix,
    first_line,
    pieces,
    without_marks,
)
from moonpool.dialects.think import ThinkSplitter


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ThinkSplitter()
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.flush()
    return "".join(text for thinking, text in parts if thinking), "".join(
        text for thinking, text in parts if not thinking
    )


@given(st.lists(st.sampled_from(["<", "think", ">", "</", "a", "<think>", "</think>", "b c", "<<think"])), st.data())
def test_any_cut_of_inline_thinking_means_the_same(parts: list[str], data: st.DataObject) -> None:
    """Marks split over any number of pieces are found, and nothing but marks is lost."""
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces) == split([text])
    thinking, answer = split(pieces)
    assert sorted(thinking + answer) == sorted(_without_marks(text))


def _without_marks(text: str) -> str:
    kept, mark, other = "", "<think>", "</think>"
    while mark in text:
        before, _, text = text.partition(mark)
        kept, mark, other = kept + before, other, mark
    return kept + text


def test_inline_thinking() -> None:
    """What stands between the marks is thinking."""
    assert split(["<thi", "nk>hm", "</think", ">yes"]) == ("hm", "yes")


@pytest.mark.parametrize(
    ("said", "kept", "held"),
    [
        ("Sure.\n\n```json\n{\n  ", "Sure.", "\n\n```json\n{\n  "),
        ('<tools>\n{"type": "function", "fun', "", '<tools>\n{"type": "function", "fun'),
        ("if a < b", "if a < b", ""),
        ("a {x", "a {x", ""),
        ("```python\nprint", "```python\nprint", ""),
    ],
)
def test_what_may_become_a_call_is_held(said: str, kept: str, held: str) -> None:
    """The dress of a call waits for the name; other text does not."""
    guard = Guard(CALL_DRESS)
    assert guard.feed(said) == kept
    assert guard.held == held


@given(st.text(alphabet='{`<>/json_tolcayp":, \n', max_size=40))
def test_a_guard_loses_nothing(text: str) -> None:
    """What is told and what is held make the text, however it comes; and no text makes the pattern slow."""
    guard = Guard(CALL_DRESS)
    told = "".join(guard.feed(character) for character in text)
    assert told + guard.held == text
    assert re.search(CALL_DRESS, text * 50) is not None


@pytest.mark.parametrize(
    ("held", "suffix", "kept"),
    [
        ("\n        ", "    return x", "\n    "),
        ("\n    ", "    return x", "\n"),
        ("\n  ", "    return x", "\n"),
        (" ", "return x", " "),
        ("\n    ", "\n    return x", ""),
    ],
)
def test_the_border_of_a_middle(held: str, suffix: str, kept: str) -> None:
    """The line that follows stands where the model meant it to stand."""
    assert before_suffix(held, suffix) == kept


def test_a_border_must_say_something() -> None:
    """A brace or a short word is no sign that the middle is over."""
    assert first_line("\n}\n") is None
    assert first_line("  return total\n# end") == "return total"


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("a <|im_end|> b", ["a ", 27, "|im_end|> b"]),
        ("<|a|><｜b▁c｜>", [27, "|a|>", 27, "｜b▁c｜>"]),
        ("f <| g |> h", "f <| g |> h"),
        ("x < y || z > 1", "x < y || z > 1"),
        ("a\ufdd0b", "ab"),
    ],
)
def test_marks_become_texts(text: str, mixed: object) -> None:
    """Only what looks like a whole mark is taken apart, and nothing of it is lost."""
    assert pieces(without_marks(text.encode()).decode(), [27]) == mixed
