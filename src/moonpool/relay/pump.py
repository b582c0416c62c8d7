"""One dispatch to one target: bytes come in, are decoded, metered, encoded and go out in the same callback.

An `Attempt` is the transport's sink and the reply's source. It ends exactly once, and tells so through `ended`:
None when the answer reached its end, else the Problem. What it counted stays with the trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from moonpool.dialects.base import Dialect, Encoder
from moonpool.dialects.runs import Run
from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.relay.places import Permit
from moonpool.relay.reply import Reply
from moonpool.relay.said import CHARS_MAX
from moonpool.relay.seam import Seam
from moonpool.relay.trip import Trip, with_searches
from moonpool.transports.base import Transport
from moonpool.words import Call, Failed, Finished, Found, Frame, Headers, Metered, Reasoning, Started, Text, ToolCall

REFUSAL_BYTES_MAX: Final = 65536
NAME_CHARS_MAX: Final = 100
_NONE: Final[list[str]] = []
_BROKEN: Final = frozenset(("upstream.cut", "upstream.timeout"))


class Attempt:
    __slots__ = (
        "_decoder", "_dialect", "_encoder", "_headers", "_inbound", "_permit", "_refusal", "_reply",
        "_seam", "_status", "_transport", "_trip", "begun", "ended",
    )  # fmt: skip

    def __init__(
        self,
        trip: Trip,
        reply: Reply,
        call: Call,
        permit: Permit,
        dialect: Dialect,
        transport: Transport,
        encoder: Encoder,
        seam: Seam | None = None,
    ) -> None:
        """`seam`: this dispatch goes on with an answer whose beginning the client has."""
        target = permit.place.target
        self.ended: Later[Problem | None] = Later()
        self._trip = trip
        self._reply = reply
        self._permit = permit
        self._seam = seam
        self._dialect = dialect
        self._transport = transport
        self._encoder = encoder
        self._decoder = dialect.decoder(call, target)
        self._refusal: bytearray | None = None
        self.begun = False
        reply.source = self
        outbound = dialect.render_call(call, target)
        reply.serve_from(target, outbound.adjusted)
        self._inbound = transport.send(target.host, outbound, self)
        if reply.paused:
            self._inbound.pause()

    # What the transport tells its sink.

    def head(self, status: int, headers: Headers) -> None:
        if status == 200:
            try:
                self._decoder.start(status, headers)
            except Exception as error:  # the edge of the decoder and the encoder: the request must end
                self._fault(error)
        else:
            self._status = status
            self._headers = headers
            self._refusal = bytearray()

    def alive(self) -> None:
        """The host says it is at work; our own keep-alives go by our own silence."""

    def data(self, chunk: bytes) -> None:
        if self._refusal is not None:
            self._refusal += chunk[: REFUSAL_BYTES_MAX - len(self._refusal)]
            return
        try:
            if self._seam is None:
                items = self._decoder.read(chunk)
                if items:
                    self._pass(items)
            else:
                frames = self._decoder.feed(chunk)
                if frames:
                    self._pass(self._seam.feed(frames))
        except Problem as problem:
            self._close(problem)
            return
        except Exception as error:  # the same edge
            self._fault(error)
            return
        if self._decoder.done and not self.ended.done():
            # The end mark came: the client need not wait for the host to close.
            self.end(None)

    def end(self, problem: Problem | None) -> None:
        if self.ended.done():
            return
        try:
            said = self._trip.said
            if problem is not None and said is not None and said.finished and problem.code in _BROKEN:
                problem = None  # only the end mark is missing: the answer had reached its end
            if problem is None and self._refusal is not None:
                problem = self._dialect.parse_problem(self._status, self._headers, bytes(self._refusal))
            if problem is None and not self._finish():
                return
        except Problem as broken:
            problem = broken
        except Exception as error:  # the same edge
            self._fault(error)
            return
        self.ended.set(problem)

    def _finish(self) -> bool:
        """The body has ended. False when the answer goes on, or was found to have failed. Raises Problem."""
        frames = self._decoder.finish()
        if self._seam is not None:
            frames = self._seam.feed(frames) + (self._seam.finish() if self._decoder.next is None else [])
        if frames and not self._pass(frames):
            return False
        following = self._decoder.next
        if following is not None:
            self._refusal = None
            self._inbound = self._transport.send(self._permit.place.target.host, following, self)
            if self._reply.paused:
                self._inbound.pause()
            return False
        # The answer is whole. Usage that the host did not say is what we counted, for client and ledger alike.
        trip, encoder = self._trip, self._encoder
        trip.whole = True
        if trip.usage is None:
            trip.usage = trip.estimate()
            self._reply.finish(encoder.feed(Frame(b"", (Metered(trip.usage),))) + encoder.finish())
        else:
            self._reply.finish(encoder.finish())
        return True

    # What the reply tells its source.

    def gone(self) -> None:
        self.stop(Problem("caller.gone"))

    def stop(self, problem: Problem) -> None:
        if not self.ended.done():
            self._close(problem)

    def pause(self) -> None:
        self._inbound.pause()

    def resume(self) -> None:
        self._inbound.resume()

    def _close(self, problem: Problem) -> None:
        try:
            self._inbound.close()
        finally:
            if not self.ended.done():
                self.ended.set(problem)

    def _fault(self, error: Exception) -> None:
        """Code of ours failed: the request ends with it, and path.py says so."""
        try:
            self._inbound.close()
        finally:
            if not self.ended.done():
                self.ended.fail(error)

    def _begin(self) -> None:
        """The first meaningful piece has come."""
        self.begun = True
        trip = self._trip
        now = trip.monotonic()
        trip.first_at = trip.first_at or now
        self._permit.began(now)
        if self._seam is not None:
            self._reply.remark(f"continued by {self._permit.place.target.host.name}")

    def _pass(self, items: Sequence[Frame | Run]) -> bool:
        """Count what is said, keep it where it is kept, and hand it to the client, up to a failure. False when that
        ended the attempt. Runs for every read."""
        if len(items) == 1 and type(items[0]) is Run:
            return self._pass_run(items[0])
        trip, reply, encode = self._trip, self._reply, self._encoder.feed
        said = trip.said
        out: list[bytes] = []
        texts: list[str] = []
        thoughts: list[str] = []
        call_chars = 0
        meaningful = False
        failed: Problem | None = None
        for item in items:
            if type(item) is Run:
                (texts if item.lane.kind is Text else thoughts).extend(item.texts)
                out.append(encode(item))
                continue
            for event in item.events:  # type: ignore[union-attr]
                kind = type(event)
                if kind is Text:
                    texts.append(event.text)  # type: ignore[union-attr]
                elif kind is Finished:
                    meaningful = True
                    trip.cause = event.reason  # type: ignore[union-attr]
                    if said is not None:
                        said.finished = True
                elif kind is Metered:
                    usage = event.usage  # type: ignore[union-attr]
                    trip.usage = usage if not trip.searches else with_searches(usage, trip.searches)
                elif kind is Started:
                    trip.answered_model = (event.model or "")[:NAME_CHARS_MAX]  # type: ignore[union-attr]
                elif kind is Reasoning:
                    thoughts.append(event.text)  # type: ignore[union-attr]
                elif kind is ToolCall:
                    meaningful = True
                    call_chars += len(event.arguments)  # type: ignore[union-attr]
                    if said is not None:
                        said.call(event)  # type: ignore[arg-type]
                elif kind is Found:
                    trip.found()
                elif kind is Failed:
                    failed = event.problem  # type: ignore[union-attr]
            if failed is not None:
                break
            out.append(encode(item))
        if texts or thoughts or call_chars:
            meaningful |= self._hear(texts, thoughts, call_chars)
        if meaningful and not self.begun:
            self._begin()
        if reply.stream and out:
            reply.push(b"".join(out), meaningful)
        if failed is not None:
            self._close(failed)
            return False
        return not self.ended.done()

    def _pass_run(self, run: Run) -> bool:
        """The same for texts alone: what nearly every read of a stream brings."""
        reply, texts = self._reply, run.texts
        data = self._encoder.feed(run)
        if run.lane.kind is Text:
            self._hear(texts, _NONE, 0)
        else:
            self._hear(_NONE, texts, 0)
        if not self.begun:
            self._begin()
        if reply.stream and data:
            reply.push(data, True)
        return not self.ended.done()

    def _hear(self, texts: list[str], thoughts: list[str], call_chars: int) -> bool:
        """Count and keep the parts of an answer: whether there is anything in them. A part with another character is
        wide, all of it; arguments of calls are not."""
        trip = self._trip
        parts = thoughts + texts if texts and thoughts else texts or thoughts
        text = "".join(parts)
        chars = len(text)
        ascii_chars = chars if text.isascii() else sum(map(len, filter(str.isascii, parts)))
        trip.ascii_chars += ascii_chars + call_chars
        if ascii_chars != chars:
            trip.wide_chars += chars - ascii_chars
        if thoughts:
            trip.reasoning_chars += sum(map(len, thoughts))
        said = trip.said
        if said is not None:
            said.texts += texts
            if thoughts:
                said.thoughts += thoughts
            if trip.ascii_chars + trip.wide_chars > CHARS_MAX:
                said.give_up()
        return chars > 0 or call_chars > 0
