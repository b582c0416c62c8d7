"""What does the head of a request say? Pure and strict: one reading of the bytes, or none.

Everything that two programs could read in two ways is refused, never repaired: a second Host, a length beside
chunks, folded lines, bare line ends, blanks before a colon, any transfer coding but `chunked`. The target stays as it
came; `..`, `//` and `%00` simply match no route.

What clients repeat (names of fields, targets, hosts) is checked once and then known; what is known is bounded.

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

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_NAME: Final = re.compile(rf"{_TOKEN}++")
_TARGET: Final = re.compile(r"(/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))?")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_SINGLE: Final = frozenset(("host", "content-length", "transfer-encoding", "authorization", "content-type"))
_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))
_VERSIONS: Final = {"HTTP/1.1": False, "HTTP/1.0": True}
_VISIBLE: Final = bytes((9, *range(32, 127), *range(128, 256)))

_METHOD_BEGUN: Final = re.compile(rf"{_TOKEN}{{1,{METHOD_BYTES_MAX}}}(?: |\Z)".encode())
_VERSION: Final = re.compile(rb" HTTP/([0-9])\.([0-9])\r?\Z")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*+([0-9]{1,10})[ \t]*+\r\n", re.IGNORECASE)
_BROKEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n|\n[ \t]")

_KNOWN_MAX: Final = 1024
_KNOWN_BYTES_MAX: Final = 128
_KEPT_BYTES_MAX: Final = 2 * 1024
_DIGITS_KEPT_MAX: Final = 10
_names: dict[str, str] = {}
_targets: dict[str, tuple[str, str]] = {}
_methods = {"GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"}
_hosts: set[str] = set()


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
    lines = block.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
        http10 = _VERSIONS[version]
    except (ValueError, KeyError):
        _explain_line(block)
    if method not in _methods:
        _check_method(method, block)
    path, query = _targets.get(target) or _read_target(target, block)
    # Take away all that a head may hold: what is left must be the line ends, in pairs.
    if block.translate(None, _VISIBLE) != b"\r\n" * (len(lines) - 1) or lines.pop():
        raise _malformed("A header field is malformed.")
    del lines[0]
    if len(lines) > FIELDS_MAX:
        raise Problem("caller.head_too_large", f"More than {FIELDS_MAX} header fields.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise _malformed("A header field is malformed.")
        headers[_names.get(name) or _read_name(name)] = value.strip(" \t")
    if len(headers) != len(lines):
        headers = _join(lines)

    # What the fields mean.
    field = headers.get
    host = field("host")
    if host not in _hosts and not (host is None and http10):
        _check_host(host)
    length: int | None = None
    chunked = "transfer-encoding" in headers
    digits = field("content-length")
    if chunked:
        _check_chunked(http10, digits, lines)
    elif digits is not None:
        if _DIGITS.fullmatch(digits) is None:
            raise _malformed("The Content-Length header field is not a number.", "Content-Length")
        length = int(digits)
    elif method in _WITH_BODY:
        raise Problem("caller.length_required")
    coding = field("content-encoding")
    if coding is not None and coding.lower() != "identity":
        raise Problem("caller.unsupported_media", param="Content-Encoding")
    keep_alive = not http10
    connection = field("connection")
    if connection is not None and keep_alive and connection != "keep-alive":
        keep_alive = "close" not in [token.strip(" \t") for token in connection.lower().split(",")]
    expect = field("expect")
    expects = expect is not None and not http10 and expect.lower() == "100-continue"
    return Head(method, path, query, headers, length, chunked, keep_alive, http10, expects)


class Known:
    """A head that a client sent, cut open at the digits of its length: as a rule it sends the same one again, but for
    these. What is equal outside of them, byte for byte, says the same, so it need not be read a second time."""

    __slots__ = ("_after", "_before", "_before_size", "_digits", "_head", "_reach")

    def __init__(self, before: bytes, digits: bytes, after: bytes, head: Head) -> None:
        """`after` ends with the empty line."""
        self._before = before
        self._before_size = len(before)
        self._digits = digits
        self._after = after
        self._reach = _DIGITS_KEPT_MAX + len(after)
        self._head = head

    def match(self, data: bytes | bytearray, start: int) -> tuple[Head, int] | None:
        """The head at `start` of `data`, and where it ends; None for one that is another, or not all there. `headers`
        may be those of an earlier request: nobody writes into them."""
        if not data.startswith(self._before, start):
            return None
        begin = start + self._before_size
        end = data.find(self._after, begin, begin + self._reach)
        if end < 0:
            return None
        digits = data[begin:end]
        head = self._head
        if digits != self._digits:
            if not digits.isdigit():
                return None
            headers = {**head.headers, "content-length": digits.decode("ascii")}
            length = int(digits)
            head = Head(head.method, head.path, head.query, headers, length, False, True, False, head.expect)
        return head, end + len(self._after)


def know(block: bytes, head: Head) -> Known | None:
    """What to compare the next head with, once `parse_head` has read `head` in `block`. None where it has no length,
    takes much room, or is the last one."""
    if head.length is None or not head.keep_alive or len(block) > _KEPT_BYTES_MAX:
        return None
    found = _LENGTH.search(block)
    if found is None:
        return None
    begin, end = found.span(1)
    return Known(block[:begin], block[begin:end], block[end:] + b"\r\n", head)


def check_beginning(part: bytes, scanned: int = 0) -> None:
    """Raise for a head that is not all there what `parse_head` would raise however it goes on.

    `part` begins the head; its first `scanned` bytes were looked at before.
    """
    end = part.find(b"\n")
    if end < 0:
        _check_begun(part)
    elif scanned <= end:
        _parse_line(part[: end + 1])
    if _BROKEN.search(part, max(0, scanned - 1)) is not None:
        raise _malformed("A header field is malformed.")


def _parse_line(line: bytes) -> None:
    """Raise what is wrong with a request line, its end included."""
    parts = line.decode("latin-1").split(" ")
    if len(parts) != 3 or parts[2].removesuffix("\r\n") not in _VERSIONS or not parts[2].endswith("\r\n"):
        _explain_line(line)
    _check_method(parts[0], line)
    _read_target(parts[1], line)


def _check_begun(line: bytes) -> None:
    """The checks that need no end of line, in the order in which their bytes come."""
    if _METHOD_BEGUN.match(line) is None and line:
        raise _malformed("The request line is malformed.")
    begin = line.find(b" ") + 1
    if begin:
        stop = line.find(b" ", begin)
        if (stop if stop >= 0 else len(line)) - begin > TARGET_BYTES_MAX:
            raise Problem("caller.target_too_long")


def _explain_line(block: bytes) -> NoReturn:
    end = block.find(b"\n")
    line = block[:end] if end >= 0 else block
    _check_begun(line)
    if _BROKEN.search(line) is not None:
        raise _malformed("The request line is malformed.")
    version = _VERSION.search(line)
    if version is not None and version.groups() not in ((b"1", b"0"), (b"1", b"1")):
        raise Problem("caller.http_version")
    raise _malformed("The request line is malformed.")


def _check_method(method: str, block: bytes) -> None:
    if len(method) > METHOD_BYTES_MAX or _NAME.fullmatch(method) is None:
        _explain_line(block)


def _read_target(target: str, block: bytes) -> tuple[str, str]:
    match = _TARGET.fullmatch(target)
    if match is None or len(target) > TARGET_BYTES_MAX:
        _explain_line(block)
    read = (match[1], match[2] or "")
    if len(target) <= _KNOWN_BYTES_MAX:
        if len(_targets) >= _KNOWN_MAX:
            _targets.clear()
        _targets[target] = read
    return read


def _read_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise _malformed("A header field is malformed.")
    key = name.lower()
    if len(name) <= _KNOWN_BYTES_MAX:
        if len(_names) >= _KNOWN_MAX:
            _names.clear()
        _names[name] = key
    return key


def _check_host(host: str | None) -> None:
    if host is None:
        raise _malformed("The Host header field is missing.", "Host")
    if _HOST.fullmatch(host) is None:
        raise _malformed("The Host header field is malformed.", "Host")
    if len(host) <= _KNOWN_BYTES_MAX:
        if len(_hosts) >= _KNOWN_MAX:
            _hosts.clear()
        _hosts.add(host)


def _check_chunked(http10: bool, digits: str | None, lines: list[str]) -> None:
    raw = next(
        value for name, _, value in (line.partition(":") for line in lines) if name.lower() == "transfer-encoding"
    )
    if http10 or raw not in (" chunked", "chunked"):
        raise _malformed("The only transfer coding is chunked.", "Transfer-Encoding")
    if digits is not None:
        raise _malformed("A body has a length or is chunked, not both.", "Content-Length")


def _join(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, _, padded = line.partition(":")
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
