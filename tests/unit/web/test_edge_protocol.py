"""A connection's life, with a transport in memory and time as an argument."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonpool.errors import ERRORS, Problem
from moonpool.web.answer import Exchange
from moonpool.web.protocol import Limits
from moonpool.words import Arrival
from unit.web.edge_wire import Edge, Wire, answers, echo, feed, request

BODY = b'{"model":"m"}'
CHUNKED = b"POST /c HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


class Ear:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def gone(self) -> None:
        self.heard.append("gone")

    def pause(self) -> None:
        self.heard.append("pause")

    def resume(self) -> None:
        self.heard.append("resume")


def refusal(wire: Wire) -> tuple[int, str]:
    """The one answer on `wire`, which must be an error in the contract's shape that closes; its status and code."""
    [(status, fields, body)] = answers(wire.sent)
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert fields["connection"] == "close"
    assert fields["content-type"] == "application/json"
    assert fields["x-request-id"].startswith("req_")
    assert wire.eof or wire.closing
    return status, error["code"]


# Requests in.


def test_a_request_becomes_an_arrival() -> None:
    """Everything that the relay needs, and an answer in one write."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, request(BODY, path="/v1/chat/completions?a=b", fields="X-One: 1\r\n"))
    [arrival] = edge.arrivals
    assert arrival == Arrival(
        id=edge.exchanges[0].id,
        method="POST",
        path="/v1/chat/completions",
        query="a=b",
        headers={"host": "edge", "x-one": "1", "content-length": str(len(BODY))},
        body=BODY,
        peer="192.0.2.7",
        at=1_000.0,
    )
    assert wire.writes == 1
    [(status, fields, body)] = answers(wire.sent)
    assert (status, json.loads(body)[4]) == (200, BODY.decode())
    assert fields == {
        "server": "moonpool",
        "content-type": "application/json",
        "x-request-id": arrival.id,
        "content-length": str(len(body)),
    }
    assert not wire.closing


@pytest.mark.parametrize("data", [request(BODY), request(method="GET"), CHUNKED, request(BODY) + CHUNKED])
def test_every_cut_of_a_request_gives_the_same(data: bytes) -> None:
    """Whole, at each position in two, and byte by byte: the same arrivals and the same answers."""

    def outcome(pieces: list[bytes]) -> object:
        edge = Edge(echo)
        wire = edge.connect()
        for piece in pieces:
            feed(wire, piece)
        return [(status, body) for status, _, body in answers(wire.sent)], wire.closing

    whole = outcome([data])
    assert len(whole[0]) == 1 + (data.count(b"HTTP/1.1") == 2)  # type: ignore[index]
    for cut in range(1, len(data)):
        assert outcome([data[:cut], data[cut:]]) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole


_bytes = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([request(BODY), request(method="GET"), CHUNKED, CHUNKED[:-4], b"\r\n", b"\r\n\r\n", b"Host: a"]),
    st.sampled_from([b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n", b"Content-Length: 3\r\n", b"HTTP/3.0"]),
)


@settings(max_examples=300)
@given(st.lists(_bytes, max_size=8), st.data())
def test_any_bytes_in_any_pieces_are_served_or_refused(parts: list[bytes], data: st.DataObject) -> None:
    """Never an exception, never a 5xx; and where the pieces end changes neither requests nor refusals (case 154)."""
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))

    def outcome(places: list[int]) -> object:
        edge = Edge(echo, Limits(body_bytes_max=40))
        wire = edge.connect()
        for start, stop in zip([0, *places], [*places, len(stream)], strict=True):
            if stop > start:
                feed(wire, stream[start:stop])
        assert not edge.faults
        read = answers(wire.sent)
        assert all(status == 200 or 400 <= status < 432 or status == 505 for status, _, _ in read)
        return [(status, body) for status, _, body in read], wire.eof

    assert outcome(cuts) == outcome([])


def test_a_head_that_comes_again_is_read_again() -> None:
    """The same head with another length, a changed one and the first once more, whole or in two reads: each request is
    as if it were the first of its connection, and none sees the fields of another."""
    pieces = [request(b"1"), request(b"22"), request(b"333", fields="X-One: 1\r\n"), request(b"1"), request(b"x" * 12)]
    alone = []
    for piece in pieces:
        edge = Edge(echo)
        feed(edge.connect(), piece)
        alone += [(one.path, one.headers, one.body) for one in edge.arrivals]
    for cut in (0, 20, 70):
        edge = Edge(echo)
        wire = edge.connect()
        for piece in pieces:
            for part in (piece[:cut], piece[cut:]):
                if part:
                    feed(wire, part)
        assert [(one.path, one.headers, one.body) for one in edge.arrivals] == alone
        assert [status for status, _, _ in answers(wire.sent)] == [200] * len(pieces)


def test_a_head_that_comes_again_with_two_lengths_is_refused() -> None:
    """What a first request said excuses nothing in the second (cases 145, 146)."""
    for fields in ("Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "X: \0\r\n"):
        edge = Edge(echo)
        wire = edge.connect()
        feed(wire, request(b"1"))
        feed(wire, request(b"1", fields=fields))
        assert [status for status, _, _ in answers(wire.sent)] == [200, 400]
        assert wire.eof


def test_a_body_that_is_too_long_is_refused_behind_a_known_head() -> None:
    """The limit holds for every request of a connection."""
    edge = Edge(echo, Limits(body_bytes_max=10))
    wire = edge.connect()
    feed(wire, request(b"1"))
    feed(wire, request(b"1" * 11))
    assert [status for status, _, _ in answers(wire.sent)] == [200, 413]


def test_pipelined_requests_are_served_in_order() -> None:
    """A thousand at once, answered one after the other (case 10)."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, b"".join(request(b"%d" % i) for i in range(1000)))
    assert [json.loads(body)[4] for _, _, body in answers(wire.sent)] == [str(i) for i in range(1000)]


