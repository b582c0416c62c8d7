"""The whole path of a request on one screen: nine stages in order, `settle` whatever happened.

It is run by `later.drive`, so it may only await a Later. Only `settle` writes money, and only `answer` asks a target:
another one before the first meaningful frame, or to go on where a stream broke off. The stages as a table: stages.py.
"""

from __future__ import annotations

from typing import Final

from moonpool.catalog.model import Model
from moonpool.catalog.rules import apply
from moonpool.dialects.base import Encoder, Identity
from moonpool.dialects.emulate import bytes_max, dialect_for
from moonpool.errors import Problem
from moonpool.ledger import access
from moonpool.ledger.estimate import ahead, is_plausible
from moonpool.ledger.keys import digest as digest_of
from moonpool.ledger.money import bound, cost
from moonpool.relay import stages
from moonpool.relay.brake import LONG, lately
from moonpool.relay.conceal import conceal
from moonpool.relay.fleet import Errand
from moonpool.relay.limits import fields, has_token_rate, refusal
from moonpool.relay.line import Waiter
from moonpool.relay.once import HEADER, Kept, asking
from moonpool.relay.places import Permit, Place
from moonpool.relay.platform import Platform
from moonpool.relay.pump import Attempt
from moonpool.relay.reply import Reply, refuse
from moonpool.relay.route import is_final
from moonpool.relay.said import Said
from moonpool.relay.seam import CONTINUATIONS_MAX, Seam, continuation, may_continue
from moonpool.relay.trip import Trip, with_searches
from moonpool.relay.vault import remember, restore
from moonpool.relay.writer import Writer
from moonpool.state.base import Hold, Resolution
from moonpool.words import Account, Arrival, Call, Key, Limits, Operation, Usage

FREE_REASON: Final = "content_filter"  # the refusal text of a content review is said to cost nothing (contract 4)

_NOTHING = Usage()
_UNSAID: Final = Problem("caller.gone")
"""The outcome of an attempt that says nothing of its host."""


async def serve(platform: Platform, arrival: Arrival, operation: Operation, writer: Writer) -> None:
    """Answer one chat or completion request. Never raises for what a client or a host does; what we do wrong
    ourselves ends this request, with `platform.fault`, and no other."""
    trip = Trip(arrival, operation, platform.monotonic, platform.monotonic())  # 1 read: the socket's side has done it
    reply: Reply | None = None
    kept: Kept | None = None
    try:
        trip.stage = stages.AUTHENTICATE
        key, account = await authenticate(platform, arrival)
        trip.key, trip.account = key.id, account.id

        trip.stage = stages.PARSE
        call = platform.client.parse_call(operation, arrival.body, arrival.id)
        trip.stream = call.stream

        trip.stage = stages.RESOLVE
        model = platform.catalogue.find(call.model) if key.limits is None else find_model(platform, key.limits, call)
        trip.model = model.name
        call = apply(
            call, model, key.switches.get("conflicts") == "refuse", arrival.headers.get("x-moonpool-emulate", "")
        )
        trip.price = platform.tariffs.price(account.id, model, arrival.at)

        trip.stage = stages.ADMIT
        await admit(platform, trip, account, key, call)
        if call.stream:
            writer = platform.tapes.wrap(writer, arrival, call, account.id)
        if HEADER in arrival.headers:
            kept = await begin(platform, trip, writer)
            if kept is None:
                return
            writer = kept
        if call.thinking:
            call = await restore(platform, trip, call, model, key.switches)

        trip.stage = stages.HOLD
        reply = Reply(
            writer,
            call,
            {**platform.switches, **key.switches} if key.switches else platform.switches,
            platform.beat_s,
            platform.settings.streams.drain_s,
            trip.rates,
        )
        reply.trip = trip
        platform.active.add(reply)
        await hold(platform, trip, call, model, key.limits)

        trip.stage = stages.OPEN
        await answer(platform, trip, reply, call, model)
        if trip.asked is not None:
            remember(platform, trip, call)
        trip.status, trip.stage = 200, stages.SETTLE
        if reply.left_s:
            trip.status, trip.cause = 499, "caller.gone"
    except Problem as problem:
        tell(platform, trip, reply, writer, problem)
    except Exception as error:  # the edge of a request: no fault of ours may leave a client waiting
        platform.journal.fault(f"request {arrival.id}, stage {trip.stage}", error)
        tell(platform, trip, reply, writer, Problem("platform.fault", detail=type(error).__name__))
        writer.cut()
    finally:
        settle(platform, trip, reply)
        if kept is not None:
            kept.close(trip.held, trip.posted, trip.cause)


def tell(platform: Platform, trip: Trip, reply: Reply | None, writer: Writer, problem: Problem) -> None:
    """Let the client know how its request ended, in whatever way is left, and the trip too."""
    trip.cause, trip.detail = problem.code, problem.detail
    if reply is None:
        trip.status = refuse(writer, problem, platform.client, trip.rates)
    else:
        trip.status = reply.refuse(problem, platform.client)


