"""What is known of one request while it runs: the log line, the meters and the settlement are made from it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from moonpool.ledger.estimate import estimate, question
from moonpool.ledger.money import cost
from moonpool.relay.journal import Line
from moonpool.relay.platform import Platform
from moonpool.relay.said import Said
from moonpool.relay.stages import READ
from moonpool.relay.turns import Asked
from moonpool.relay.writer import Fields
from moonpool.state.base import Cost, Progress
from moonpool.words import Arrival, Price, Target, Usage

_FREE = Price()
_NOTHING = Usage()


def with_searches(usage: Usage, searches: int) -> Usage:
    """What a host counted, with the searches that it does not count."""
    return usage if usage.searches >= searches else replace(usage, searches=searches)


class Trip(Struct, eq=False, gc=False):
    """Times are of the monotonic clock (seconds), 0.0 where the thing has not happened. `said` is set, before the
    first dispatch, where somebody will ask what the answer said: otherwise no text is kept. `usage` is the client's;
    `host_usage` is what the last host counted, where that differs because it went on with an answer; `costs` are what
    we owe for the dispatches before the last; `before` is our count of what was said before the last one. `asked` is
    set where the answer's reasoning is to be remembered; `bytes_added` is what hosts get beyond the client's body;
    `answered_model` is what the last host said it was; `question` is our count of the tokens of the request, -1 until
    it is needed; `noted_chars` are those that the books know of; `price` is what the client pays, `host_price` what the
    last host charges us. `searched` is set when the last host said what a web search found; `searches` are those that
    the client pays for, at most one whoever made how many. `rates` are header fields that tell what is left of them."""

    arrival: Arrival
    operation: str
    monotonic: Callable[[], float]
    began: float
    first_at: float = 0.0
    key: str = ""
    account: str = ""
    model: str = ""
    answered_model: str = ""
    stage: str = READ
    cause: str = ""
    detail: str = ""
    status: int = 0
    attempts: int = 0
    continued: int = 0
    ascii_chars: int = 0
    wide_chars: int = 0
    reasoning_chars: int = 0
    bytes_added: int = 0
    question: int = -1
    noted_chars: int = 0
    stream: bool = False
    whole: bool = False
    held: bool = False
    posted: bool = False
    searched: bool = False
    searches: int = 0
    leased: bool = False
    price: Price = _FREE
    host_price: Price = _FREE
    asked: Asked | None = None
    said: Said | None = None
    target: Target | None = None
    usage: Usage | None = None
    host_usage: Usage | None = None
    before: Usage = _NOTHING
    costs: tuple[Cost, ...] = ()
    rates: Fields | None = None

    def dispatch(self, target: Target, goes_on: bool, now: float) -> None:
        """Go to another target. What one before it said, and did not deliver, is no matter of the client's; where this
        one `goes_on`, it was delivered and stays."""
        if self.attempts:
            self._owe()
            self.usage = self.host_usage = None
            if goes_on:
                self.before = self.estimate()
            else:
                self.ascii_chars = self.wide_chars = self.reasoning_chars = self.searches = 0
                self.first_at = 0.0
                if self.said is not None:
                    self.said.forget()
            self.searched = False
        self.target = target
        prices = target.prices
        # What a host charges goes by the moment it was asked.
        self.host_price = _FREE if prices is None else prices.at(self.arrival.at + (now - self.began))
        self.answered_model = ""
        self.attempts += 1

    def _owe(self) -> None:
        """What the host that failed will ask of us: what it counted, else our count of what came from it."""
        target = self.target
        assert target is not None
        heard = self.ascii_chars or self.wide_chars or self.searched
        usage = self.host_usage or self.usage or (self.part() if heard else _NOTHING)
        amount_pico = cost(usage, self.host_price)
        if amount_pico:
            self.costs += (Cost(target.host.name, amount_pico, self.host_price.currency),)

    def found(self) -> None:
        """The host said what a web search found. The client pays for one, whoever made how many."""
        self.searched = True
        self.searches = self.searches or 1
        if self.usage is not None:
            self.usage = with_searches(self.usage, self.searches)

    def part(self) -> Usage:
        """Our own count of the last dispatch alone: its question holds what was said before."""
        whole, before = self.estimate(), self.before
        return Usage(
            whole.prompt_miss + before.completion,
            0,
            whole.completion - before.completion,
            whole.reasoning - before.reasoning,
            True,
            int(self.searched),
        )

    def estimate(self) -> Usage:
        """Our own count of what was delivered."""
        if self.question < 0:
            self.question = question(self.arrival.body)
        return estimate(self.question, self.ascii_chars, self.wide_chars, self.reasoning_chars, self.searches)

    def delivered(self) -> bool:
        """Whether a client read some of an answer that did not reach its end: of a whole one it reads nothing."""
        return self.stream and bool(self.ascii_chars or self.wide_chars)

    def progress(self, now: float) -> Progress | None:
        """How far a stream has come, for the books; None where they know. Before its first byte nothing is owed."""
        chars = self.ascii_chars + self.wide_chars
        if chars == self.noted_chars or self.target is None or not self.held or not self.stream:
            return None
        self.noted_chars = chars
        usage, target = self.estimate(), self.target
        return Progress(
            self.arrival.id,
            usage,
            cost(usage, self.price),
            cost(self.part() if self.continued else usage, self.host_price),
            target.host.name,
            self.host_price.currency,
            self.price,
            now,
        )

    def record(self, platform: Platform, usage: Usage) -> None:
        """Leave the line and the counts of a request that is over."""
        total_s = self.monotonic() - self.began
        first_s = self.first_at - self.began if self.first_at else None
        host, known_as = (self.target.host.name, self.target.model) if self.target is not None else ("", self.model)
        platform.meters.count(self.model, host, self.status, self.cause, first_s, total_s, usage)
        platform.journal.write(
            Line(
                platform.clock(),
                "request",
                self.arrival.id,
                self.key,
                self.account,
                self.operation,
                self.model,
                host,
                self.stream,
                self.status,
                self.stage,
                self.cause,
                self.attempts,
                usage.prompt_miss,
                usage.prompt_hit,
                usage.completion,
                usage.reasoning,
                usage.estimated,
                first_s,
                total_s,
                self.detail,
                known_as if known_as != self.model else "",
                self.continued,
                self.answered_model if self.answered_model != known_as else "",
                usage.searches,
            )
        )
