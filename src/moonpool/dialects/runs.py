"""What do many texts say that come in the same bytes? Events that differ in nothing but their text are read together.

Most events of a stream are such. A `Lane` is what stands around the text of one that was read in full (decode.py learns
it); a `Run` are events of a lane, one behind the other, with as many texts. What is done for a run is done once, not
for each event: it is read by one split and one reading of a list of strings, and handed on as it came.

Why that reads no event otherwise than in full: the bytes around the text begin and end at its quotes, and between two
texts of the list stands a newline, which no JSON string holds. So where the list can be read, each of those newlines
lies between two strings, and where it has as many strings as there are events, each text is one string to its end.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from moonpool.words import Frame, Reasoning, Text

RUN_BYTES_MAX: Final = 1 << 15
"""What is looked at for one run: so what ends a run early costs no more than this, however much was read."""

Malformed: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON that is none raises."""

_read_string: Final = msgspec.json.Decoder(str).decode
_read_strings: Final = msgspec.json.Decoder(list[str]).decode


class Lane(Struct, frozen=True, eq=False):
    """`head` and `tail`: the bytes of an event before and after what stands between the quotes of its text, from
    `data: ` to the blank line; `between` is what that is from one text to the next. `kind` and `index`: what such an
    event is, of which candidate; `as_is`: it can be handed on as it came."""

    head: bytes
    tail: bytes
    between: bytes
    kind: type[Text] | type[Reasoning]
    index: int
    as_is: bool
    short: int
    """Fewer bytes than this are not two such events."""

    def one(self, data: bytes) -> Run | None:
        """The run of one event that all of `data` is, which begins and ends as one, and is `short`."""
        try:
            text = _read_string(data[len(self.head) - 1 : 1 - len(self.tail)])
        except Malformed:
            return None
        return Run(self, [text], data) if text else None

    def read(self, block: bytes, at: int) -> Run | None:
        """The run that begins at `at`, where there is the head of this lane. None: the event there is to be read in
        full."""
        head, tail = self.head, self.tail
        window = block[at : at + RUN_BYTES_MAX]
        literals = window[len(head) :].split(self.between)
        last = literals[-1]
        cut = last.find(tail)
        end = len(window) - len(last)
        if cut >= 0:
            literals[-1] = last[:cut]
            end += cut + len(tail)
        else:
            literals.pop()  # it ends otherwise, or beyond the window
            end -= len(head)
        try:
            texts = _read_strings(b'["' + b'",\n"'.join(literals) + b'"]')
        except Malformed:
            return None
        if len(texts) != len(literals):
            return None
        if "" in texts:  # says something else than a text, or nothing
            count = texts.index("")
            texts = texts[:count]
            end = len(head) + len(self.between.join(literals[:count])) + len(tail)
        return Run(self, texts, window[:end]) if texts else None


class Run(Struct, frozen=True):
    """Events of a lane: what they say, none of it empty, and the bytes they came as."""

    lane: Lane
    texts: list[str]
    raw: bytes

    def frames(self) -> list[Frame]:
        """The same as frames of one event each."""
        lane = self.lane
        head, tail, kind, index = lane.head, lane.tail, lane.kind, lane.index
        if not lane.as_is:
            return [Frame(b"", (kind(text, index),)) for text in self.texts]
        literals = self.raw[len(head) : -len(tail)].split(lane.between)
        return [
            Frame(head + literal + tail, (kind(text, index),))
            for literal, text in zip(literals, self.texts, strict=True)
        ]


def lane(before: bytes, after: bytes, kind: type[Text] | type[Reasoning], index: int, as_is: bool) -> Lane:
    """The lane of events whose data is `before`, a text as a JSON string, and `after`."""
    head, tail = b"data: " + before + b'"', b'"' + after + b"\n\n"
    return Lane(head, tail, tail + head, kind, index, as_is, 2 * (len(head) + len(tail)))
