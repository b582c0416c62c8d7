"""Functions and JSON for models whose host has neither: told in the prompt, read from the text, checked, asked twice.

`dialect_for` wraps a target's dialect for a call of which we see to something ourselves (`Call.emulated`). What goes
out is a call in plain messages (emulate_prompt.py); what comes back is read while it comes (emulate_parse.py); thinking
is none of ours and passes. What is promised: a call names a function that there is, its arguments are an object and
have what the function requires; JSON mode gives one object. An answer that breaks this is asked for once more, with
what was wrong of it (`Decoder.next`), unless some of the wrong was handed out already: of a whole answer nothing is, of
a stream the arguments and the object are as they come. What is then still wrong fails, and never passes for an answer.

Usage is that of both passes. A free answer may be text; a forced one holds calls and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from moonpool.dialects.base import Decoder, Dialect, Encoder, Identity
from moonpool.dialects.chunks import tool_call_id
from moonpool.dialects.emulate_parse import Calls, JsonText
from moonpool.dialects.emulate_prompt import (
    CLOSE,
    OPEN,
    SAID_MAX,
    functions,
    is_forced,
    is_parallel,
    opening,
    required,
    schema_of,
    told,
)
from moonpool.errors import Problem
from moonpool.words import (
    Call,
    Event,
    Failed,
    Finished,
    Found,
    Frame,
    Headers,
    Metered,
    Operation,
    Outbound,
    Reasoning,
    Started,
    Target,
    Text,
    ToolCall,
    Usage,
)

TEXT_MAX: Final = 1 << 20
"""Characters of a pass. They are read one by one, on everybody's loop."""

_LESSON_BYTES_MAX: Final = 2048  # beside what the request itself says
_ENDED: Final = ("", "stop", "tool_calls")  # by the model's own will
_REVIEWED: Final = "content_filter"  # what is then said is the review's (contract 4)


_NO_CALL: Final = "The model did not call a function in the form it was told."
_NO_JSON: Final = "The model did not answer with one JSON object that fits."


def dialect_for(dialect: Dialect, call: Call) -> Dialect:
    """How to speak to a host of this dialect about this call."""
    return Emulated(dialect) if call.emulated else dialect


def bytes_max(call: Call) -> int:
    """The longest that all prompts of a call can be: what a hold covers."""
    size = len(call.raw)
    return 2 * (size + _LESSON_BYTES_MAX) + 4 * SAID_MAX if call.emulated else size


class Emulated:
    """A dialect (dialects.base) around another one."""

    def __init__(self, inner: Dialect) -> None:
        self._inner = inner
        self.name = inner.name
        self.family = inner.family

    def parse_call(self, operation: Operation, raw: bytes, call_id: str) -> Call:
        return self._inner.parse_call(operation, raw, call_id)

    def render_call(self, call: Call, target: Target) -> Outbound:
        return self._inner.render_call(told(call, opening(call, target)), target)

    def decoder(self, call: Call, target: Target) -> Decoder:
        return EmulatedDecoder(self._inner, call, target)

    def encoder(self, call: Call, identity: Identity, verbatim: bool, switches: Mapping[str, str]) -> Encoder:
        return self._inner.encoder(call, identity, verbatim, switches)

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        return self._inner.parse_problem(status, headers, body)

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        return self._inner.render_problem(problem, in_stream=in_stream)

    def status_of(self, problem: Problem) -> int:
        return self._inner.status_of(problem)


