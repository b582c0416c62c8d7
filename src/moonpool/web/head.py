"""What does the head of a request say? Pure and strict: one reading of the bytes, or none.

Everything that two programs could read in two ways is refused, never repaired: a second Host, a length beside
chunks, folded lines, bare line ends, blanks before a colon, any transfer coding but `chunked`. The target stays as it
came; `..`, `//` and `%00` simply match no route.

Sources: RFC 9110 and RFC 9112; RELIABILITY 3.4 and cases 145 to 151.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from msgspec import Struct

from moonpool.errors import Problem

HEAD_BYTES_MAX: Final = 16 * 1024
TARGET_BYTES_MAX: Final = 4 * 1024
FIELDS_MAX: Final = 100
METHOD_BYTES_MAX: Final = 32

_TOKEN: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_LINE: Final = re.compile(
    rf"([{_TOKEN}]{{1,{METHOD_BYTES_MAX}}}) (/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))? HTTP/1\.([01])\r\n"
)
# Possessive repeats: nothing here can be made to try twice.
_FIELDS: Final = re.compile(rf"^([{_TOKEN}]++): ?([\t -~\x80-\xff]*+)\r\n", re.MULTILINE)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_SINGLE: Final = frozenset(("host", "content-length", "transfer-encoding", "authorization", "content-type"))
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))

_METHOD_BEGUN: Final = re.compile(rf"[{_TOKEN}]{{1,{METHOD_BYTES_MAX}}}(?: |\Z)".encode())
_VERSION: Final = re.compile(rb" HTTP/([0-9])\.([0-9])\r?\Z")
_BROKEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n|\n[ \t]")


class Head(Struct, frozen=True, gc=False):
    """`path` and `query` as they came; `headers` with lower-case names, repeated ones joined by ", ". `length` is the
    Content-Length in bytes, None without one. `keep_alive`: the client can take another answer after this one."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int | None
    chunked: bool
    keep_alive: bool
    http10: bool
    expect: bool


def parse_head(block: bytes) -> Head:
    """Read a head: `block` is everything before the empty line, the last line's CRLF included.

    Raises Problem (`caller.malformed`, `.target_too_long`, `.head_too_large`, `.http_version`,
    `.unsupported_media`, `.length_required`); after any of them the connection cannot be read on.
    """
    text = block.decode("latin-1")
    line = _LINE.match(text)
    if line is None:
        _explain_line(block)
    method, path, query, minor = line.groups()
    start = line.end()
    if start > TARGET_BYTES_MAX:
        _check_target(block, block.index(b"\n"))
    pairs: list[tuple[str, str]] = _FIELDS.findall(text, start)
    # Each match begins after a line end and holds one, so equal counts leave no byte that is in no match.
    if len(pairs) != text.count("\n", start):
        raise _malformed("A header field is malformed.")
    if len(pairs) > FIELDS_MAX:
        raise Problem("caller.head_too_large", f"More than {FIELDS_MAX} header fields.")
    headers = {name.lower(): value.strip(" \t") for name, value in pairs}
    if len(headers) != len(pairs):
        headers = _join(pairs)
    return _read_fields(method, path, query or "", minor == "0", headers, pairs)


def _read_fields(
    method: str, path: str, query: str, http10: bool, headers: dict[str, str], pairs: list[tuple[str, str]]
) -> Head:
    field = headers.get
    host = field("host")
    if host is None:
        if not http10:
            raise _malformed("The Host header field is missing.", "Host")
    elif _HOST.fullmatch(host) is None:
        raise _malformed("The Host header field is malformed.", "Host")

    length: int | None = None
    chunked = "transfer-encoding" in headers
    digits = field("content-length")
    if chunked:
        _check_chunked(http10, digits, pairs)
    elif digits is not None:
        if _DIGITS.fullmatch(digits) is None:
            raise _malformed("The Content-Length header field is not a number.", "Content-Length")
        length = int(digits)
    elif method in _WITH_BODY:
        raise Problem("caller.length_required")

    coding = field("content-encoding")
    if coding is not None and coding.lower() != "identity":
        raise Problem("caller.unsupported_media", param="Content-Encoding")
    connection = field("connection")
    keep_alive = not http10
    if connection is not None and keep_alive and connection != "keep-alive":
        keep_alive = "close" not in [token.strip(" \t") for token in connection.lower().split(",")]
    expect = field("expect")
    expects = expect is not None and not http10 and expect.lower() == "100-continue"
    return Head(method, path, query, headers, length, chunked, keep_alive, http10, expects)


def check_beginning(part: bytes, scanned: int = 0) -> None:
    """Raise for a head that is not all there what `parse_head` would raise however it goes on.

    `part` begins the head; its first `scanned` bytes were looked at before.
    """
    end = part.find(b"\n")
    if end >= 0:
        if scanned <= end and _LINE.match(part[: end + 1].decode("latin-1")) is None:
            _explain_line(part)
        if scanned <= end:
            _check_target(part, end)
    else:
        _check_target(part, len(part))
    if _BROKEN.search(part, max(0, scanned - 1)) is not None:
        raise _malformed("A header field is malformed.")


def _explain_line(block: bytes) -> NoReturn:
    end = block.find(b"\n")
    line = block[:end] if end >= 0 else block
    _check_target(line, len(line))
    if _BROKEN.search(line) is not None:
        raise _malformed("The request line is malformed.")
    version = _VERSION.search(line)
    if version is not None and version.groups() not in ((b"1", b"0"), (b"1", b"1")):
        raise Problem("caller.http_version")
    raise _malformed("The request line is malformed.")


def _check_target(block: bytes, end: int) -> None:
    """The checks that need no end of line, in the order in which their bytes come."""
    if _METHOD_BEGUN.match(block, 0, end) is None and end:
        raise _malformed("The request line is malformed.")
    begin = block.find(b" ", 0, end) + 1
    if begin:
        stop = block.find(b" ", begin, end)
        if (stop if stop >= 0 else end) - begin > TARGET_BYTES_MAX:
            raise Problem("caller.target_too_long")


def _check_chunked(http10: bool, digits: str | None, pairs: list[tuple[str, str]]) -> None:
    raw = next(value for name, value in pairs if name.lower() == "transfer-encoding")
    if http10 or raw != "chunked":
        raise _malformed("The only transfer coding is chunked.", "Transfer-Encoding")
    if digits is not None:
        raise _malformed("A body has a length or is chunked, not both.", "Content-Length")


def _join(pairs: list[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, padded in pairs:
        key, value = name.lower(), padded.strip(" \t")
        before = headers.get(key)
        if before is None:
            headers[key] = value
        elif key in _SINGLE:
            raise _malformed(f"The {name} header field came twice.", name)
        else:
            headers[key] = f"{before}, {value}"
    return headers


def _malformed(message: str, param: str | None = None) -> Problem:
    return Problem("caller.malformed", message, param=param)
