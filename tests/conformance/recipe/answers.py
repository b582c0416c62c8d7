"""What a model says, in its own markup, piece by piece; and what a client must hear of it."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from conformance.recipe.requests import FLASH, OFF, PRO, TOOLS, Body, assistant, chat, user

_BAR: Final = "｜"  # a full-width bar, as in the model's tokens
_MARK: Final = f"{_BAR}DSML{_BAR}"


def call_of(model: str, *calls: tuple[str, dict[str, str]], end: bool = True) -> str:
    """A block of tool calls in the model's markup; every value is a text."""
    gap, block = (" ", "calls") if model == FLASH else ("", "tool_calls")
    text = f"\n\n<{_MARK}{gap}{block}>\n"
    for name, values in calls:
        text += f'<{_MARK}{gap}invoke name="{name}">\n'
        for key, value in values.items():
            text += f'<{_MARK}{gap}parameter name="{key}" string="true">{value}</{_MARK}{gap}parameter>\n'
        text += f"</{_MARK}{gap}invoke>\n"
    return text + f"</{_MARK}{gap}{block}>" if end else text


class Case(Struct, frozen=True):
    """`said` are the model's pieces, each a token of its; `finish` how the engine ended. The rest is what it means."""

    body: Body
    said: tuple[str, ...]
    finish: str = "Stop"
    reasoning: str | None = None
    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reason: str = "stop"


def _cases(model: str) -> dict[str, Case]:
    plain: dict[str, Any] = {"model": model}
    off = {**plain, "thinking": OFF}
    tools = {**plain, "tools": TOOLS}
    one = call_of(model, ("f", {"a": "b"}))
    two = call_of(model, ("f", {"a": "b"}), ("f", {"a": "Zürich", "c": "d"}))
    said = (("f", '{"a": "b"}'),)
    both = (*said, ("f", '{"a": "Zürich", "c": "d"}'))
    thought = ("So", " they", " greet", ".", "</think>")
    begun = chat(user(), assistant("Hel", prefix=True)) | off
    thinking = chat(user(), assistant("", reasoning_content="So they", prefix=True)) | plain
    return {
        "a text": Case(chat() | off, ("Hello", ",", " you", "!"), text="Hello, you!"),
        "a thought and a text": Case(
            chat() | plain, (*thought, "Hello", "!"), reasoning="So they greet.", text="Hello!"
        ),
        "newlines before both": Case(
            chat() | plain, ("\n", "So", ".", "</think>", "\n\n", "Hello"), reasoning="So.", text="Hello"
        ),
        "no thought": Case(chat() | plain, ("</think>", "Hello"), reasoning="", text="Hello"),
        "a thought that is cut": Case(
            chat() | plain, ("So", " they"), "Length", reasoning="So they", reason="length"
        ),
        "a text that is cut": Case(
            chat() | plain, (*thought, "Hel"), "Length", reasoning="So they greet.", text="Hel", reason="length"
        ),
        "nothing": Case(chat() | off, ()),
        "a text that is filtered": Case(
            chat() | off, ("Hel",), "ContentFilter", text="Hel", reason="content_filter"
        ),
        "a call": Case(chat() | off | tools, (one,), calls=said, reason="tool_calls"),
        "a thought and a call": Case(
            chat() | tools, (*thought, one), reasoning="So they greet.", calls=said, reason="tool_calls"
        ),
        "a text and two calls": Case(
            chat() | off | tools, ("Let", " me", *_torn(two)), text="Let me", calls=both, reason="tool_calls"
        ),
        "a thought, a text and two calls": Case(
            chat() | tools, (*thought, "Let me", two), reasoning="So they greet.", text="Let me", calls=both,
            reason="tool_calls",
        ),
        "markup without tools": Case(chat() | off, (one.strip(),), text=one.strip()),
        "letters of the world": Case(chat() | off, ("你", "好", " 🙂", "\u2028", '"\\'), text='你好 🙂\u2028"\\'),
        "a beginning goes on": Case(begun, ("lo", "!"), text="lo!"),
        "a beginning of thoughts goes on": Case(
            thinking, (" greet", ".", "</think>", "Hello"), reasoning=" greet.", text="Hello"
        ),
        "a stop": Case(chat(stop="you") | off, ("Hello", " you", " there"), text="Hello "),
    }  # fmt: skip


def _torn(text: str, size: int = 7) -> tuple[str, ...]:
    return tuple(text[at : at + size] for at in range(0, len(text), size))


CASES: Final[dict[str, Case]] = {
    f"{model}: {name}": case for model in (FLASH, PRO) for name, case in _cases(model).items()
}
