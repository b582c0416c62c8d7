"""Recorded answers: the same events in any slicing, and the client's bytes as they stand in the folder."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.words import Usage
from strategies import slicings
from transcripts.loader import HERE, Transcript, transcripts
from unit.dialects.played import Played, call_of, names_of, plain, play

ALL = transcripts()
FLAVOURS = [name for name, dialect in DIALECTS.items() if dialect.family == CLIENT.family]
CANONICAL = [transcript for transcript in ALL if transcript.canonical]


def ids(transcript: Transcript) -> str:
    return f"{transcript.dialect}/{transcript.name}"


def check(transcript: Transcript, played: Played) -> None:
    assert plain(played.events, played.problem) == transcript.events
    assert played.client == transcript.client
    expected = None if transcript.usage is None else msgspec.convert(transcript.usage, Usage)
    assert played.usage == expected


@pytest.mark.parametrize("transcript", ALL, ids=ids)
def test_whole_and_byte_by_byte(transcript: Transcript) -> None:
    """One read or one byte at a time: the events, the client's bytes and the usage of the folder."""
    check(transcript, play(transcript, [transcript.body]))
    check(transcript, play(transcript, [transcript.body[at : at + 1] for at in range(len(transcript.body))]))


@pytest.mark.parametrize("transcript", ALL, ids=ids)
@settings(max_examples=25)
@given(data=st.data())
def test_random_cuts(transcript: Transcript, data: st.DataObject) -> None:
    """Cut anywhere, inside a character too: nothing changes (RELIABILITY case 24)."""
    check(transcript, play(transcript, data.draw(slicings(transcript.body))))


@pytest.mark.parametrize("transcript", CANONICAL, ids=ids)
def test_both_ways(transcript: Transcript) -> None:
    """What DeepSeek wrote, read into events and built again from them, is what DeepSeek wrote, byte for byte."""
    read = play(transcript, [transcript.body])
    assert read.client == transcript.body, "handed on"
    built = play(transcript, [transcript.body], verbatim=False, identity=names_of(read.events))
    assert built.client == transcript.body, "built"


@pytest.mark.parametrize("transcript", [t for t in ALL if t.built is not None], ids=ids)
def test_built_under_our_names(transcript: Transcript) -> None:
    """Built from events, the answer carries our id and time, and DeepSeek's shapes."""
    assert play(transcript, [transcript.body], verbatim=False).client == transcript.built


@pytest.mark.parametrize("transcript", [t for t in CANONICAL if call_of(t).stream], ids=ids)
@settings(max_examples=40)
@given(data=st.data())
def test_a_stream_cut_anywhere_is_settled(transcript: Transcript, data: st.DataObject) -> None:
    """A stream that ends early ends with a problem, or was whole but for its [DONE]; it never passes for more."""
    at = data.draw(st.integers(0, len(transcript.body)))
    played = play(transcript, [transcript.body[:at]])
    finished = any(type(event).__name__ == "Finished" for event in played.events)
    assert (played.problem is None) == finished
    if played.problem is None:
        assert played.client == transcript.client
    else:
        assert played.problem.code in ("upstream.cut", "upstream.nonsense")
        assert b"[DONE]" not in played.client


def test_every_folder_is_whole() -> None:
    """Each scenario has all of its files, and every word of its request is accepted."""
    for folder in sorted(path for family in FLAVOURS for path in (HERE / family).iterdir()):
        names = {path.name for path in folder.iterdir()}
        needed = {"about.md", "request.json", "response.http", "events.json", "client.deepseek", "usage.json"}
        assert needed <= names <= needed | {"client.built"}, folder
    for transcript in ALL:
        call_of(transcript)


@pytest.mark.parametrize("dialect", FLAVOURS)
def test_every_dialect_is_recorded(dialect: str) -> None:
    """No flavour without a whole answer, a stream, a refused key and too many requests; those that are made of several
    passes have their own folders and their own tests."""
    shown = set()
    for transcript in ALL:
        if transcript.dialect == dialect:
            name, members = transcript.events[-1]
            streams = "event-stream" in transcript.headers.get("content-type", "")
            shown.add(members["code"] if name == "Problem" else "stream" if streams else "whole")
    assert {"whole", "stream", "upstream.credentials", "upstream.busy"} <= shown


def test_every_folder_has_a_dialect() -> None:
    """A folder that no dialect is called by would not be played at all."""
    assert {path.name for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "_."} <= set(DIALECTS)