def test_a_pipelined_request_waits_for_the_answer_before_it() -> None:
    """One exchange at a time on a connection, and none starts inside the end of another (case 10)."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"1") + request(b"2")[:20])
    feed(wire, request(b"2")[20:] + request(b"3"))
    for count in (1, 2, 3):
        assert len(edge.exchanges) == count
        edge.exchanges[-1].whole(200, "text/plain", [], edge.arrivals[-1].body)
        assert len(edge.exchanges) == count
        edge.turn()
    assert [body for _, _, body in answers(wire.sent)] == [b"1", b"2", b"3"]


def test_reading_stops_when_too_much_waits() -> None:
    """Behind a running request no more than 64 KiB and one read are kept, and all is served in the end."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"0"))
    one = request(b"x" * 30_000)
    for _ in range(2):
        feed(wire, one)
        assert wire.reading
    feed(wire, one)
    assert not wire.reading
    for _ in range(4):
        edge.exchanges[-1].whole(200, "text/plain", [], b"")
        edge.turn()
    assert wire.reading
    assert [len(arrival.body) for arrival in edge.arrivals] == [1, 30_000, 30_000, 30_000]


def test_no_request_is_read_while_the_client_takes_no_answers() -> None:
    """A client that pipelines and does not read makes us keep one answer, not a thousand (cases 5, 10)."""
    edge = Edge(lambda _, exchange: exchange.whole(200, "text/plain", [], b"x" * 50_000))
    wire = edge.connect()
    wire.stalled = True
    feed(wire, request(b"1") * 5)
    assert len(edge.arrivals) == 1
    wire.take()
    assert len(edge.arrivals) == 5


