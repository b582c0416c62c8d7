"""Heads of requests: what is read, what is refused and as what."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.web import head as heads
from moonpool.web.head import HEAD_BYTES_MAX, Head, Known, check_beginning, know, parse_head

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def code_of(block: bytes) -> str:
    with pytest.raises(Problem) as caught:
        parse_head(block)
    return caught.value.code


def test_a_head_is_read_as_it_came() -> None:
    """Method, raw path, query, lower-case names, trimmed values, length."""
    head = parse_head(
        b"POST /v1/%2e%2E//x;y?a=1&b=%00?c HTTP/1.1\r\nHost: Example.org:8787\r\nX-One:1\r\n"
        b"x-TWO: \t two words\t \r\nX-Empty:\r\nX-One: 2\r\nContent-Length: 007\r\n"
    )
    assert (head.method, head.path, head.query) == ("POST", "/v1/%2e%2E//x;y", "a=1&b=%00?c")
    assert head.headers == {
        "host": "Example.org:8787",
        "x-one": "1, 2",
        "x-two": "two words",
        "x-empty": "",
        "content-length": "007",
    }
    assert (head.length, head.chunked, head.keep_alive, head.http10, head.expect) == (7, False, True, False, False)


@pytest.mark.parametrize(
    ("block", "keep_alive"),
    [
        (GET, True),
        (GET + b"Connection: keep-alive\r\n", True),
        (GET + b"Connection: close\r\n", False),
        (GET + b"Connection: foo, Close\r\n", False),
        (GET + b"Connection: foo\r\nConnection: CLOSE\r\n", False),
        (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n", True),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", False),
    ],
)
def test_who_may_send_another_request(block: bytes, keep_alive: bool) -> None:
    """Connections are kept for HTTP/1.1 unless the client says close; an upgrade is ignored."""
    assert parse_head(block).keep_alive is keep_alive


def test_chunks_and_expectations() -> None:
    """A body is chunked only when it is said plainly; only 100-continue is expected of us, and not in 1.0."""
    assert parse_head(POST + b"Transfer-Encoding: chunked\r\n").chunked
    assert parse_head(POST + b"Transfer-Encoding:chunked\r\n").chunked
    assert parse_head(GET + b"Expect: 100-Continue\r\n").expect
    assert not parse_head(GET + b"Expect: something\r\n").expect
    assert not parse_head(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n").expect


@pytest.mark.parametrize(
    "host", ["a", "127.0.0.1", "127.0.0.1:8787", "[::1]", "[::1]:8787", "my_pod.ns.svc", "xn--fiq228c", "a:0"]
)
def test_hosts_that_are_right(host: str) -> None:
    """Names, addresses, ports."""
    assert parse_head(b"GET / HTTP/1.1\r\nHost: %b\r\n" % host.encode()).headers["host"] == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a/#@b",
        "a?",
        "a b",
        "x" * 300,
        "a@b",
        "a:b",
        "a:123456",
        "[::1",
        "::1",
        "a/",
        "http://a",
        "a\\b",
        "é",
        "a,\tb",
    ],
)
def test_hosts_that_are_wrong(host: str) -> None:
    """Anything that a URL library could take for something else is refused (case 149)."""
    assert code_of(b"GET / HTTP/1.1\r\nHost: %b\r\n" % host.encode("latin-1")) == "caller.malformed"


@pytest.mark.parametrize(
    "length",
    [
        "+5",
        "5,5",
        "0x5",
        "-1",
        "1" + "0" * 30,
        "",
        "5 5",
        "5;",
        "\xa05",
        "5\x85",
        "\xb2",
        "５".encode().decode("latin-1"),
    ],
)
def test_lengths_that_are_wrong(length: str) -> None:
    """A length is one to nineteen digits (case 145)."""
    assert code_of(POST + b"Content-Length: %b\r\n" % length.encode("latin-1")) == "caller.malformed"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\ncontent-length: 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding:  chunked\r\n",
        b"Transfer-Encoding:\tchunked\r\n",
        b"Transfer-Encoding: chunked \r\n",
        b"Transfer-Encoding: \xa0chunked\r\n",
        b"Transfer-Encoding: Chunked\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Host: a\r\n",
        b"Host: b\r\n",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        b"Content-Type: a/b\r\nContent-Type: a/b\r\n",
        b"X-A: 1\n",
        b"X-A: 1\r",
        b"X-A: 1\r\r\n",
        b"X-A: 1\n\r\r\n",
        b"X-A: 1\r\n\n",
        b"X-A: 1\rX\n",
        b"X-A: a\r\n b\r\n",
        b"X-A: a\r\n\tb\r\n",
        b"X-A : a\r\n",
        b"X-A\t: a\r\n",
        b" X-A: a\r\n",
        b": a\r\n",
        b"X-A\r\n",
        b"X-A: a\0b\r\n",
        b"X-A: a\x01b\r\n",
        b"X-A: a\x7fb\r\n",
        b"X-\xe4: a\r\n",
        b"X A: a\r\n",
        b"X(A): a\r\n",
        b"X-A\0: a\r\n",
        b'"X-A": a\r\n',
    ],
)
def test_fields_that_two_programs_could_read_in_two_ways(lines: bytes) -> None:
    """Lengths beside chunks, transfer codings, repeats, line ends, folds, blanks (cases 145, 146, 148, 149)."""
    assert code_of(POST + lines) == "caller.malformed"


def test_chunks_are_no_part_of_http_1_0() -> None:
    """Case 146."""
    assert code_of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n") == "caller.malformed"


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"GET / HTTP/1.1\r\n", "caller.malformed"),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n", "caller.malformed"),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET /\ta HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n", "caller.malformed"),
        (b" GET / HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET / http/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET / HTTP/1.1\nHost: a\r\n", "caller.malformed"),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"GET /\r\n", "caller.malformed"),
        (b"\r\n", "caller.malformed"),
        (b"", "caller.malformed"),
        (b"A" * 1024 + b" / HTTP/1.1\r\nHost: a\r\n", "caller.malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "caller.malformed"),
        (b"PRI * HTTP/2.0\r\n", "caller.http_version"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n", "caller.http_version"),
        (b"GET / HTTP/1.2\r\nHost: a\r\n", "caller.http_version"),
        (b"GET / HTTP/0.9\r\nHost: a\r\n", "caller.http_version"),
        (b"GET /" + b"a" * 4096 + b" HTTP/1.1\r\nHost: a\r\n", "caller.target_too_long"),
        (b"GET /?" + b"a" * 4095 + b" HTTP/1.1\r\nHost: a\r\n", "caller.target_too_long"),
        (GET + b"X-A: a\r\n" * 100, "caller.head_too_large"),
        (b"POST / HTTP/1.1\r\nHost: a\r\n", "caller.length_required"),
        (b"POST / HTTP/1.0\r\n", "caller.length_required"),
        (POST + b"Content-Length: 1\r\nContent-Encoding: gzip\r\n", "caller.unsupported_media"),
        (POST + b"Content-Length: 1\r\nContent-Encoding: identity, br\r\n", "caller.unsupported_media"),
    ],
)
def test_each_violation_has_its_own_answer(block: bytes, code: str) -> None:
    """400, 411, 414, 415, 431 or 505 (cases 149, 151, 161)."""
    assert code_of(block) == code


def test_the_limits_themselves_are_allowed() -> None:
    """A target of 4 KiB and a hundred fields are not too much."""
    assert len(parse_head(b"GET /" + b"a" * 4095 + b" HTTP/1.1\r\nHost: a\r\n").path) == 4096
    assert len(parse_head(GET + b"".join(b"X-%d: a\r\n" % i for i in range(99))).headers) == 100
    assert parse_head(b"M" * 32 + b" / HTTP/1.1\r\nHost: a\r\n").method == "M" * 32


def test_the_problem_names_the_field() -> None:
    """`param` is the field as the client wrote it."""
    with pytest.raises(Problem) as caught:
        parse_head(POST + b"CONTENT-length: 1\r\nCONTENT-length: 1\r\n")
    assert caught.value.param == "CONTENT-length"


def test_what_is_known_is_bounded() -> None:
    """A client that makes up names, hosts and targets fills no memory (case 174)."""
    for i in range(3000):
        parse_head(b"GET /%d HTTP/1.1\r\nHost: h%d\r\nX-%d: a\r\n" % (i, i, i))
    assert max(map(len, (heads._names, heads._targets, heads._hosts))) <= 1024
    long = b"a" * 1000
    parse_head(b"GET /%b HTTP/1.1\r\nHost: a\r\nX-%b: a\r\n" % (long, long))
    assert max(map(len, (*heads._names, *heads._targets, *heads._hosts))) <= 128


def known(block: bytes) -> Known:
    made = know(block, parse_head(block))
    assert made is not None
    return made


LONG = POST + b"X-A: 1\r\ncontent-LENGTH: \t12 \r\nX-B: 2\r\n"


@pytest.mark.parametrize("digits", [b"12", b"0", b"007", b"4194304", b"9999999999"])
def test_a_head_that_is_known_but_for_its_length_is_read_the_same(digits: bytes) -> None:
    """Wherever it stands, however it is cut from what follows, and whatever went before."""
    block = LONG.replace(b"12", digits)
    for data in (block + b"\r\n", b"xy" + block + b"\r\nPOST / HTTP/1.1", bytearray(b"z" + block + b"\r\n\r\n")):
        start = data.find(b"POST")
        found = known(LONG).match(data, start)
        assert found == (parse_head(block), start + len(block) + 2)
    assert known(LONG).match(LONG + b"\r\n", 0) == (parse_head(LONG), len(LONG) + 2)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"+5", b"-5", b"5 5", b"5,5", b"0x5", b"5;", b"5_5", b"1" * 11, b"1" * 30, b"\xb2", b"\xd9\xa3", b"\x0b5",
        b"5\r", b"5\n", b"5\r\nTransfer-Encoding: chunked", b"5 \r\nContent-Length: 6", b"5 \r\n\r\n", b"\r\n 5",
        b"5\0",
    ],
)  # fmt: skip
def test_what_is_no_length_is_never_known(value: bytes) -> None:
    """Then the head is read as if there had been none before it (cases 145 to 149)."""
    assert known(LONG).match(LONG.replace(b"12", value) + b"\r\n", 0) is None


@pytest.mark.parametrize(
    "block",
    [
        POST + b"Transfer-Encoding: chunked\r\n",
        GET,
        POST + b"Content-Length: 1\r\nConnection: close\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 1\r\n",
        POST + b"Content-Length: 1\r\nX-A: %b\r\n" % (b"a" * 2048),
        POST + b"Content-Length: 12345678901\r\n",
    ],
)
def test_heads_that_are_not_kept(block: bytes) -> None:
    """Those without a length, the last of a connection, and long ones: an idle connection stays small (case 171)."""
    assert know(block, parse_head(block)) is None


@given(st.data())
def test_a_known_head_hides_no_difference(data: st.DataObject) -> None:
    """However a head is changed: what is taken for known is what would have been read."""
    changed = bytearray(LONG + b"\r\n")
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(changed)))
        stop = min(len(changed), start + data.draw(st.integers(0, 3)))
        changed[start:stop] = data.draw(
            st.one_of(_pieces, st.sampled_from([b"", b"7", b"77", b" "]), st.binary(max_size=3))
        )
    found = known(LONG).match(changed, 0)
    if found is not None:
        head, end = found
        assert changed.find(b"\r\n\r\n") == end - 4
        assert parse_head(bytes(changed[: end - 2])) == head


_pieces = st.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"/?x", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"\r\n", b"\n", b"\r", b"\0", b":",
     b"Host: a", b"Host", b"Content-Length: 1", b"Transfer-Encoding: chunked", b"chunked", b"\t", b"\xff", b"#"]
)  # fmt: skip
_heads = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(_pieces, st.binary(max_size=4)), max_size=20).map(b"".join),
    st.lists(st.one_of(_pieces, st.binary(max_size=4)), max_size=20).map(lambda parts: GET + b"".join(parts) + b"\r\n"),
)


def attempt(block: bytes) -> Head | Problem:
    try:
        return parse_head(block)
    except Problem as problem:
        return problem


def attempt_early(part: bytes) -> Problem | None:
    try:
        check_beginning(part)
    except Problem as problem:
        return problem
    return None


@given(_heads)
@example(b"GET / HTTP/1.1\r\n\r\n")
def test_any_bytes_are_a_head_or_a_problem(block: bytes) -> None:
    """No input raises anything but a refusal of the caller, and what is read can be said again (case 154)."""
    head = attempt(block)
    if isinstance(head, Problem):
        assert head.code.startswith("caller.")
        return
    again = f"{head.method} {head.path}{'?' + head.query if head.query else ''} HTTP/1.{0 if head.http10 else 1}\r\n"
    again += "".join(f"{name}: {value}\r\n" for name, value in head.headers.items())
    assert parse_head(again.encode("latin-1")).headers == head.headers


@given(_heads, st.data())
def test_an_early_refusal_is_the_late_one(block: bytes, data: st.DataObject) -> None:
    """What is refused before the head is whole would have been refused whole, with the same status."""
    part = block[: data.draw(st.integers(0, len(block)))]
    early = attempt_early(part)
    if early is not None and b"\r\n\r\n" not in part:
        late = attempt(block)
        assert isinstance(late, Problem)
        assert late.status == early.status


@pytest.mark.parametrize(
    "block",
    [b"a" * HEAD_BYTES_MAX, GET + b"X:" + b" " * 16000 + b"\0\r\n", GET + b"X" * 16000 + b"\r\n", b"\n" * 16000],
)
def test_no_head_takes_long(block: bytes) -> None:
    """Nothing is tried twice, whatever is sent (case 154): far below a millisecond, where trying twice takes 100."""
    begun = time.process_time()
    for _ in range(100):
        with pytest.raises(Problem):
            parse_head(block)
        attempt_early(block)
    assert time.process_time() - begun < 2
