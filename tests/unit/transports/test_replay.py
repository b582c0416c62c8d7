"""Recorded answers, played with the time a test gives them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

import pytest

from faults.sink import CHAT, Recorder, host_at
from moonpool.transports.replay import Recording, ReplayTransport, pieces, read_recording
from moonpool.words import Host

STREAM = b'HTTP/1.1 200 OK\nContent-Type: text/event-stream\nX: 1\nx: 2\n\ndata: {"a":1}\n\n: hi\n\ndata: [DONE]\n\n'
HOST: Host = host_at("http://replayed.test")


class Agenda:
    """A schedule whose time a test moves."""

    def __init__(self) -> None:
        self.at = 0.0
        self._due: list[tuple[float, int, Entry]] = []
        self._number = count()

    def __call__(self, delay_s: float, run: Callable[[], None]) -> Entry:
        entry = Entry(run)
        heapq.heappush(self._due, (self.at + delay_s, next(self._number), entry))
        return entry

    def move(self, to: float) -> None:
        while self._due and self._due[0][0] <= to:
            self.at, _, entry = heapq.heappop(self._due)
            if not entry.cancelled:
                entry.run()
        self.at = to


class Entry:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def play(recording: Recording) -> tuple[Agenda, Recorder]:
    agenda, sink = Agenda(), Recorder()
    ReplayTransport(lambda host, outbound: recording, agenda).send(HOST, CHAT, sink)
    assert sink.calls == []
    return agenda, sink


def test_reading() -> None:
    """A response.http, with either kind of line end, becomes status, fields and body."""
    recording = read_recording(STREAM)
    assert recording == read_recording(STREAM.replace(b"\n", b"\r\n", 5))
    assert recording.status == 200
    assert recording.headers == {"content-type": "text/event-stream", "x": "1, 2"}
    assert recording.body.startswith(b"data: ")
    assert recording.problem == ""
    assert read_recording(b"HTTP/1.1 204 No Content\nX: 1\n") == Recording(204, {"x": "1"})


@pytest.mark.parametrize("text", [b"", b"hello", b"HTTP/1.1\n\n", b"HTTP/1.1 OK\n\n", b"HTTP/1.1 200 OK\nno field\n\n"])
def test_no_recording(text: bytes) -> None:
    """What begins with no response head is refused."""
    with pytest.raises(ValueError, match="no "):
        read_recording(text)


def test_cut_by_its_length() -> None:
    """A recording shorter than its Content-Length is one that was cut."""
    agenda, sink = play(read_recording(b"HTTP/1.1 200 OK\nContent-Length: 9\n\n1234"))
    agenda.move(0)
    assert (sink.code, sink.body) == ("upstream.cut", b"1234")
    assert play(read_recording(b"HTTP/1.1 200 OK\nContent-Length: 4\n\n1234"))[1].ends == 0


def test_pieces() -> None:
    """Without a size a body is cut where its events end; with one, into pieces of that size."""
    assert list(pieces(b"data: 1\n\n: c\n\nrest")) == [b"data: 1\n\n", b": c\n\n", b"rest"]
    assert list(pieces(b"")) == []
    assert list(pieces(b"12345", 2)) == [b"12", b"34", b"5"]


def test_timing() -> None:
    """The first piece comes after `first_s`, the others `gap_s` apart, then the end."""
    agenda, sink = play(read_recording(STREAM, first_s=5.0, gap_s=1.0))
    agenda.move(4.9)
    assert sink.calls == []
    agenda.move(5.0)
    assert sink.calls == ["head", "data"]
    agenda.move(6.5)
    assert len(sink.chunks) == 2
    agenda.move(60.0)
    assert sink.code == ""
    assert sink.body == read_recording(STREAM).body


def test_pause_and_close() -> None:
    """Paused, nothing comes however late it gets; closed, nothing ever comes."""
    agenda, sink = Agenda(), Recorder()
    transport = ReplayTransport(lambda host, outbound: read_recording(STREAM), agenda)
    inbound = transport.send(HOST, CHAT, sink)
    sink.on["data"] = inbound.pause
    for wanted in (1, 2, 3):
        agenda.move(agenda.at + 100.0)
        assert len(sink.chunks) == wanted
        inbound.resume()
    agenda.move(agenda.at + 1.0)
    assert sink.code == ""
    closing = Recorder()
    inbound = transport.send(HOST, CHAT, closing)
    closing.on["head"] = inbound.close
    agenda.move(agenda.at + 1.0)
    inbound.close()
    assert closing.calls == ["head"]


def test_failures() -> None:
    """A recording may end with any problem, and a host that is not there has no head."""
    agenda, sink = play(Recording(status=0))
    agenda.move(0)
    assert (sink.calls, sink.code) == (["end"], "upstream.unreachable")
    agenda, sink = play(Recording(body=b"data: 1\n\n", problem="upstream.timeout"))
    agenda.move(0)
    assert (sink.body, sink.code) == (b"data: 1\n\n", "upstream.timeout")


def test_on_a_loop() -> None:
    """Without a schedule the running loop's time is used; stopping ends what plays."""

    async def main() -> None:
        transport = ReplayTransport(lambda host, outbound: read_recording(STREAM, gap_s=0.001))
        await transport.start()
        sink = Recorder()
        transport.send(HOST, CHAT, sink)
        assert (await sink.over()).code == ""
        endless = Recorder()
        transport.send(HOST, CHAT, endless)
        await transport.stop()
        assert endless.code == "platform.stopping"
        late = Recorder()
        transport.send(HOST, CHAT, late)
        assert (await late.over()).code == "platform.stopping"

    asyncio.run(main())