# Refusals.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc", 400),
        (b"A" * 33, 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 411),
        (request(b"x" * 101), 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", 413),
        (b"GET /" + b"a" * 4096, 414),
        (request(b"x", fields="Content-Encoding: gzip\r\n"), 415),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: a\r\n" * 2100, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 16384, 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_a_violation_is_answered_and_ends_the_connection(data: bytes, status: int) -> None:
    """The contract's error body, `connection: close`, as early as it is certain, in one piece or byte by byte."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        edge = Edge(limits=Limits(body_bytes_max=100))
        wire = edge.connect()
        for piece in pieces:
            feed(wire, piece)
        assert refusal(wire)[0] == status
        assert not edge.arrivals
        feed(wire, request(BODY))
        assert not edge.arrivals


def test_a_refused_client_has_time_to_read_why() -> None:
    """After a refusal we go on reading, and drop the connection after `linger_s`."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, b"\0")
    for _ in range(100):
        feed(wire, b"x" * 65536)
    assert not wire.closing
    edge.pass_s(1.5)
    assert not wire.closing
    edge.pass_s(1)
    assert wire.aborted
    assert not edge.server.connections
    assert edge.server.counters.problems == {"caller.malformed": 1}


def test_the_largest_body_is_taken() -> None:
    """Exactly the limit, with a length and in chunks (case 161)."""
    edge = Edge(limits=Limits(body_bytes_max=100))
    feed(edge.connect(), request(b"x" * 100))
    chunks = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"32\r\n%b\r\n" % (b"x" * 50) * 2
    feed(edge.connect(), chunks + b"0\r\n\r\n")
    feed(edge.connect(), request(b""))
    assert [len(arrival.body) for arrival in edge.arrivals] == [100, 100, 0]


# What clients may ask.


def test_expect_is_answered_when_the_body_waits_for_it() -> None:
    """100 only when the body is not there yet and may come (case 153)."""
    edge = Edge(echo, Limits(body_bytes_max=100))
    wire = edge.connect()
    whole = request(BODY, fields="Expect: 100-continue\r\n")
    head = whole[: -len(BODY)]
    feed(wire, head)
    assert wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    feed(wire, BODY)
    assert answers(wire.sent)[0][0] == 200
    for pieces in ([whole], [whole[:-1], whole[-1:]]):
        wire = edge.connect()
        for piece in pieces:
            feed(wire, piece)
        assert wire.sent.startswith(b"HTTP/1.1 200")
    wire = edge.connect()
    feed(wire, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n")
    assert refusal(wire)[0] == 413


def test_an_upgrade_is_ignored() -> None:
    """The request is served as what it is (case 153)."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, request(method="GET", fields="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"))
    assert answers(wire.sent)[0][0] == 200
    assert not wire.closing


def test_close_and_http_1_0_end_the_connection() -> None:
    """The answer says so, and the close follows at once."""
    for data in (request(BODY, fields="Connection: close\r\n"), b"GET / HTTP/1.0\r\n\r\n"):
        edge = Edge(echo)
        wire = edge.connect()
        feed(wire, data)
        [(status, fields, _)] = answers(wire.sent)
        assert (status, fields["connection"]) == (200, "close")
        assert wire.lost


def test_head_has_a_length_and_no_body() -> None:
    """For whole and for streamed answers."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(method="HEAD"))
    edge.exchanges[0].whole(200, "text/plain", [], b"12345")
    assert wire.sent.endswith(b"\r\ncontent-length: 5\r\n\r\n")
    del wire.sent[:]
    feed(wire, request(method="HEAD"))
    edge.exchanges[1].start(200, "text/plain", [])
    edge.exchanges[1].write(b"12345")
    edge.exchanges[1].end()
    assert wire.sent.endswith(b"\r\n\r\n")
    assert not wire.closing


# Answers out.


def test_a_stream_is_chunked() -> None:
    """What one turn wrote is one write and one chunk, then the end mark; the connection can take a request again."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    exchange = edge.exchanges[0]
    exchange.start(200, "text/event-stream", [("cache-control", "no-cache"), ("x-accel-buffering", "no")])
    exchange.write(b"data: 1\n\n")
    exchange.write(b"")
    exchange.write(b"data: 2\n\n")
    assert not wire.sent
    edge.turn()
    assert wire.writes == 1
    assert wire.sent.endswith(b"\r\n\r\n12\r\ndata: 1\n\ndata: 2\n\n\r\n")
    exchange.write(b"data: 3\n\n")
    edge.turn()
    edge.turn()
    assert wire.writes == 2
    exchange.write(b"data: 4\n\n")
    exchange.end()
    assert wire.writes == 3
    edge.turn()
    assert wire.writes == 3
    [(status, fields, body)] = answers(wire.sent)
    assert (status, body) == (200, b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n")
    assert fields["cache-control"] == "no-cache"
    assert "content-length" not in fields
    feed(wire, request(BODY))
    assert len(edge.exchanges) == 2


def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    """No chunks, `connection: close`."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    edge.exchanges[0].start(200, "text/plain", [])
    edge.exchanges[0].write(b"one")
    edge.exchanges[0].write(b"two")
    edge.exchanges[0].end()
    assert wire.sent.endswith(b"\r\nconnection: close\r\n\r\nonetwo")
    assert b"chunked" not in wire.sent
    assert wire.lost


def test_a_cut_answer_has_no_end_mark() -> None:
    """What was written goes out, the end mark never does, and the client sees a broken answer."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    ear = Ear()
    edge.exchanges[0].listen(ear)
    edge.exchanges[0].start(200, "text/plain", [])
    edge.exchanges[0].write(b"half")
    edge.exchanges[0].cut()
    assert wire.sent.endswith(b"4\r\nhalf\r\n")
    assert wire.lost
    assert ear.heard == []


@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_is_written_after_the_end(streamed: bool) -> None:
    """Whoever holds on to an exchange cannot write into the next answer."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"1") + request(b"2"))
    first = edge.exchanges[0]
    if streamed:
        first.start(200, "text/plain", [])
        first.write(b"first")
        first.end()
    else:
        first.whole(200, "text/plain", [], b"first")
    edge.turn()
    before = bytes(wire.sent)
    first.whole(200, "text/plain", [], b"again")
    first.start(200, "text/plain", [])
    first.write(b"again")
    first.end()
    first.cut()
    edge.turn()
    assert wire.sent == before
    assert not wire.closing
    edge.exchanges[1].whole(200, "text/plain", [], b"second")
    assert [body for _, _, body in answers(wire.sent)] == [b"first", b"second"]


def test_answers_in_the_wrong_order_are_faults_of_ours() -> None:
    """A head twice or a body without a head is never sent."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    exchange = edge.exchanges[0]
    for call in (lambda: exchange.write(b"x"), exchange.end):
        with pytest.raises(RuntimeError):
            call()
    assert not wire.sent
    exchange.start(200, "text/plain", [])
    for call in (lambda: exchange.start(200, "a/b", []), lambda: exchange.whole(200, "a/b", [], b"")):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "模型", "a\x7f", " a ", "\r\n\r\nbody"])
def test_fields_cannot_break_the_head(value: str) -> None:
    """Values become visible ASCII on one line; so do names and content types."""
    for name, content_type in (("x-a", "text/plain"), ("x-a\r\nx-evil", f"text/plain{value}")):
        edge = Edge()
        wire = edge.connect()
        feed(wire, request(BODY))
        edge.exchanges[0].whole(200, content_type, [(name, value)], b"ok")
        [(_, fields, body)] = answers(wire.sent)
        assert "x-evil" not in fields
        assert body == b"ok"
        assert all(" " <= char <= "~" for text in fields.values() for char in text)


@pytest.mark.parametrize("row", ERRORS.values(), ids=lambda row: row.code)
def test_every_status_has_a_line(row: object) -> None:
    """Each error can be sent as a status line that clients read."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    edge.exchanges[0].whole(row.status, "application/json", [], b"{}")  # type: ignore[attr-defined]
    assert answers(wire.sent)[0][0] == row.status  # type: ignore[attr-defined]


# Faults.


def test_a_fault_of_the_handler_is_one_500() -> None:
    """Logged once, answered once, and the next request is served."""

    def broken(arrival: Arrival, exchange: Exchange) -> None:
        if arrival.body == b"bad":
            raise ZeroDivisionError
        echo(arrival, exchange)

    edge = Edge(broken)
    wire = edge.connect()
    feed(wire, request(b"bad") + request(b"good"))
    assert [status for status, _, _ in answers(wire.sent)] == [500, 200]
    assert [type(fault) for fault in edge.faults] == [ZeroDivisionError]


def test_a_fault_inside_an_answer_cuts_it() -> None:
    """Half an answer is never made to look whole."""

    def broken(_: Arrival, exchange: Exchange) -> None:
        exchange.start(200, "text/plain", [])
        raise ZeroDivisionError

    edge = Edge(broken)
    wire = edge.connect()
    feed(wire, request(BODY))
    assert wire.lost
    assert not wire.sent.endswith(b"0\r\n\r\n")
    assert len(edge.faults) == 1


def test_a_problem_of_the_handler_is_its_answer() -> None:
    """Raised problems are rendered, with the field that tells when to come again; they are no faults."""

    def busy(_: Arrival, __: Exchange) -> None:
        raise Problem("account.concurrency", retry_after_s=1.2)

    edge = Edge(busy)
    wire = edge.connect()
    feed(wire, request(BODY))
    [(status, fields, _)] = answers(wire.sent)
    assert (status, fields["retry-after"]) == (429, "2")
    assert not edge.faults


def test_a_fault_of_a_listener_stops_nothing() -> None:
    """The server's ticker goes on for the other connections."""

    class Deaf(Ear):
        def gone(self) -> None:
            raise ZeroDivisionError

    edge = Edge(limits=Limits(stall_s=1))
    wires = [edge.connect() for _ in range(3)]
    for wire in wires:
        feed(wire, request(BODY))
        edge.exchanges[-1].listen(Deaf())
        edge.exchanges[-1].start(200, "text/plain", [])
        wire.stalled = True
        edge.exchanges[-1].write(b"x" * 100_000)
    edge.turn()
    edge.pass_s(2)
    assert all(wire.aborted for wire in wires)
    assert len(edge.faults) == 3


# Time.


def test_a_connection_that_says_nothing_is_closed() -> None:
    """At the head deadline, without a word (case 9)."""
    edge = Edge()
    wire = edge.connect()
    edge.pass_s(9.75)
    assert not wire.closing
    edge.pass_s(0.75)
    assert wire.lost
    assert not wire.sent


def test_a_head_must_come_in_time() -> None:
    """408 ten seconds after the connection began, however steadily lines come (case 8)."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, b"GET / HTTP/1.1\r\n")
    for i in range(4):
        edge.pass_s(2.4)
        feed(wire, b"X-%d: a\r\n" % i)
    assert not wire.sent
    edge.pass_s(0.9)
    assert refusal(wire) == (408, "request_timeout")


def test_a_later_head_has_its_own_time() -> None:
    """The deadline of a kept connection's next request counts from its first byte."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, request(BODY))
    edge.pass_s(60)
    assert not wire.closing
    feed(wire, b"G")
    edge.pass_s(9.5)
    assert not wire.closing
    edge.pass_s(1)
    assert answers(wire.sent)[-1][0] == 408


def test_an_idle_connection_is_closed() -> None:
    """After `idle_s`, without a word."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, request(BODY))
    before = len(wire.sent)
    edge.pass_s(74.5)
    assert not wire.closing
    edge.pass_s(1)
    assert wire.lost
    assert len(wire.sent) == before


def test_a_body_must_come_in_time() -> None:
    """A byte a second is refused once it is clear that it is too slow, and no request is made of it (case 7)."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"x" * 100)[:-100])
    seconds = 0
    while not wire.sent:
        feed(wire, b"x")
        edge.pass_s(1)
        seconds += 1
    assert refusal(wire) == (408, "request_timeout")
    assert 5 <= seconds <= 7
    assert not edge.arrivals


def test_a_body_has_a_deadline_at_any_speed() -> None:
    """30 s from the end of the head, also for a client that is fast enough (case 7)."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"x" * 100_000)[:-100_000])
    seconds = 0
    while not wire.sent:
        feed(wire, b"x" * 2000)
        edge.pass_s(1)
        seconds += 1
    assert refusal(wire)[0] == 408
    assert 30 <= seconds <= 32


def test_expecting_and_then_nothing_ends_at_the_deadline() -> None:
    """Case 153."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    edge.pass_s(31)
    assert refusal(wire)[0] == 408


def test_a_running_request_has_no_deadline_here() -> None:
    """How long an answer may take is the relay's to say."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    edge.pass_s(3600, step_s=10)
    edge.exchanges[0].whole(200, "text/plain", [], b"late")
    assert answers(wire.sent)[0][2] == b"late"


# Clients that read slowly, or hang up.


def stream(edge: Edge, wire: Wire) -> tuple[Exchange, Ear]:
    """A streamed answer that has begun."""
    feed(wire, request(BODY))
    exchange, ear = edge.exchanges[-1], Ear()
    exchange.listen(ear)
    exchange.start(200, "text/plain", [])
    edge.turn()
    return exchange, ear


def test_back_pressure_reaches_the_listener() -> None:
    """Above the high-water mark: pause; when it was taken: resume."""
    edge = Edge()
    wire = edge.connect()
    exchange, ear = stream(edge, wire)
    wire.stalled = True
    exchange.write(b"x" * 30_000)
    edge.turn()
    assert ear.heard == []
    exchange.write(b"x" * 30_000)
    assert ear.heard == []
    edge.turn()
    assert ear.heard == ["pause"]
    wire.take()
    assert ear.heard == ["pause", "resume"]


def test_a_listener_that_comes_late_hears_what_happened() -> None:
    """Gone or paused: `listen` says so at once."""
    edge = Edge()
    wire = edge.connect()
    exchange, _ = stream(edge, wire)
    wire.stalled = True
    exchange.write(b"x" * 60_000)
    edge.turn()
    late = Ear()
    exchange.listen(late)
    assert late.heard == ["pause"]
    wire.lose()
    later = Ear()
    exchange.listen(later)
    assert later.heard == ["gone"]
    assert exchange.gone


def test_a_client_that_takes_nothing_is_cut() -> None:
    """After `stall_s` without progress; the relay hears it once (case 5)."""
    edge = Edge()
    wire = edge.connect()
    exchange, ear = stream(edge, wire)
    wire.stalled = True
    exchange.write(b"x" * 100_000)
    edge.turn()
    edge.pass_s(29.5)
    assert not wire.aborted
    edge.pass_s(1)
    assert wire.aborted
    assert ear.heard == ["pause", "gone"]
    assert edge.server.counters.cut == 1
    exchange.write(b"more")
    exchange.end()


def test_a_slow_client_is_not_cut() -> None:
    """Some progress within `stall_s` is enough."""
    edge = Edge()
    wire = edge.connect()
    exchange, ear = stream(edge, wire)
    wire.stalled = True
    exchange.write(b"x" * 100_000)
    edge.turn()
    for _ in range(8):
        edge.pass_s(20)
        wire.take(10)
    assert not wire.aborted
    wire.take()
    exchange.end()
    assert ear.heard == ["pause", "resume"]


def test_a_client_that_does_not_fetch_its_answer_is_cut() -> None:
    """Also when the answer is complete and only waits to be taken, or to be closed."""
    for fields in ("", "Connection: close\r\n"):
        edge = Edge(lambda _, exchange: exchange.whole(200, "text/plain", [], b"x" * 100_000))
        wire = edge.connect()
        wire.stalled = True
        feed(wire, request(BODY, fields=fields))
        edge.pass_s(29.5)
        assert not wire.aborted
        edge.pass_s(1)
        assert wire.aborted


def test_a_lost_client_is_told_once() -> None:
    """And nothing is written to it."""
    edge = Edge()
    wire = edge.connect()
    exchange, ear = stream(edge, wire)
    wire.lose()
    assert ear.heard == ["gone"]
    assert exchange.gone
    exchange.write(b"x")
    exchange.end()
    assert not edge.server.connections


def test_a_half_closed_client_gets_its_answer() -> None:
    """FIN after the request is no disconnect: whole, streamed, and those that were pipelined (case 6)."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(b"1") + request(b"2"))
    wire.hang_up()
    assert not wire.closing
    edge.exchanges[0].whole(200, "text/plain", [], b"one")
    edge.turn()
    exchange = edge.exchanges[1]
    exchange.start(200, "text/plain", [])
    exchange.write(b"two")
    edge.pass_s(120)
    exchange.end()
    assert [body for _, _, body in answers(wire.sent)] == [b"one", b"two"]
    assert wire.lost


def test_a_half_close_is_answered_with_a_probe() -> None:
    """An interim answer, which HTTP/1.1 clients skip: one that is really gone answers it with a reset."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, request(BODY))
    wire.hang_up()
    assert wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    old = edge.connect()
    feed(old, b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    old.hang_up()
    assert not old.sent


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request(b"x" * 10)[:-5]])
def test_a_client_that_leaves_before_its_request_is_whole_is_let_go(sent: bytes) -> None:
    """Nothing is made of half a request."""
    edge = Edge()
    wire = edge.connect()
    feed(wire, sent)
    wire.hang_up()
    assert wire.lost
    assert not edge.arrivals
    assert not edge.server.connections


# The server.


def test_draining_lets_running_requests_finish() -> None:
    """Idle connections close, running ones answer with `connection: close`."""
    edge = Edge()
    idle, busy, streaming = edge.connect(), edge.connect(), edge.connect()
    feed(busy, request(BODY))
    exchange, _ = stream(edge, streaming)
    edge.server.drain()
    assert idle.lost
    assert not busy.closing
    edge.exchanges[0].whole(200, "text/plain", [], b"ok")
    exchange.write(b"last")
    exchange.end()
    assert answers(busy.sent)[0][1]["connection"] == "close"
    assert answers(streaming.sent)[0][2] == b"last"
    assert busy.eof
    assert streaming.eof
    edge.pass_s(3)
    assert not edge.server.connections


def test_a_client_too_many_is_told_so() -> None:
    """503 with a time to come again, then closed; the others are served."""
    edge = Edge(echo, Limits(connections_max=2))
    wires = [edge.connect() for _ in range(3)]
    assert refusal(wires[2]) == (503, "overloaded")
    assert answers(wires[2].sent)[0][1]["retry-after"] == "1"
    feed(wires[0], request(BODY))
    assert answers(wires[0].sent)[0][0] == 200
    assert (edge.server.counters.accepted, edge.server.counters.refused) == (2, 1)
    edge.pass_s(3)
    assert wires[2].lost


def test_counters_count() -> None:
    """Requests and bytes both ways."""
    edge = Edge(echo)
    wire = edge.connect()
    feed(wire, request(BODY))
    feed(wire, request(BODY)[:50])
    counters = edge.server.counters
    assert counters.requests == 1
    assert counters.bytes_in == len(request(BODY)) + 50
    assert counters.bytes_out == len(wire.sent)


def test_an_idle_connection_is_small() -> None:
    """No buffers are kept for a client that has nothing under way (case 171)."""
    edge = Edge(echo)
    wire = edge.connect()
    for i in range(0, len(CHUNKED), 3):
        feed(wire, CHUNKED[i : i + 3])
    connection = wire.connection
    held = [getattr(connection, name) for name in type(connection).__slots__ if name not in ("hub", "_transport")]
    assert sys.getsizeof(connection) + sum(map(sys.getsizeof, held)) < 1200
    assert not hasattr(connection, "__dict__") or not connection.__dict__
