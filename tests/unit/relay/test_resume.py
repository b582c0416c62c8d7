"""The tape of a resumable stream, alone: what is written comes back from any event on, and nothing is kept for ever."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonpool.errors import Problem
from moonpool.relay.resume import FINISHED_MAX, PIECE_BYTES, Tape, Tapes
from moonpool.relay.writer import Fields, Listener
from moonpool.settings import Streams
from moonpool.words import Arrival, Call

EVENTS = [b'data: {"n":%d,"text":"%b"}\n\n' % (n, "é🎉 a:b\\n\\n".encode() * (n % 4)) for n in range(9)]
EVENTS.append(b"data: [DONE]\n\n")
BODY = b"".join(EVENTS)
BEAT = b": keep-alive\n\n"
ERROR = b'data: {"error":1}\n\n'
STREAM = Call("id", "chat", "m", True, {}, b"")


class Reader:
    """A client's connection that takes everything, and can go, pause and come back."""

    def __init__(self) -> None:
        self.body = b""
        self.how = ""
        self.fields: dict[str, str] = {}
        self.listener: Listener | None = None

    def listen(self, listener: Listener | None) -> None:
        self.listener = listener

    def whole(self, status: int, content_type: str, fields: Fields, body: bytes) -> None:
        self.body, self.how, self.listener = body, f"whole {status}", None

    def start(self, status: int, content_type: str, fields: Fields) -> None:
        assert not self.how
        self.how, self.fields = "open", dict(fields)

    def write(self, data: bytes) -> None:
        if self.how != "gone":
            assert self.how == "open"
            self.body += data

    def end(self) -> None:
        assert self.how == "open"
        self.how, self.listener = "ended", None

    def cut(self) -> None:
        assert self.how == "open"
        self.how, self.listener = "cut", None

    def go(self) -> None:
        """It hangs up."""
        listener, self.listener, self.how = self.listener, None, "gone"
        assert listener is not None
        listener.gone()

    @property
    def said(self) -> Listener:
        assert self.listener is not None
        return self.listener

    @property
    def events(self) -> bytes:
        return re.sub(rb": keep-alive\n+", b"", self.body)


class Source:
    """Who writes the answer: what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def gone(self) -> None:
        self.told.append("gone")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def probe(self) -> None:
        self.told.append("probe")


class Room:
    """Tapes, a clock that is driven, and the next turn of the loop."""

    def __init__(self, **limits: Any) -> None:
        self.now = 100.0
        self.later: list[Callable[[], object]] = []
        self.tapes = Tapes(Streams(**limits), lambda: self.now, self.later.append, lambda _: ERROR)
        self.source = Source()

    def open(self, stream_id: str = "one") -> tuple[Tape, Reader]:
        reader = Reader()
        arrival = Arrival(stream_id, "POST", "/", "", {"x-moonpool-resume": "1"}, b"", "", 0.0)
        tape = self.tapes.wrap(reader, arrival, STREAM, "mine")
        assert isinstance(tape, Tape)
        tape.listen(self.source)
        tape.start(200, "text/event-stream", [("x-moonpool-host", "h")])
        return tape, reader

    def attach(self, after: int, stream_id: str = "one") -> Reader:
        reader = Reader()
        self.tapes.find(stream_id, "mine").attach(reader, after)
        return reader

    def turn(self) -> None:
        """One turn of the loop."""
        now, self.later[:] = list(self.later), []
        for run in now:
            run()

    def turns(self) -> None:
        while self.later:
            self.turn()


def test_without_the_header_there_is_no_tape() -> None:
    """Without the header, for a whole answer, or switched off: the client's own writer, nothing between."""
    reader, tapes = Reader(), Room().tapes

    def wrap(tapes: Tapes, call: Call = STREAM, **headers: str) -> object:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return tapes.wrap(reader, Arrival("i", "POST", "/", "", fields, b"", "", 0.0), call, "mine")

    assert wrap(tapes) is reader
    assert wrap(tapes, x_moonpool_resume="0") is reader
    assert wrap(tapes, Call("id", "chat", "m", False, {}, b""), x_moonpool_resume="1") is reader
    assert wrap(Room(resume_s=0).tapes, x_moonpool_resume="1") is reader
    assert isinstance(wrap(tapes, x_moonpool_resume="1"), Tape)


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
@pytest.mark.parametrize("back", ["at once", "in the middle", "after the end"])
def test_cut_at_every_event_and_resumed(cut: int, back: str) -> None:
    """What the first client read and what the second gets are the uncut answer, byte for byte but for keep-alives."""
    room = Room()
    tape, first = room.open()
    for event in EVENTS[:cut]:
        tape.write(event)
        tape.write(BEAT)
    first.go()
    assert first.events == b"".join(EVENTS[:cut])
    second = room.attach(cut) if back == "at once" else None
    rest = EVENTS[cut:]
    for number, event in enumerate(rest):
        if back == "in the middle" and number == len(rest) // 2:
            second = room.attach(cut)
        tape.write(BEAT)
        tape.write(event)
        room.turns()
    tape.end()
    second = second or room.attach(cut)
    room.turns()
    assert first.events + second.events == BODY
    assert (second.how, second.fields) == ("ended", {"x-moonpool-host": "h", "x-moonpool-stream": "one"})
    assert "gone" not in room.source.told
    for after in range(len(EVENTS) + 3):
        again = room.attach(after)
        room.turns()
        assert (again.body, again.how) == (b"".join(EVENTS[after:]), "ended")


