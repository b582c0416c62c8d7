"""Code of ours that raises where it must not: one request pays for it, and nobody waits for ever (case 71)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import force_setattr

from faults.stage import DONE, ROLE, Answer, Stage, chat, good, last, only, records, stage, streamed, words
from faults.upstream import STREAM_HEAD, answer, chunk, gate, rst, stall
from moonpool.app import App


class Broken(Exception):
    """No Problem: what nobody expects."""


class Wrapped:
    """Something of ours, one of whose methods raises from its n-th call on (from 0)."""

    def __init__(self, inner: Any, method: str, at: int = 0) -> None:
        self._inner, self._method, self._left = inner, method, at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._method:
            return found

        def call(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Broken(name)
            return found(*args, **named)

        return call


class Maker:
    """A dialect whose decoders (or encoders) are Wrapped."""

    def __init__(self, inner: Any, part: str, method: str, at: int) -> None:
        self._inner, self._part, self._method, self._at = inner, part, method, at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._part:
            return found
        return lambda *args, **named: Wrapped(found(*args, **named), self._method, self._at)


def put(app: App, **parts: Any) -> None:
    """Other parts for whoever asks the platform."""
    for name, part in parts.items():
        force_setattr(app.platform, name, part)


def dialect(app: App, broken: Any) -> None:
    put(app, dialects={"deepseek": broken}, client=broken)


def ends_well(home: Path, breaks: Callable[[App], None], body: Any, *scripts: Any) -> tuple[Answer, Path]:
    """Ask with something broken, then again with everything whole: the process lives, the second answer is good."""

    async def run() -> tuple[Answer, Path]:
        async with stage(home, *(scripts or (good,))) as here:
            await here.app.platform.keys.find(b"")  # the platform is as the app made it
            whole = {name: getattr(here.app.platform, name) for name in here.app.platform.__struct_fields__}
            breaks(here.app)
            got = await here.ask(body)
            await here.quiet(2.0)
            put(here.app, **whole)
            assert (await here.ask(chat(stream=False))).status == 200
        return got, here.path

    return uvloop.run(run())


PLACES = [
    ("decoder", "read", 0),
    ("decoder", "finish", 0),
    ("decoder", "start", 0),
    ("encoder", "feed", 0),
    ("encoder", "finish", 0),
]


@pytest.mark.parametrize(("part", "method", "at"), PLACES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_broken_decoder_or_encoder_is_a_500(
    tmp_path: Path, part: str, method: str, at: int, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything was sent the client reads 500 and nothing of the fault; the log holds its traceback."""
    got, path = ends_well(
        tmp_path,
        lambda app: dialect(app, Maker(app.platform.client, part, method, at)),
        chat(stream),
        lambda request: streamed(ROLE, *words(2), last(), DONE) if stream else good(request),
    )
    if got.status == 200:
        assert stream, "a whole answer was begun"
        assert got.failure is not None
        code = got.failure["code"]
    else:
        code = got.error["code"]
        assert got.status == 500
    assert code == "internal_error"
    assert b"Broken" not in got.body
    assert records(path)[0].cause == "platform.fault"
    assert "Broken" in capfd.readouterr().err


@pytest.mark.parametrize(("part", "method", "at"), [("decoder", "read", 1), ("encoder", "feed", 2)])
def test_a_break_of_ours_within_a_stream_is_an_error_event(tmp_path: Path, part: str, method: str, at: int) -> None:
    """After the first words: an error event, what was delivered is posted, the host's connection is closed."""

    async def run() -> Path:
        go = asyncio.Event()
        steps = [STREAM_HEAD, chunk(ROLE + words(1)[0]), gate(go), chunk(words(2)[1]), stall]
        async with stage(tmp_path, lambda _: steps) as here:
            dialect(here.app, Maker(here.app.platform.client, part, method, at))
            client = await here.open()
            await client.until(b"word0")
            go.set()
            got = await client.rest()
            assert got.failure is not None
            assert got.failure["code"] == "internal_error"
            await here.host.until_open(0)
        return here.path

    path = uvloop.run(run())
    assert (only(path).kind, only(path).estimated, only(path).cause) == ("posted", True, "platform.fault")