class EmulatedDecoder:
    """A decoder (dialects.base) for one answer of at most two passes, each in as many as its host needs."""

    def __init__(self, dialect: Dialect, call: Call, target: Target) -> None:
        self.next: Outbound | None = None
        self.done = False
        self._dialect = dialect
        self._call = call
        self._target = target
        self._begun = opening(call, target)
        self._forced = is_forced(call)
        self._made: list[object] = []
        self._usage = Usage()
        self._metered = True  # of every pass before
        self._delivered = self._over = self._started = self._native = False
        self._second = False
        self._open(told(call, self._begun))

    def _open(self, asked: Call) -> None:
        """A pass begins."""
        self._asked = asked
        self._inner = self._dialect.decoder(asked, self._target)
        self._calls = Calls(functions(self._call), is_parallel(self._call), len(self._made))
        self._json = JsonText(required(schema_of(self._call)), hold=not self._call.stream)
        self._held: list[Event] = []
        self._said = self._begun
        self._chars = 0
        self._reason = ""
        self._used: Usage | None = None
        self._wrong: str | None = None
        self._unread = self._begun  # hosts do not repeat what they go on with

    def start(self, status: int, headers: Headers) -> None:
        self.next = None
        self._inner.start(status, headers)

    def feed(self, data: bytes) -> list[Frame]:
        if self._over:
            return []
        frames = self._inner.feed(data)
        events = self._take(frames)
        if self._inner.done and not self._over and self._wrong is None:
            # What has to be asked again is asked when the body is over, not at the end mark.
            self._judge(events)
            self.done = not self._wrong
        return [Frame(b"", tuple(events))] if events else []

    read = feed

    def finish(self) -> list[Frame]:
        if self._over:
            return []
        events = self._take(self._inner.finish())
        if self._over:
            return [Frame(b"", tuple(events))]
        if self._inner.next is not None:
            self.next = self._inner.next
            return [Frame(b"", tuple(events))] if events else []
        if self._wrong is None:
            self._judge(events)
        if self._wrong:
            self._again(self._wrong, events)
        else:
            self._end(events)
        return [Frame(b"", tuple(events))] if events else []

    def _take(self, frames: list[Frame]) -> list[Event]:
        events: list[Event] = []
        for frame in frames:
            for event in frame.events:
                if isinstance(event, Text):
                    self._chars += len(event.text)
                    if self._chars > TEXT_MAX:
                        self._over = True
                        detail = f"an emulated answer of more than {TEXT_MAX} characters"
                        return [*events, Failed(Problem("upstream.too_large", detail=detail))]
                    self._said += event.text[: max(0, SAID_MAX - len(self._said))]
                    self._read(event.text, events)
                elif isinstance(event, Metered):
                    self._used = event.usage
                elif isinstance(event, Finished):
                    self._reason = event.reason
                elif isinstance(event, Failed):
                    self._over = True
                    events.append(event)
                else:
                    self._pass(event, events)
        return events

    def _pass(self, event: Started | Reasoning | ToolCall | Found, events: list[Event]) -> None:
        """What is none of ours."""
        if isinstance(event, Started):
            if self._started:
                return
            self._started = True
        elif isinstance(event, ToolCall):
            self._native = True
        elif isinstance(event, Reasoning) and self._delivered:
            return  # a second thinking, behind what was answered
        events.append(event)

    # What the answer is made of.

    def _read(self, text: str, events: list[Event]) -> None:
        text, self._unread = self._unread + text, ""
        self._pieces(self._calls.feed(text) if "tools" in self._call.emulated else [text], events)

    def _pieces(self, pieces: list[str | ToolCall], events: list[Event]) -> None:
        for piece in pieces:
            if isinstance(piece, ToolCall):
                if piece.name is not None:
                    piece = ToolCall(  # noqa: PLW2901
                        piece.slot, tool_call_id(self._call.id, piece.slot), piece.name, piece.arguments
                    )
                self._tell(piece, events)
            elif not self._forced:
                text = self._json.feed(piece) if "json_object" in self._call.emulated else piece
                if text:
                    self._tell(Text(text), events)

    def _tell(self, event: Event, events: list[Event]) -> None:
        """In a stream at once; of a whole answer, and beside calls that were handed out before, when it was judged."""
        if self._call.stream and not self._made:
            self._delivered = True
            events.append(event)
        else:
            self._held.append(event)

    def _judge(self, events: list[Event]) -> None:
        """The pass is over: is it an answer? `_wrong` says what is not, and is empty where it may stand."""
        cut = self._reason not in _ENDED
        if self._unread:
            self._read("", events)
        if self._reason == _REVIEWED and not self._delivered:
            self._held = [Text(self._said.removeprefix(self._begun))]
            self._wrong = ""
            return
        self._pieces(self._calls.close(cut), events)
        called = self._calls.count or self._native or self._made
        wants_json = "json_object" in self._call.emulated and not called and not self._forced
        if wants_json and not self._calls.wrong:
            rest = self._json.close(cut)
            if rest:
                self._tell(Text(rest), events)
        wrong = self._calls.wrong or (self._json.wrong if wants_json else "")
        if self._forced and not called:
            wrong = wrong or f"no function was called; a call stands between {OPEN} and {CLOSE}"
        self._wrong = "" if cut else wrong

    def _again(self, wrong: str, events: list[Event]) -> None:
        """Ask once more, if nothing wrong was handed out."""
        handed_out = self._call.stream and (self._calls.begun or self._json.given)
        if self._second or handed_out:
            self._over = True
            detail = f"emulated {' and '.join(sorted(self._call.emulated))}, pass {1 + self._second}"
            sentence = _NO_CALL if self._calls.wrong or self._forced else _NO_JSON
            events.append(Failed(Problem("upstream.nonsense", sentence, detail=detail)))
            return
        self._account()
        self._second = True
        if self._call.stream:
            self._made = list(self._calls.made)
        said = self._said
        if self._made:
            wrong += ". The calls before it are being carried out: do not repeat them"
        self._open(told(self._call, self._begun, wrong, said))
        self.next = self._dialect.render_call(self._asked, self._target)

    def _end(self, events: list[Event]) -> None:
        self._over = True
        self._account()
        events += self._fresh()
        if self._metered or self._usage != Usage():
            events.append(Metered(self._usage if self._metered else replace(self._usage, estimated=True)))
        reason = self._reason
        if reason in _ENDED:
            reason = "tool_calls" if self._calls.count or self._native or self._made else "stop"
        events.append(Finished(reason))

    def _fresh(self) -> list[Event]:
        """What was held back, without calls that were handed out in the pass before."""
        first = len(self._made)
        again = {first + at for at, one in enumerate(self._calls.made) if one in self._made}
        if not again:
            return self._held
        slots: dict[int, int] = {}
        fresh: list[Event] = []
        for event in self._held:
            if not isinstance(event, ToolCall):
                fresh.append(event)
            elif event.slot not in again:
                fresh.append(replace(event, slot=slots.setdefault(event.slot, first + len(slots))))
        return fresh

    def _account(self) -> None:
        used, before = self._used, self._usage
        self._metered &= used is not None
        if used is not None:
            self._usage = Usage(
                before.prompt_miss + used.prompt_miss,
                before.prompt_hit + used.prompt_hit,
                before.completion + used.completion,
                before.reasoning + used.reasoning,
                before.estimated or used.estimated,
            )
