"""What did the host answer? Bytes of the OpenAI family in, frames out, whole answers and streams alike.

Hosts differ, so this file is tolerant in form and strict in substance: missing or null members mean nothing, two
spellings of the thinking are one event, tool calls are keyed by index, else id, else order, usage that cannot be right
is not usage; but an answer that broke off, is empty or is no JSON never passes for an answer.

Whether the host streams is seen from the first byte of the body, not from what was asked. Speed: once a text event was
read in full, the bytes around its text are known, and an event with the same bytes around another JSON string differs
in that string only. So most events of a stream are read together with those beside them (`_learn`, runs.py); and a
whole answer of the usual form is read into records that have just that (plain.py).

Sources: PROVIDERS 1.4, 1.5, 6 and 7; RELIABILITY 3.6, cases 18 to 27.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from moonpool.dialects.answer import Answer, Choice, Message, is_error, is_json, parts_text, read_answer
from moonpool.dialects.plain import CANDIDATES_MAX, GIVEN_UP, read_plain
from moonpool.dialects.runs import Lane, Malformed, Run, lane
from moonpool.dialects.sse import Events, data_of, dumps
from moonpool.dialects.tool_calls import Slots
from moonpool.dialects.usage import read_usage
from moonpool.errors import Problem
from moonpool.words import Event, Failed, Finished, Found, Frame, Headers, Metered, Outbound, Reasoning, Started, Text

BODY_BYTES_MAX: Final = 64 << 20
_LESSONS_MAX: Final = 24


ReadProblem = Callable[[int, Headers, bytes], Problem]


class Decoder:
    """A decoder (dialects.base) for one answer. `done` is set when `[DONE]` was seen: nothing more will be read."""

    __slots__ = (
        "_begun", "_body", "_events", "_failed", "_finished", "_gave_up", "_lane", "_lessons", "_odd", "_output",
        "_read_problem", "_rest", "_shape", "_slots", "_started", "done", "next",
    )  # fmt: skip

    def __init__(self, read_problem: ReadProblem) -> None:
        """`read_problem`: what an error object found inside an answer means (a dialect's `parse_problem`)."""
        self.next: Outbound | None = None
        self.done = False
        self._read_problem = read_problem
        self._started = False
        self._output = False
        self._failed = False
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._slots: dict[int, Slots] = {}
        self._gave_up = ""
        self._body: bytes | bytearray = b""
        self._events: Events
        self._rest: bytearray
        self._shape = ""  # "", until the first byte that is not blank; then "events" or "whole"
        self._lane: Lane | None = None
        self._lessons = 0

    def start(self, status: int, headers: Headers) -> None:
        if not self._shape:
            return  # nothing has come since the last start
        self.done = False
        self._shape = ""
        self._lane = None
        self._lessons = 0

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        for item in self.read(data):
            if type(item) is Run:
                frames += item.frames()
            else:
                frames.append(item)  # type: ignore[arg-type]
        return frames

    def read(self, data: bytes) -> list[Frame | Run]:
        lane = self._lane
        if (
            lane is not None
            and len(data) < lane.short
            and data.startswith(lane.head)
            and data.endswith(lane.tail)
            and not self._rest
        ):
            # One read with one event, as a host sends them that is no faster than its model.
            run = lane.one(data)
            if run is not None:
                return [run]
        if self.done or self._failed:
            return []
        if not self._shape:
            data = self._begin(data)
        if self._shape == "whole":
            if self._body or len(data) > BODY_BYTES_MAX:
                self._keep(data)
            else:
                self._body = data  # all of it, as a rule
            return []
        items = self._items(self._events.take(data)) if self._shape else []
        if self._shape and self._events.broken is not None and not self.done and not self._failed:
            items.append(self._fail(self._events.broken))
        return items

    def finish(self) -> list[Frame]:
        if self._failed:
            return []
        if not self._shape:
            raise Problem("upstream.nonsense", detail="the body is empty")
        if self._shape == "whole":
            return [self._whole(bytes(self._body).strip(b" \t\r\n"))]
        frames: list[Frame] = []
        if not self.done:
            last = self._events.finish()
            frame = self._frame(last[0]) if last and is_json(last[0]) else None
            if frame is not None:
                frames.append(frame)
        if self._failed or self._is_whole():
            return frames
        if self._odd and not self._started:
            raise Problem("upstream.nonsense", detail="the body is neither JSON nor an event stream")
        cut = Problem("upstream.cut", detail="the stream ended without a finish_reason")
        if not frames:
            raise cut
        return [*frames, self._fail(cut)]

    def _begin(self, data: bytes) -> bytes:
        """Pass over blanks (a host's keep-alive) and a byte order mark, then see what comes."""
        data = data.lstrip(b" \t\r\n\xef\xbb\xbf")
        if data:
            if data[:1] in b"{[<":
                self._shape = "whole"
                self._body = b""
            else:
                self._shape = "events"
                self._odd = data[:1] not in b":deir"
                self._events = Events()
                self._rest = self._events.rest
        return data

    def _keep(self, data: bytes) -> None:
        """Another piece of a whole answer."""
        if type(self._body) is not bytearray:
            self._body = bytearray(self._body)
        self._body += data
        if len(self._body) > BODY_BYTES_MAX:
            self._failed = True
            raise Problem("upstream.too_large", detail=f"a whole answer of more than {BODY_BYTES_MAX} bytes")

    def _is_whole(self) -> bool:
        if self.done:
            return self._output or bool(self._finished)
        return bool(self._finished) and self._begun <= self._finished

    def _fail(self, problem: Problem) -> Frame:
        self._failed = True
        self._lane = None
        return Frame(b"", (Failed(problem),))

    def _items(self, block: bytes) -> list[Frame | Run]:
        """What complete events say."""
        items: list[Frame | Run] = []
        at, size = 0, len(block)
        while at < size:
            lane = self._lane
            if lane is not None and block.startswith(lane.head, at):
                run = lane.read(block, at)
                if run is not None:
                    items.append(run)
                    at += len(run.raw)
                    continue
            end = block.index(b"\n\n", at)
            value = data_of(block[at:end])
            at = end + 2
            frame = None if value is None else self._frame(value)
            if frame is not None:
                items.append(frame)
            if self.done or self._failed:
                break
        return items

    def _frame(self, value: bytes) -> Frame | None:
        """One event in full. None for the end mark and for what is none of ours."""
        data = value.strip()
        if data == b"[DONE]":
            self.done = True
            self._lane = None
            return None
        if not data or data.startswith(b":"):
            return None
        try:
            answer = read_answer(data)
        except Malformed as error:
            return self._fail(Problem("upstream.nonsense", detail=f"an event is not JSON of a known shape: {error}"))
        if is_error(answer):
            return self._fail(self._read_problem(200, {}, data))
        events: list[Event] = []
        first = not self._started
        if first:
            events.append(self._start_event(answer))
        as_is = True
        for choice in answer.choices or ():
            as_is &= self._choice(choice, choice.delta or choice.message, False, events)
        as_is &= _add_usage(answer.usage, events)
        if self._gave_up and (problem := self._given_up()) is not None:
            return self._fail(problem)
        # Only once something was said: a run does not note that.
        if len(events) == 1 and type(events[0]) in (Text, Reasoning) and self._output and self._lessons < _LESSONS_MAX:
            self._learn(value, events[0], as_is)
        return Frame(b"data: " + value + b"\n\n" if as_is else b"", tuple(events))

    def _whole(self, body: bytes) -> Frame:
        self.done = True
        plain = None if self._started else read_plain(body)
        if plain is not None:
            self._started = self._output = True
            index = plain[1].index  # type: ignore[union-attr]
            self._begun.add(index)
            self._finished.add(index)
            return Frame(body, plain)
        try:
            answer = read_answer(body)
        except Malformed as error:
            kind = "HTML" if body.startswith(b"<") else "not JSON of a known shape"
            raise Problem("upstream.nonsense", detail=f"the body is {kind}: {error}") from None
        if is_error(answer):
            return self._fail(self._read_problem(200, {}, body))
        if not answer.choices:
            raise Problem("upstream.nonsense", detail="an answer without choices")
        events = [self._start_event(answer)]
        as_is = True
        for choice in answer.choices:
            message = choice.message or choice.delta
            if message is None and choice.text is None:
                raise Problem("upstream.nonsense", detail="a choice without a message")
            as_is &= self._choice(choice, message, True, events)
        as_is &= _add_usage(answer.usage, events)
        if self._gave_up and (problem := self._given_up()) is not None:
            return self._fail(problem)
        return Frame(body if as_is else b"", tuple(events))

    def _start_event(self, answer: Answer) -> Event:
        self._started = True
        name, model, created, fingerprint = answer.id, answer.model, answer.created, answer.system_fingerprint
        return Started(
            name if type(name) is str and name else None,
            model if type(model) is str and model else None,
            created if type(created) is int else None,
            fingerprint if type(fingerprint) is str and fingerprint else None,
        )

    def _choice(self, choice: Choice, message: Message | None, whole: bool, events: list[Event]) -> bool:
        """Add the events of one choice. False when its bytes do not say it in the client's spelling."""
        index = choice.index
        if type(index) is not int or not 0 <= index < CANDIDATES_MAX:
            index = 0
        self._begun.add(index)
        # What has no message where a client looks for one is written anew.
        as_is = (choice.message if whole else choice.delta) is not None or choice.text is not None
        logprobs = choice.logprobs
        if message is not None:
            content = message.content
            if type(content) is list:
                content = parts_text(content)
                as_is = False
            reasoning = message.reasoning_content
            if reasoning is None and type(message.reasoning) is str:
                reasoning = message.reasoning
                as_is = False
            if type(reasoning) is str and (reasoning or whole or content is None):
                self._output |= bool(reasoning)
                events.append(Reasoning(reasoning, index, None if content else logprobs))
            if type(content) is str and content:
                self._output = True
                events.append(Text(content, index, logprobs))
            if message.search_results is not None:
                as_is &= _add_found(message.search_results, index, events)
            if message.tool_calls:
                self._output = True
                as_is &= self._slots.setdefault(index, Slots(index)).read(message.tool_calls, whole, events)
        if type(choice.text) is str and choice.text:
            self._output = True
            events.append(Text(choice.text, index, logprobs))
        reason = choice.finish_reason
        if type(reason) is str and reason and index not in self._finished:
            self._finished.add(index)
            if reason == "stop" and index in self._slots and self._slots[index].called:
                # So say some where the call was forced; programs look for the other word before they run a tool.
                reason, as_is = "tool_calls", False
            elif reason in GIVEN_UP:
                self._gave_up = reason
            events.append(Finished(reason, index))
        return as_is

    def _given_up(self) -> Problem | None:
        """A host that gave up before it began (PROVIDERS 1.4), where another may still answer; or, as engines say it
        (PROVIDERS 7), at any time: what was said is then no whole answer."""
        reason, self._gave_up = self._gave_up, ""
        if not self._output:
            return Problem("upstream.busy", detail=f"{reason} before any output")
        return Problem("upstream.cut", detail="the host aborted the answer") if reason == "abort" else None

    def _learn(self, value: bytes, event: Event, as_is: bool) -> None:
        """Remember what stands around this event's text, if another text in its place is read as that text."""
        self._lessons += 1
        assert isinstance(event, Text | Reasoning)
        literal = dumps(event.text)
        if event.logprobs is not None or value.count(literal) != 1:
            return
        at = value.index(literal)
        before, after = value[:at], value[at + len(literal) :]
        probe = "probe \n"
        try:
            answer = read_answer(before + dumps(probe) + after)
        except Malformed:
            return
        if answer.choices is None or len(answer.choices) != 1:
            return
        choice = answer.choices[0]
        message = choice.delta or choice.message or Message()
        if type(event) is Text:
            seen = choice.text if message.content is None else message.content
        else:
            seen = message.reasoning if message.reasoning_content is None else message.reasoning_content
        if seen == probe:
            self._lane = lane(before, after, type(event), event.index, as_is)


def _add_usage(value: Any, events: list[Event]) -> bool:
    """False for a usage that cannot be right: the client must not read it either."""
    if value is None:
        return True
    usage = read_usage(value)
    if usage is not None:
        events.append(Metered(usage))
    return usage is not None


def _add_found(value: Any, index: int, events: list[Event]) -> bool:
    """False where something is no search result: the client must not read it either."""
    listed = value if type(value) is list else ()
    results = tuple(result for result in listed if type(result) is dict and type(result.get("url")) is str)
    if results:
        events.append(Found(results, index))
    return type(value) is list and len(results) == len(value)