async def authenticate(platform: Platform, arrival: Arrival) -> tuple[Key, Account]:
    """Whose key is it? Only `Authorization: Bearer` counts. Raises account.invalid_key, also past its end, and, for who
    may not use it from there or at all, account.forbidden or account.disabled; account.guesses as `introduce`."""
    field = arrival.headers.get("authorization", "")
    digest = platform.key_brake.digests.get((arrival.peer, field))
    found = None if digest is None else await platform.keys.find(digest)
    if found is None:
        found = await introduce(platform, arrival, field)
    key, account = found
    if key.limits is not None:
        access.admit(key.limits, arrival.peer, arrival.at)
    if account.disabled:
        raise Problem("account.disabled")
    platform.keys.used(key.id, arrival.at)
    return found


async def introduce(platform: Platform, arrival: Arrival, field: str) -> tuple[Key, Account]:
    """Find a key that was not in use there until now. Raises account.invalid_key, and account.guesses where too many
    wrong ones came from there, for a right one too that has not been used lately (brake.py)."""
    scheme, _, secret = field.partition(" ")
    secret = secret.strip()
    if not secret or scheme.lower() != "bearer":
        raise Problem("account.invalid_key")  # guesses nothing
    brake, keys, now = platform.key_brake, platform.keys, platform.monotonic()
    digest = digest_of(secret)
    wait_s = brake.wait_s(arrival.peer, digest, now)
    found = None
    if not wait_s or len(secret) >= LONG:
        found = await keys.find(digest)
    if wait_s:
        key = None if found is None else await keys.get(found[0].id)
        if key is None or not lately(key.last_used_at, arrival.at):
            raise brake.refusal(wait_s)
    if found is None:
        brake.missed(arrival.peer, digest, now)
        raise Problem("account.invalid_key")
    brake.remember(arrival.peer, field, digest)
    return found


def find_model(platform: Platform, limits: Limits, call: Call) -> Model:
    """The model that is asked for, by a key with limits. Raises account.forbidden, in the same words for what the key
    may not use and for what there is not: it learns no names but its own."""
    model = platform.catalogue.by_name.get(call.model)
    if limits.models and (model is None or not access.lists(limits, model.name)):
        sentence = f"The model {call.model[:128]!r} does not exist, or this API key may not use it."
        raise Problem("account.forbidden", sentence, param="model")
    return model or platform.catalogue.find(call.model)


async def admit(platform: Platform, trip: Trip, account: Account, key: Key, call: Call) -> None:
    """May this account and this key run one more, now? All of it or nothing; given back by `settle`."""
    tokens = ahead(len(call.raw), call.output_max) if has_token_rate(account, key) else 0
    verdict = await platform.limiter.take(trip.arrival.id, account, key, tokens, platform.monotonic())
    if verdict.requests is not None or verdict.tokens is not None:
        trip.rates = fields(verdict)
    if verdict.refused:
        raise refusal(verdict)
    trip.leased = True


async def begin(platform: Platform, trip: Trip, writer: Writer) -> Kept | None:
    """A request with an `Idempotency-Key`: what to answer through, or None where the answer that was given before goes
    to this client already, for nothing. Raises as Answers.begin."""
    now = platform.clock()
    found = await platform.answers.begin(asking(trip.arrival, f"account:{trip.account}", now, repeatable=True), writer)
    if isinstance(found, Kept):
        return found
    trip.status, trip.cause, trip.stage = found, "replayed", stages.SETTLE
    return None


async def hold(platform: Platform, trip: Trip, call: Call, model: Model, limits: Limits | None) -> None:
    """Set the most this request can cost aside; durable when this returns."""
    host = model.targets[0].host
    now = platform.clock()
    question = bytes_max(call) if call.emulated else len(call.raw)
    question += trip.bytes_added
    output_max, price = model.tokens_max(call), trip.price
    searches_max = model.searches_max(call)
    wanted = Hold(
        call.id,
        trip.account,
        trip.key,
        model.name,
        host.name,
        bound(question, output_max, price, searches_max),
        price.currency,
        now,
        now + host.total_s + 60.0,
        model.product,
        question + output_max,
        max(price.prompt_miss, price.prompt_hit, price.completion),
        searches_max,
        price.searches,
        limits,
    )
    held = await platform.books.hold(wanted)
    if held == "short":
        raise Problem("account.no_quota")
    if held == "budget":
        raise Problem("account.budget")
    if held == "exists":
        raise Problem("platform.fault", detail=f"a second hold with the id {call.id}")
    trip.held = True


