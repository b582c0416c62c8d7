"""How many tokens were used, when the host did not say: a stream that was cut before its usage came.

DeepSeek's published rule of thumb (PROVIDERS 1.12): about 0.3 token for an English character, 0.6 for a Chinese
one. Exact only to that; so the result is marked `estimated` and never used where the host's own count is known.
"""

from __future__ import annotations

from moonpool.words import Usage

_ASCII, _WIDE = 3, 6  # tenths of a token for a character

DOUBT = 8
"""How many times below our own rough count a host's count is still believed: long runs of blanks or dashes are long
tokens, but no text is made of so few."""


ANSWER_TOKENS = 512
"""How long an answer is thought to be, until it has come."""


def _tokens(ascii_chars: int, wide_chars: int) -> int:
    return -(-(ascii_chars * _ASCII + wide_chars * _WIDE) // 10)


def question(body: bytes) -> int:
    """Tokens of a request with this body."""
    text = body.decode("utf-8", "replace")
    wide = sum(not char.isascii() for char in text)
    return _tokens(len(text) - wide, wide)


def estimate(prompt_tokens: int, ascii_chars: int, wide_chars: int, reasoning_chars: int, searches: int = 0) -> Usage:
    """Usage of a call whose `question` has so many tokens, of whose answer so many characters were delivered, and for
    which so many web searches were made."""
    completion = _tokens(ascii_chars, wide_chars)
    delivered = ascii_chars + wide_chars
    reasoning = completion * reasoning_chars // delivered if delivered else 0
    return Usage(prompt_tokens, 0, completion, reasoning, True, searches)


def ahead(body_bytes: int, output_max: int | None) -> int:
    """Tokens that a call will use, as guessed before it is made: a token of its JSON is about four bytes long, and most
    answers are shorter than they may be. Only for rates, where the true number replaces it afterwards."""
    return body_bytes // 4 + min(output_max or ANSWER_TOKENS, ANSWER_TOKENS)


def is_plausible(usage: Usage, ascii_chars: int, wide_chars: int) -> bool:
    """Whether so many characters can have been the answer for which a host says it used this (RELIABILITY case 20)."""
    return usage.completion * DOUBT * 10 >= ascii_chars * _ASCII + wide_chars * _WIDE
