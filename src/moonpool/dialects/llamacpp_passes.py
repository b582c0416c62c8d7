"""How is one pass against llama.cpp's server run, and what does its text mean?

An answer is made by generators, read from top to bottom (llamacpp_answers.py): each yields an `Outbound` to ask for
the next pass, gets that pass's pieces one by one, and yields the events that each of them means. The prompt of a pass
is the prompt of the one before with its text, so that the server finds it in its cache and evaluates only what is new.

Rules: tokens are what the server counted; text is told as soon as it is sure.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from msgspec import Struct

from moonpool.dialects.llamacpp_plan import Plan
from moonpool.dialects.llamacpp_text import Guard, pieces
from moonpool.dialects.llamacpp_wire import (
    Piece,
    Probability,
    chat_logprobs,
    completion_logprobs,
    problem_in,
)
from moonpool.dialects.think import CLOSE, ThinkSplitter
from moonpool.words import (
    COMPLETION,
    Event,
    Outbound,
    Reasoning,
    Text,
    Usage,
)

Events = tuple[Event, ...]
# What a generator of passes yields, and what it is sent: a piece, the object of a short pass, or None to go on.
Flow = Generator[Outbound | Events, Any, Any]


class Meter:
    """Tokens of all passes. The prompt is counted in the first one: later ones repeat it and what was generated."""

    def __init__(self) -> None:
        self.hit = self.miss = self.completion = self.reasoning = 0
        self.begun = False

    def add(self, last: Piece, reasoning: int) -> None:
        if not self.begun:
            self.begun = True
            self.hit = min(last.cache_n, last.tokens_evaluated)
            self.miss = last.tokens_evaluated - self.hit
        self.completion += last.tokens_predicted
        self.reasoning += reasoning

    def usage(self) -> Usage:
        return Usage(prompt_miss=self.miss, prompt_hit=self.hit, completion=self.completion, reasoning=self.reasoning)


class Done(Struct, frozen=True):
    """How a pass ended: all it said (`text`, without the stop text), what was `held` back at its end and never
    emitted, the stop text (`word`), whether a limit cut it, whether the context is full."""

    text: str
    held: str
    word: str
    cut: bool
    full: bool
    predicted: int


class Candidate:
    """One candidate of an answer while it is made: what is left of its limit, and its passes. `opening` are the tokens
    of `<` where the prompt has stand-ins for it (llamacpp_text.py)."""

    def __init__(self, plan: Plan, index: int, meter: Meter, opening: list[int] | None = None) -> None:
        self.plan = plan
        self.index = index
        self.meter = meter
        self.opening = opening or []
        self.left = plan.limit
        self.first = True
        self.offset = 0

    def spend(self, done: Done) -> None:
        if self.left is not None:
            self.left -= done.predicted

    def spent(self, done: Done) -> bool:
        return done.full or (self.left is not None and self.left <= 0)

    def run(
        self,
        prompt: str,
        say: Any,
        *,
        limit: int | None,
        guard: Guard | None = None,
        reasoning: bool = False,
        **asked: Any,
    ) -> Generator[Outbound | Events, Any, Done]:
        """One generating pass. `say(text, probabilities)` makes events of text that is sure; a `guard` holds some of
        it back: what it holds at the end is in `Done.held`, for the caller to say or to drop."""
        plan = self.plan
        text = pieces(prompt, self.opening)
        piece: Piece = yield plan.generate(text, limit=limit, candidate=self.index, first=self.first, **asked)
        self.first = False
        said: list[str] = []
        unsaid: list[int] = []
        odds: list[Probability] = []
        thought = 0
        while True:
            if piece.error is not None:
                raise problem_in(piece.error)
            odds += piece.completion_probabilities
            if piece.content:
                unsaid.clear()
            else:
                unsaid += piece.tokens
            events, sure = self._tell(piece.content, say, guard, said, odds)
            thought += len(piece.tokens) if reasoning or _thinks(events) else 0
            if piece.stop:
                break
            if sure:
                odds = []
            piece = yield events
        if events:
            yield events
        if piece.stop_type == "limit" and unsaid and asked.get("stops"):
            # The server keeps back what may become a stop text, and forgets it when the limit comes first.
            answer = yield plan.ask("/detokenize", {"tokens": unsaid})
            tail = str(answer.get("content", "")).rstrip("\ufffd")
            if reasoning and CLOSE.startswith(tail.strip()):
                tail = ""
            events, _ = self._tell(tail, say, guard, said, odds)
            if events:
                yield events
        self.meter.add(piece, piece.tokens_predicted if reasoning else thought)
        held = guard.held if guard is not None else ""
        full = piece.truncated or self._full(piece)
        word = piece.stopping_word if piece.stop_type == "word" else ""
        return Done("".join(said), held, word, piece.stop_type == "limit", full, piece.tokens_predicted)

    def _tell(
        self, text: str, say: Any, guard: Guard | None, said: list[str], odds: list[Probability]
    ) -> tuple[Events, bool]:
        said.append(text)
        sure = text if guard is None else guard.feed(text)
        return (say(sure, odds), True) if sure else ((), False)

    def _full(self, last: Piece) -> bool:
        context = self.plan.context
        return context is not None and last.tokens_evaluated + last.tokens_predicted + 8 >= context


def _thinks(events: Events) -> bool:
    return bool(events) and type(events[-1]) is Reasoning


class Voice:
    """Makes events of a candidate's text: leading newlines swallowed, inline thinking told apart, odds attached."""

    def __init__(self, candidate: Candidate, kind: type[Text] | type[Reasoning], *, strip: bool) -> None:
        self._candidate = candidate
        self._kind = kind
        self._strip = strip
        self._splitter = ThinkSplitter() if candidate.plan.thinks and kind is Text else None

    def __call__(self, text: str, odds: list[Probability]) -> Events:
        if self._splitter is None:
            return self._event(self._kind, text, odds)
        return tuple(
            event
            for thinking, part in self._splitter.feed(text)
            for event in self._event(Reasoning if thinking else Text, part, odds)
        )

    def rest(self) -> Events:
        """What the splitter still holds when the answer is over."""
        if self._splitter is None:
            return ()
        return tuple(
            event
            for thinking, part in self._splitter.flush()
            for event in self._event(Reasoning if thinking else Text, part, [])
        )

    def _event(self, kind: type[Text] | type[Reasoning], text: str, odds: list[Probability]) -> Events:
        if self._strip:
            text = text.lstrip("\r\n " if kind is Reasoning else "\r\n")
            if not text:
                return ()
            self._strip = False
        plan = self._candidate.plan
        if plan.logprobs is None:
            return (kind(text, self._candidate.index),)
        if plan.call.operation == COMPLETION:
            logprobs: Any = completion_logprobs(odds, plan.logprobs, self._candidate.offset)
            self._candidate.offset += len(text)
        else:
            place = "content" if kind is Text else "reasoning_content"
            logprobs = {place: chat_logprobs(odds, plan.logprobs)}
        return (kind(text, self._candidate.index, logprobs),)


def silent(_: str, __: list[Probability]) -> Events:
    return ()
