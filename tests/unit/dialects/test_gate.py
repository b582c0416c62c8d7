"""The gate: what passes is the same for every reader, what does not is refused quickly, with its place."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import gate
from moonpool.errors import Problem
from strategies import json_objects


def verdict(raw: bytes) -> Any:
    """The document, or the message of the refusal."""
    try:
        return gate.read(raw)
    except Problem as problem:
        return problem.message if problem.code == "caller.malformed" else problem


def slow_verdict(raw: bytes) -> Any:
    """What a reader in plain Python says of a well-formed object: the document, or None for a name twice."""
    twice = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice |= len({name for name, _ in items}) != len(items)
        return dict(items)

    document = json.loads(raw, object_pairs_hook=pairs)
    return None if twice else document


@given(json_objects)
def test_fast_and_slow_agree(text: str) -> None:
    """Counting colons finds every name that is there twice, and nothing else, whatever the escapes and blanks."""
    raw = text.encode()
    expected = slow_verdict(raw)
    found = verdict(raw)
    if expected is None:
        assert "duplicate field" in found
    else:
        assert found == expected


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes do anything else than become a dict or Problem("caller.malformed")."""
    assert type(verdict(raw)) in (dict, str)


@given(json_objects, st.data())
def test_mutilated_documents_are_read_or_refused(text: str, data: st.DataObject) -> None:
    """A document cut or overwritten anywhere is read as the plain reader reads it, or refused."""
    raw = bytearray(text.encode())
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    found = verdict(bytes(raw))
    if type(found) is dict:
        assert found == slow_verdict(bytes(raw))


@given(json_objects)
def test_what_passes_reads_the_same_again(text: str) -> None:
    """Accepted means: written out by our encoder, it is read as the same document."""
    found = verdict(text.encode())
    if type(found) is dict:
        assert gate.read(gate._encode(found)) == found


REFUSED: list[tuple[bytes, str]] = [
    (b"", "the body is empty"),
    (b" \n", "the body is empty"),
    (b"[]", "expected an object at the top"),
    (b'"text"', "expected an object at the top"),
    (b"null", "expected an object at the top"),
    (b'{"a":1,"a":1}', "duplicate field `a`"),
    (b'{"a":{"b":[{"c":1,"c":2}]}}', "duplicate field `c`"),
    (b'{"a":1,"\\u0061":2}', "duplicate field `a`"),
    (b'{"a" : 1, "a" : 2}', "duplicate field `a`"),
    (b'{"a":":","a":"\\u003a"}', "duplicate field `a`"),
    (b'{"a":NaN}', "line 1 column 6"),
    (b'{"a":Infinity}', "line 1 column 6"),
    (b'{"a":-Infinity}', "line 1 column"),
    (b'{"a":1e400}', "a number is out of range"),
    (b'{"a":' + b"1" * 5000 + b"}", "a number is out of range"),
    (b'{"a":01}', "line 1 column 7"),
    (b'{"a":1.}', "line 1 column"),
    (b'{\n "a": tru}', "line 2 column"),
    (b'{"a":1,}', "trailing comma"),
    (b"{'a':1}", "line 1 column 2"),
    (b'{"a":1} {}', "trailing characters at line 1 column"),
    (b'{"a":1', "line 1 column 7"),
    (b'{"a":"\\u12', "line 1 column"),
    (b'{"a":"\\ud800"}', "half of a surrogate pair at line 1 column 7"),
    (b'{"a":"\\udc00\\ud800"}', "surrogate pair at line 1 column"),
    (b'{"\\ud83d":1}', "half of a surrogate pair"),
    (b'{"a":"\\u0000"}', "U+0000"),
    (b'{"\\u0000":1}', "U+0000"),
    (b'{"a":["\\\\", "\\\\\\u0000"]}', "U+0000"),
    (b'{"a":"\x00"}', "line 1 column 7"),
    (b'{"a":"line\nbreak"}', "line 1 column 11"),
    (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
    ('{"a":1}'.encode("utf-16"), "byte order mark"),
    ('{"a":1}'.encode("utf-16-le"), "byte order mark"),
    ('{"a":1}'.encode("utf-32"), "byte order mark"),
    (b'{"a":"\xff"}', "invalid UTF-8 at line 1 column 7"),
    (b'{"a":"\xed\xa0\x80"}', "invalid UTF-8"),
    (b'{"a":"\xc0\xaf"}', "invalid UTF-8"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSED, ids=[str(raw[:24]) for raw, _ in REFUSED])
def test_refused(raw: bytes, reason: str) -> None:
    """RELIABILITY cases 155 to 158: each is refused, and the message says why or where."""
    with pytest.raises(Problem, match=r"caller\.malformed") as caught:
        gate.read(raw)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"\\\\u0000"}',
        b'{"a":-0}',
        b'{"a":9007199254740993}',
        b'{"a":"\\ud83c\\udf89"}',
        '{"a":"\u2028\x85\x7f"}'.encode(),
        b'{"a":{"a":{"a":1}},"b":{"a":1}}',
        b' \r\n\t{"a" :\n1}\n',
        b'{"":1}',
    ],
)
def test_accepted(raw: bytes) -> None:
    """What looks odd but is one and the same to every reader passes."""
    assert gate.read(raw) == json.loads(raw)


@pytest.mark.parametrize("kinds", ["[", "{", "[{"])
def test_depth(kinds: str) -> None:
    """64 levels pass and 65 do not, for arrays, objects and both, with brackets in strings not counting."""

    def nested(levels: int) -> bytes:
        opened = [kinds[level % len(kinds)] for level in range(levels)]
        text = "".join('{"k]}":' if kind == "{" else "[" for kind in opened)
        closed = "".join("}" if kind == "{" else "]" for kind in reversed(opened))
        return f'{{"[\\"{{":{text}{"0" if kinds[-1] == "{" or opened[-1] == "{" else ""}{closed}}}'.encode()

    assert type(gate.read(nested(63))) is dict
    with pytest.raises(Problem, match="recursion limit"):
        gate.read(nested(64))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    """A long list of small things is no deep one."""
    raw = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "{[" * 50}]}] * 500}).encode()
    assert gate.read(raw) == json.loads(raw)


BOMBS = {
    "arrays": b"[" * 4_000_000,
    "objects": b'{"a":' * 800_000,
    "mixed": b'[{"a":' * 600_000,
    "inside": b'{"messages":[{"role":"user","content":' + b"[" * 3_000_000,
    "closed": b'{"a":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
    "comb": b'{"a":[' + (b"[" * 60 + b"]" * 60 + b",") * 34_000 + b"1]}",
    "flat": b'{"a":[' + b"[]," * 1_300_000 + b"1]}",
    "strings": b'{"a":[' + b'["["],' * 600_000 + b"1]}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """Four million bytes of brackets are refused at once, on any thread, and the process lives."""
    answers: list[Any] = []
    began = time.process_time()
    worker = threading.Thread(target=lambda: answers.append(verdict(BOMBS[name])))
    worker.start()
    worker.join(30)
    assert type(answers[0]) is str
    assert "recursion limit" in answers[0] or "arrays and objects" in answers[0]
    # The promise is 50 ms on a quiet machine; the bound only tells linear from quadratic on a busy one.
    assert time.process_time() - began < 2