PARTS: dict[str, Callable[[App], None]] = {
    "render_call": lambda app: dialect(app, Wrapped(app.platform.client, "render_call")),
    "decoder": lambda app: dialect(app, Wrapped(app.platform.client, "decoder")),
    "encoder": lambda app: dialect(app, Wrapped(app.platform.client, "encoder")),
    "parse_call": lambda app: dialect(app, Wrapped(app.platform.client, "parse_call")),
    "transport": lambda app: put(app, transports={"http": Wrapped(app.platform.transports["http"], "send")}),
    "catalogue": lambda app: put(app, catalogue=Wrapped(app.platform.catalogue, "find")),
    "hold": lambda app: put(app, books=Wrapped(app.platform.books, "hold")),
    "keys": lambda app: put(app, keys=Wrapped(app.platform.keys, "find")),
    "take": lambda app: put(app, limiter=Wrapped(app.platform.limiter, "take")),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_broken_part_is_a_500(tmp_path: Path, name: str, stream: bool) -> None:
    """Case 71: whatever part of the platform raises before an answer began: 500, and what was held is void."""
    got, path = ends_well(tmp_path, PARTS[name], chat(stream))
    assert (got.status, got.error["code"]) == (500, "internal_error")
    assert [record.kind for record in records(path)][:-1] in ([], ["voided"])


def test_a_broken_parser_of_refusals_is_a_500(tmp_path: Path) -> None:
    """A host's error that we cannot read because of ourselves."""
    got, path = ends_well(
        tmp_path,
        lambda app: dialect(app, Wrapped(app.platform.client, "parse_problem")),
        chat(),
        lambda request: [answer(b"{}", "500 Internal Server Error")] if request.number == 0 else good(request),
    )
    assert (got.status, records(path)[0].kind) == (500, "voided")


def test_a_broken_meter_costs_no_client_anything(tmp_path: Path) -> None:
    """What is written down after the answer cannot take the answer back, nor leave the hold open."""
    got, path = ends_well(tmp_path, lambda app: put(app, meters=Wrapped(app.platform.meters, "count")), chat())
    assert got.failure is None
    assert [record.kind for record in records(path)] == ["posted", "posted"]


def test_an_unreadable_error_page_still_ends_the_request(tmp_path: Path) -> None:
    """Even when no error can be rendered the client is not left waiting: the connection is cut."""

    async def run() -> None:
        async with stage(tmp_path, lambda _: [rst]) as here:
            put(here.app, client=Wrapped(here.app.platform.client, "render_problem"))
            client = await here.open()
            with pytest.raises(asyncio.IncompleteReadError):
                await client.head()
            await here.quiet(2.0)
        assert only(here.path).kind == "voided"

    uvloop.run(run())


@pytest.mark.parametrize("method", ["pause", "resume", "close"])
def test_a_broken_handle_of_a_host_does_not_keep_the_request(tmp_path: Path, method: str) -> None:
    """A client that leaves while the way to the host is broken: settled, lease back."""

    class Handles:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def send(self, *args: Any) -> Any:
            return Wrapped(self._inner.send(*args), method)

    async def run() -> Stage:
        async with stage(tmp_path, lambda _: [*streamed(ROLE, *words(1), end=False), stall]) as here:
            put(here.app, transports={"http": Handles(here.app.platform.transports["http"])})
            client = await here.open()
            await client.until(b"word0")
            client.reset()
            await here.quiet(2.0)
            here.app.server.counters.faults = 0  # the edge has counted it
        return here

    here = uvloop.run(run())
    assert (only(here.path).kind, only(here.path).cause) == ("posted", "caller.gone")


def test_one_broken_beat_does_not_stop_the_pulse(tmp_path: Path) -> None:
    """The pulse goes on for everybody else."""

    class Deaf:
        source = None
        trip = None

        def beat(self) -> None:
            beaten.set()
            raise Broken

    beaten = asyncio.Event()

    async def run() -> None:
        async with stage(tmp_path, good) as here:
            reply: Any = Deaf()
            here.app.platform.active.add(reply)
            await asyncio.wait_for(beaten.wait(), 10)
            beaten.clear()
            await asyncio.wait_for(beaten.wait(), 10)
            here.app.platform.active.discard(reply)

    uvloop.run(run())