@settings(max_examples=150, database=None)
@given(st.data())
def test_whatever_clients_do_nothing_is_lost_or_doubled(data: st.DataObject) -> None:
    """Writes of several events, pauses, hanging up and two at once, in any order: each client's bytes are a part of the
    answer from where it asked, the last one gets the rest, the reply hears pause and resume in turn."""
    room = Room()
    tape, reader = room.open()
    start, written = 0, 0
    long = [b"data: %b\n\n" % (b"%d" % n * data.draw(st.sampled_from([1, 20_000, 70_000]))) for n in range(8)]
    whole = b"".join(long)
    while written < len(long):
        act = data.draw(st.sampled_from(["write", "write", "beat", "go", "attach", "pause", "resume", "turn"]))
        there = reader.how == "open"
        if act == "write":
            count = data.draw(st.integers(1, 3))
            tape.write(b"".join(long[written : written + count]))
            written = min(len(long), written + count)
        elif act == "beat":
            tape.write(BEAT)
        elif act == "attach" or not there:
            before, start = reader, data.draw(st.integers(0, written + 2))
            reader = room.attach(start)
            assert before.how in {"cut", "gone"}
        elif act == "go":
            reader.go()
        elif act == "turn":
            room.turn()
        else:
            getattr(reader.said, act)()
        assert b"".join(long[start:]).startswith(reader.events)
    tape.end()
    if reader.how == "gone":
        start = data.draw(st.integers(0, written + 2))
        reader = room.attach(start)
    if reader.how == "open":
        reader.said.resume()
    room.turns()
    assert (reader.events, reader.how) == (whole[len(b"".join(long[:start])) :], "ended")
    told = room.source.told
    assert all(one != two for one, two in itertools.pairwise(told))
    assert set(told) <= {"pause", "resume"}


def test_a_long_replay_goes_in_pieces_and_hears_the_pause() -> None:
    """One piece for each turn of the loop; a client that pauses gets no more; the host is held until it has caught up,
    and a keep-alive never comes into the middle of an event."""
    room = Room()
    tape, first = room.open()
    first.go()
    big = b"data: %b\n\n" % (b"x" * (5 * PIECE_BYTES))
    tape.write(big)
    second = room.attach(0)
    assert len(second.body) == PIECE_BYTES
    assert room.source.told == ["pause"]
    room.turn()
    assert len(second.body) == 2 * PIECE_BYTES
    second.said.pause()
    room.turns()
    tape.write(BEAT)
    tape.write(EVENTS[0])
    assert len(second.body) == 2 * PIECE_BYTES
    second.said.resume()
    room.turns()
    assert second.body == big + EVENTS[0]
    assert room.source.told == ["pause", "resume"]
    tape.write(BEAT)
    assert second.body.endswith(BEAT)


