"""Is this body JSON that everybody reads in the same way?

One function, `read`: bytes in, a dict out, or Problem("caller.malformed"). Refused are what parsers disagree about or
choke on: duplicate keys (a filter may read the first, a host the last), NaN and Infinity, numbers beyond a double,
lone surrogates, NUL, a byte order mark, any encoding but UTF-8, nesting deeper than `DEPTH_MAX`, and more than
`CONTAINERS_MAX` arrays and objects (4 MiB of brackets would keep a process busy for a second).

The rule of this file: what an ordinary document costs is three passes in C (decode, encode, count). Everything slower
runs only when a cheap bound cannot rule a fault out, and then its verdict counts. The bounds may be wrong in one
direction only; tests/unit/dialects/test_gate.py checks fast against slow.

Source: RELIABILITY 3.5, cases 155 to 158.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any, Final

import msgspec

from moonpool.errors import Problem

DEPTH_MAX: Final = 64
CONTAINERS_MAX: Final = 100_000

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_STRING: Final = re.compile(rb'"[^"]*+"')
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_SIGN: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_SURROGATES: Final = re.compile(rb"\\u[dD][89abAB]..(?:\\u[dD][c-fC-F]..)?|\\u[dD][c-fC-F]..")
_WHERE: Final = re.compile(r" \(byte (\d+)\)$")


def read(raw: bytes) -> dict[str, Any]:
    """The document in `raw`, which must be an object. Raises Problem("caller.malformed"), saying where."""
    opened = raw.count(b"[") + raw.count(b"{")
    if opened > CONTAINERS_MAX:
        _check_brackets(raw)
    try:
        document = _decode(raw)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise _malformed(raw, error) from None
    if opened > DEPTH_MAX and _is_deep(document):
        raise _too_deep()
    if type(document) is not dict:
        raise _refused("expected an object at the top")
    if b"\\" in raw:
        if b"\\u0000" in raw and _has_nul(document):
            raise _refused("a string holds the character U+0000")
        if b"\\u003" in raw:  # perhaps an escaped colon, which the encoder would write plainly
            return _read_slowly(raw)
    # A colon stands after each key or inside a string, and is encoded as it was: if one is gone, a key was twice there.
    if raw.count(b":") != _encode(document).count(b":"):
        return _read_slowly(raw)
    return document


def _is_deep(document: Any) -> bool:
    """Whether it nests deeper than DEPTH_MAX, seen level by level."""
    level = [document]
    for _ in range(DEPTH_MAX):
        inside = chain.from_iterable(each.values() if type(each) is dict else each for each in level)
        level = [each for each in inside if type(each) is dict or type(each) is list]
        if not level:
            return False
    return True


def _too_deep() -> Problem:
    return _refused(f"recursion limit exceeded: more than {DEPTH_MAX} levels")


def _check_brackets(raw: bytes) -> None:
    """Raises Problem for so many arrays and objects, or such deep ones, that no parser should see them; without a
    stack: each pass takes the innermost pairs off. Brackets in strings do not count."""
    signs = raw.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_SQUARE, _NO_SIGN)
    # Two quotes side by side can go: what is left stays inside or outside of a string as it was. Of the strings that
    # remain, each but the last has a bracket behind it, so too many of them are too many brackets.
    signs = signs.replace(b'""', b"")
    too_many = signs.count(b'"') > 4 * CONTAINERS_MAX + 2
    brackets = b"" if too_many else _STRING.sub(b"", signs)
    if too_many or len(brackets) > 2 * CONTAINERS_MAX:
        raise _refused(f"more than {CONTAINERS_MAX} arrays and objects")
    for _ in range(DEPTH_MAX):
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    if brackets.count(b"[") > DEPTH_MAX:
        raise _too_deep()


def _has_nul(document: Any) -> bool:
    if type(document) is str:
        return "\x00" in document
    if type(document) is dict:
        return any("\x00" in name or _has_nul(value) for name, value in document.items())
    return type(document) is list and any(_has_nul(value) for value in document)


def _read_slowly(raw: bytes) -> dict[str, Any]:
    """The same document, read key by key. It is known to be JSON of bounded depth."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            for name, _ in items:
                if name in seen:
                    raise _refused(f"duplicate field `{name[:64]}`", param=name[:64])
                seen.add(name)
        return found

    try:
        document = json.loads(raw.decode(), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise _malformed(raw, error) from None
    return document if type(document) is dict else {}


def _malformed(raw: bytes, error: Exception) -> Problem:
    """What the parser's error means, with its place as far as it is known."""
    text = str(error)
    where = _WHERE.search(text)
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) or b"\x00" in raw[:4]:
        return _refused("expected UTF-8 without a byte order mark" + _place(raw, 0))
    if isinstance(error, msgspec.ValidationError):
        return _refused("a number is out of range")
    if where is not None:
        return _refused(text[: where.start()].removeprefix("JSON is malformed: ") + _place(raw, int(where[1])))
    if not raw.strip(b" \t\r\n"):
        return _refused("the body is empty")
    # The parser did not say where: it met an end, a byte that is no UTF-8, or half of a surrogate pair.
    try:
        json.loads(raw.decode())
    except UnicodeDecodeError as first:
        return _refused("invalid UTF-8" + _place(raw, first.start))
    except json.JSONDecodeError as first:
        return _refused(f"{first.msg} at line {first.lineno} column {first.colno}")
    except (ValueError, RecursionError):
        return _refused(text)
    for pair in _SURROGATES.finditer(raw):
        if len(pair[0]) != 12:
            return _refused("half of a surrogate pair" + _place(raw, pair.start()))
    return _refused(text)


def _place(raw: bytes, at: int) -> str:
    before = raw[:at]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f" at line {line} column {column}"


def _refused(reason: str, param: str | None = None) -> Problem:
    return Problem("caller.malformed", f"Failed to parse the request body as JSON: {reason}", param=param)
