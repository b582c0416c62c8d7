"""What of a failure may be told, and to whom? The client never reads the key that we sent to a host; the log reads
neither that key nor what the client wrote, even where a host quotes them in its error. Runs only when a host failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from moonpool.errors import Problem
from moonpool.words import Call

SECRET_CHARS_MIN: Final = 8
"""Shorter texts are words, not keys."""
QUOTE_CHARS_MIN: Final = 6
"""As many characters in a row that stand in the request too may be a quotation; fewer are words anybody may use."""
DETAIL_CHARS_MAX: Final = 400
WRITTEN_CHARS_MAX: Final = 200_000
"""Longer requests are not searched for what was said, on the loop that everybody shares: nothing said is kept."""


def conceal(problem: Problem, secret: str, call: Call) -> None:
    """Take the key and the client's words out of what a host said."""
    if len(secret) >= SECRET_CHARS_MIN:
        problem.message = problem.message.replace(secret, "…")
        problem.detail = problem.detail.replace(secret, "…")
        problem.param = problem.param and problem.param.replace(secret, "…")
    if problem.detail:
        long = len(call.raw) > WRITTEN_CHARS_MAX
        problem.detail = "…" if long else unquote(problem.detail[:DETAIL_CHARS_MAX], "\n".join(texts(call.fields)))


def unquote(detail: str, written: str) -> str:
    """`detail` with "…" for each run of characters that stands in `written`, too. Every run of twice QUOTE_CHARS_MIN
    is found: it holds a window that begins at a multiple of it, and only where one does is all of `detail` compared."""
    size = QUOTE_CHARS_MIN
    if not any(detail[at : at + size] in written for at in range(0, len(detail) - size + 1, size)):
        return detail
    quoted = bytearray(len(detail))
    for at in range(len(detail) - size + 1):
        if detail[at : at + size] in written:
            quoted[at : at + size] = b"\1" * size
    kept = [
        "…" if hidden else char
        for at, (char, hidden) in enumerate(zip(detail, quoted, strict=True))
        if not (hidden and at and quoted[at - 1])
    ]
    return "".join(kept)


def texts(value: Any) -> Iterator[str]:
    """Every text in a request, names of members left out: those are the protocol's."""
    if type(value) is str:
        yield value
    elif type(value) is dict:
        for inner in value.values():
            yield from texts(inner)
    elif type(value) is list:
        for inner in value:
            yield from texts(inner)