async def answer(platform: Platform, trip: Trip, reply: Reply, call: Call, model: Model) -> None:
    """Stages open and pump: try targets until one has begun to answer, and stay with that one; where its stream breaks
    off, let another go on with it."""
    fleet, client = platform.fleet, platform.client
    identity = Identity(call.id, int(trip.arrival.at), call.model)
    if call.stream and reply.switches["continuation"] != "off" and may_continue(call):
        trip.said = trip.said or Said()
    errand, asked = fleet.errand(model, call, trip.account), call
    failure: Problem | None = None
    seam: Seam | None = None
    encoder: Encoder | None = None
    now = trip.began
    while True:
        found = errand.next(failure, now)
        if isinstance(found, Permit):
            permit = found
        else:
            permit, now = await turn(reply, found, failure if seam is not None else None), platform.monotonic()
        outcome: Problem | None = _UNSAID
        try:
            if reply.over or reply.doomed is not None:
                raise reply.doomed or Problem("caller.gone")
            host = permit.place.target.host
            dialect = platform.dialects[host.dialect]
            if call.emulated:
                dialect = dialect_for(dialect, call)
            trip.dispatch(permit.place.target, seam is not None, now)
            if encoder is None or seam is None:
                encoder = client.encoder(call, identity, dialect.family == client.family, reply.switches)
            attempt = Attempt(trip, reply, asked, permit, dialect, platform.transports[host.transport], encoder, seam)
            failure = await attempt.ended
            if failure is not None:
                conceal(failure, host.api_key, call)  # before anybody writes it down
            outcome = failure
        finally:
            now = platform.monotonic()
            permit.end(outcome, now)
        if seam is not None:
            trip.host_usage = with_searches(seam.usage, int(trip.searched)) if seam.usage else trip.part()
        if failure is None:
            if errand.marks:
                errand.learn(permit.place, trip.host_usage or trip.usage or _NOTHING, trip.host_price, now)
            return
        if failure.code == "caller.gone" or (trip.first_at and trip.stream):
            trip.stage = stages.PUMP
            if seam is None or attempt.begun:
                errand, asked = go_on(platform, trip, reply, call, model, permit.place, failure)
                trip.continued += 1
            assert trip.said is not None
            seam = Seam(trip.said, trip.estimate())


async def turn(reply: Reply, found: Waiter | Problem, broken: Problem | None) -> Permit:
    """Wait for a place in the line, or tell why there is none: of a stream that broke off, that it did."""
    permit = found
    if isinstance(found, Waiter):
        reply.source = found
        permit = await found.turn
    if isinstance(permit, Permit):
        return permit
    raise broken or permit  # type: ignore[misc]


def go_on(
    platform: Platform, trip: Trip, reply: Reply, call: Call, model: Model, broken: Place, failure: Problem
) -> tuple[Errand, Call]:
    """Who may go on with a stream that broke off after its first byte, and what to ask. Raises `failure` where nobody
    can: not for a client that left, nor for what another host would not mend, nor in the middle of what cannot be
    continued (seam.py)."""
    said = trip.said
    if said is None or reply.over or is_final(failure) or trip.continued >= CONTINUATIONS_MAX:
        raise failure
    asked = continuation(call, said, trip.estimate().completion)
    if asked is None or not asked.needs <= model.can:
        raise failure
    same = reply.switches["continuation"] == "same"
    return platform.fleet.continuation(model, asked, trip.account, broken, same_model=same), asked


def settle(platform: Platform, trip: Trip, reply: Reply | None) -> None:
    """Resolve the hold, exactly once, with what was used. Waits for nothing, cannot fail the client."""
    if reply is not None:
        reply.over = True
        reply.source = None  # or the two would hold each other until the collector comes
        platform.active.discard(reply)
        if reply.left_s and not trip.whole:  # read on in vain
            trip.ascii_chars, trip.wide_chars, trip.reasoning_chars = reply.delivered
    usage = _NOTHING
    try:
        usage = used(trip)
    finally:
        if trip.leased:
            tokens = usage.prompt_miss + usage.prompt_hit + usage.completion
            platform.limiter.give(trip.arrival.id, trip.account, tokens, platform.monotonic())
    if trip.held:
        target = trip.target
        if trip.searched and usage is _NOTHING:
            trip.host_usage = trip.part()  # the search was made, and is the host's to charge
        trip.posted = trip.whole or usage is not _NOTHING
        platform.books.resolve(
            Resolution(
                trip.arrival.id,
                "posted" if trip.posted else "voided",
                usage,
                cost(usage, trip.price),
                0 if target is None else cost(trip.host_usage or usage, trip.host_price),
                "" if target is None else target.host.name,
                trip.cause,
                trip.attempts,
                platform.clock(),
                "" if target is None else trip.host_price.currency,
                trip.costs,
                trip.price,
            )
        )
    trip.record(platform, usage)


def used(trip: Trip) -> Usage:
    """The host's word if it can be right, else our own count of what was delivered, marked estimated; nothing delivered
    is nothing used."""
    usage = trip.usage
    delivered = trip.whole or trip.delivered()
    if usage is None:
        return trip.estimate() if delivered else _NOTHING
    if delivered and trip.cause != FREE_REASON and not is_plausible(usage, trip.ascii_chars, trip.wide_chars):
        trip.detail = f"usage refused: {usage.completion} tokens for {trip.ascii_chars + trip.wide_chars} characters"
        return trip.estimate()
    return usage
