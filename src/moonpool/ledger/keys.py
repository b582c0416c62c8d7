"""What an API key and a token of a user look like, and what we keep of them.

A key of ours is `sk-mp-`, a public id of 12 base-62 characters, a secret of 43 (256 bits) and a checksum of 6: CRC-32
of all that stands before it. The checksum tells a mistyped key from a wrong one without a look-up; it protects nothing.
Kept is only the SHA-256 of the whole text, which needs no slow hash because the secret is random. A token, for the
admin API, is the same with another prefix, so neither can pass for the other.

An operator may declare any other text as a key; such a key has no form, it is known by its digest or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import pbkdf2_hmac, sha256
from typing import Final
from zlib import crc32

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX: Final = "sk-mp-"
TOKEN_PREFIX: Final = "mp-op-"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6

_TAIL: Final = re.compile(f"[0-9A-Za-z]{{{ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH}}}")
_FAIR: Final = 256 - 256 % len(ALPHABET)
_DECLARED_ROUNDS: Final = 200_000


def make(randomness: Callable[[int], bytes], prefix: str = PREFIX) -> tuple[str, str]:
    """A new key, or a token: (public id, whole text). `randomness(n)` gives n random bytes: os.urandom."""
    key_id = _random_text(ID_LENGTH, randomness)
    return key_id, again(key_id, randomness, prefix)


def again(key_id: str, randomness: Callable[[int], bytes], prefix: str = PREFIX) -> str:
    """Another text for a key that keeps its public id."""
    body = prefix + key_id + _random_text(SECRET_LENGTH, randomness)
    return body + _checksum(body)


def digest(text: str) -> bytes:
    """SHA-256 of the whole key (32 bytes): what is stored, and what a key is found by."""
    return sha256(text.encode()).digest()


def well_formed(text: str, prefix: str = PREFIX) -> bool:
    """Is this a key (or a token) that we could have made? Looks at form and checksum only."""
    return (
        text.startswith(prefix)
        and _TAIL.fullmatch(text, len(prefix)) is not None
        and text[-CHECKSUM_LENGTH:] == _checksum(text[:-CHECKSUM_LENGTH])
    )


def public_id(text: str, prefix: str = PREFIX) -> str:
    """The part of a well-formed key that may be shown and logged. Raises ValueError for other texts."""
    if not well_formed(text, prefix):
        raise ValueError("not a key of ours")
    return text[len(prefix) : len(prefix) + ID_LENGTH]


def declared_id(text: str) -> str:
    """The public id of a key that an operator declared: the same for the same text, everywhere.

    A declared text may be short enough to guess, and ids stand in logs; so the id is derived slowly (about 0.1 s).
    """
    if well_formed(text):
        return public_id(text)
    derived = pbkdf2_hmac("sha256", text.encode(), b"moonpool declared key", _DECLARED_ROUNDS)
    return _base62(int.from_bytes(derived, "big"), ID_LENGTH)


def masked(key_id: str) -> str:
    """A key as it may be shown after its creation: the public id, the rest left out."""
    return f"{PREFIX}{key_id}…"


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """The last `length` digits of a number, the most significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def _random_text(length: int, randomness: Callable[[int], bytes]) -> str:
    """Every character equally likely: bytes beyond the last whole multiple of 62 are thrown away."""
    text = ""
    while len(text) < length:
        text += "".join(ALPHABET[byte % len(ALPHABET)] for byte in randomness(length) if byte < _FAIR)
    return text[:length]