def test_a_slow_client_slows_the_host_and_one_that_goes_lets_it_on() -> None:
    """As without a tape: pause and resume of the connection reach the reply; when the client is gone the host is read
    on."""
    room = Room()
    tape, first = room.open()
    first.said.pause()
    tape.write(EVENTS[0])
    assert first.body == b""
    first.said.resume()
    assert (first.body, room.source.told) == (EVENTS[0], ["pause", "resume"])
    first.said.pause()
    first.said.probe()
    first.go()
    assert room.source.told[2:] == ["pause", "probe", "resume"]


def test_events_beyond_what_there_is_are_waited_for() -> None:
    """A client that has read more than was written gets the next event only; keep-alives meanwhile."""
    room = Room()
    tape, _ = room.open()
    tape.write(EVENTS[0])
    second = room.attach(3)
    for event in EVENTS[1:4]:
        tape.write(BEAT)
        tape.write(event)
    assert second.events == EVENTS[3]
    assert second.body.startswith(BEAT)
    assert room.source.told == []
    late = room.attach(50)
    tape.end()
    assert (late.body, late.how) == (b"", "ended")


def test_a_second_client_takes_over() -> None:
    """The first one's answer has no end mark; the second gets what it asks for; the reply hears of nothing."""
    room = Room()
    tape, first = room.open()
    tape.write(EVENTS[0])
    second = room.attach(0)
    tape.write(EVENTS[1])
    assert (first.body, first.how) == (EVENTS[0], "cut")
    assert (second.body, second.how) == (EVENTS[0] + EVENTS[1], "open")
    assert not room.tapes.detached
    assert room.source.told == []


def test_another_account_and_an_unknown_id_are_one() -> None:
    """The same words for both, before and after the end."""
    room = Room()
    tape, _ = room.open()
    for _ in range(2):
        said = set()
        for stream_id, account in (("one", "other"), ("two", "mine"), ("", "mine")):
            with pytest.raises(Problem) as caught:
                room.tapes.find(stream_id, account)
            said.add((caught.value.code, caught.value.message))
        assert len(said) == 1
        tape.end()


def test_nobody_comes_back() -> None:
    """When its time is over the reply hears that the client is gone; what there is can be fetched, with an error as its
    end, until it is forgotten, and then nothing is held."""
    room = Room(resume_s=10, resume_keep_s=20)
    tape, first = room.open()
    tape.write(EVENTS[0])
    first.go()
    room.now += 9.9
    room.tapes.beat()
    assert room.source.told == []
    room.attach(1).go()  # the time begins again
    room.now += 9.9
    room.tapes.beat()
    assert (room.source.told, len(room.tapes.detached)) == ([], 1)
    room.now += 0.2
    room.tapes.beat()
    assert (room.source.told, len(room.tapes.detached)) == (["gone"], 0)
    tape.write(EVENTS[1])
    tape.end()
    second = room.attach(0)
    assert (second.body, second.how) == (EVENTS[0] + ERROR, "ended")
    room.now += 20
    room.tapes.beat()
    with pytest.raises(Problem, match="not_found"):
        room.attach(0)
    assert room.tapes.held == 0
    assert room.source.told == ["gone"]


def test_a_client_that_goes_before_the_head_ends_it() -> None:
    """It knows no id to come back with; and a refusal with a status is passed on as it is."""
    room = Room()
    for act in ("go", "refuse"):
        reader, source = Reader(), Source()
        tape = Tape(room.tapes, act, "mine", reader)
        tape.listen(source)
        if act == "go":
            reader.go()
            tape.start(200, "", [])
            tape.write(EVENTS[0])
            tape.end()
            assert source.told == ["gone"]
        else:
            tape.whole(503, "application/json", [], b"{}")
            assert (reader.how, reader.body) == ("whole 503", b"{}")
        with pytest.raises(Problem):
            room.tapes.find(act, "mine")
    assert room.tapes.held == 0


def test_a_stream_without_a_reader_ends_at_its_size() -> None:
    """Not within the write that fills it: an answer that ends there has ended well."""
    room = Room(resume_bytes_max=65536)
    event = b"data: %b\n\n" % (b"y" * 40_000)
    for ends in (True, False):
        room.source.told.clear()
        tape, first = room.open(str(ends))
        first.go()
        tape.write(event)
        tape.write(event)
        assert room.source.told == []
        if ends:
            tape.end()
        room.turns()
        assert room.source.told == ([] if ends else ["gone"])
        got = room.attach(0, str(ends))
        room.turns()
        assert (got.body, got.how) == (event * 2 + (b"" if ends else ERROR), "ended")


def test_a_long_stream_with_a_reader_forgets_its_begin() -> None:
    """The newest half at least is kept, and who goes leaves room for as much; who asks for less is told which."""
    room = Room(resume_bytes_max=65536)
    tape, first = room.open()
    event = b"data: %b\n\n" % (b"z" * 992)
    for _ in range(500):
        tape.write(event)
        assert tape.size <= 65536 + 2000
        assert tape.size == room.tapes.held
    assert first.body == event * 500
    first.said.pause()
    for _ in range(100):
        tape.write(event)
    first.said.resume()
    room.turns()
    assert first.body == event * 600, "what a slow reader lacks is not forgotten"
    tape.write(event)
    room.source.told.clear()
    first.go()
    for _ in range(30):
        tape.write(event)
    room.turns()
    assert room.source.told == []
    with pytest.raises(Problem) as caught:
        room.attach(500)
    assert (caught.value.code, caught.value.param) == ("caller.invalid_value", "after")
    second = room.attach(591)
    room.turns()
    tape.end()
    assert (second.body, second.how) == (event * 40, "ended")


def test_who_goes_while_it_catches_up_can_come_back_to_the_same_place() -> None:
    """What a client was not yet written is not forgotten, however full the tape is."""
    room = Room(resume_bytes_max=8 * PIECE_BYTES)
    tape, first = room.open()
    event = b"data: %b\n\n" % (b"u" * 1016)
    tape.write(event)
    first.go()
    for _ in range(240):
        tape.write(event)
    second = room.attach(1)
    room.turn()
    tape.write(event)
    assert len(second.body) == 2 * PIECE_BYTES
    second.go()
    third = room.attach(1)
    tape.end()
    room.turns()
    assert third.body == event * 241


def test_what_all_keep_is_bounded() -> None:
    """The oldest that ended goes first; then the one that grows keeps only what its reader lacks, or ends."""
    room = Room(resume_total_bytes_max=65536)
    event = b"data: %b\n\n" % (b"w" * 19_990)
    for name in "abcd":
        tape, _ = room.open(name)
        tape.write(event)
        tape.end()
    with pytest.raises(Problem):
        room.tapes.find("a", "mine")
    assert room.tapes.find("b", "mine")
    tape, reader = room.open("e")
    for _ in range(4):
        tape.write(event)
    assert room.tapes.held == 0
    assert reader.body == event * 4
    reader.go()
    for _ in range(4):
        tape.write(event)
    room.turns()
    assert room.source.told == ["gone"]
    assert room.tapes.held <= 65536


def test_the_number_of_ended_ones_is_bounded() -> None:
    """However small they are."""
    room = Room()
    for number in range(FINISHED_MAX + 5):
        room.open(str(number))[0].end()
    with pytest.raises(Problem):
        room.tapes.find("4", "mine")
    assert room.tapes.find("5", "mine")


def test_stopping_ends_what_has_no_reader() -> None:
    """Nobody can come back to a server that stops: neither who is gone nor who goes now."""
    room = Room()
    _, first = room.open("a")
    _, second = room.open("b")
    first.go()
    room.tapes.drain()
    assert room.source.told == ["gone"]
    second.go()
    assert room.source.told == ["gone", "gone"]


def test_a_broken_answer_is_cut_and_forgotten() -> None:
    """Where something of ours failed, nobody can come back, and whoever reads sees that it is not whole."""
    room = Room()
    tape, reader = room.open()
    tape.write(EVENTS[0])
    tape.cut()
    assert (reader.how, room.tapes.held) == ("cut", 0)
    with pytest.raises(Problem):
        room.attach(0)
