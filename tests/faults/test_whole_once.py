"""Requests with an `Idempotency-Key` through the whole App: each is done and paid once, whatever becomes of its client,
its host and its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
import uvloop
from msgspec.structs import force_setattr

from faults.disk import Disk
from faults.driven import by_clock
from faults.sink import Clock
from faults.stage import (
    DONE,
    KEY,
    ROLE,
    Answer,
    Client,
    Stage,
    chat,
    failed,
    good,
    last,
    only,
    play,
    records,
    served,
    sound,
    streamed,
    until,
    whole_body,
    words,
)
from faults.upstream import FaultProxy, Harm, Upstream, answer, close, gate, stall
from moonpool.app import App
from moonpool.errors import Problem
from moonpool.relay.once import Answers
from moonpool.settings import Idempotency
from moonpool.state.base import Asking, OnceBounds, Told
from moonpool.state.sqlite import SqliteStore
from moonpool.web.once import change_once
from moonpool.words import Account, Arrival, Key

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "programs.md"
DAY_S = 86_400.0
ONCE = {"Idempotency-Key": "order 66"}
TRIES = 3


def named(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def answers(here: Stage) -> Answers:
    return here.app.platform.answers


def replayed(found: Answer) -> bool:
    return found.fields.get("x-moonpool-replayed") == "true"


async def as_sdk(connect: Callable[[int], Awaitable[Client]]) -> Answer:
    """The answer an SDK gets that tries again where its connection breaks or the answer tells it to."""
    for attempt in range(TRIES):
        client = await connect(attempt)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            found = await client.rest()
            if found.complete and (found.status < 400 or found.fields["x-should-retry"] == "false"):
                return found
    raise AssertionError(f"no answer in {TRIES} tries")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, ONCE])
def test_an_answer_that_was_lost(tmp_path: Path, stream: bool, fields: dict[str, str]) -> None:
    """Case 11: the answer is lost on its way, and the client's SDK asks again with the same body. Without a key that
    are two requests and two charges; with one it is the first one's answer, and one charge."""

    async def act(here: Stage) -> Answer:
        async with FaultProxy(("127.0.0.1", here.app.port), down=Harm(reset_after=20)) as line:

            async def connect(attempt: int) -> Client:
                line.down = Harm() if attempt else line.down
                client = Client(*await asyncio.open_connection("127.0.0.1", line.port))
                here.clients.append(client)
                own = {"Authorization": f"Bearer {KEY}", **fields}
                client.send("POST", "/v1/chat/completions", json.dumps(chat(stream)).encode(), own)
                if attempt == 0:
                    await until(lambda: len(here.host.requests) == 1, "it is done")
                return client

            found = await as_sdk(connect)
        assert replayed(found) == bool(fields)
        return found

    found, path = play(tmp_path, good, act=act)
    assert (found.text if stream else found.json["choices"][0]["message"]["content"]) != ""
    rows = records(path)
    assert [(row.kind, row.completion) for row in rows] == [("posted", 7)] * (1 if fields else 2)
    assert all(row.owed_pico for row in rows)


def test_the_example_of_the_guide_is_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official SDK with the header, as docs/guides/programs.md shows it, over a line that loses its first answer:
    it tries again by itself, with the same key (case 11)."""
    programs = [part.partition("```")[0] for part in GUIDE.read_text("utf-8").split("```python\n")[1:]]
    (example,) = (program for program in programs if "Idempotency-Key" in program)

    async def act(here: Stage) -> str:
        async with FaultProxy(("127.0.0.1", here.app.port), down=Harm(reset_after=20)) as line:
            own: dict[str, Any] = {
                "client": openai.OpenAI(base_url=f"http://127.0.0.1:{line.port}/v1", api_key=KEY, timeout=30)
            }
            running = asyncio.create_task(asyncio.to_thread(exec, example, own))
            await until(lambda: len(here.host.requests) == 1, "it is done")
            line.down = Harm()
            await running
            own["client"].close()
            assert line.connections == 2
            return str(own["answer"].choices[0].message.content)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said, path = play(tmp_path, good, act=act)
    assert (said, only(path).completion) == ("hello", 7)


@pytest.mark.parametrize("stream", [False, True])
def test_twenty_at_once_then_another_then_a_day_later(tmp_path: Path, stream: bool) -> None:
    """Case 12: of twenty with one key at once one is executed, the others get 409 that tells them to come again; later
    the same answer; another body, path or query gets 422, whole or streamed; after 24 h it is a new request."""
    go = asyncio.Event()
    clock = Clock()
    began = clock.at

    def script(request: Any) -> Any:
        return [gate(go), *good(request)]

    def prepare(app: App) -> None:
        force_setattr(app.platform, "clock", lambda: 1_800_000_000.0 + clock.at)

    async def act(here: Stage) -> None:
        clients = [await here.open(chat(stream), fields=ONCE) for _ in range(20)]
        waiting = asyncio.gather(*(client.rest() for client in clients))
        await until(lambda: here.app.server.counters.requests == 20, "all have come")
        await until(lambda: len(here.host.requests) == 1, "one is asked for")
        await until(lambda: sum(bool(client.status) for client in clients) == 19, "19 are refused")
        go.set()
        found = await waiting
        (first,) = [each for each in found if each.status == 200]
        assert not replayed(first)
        for each in found:
            if each is not first:
                assert (each.status, each.error["code"]) == (409, "idempotency_in_progress")
                assert (each.fields["x-should-retry"], each.fields["retry-after"]) == ("true", "1")
        for at in (0.0, 60.0, DAY_S - 1):
            clock.at = began + at
            again = await here.ask(chat(stream), fields=ONCE)
            assert (again.status, again.body, replayed(again)) == (200, first.body, True)
            same = ("content-type", "x-moonpool-host", "transfer-encoding", "content-length", "cache-control")
            assert [again.fields.get(name) for name in same] == [first.fields.get(name) for name in same]
            assert again.fields["x-request-id"] != first.fields["x-request-id"]
        others: list[tuple[Any, str]] = [
            (chat(stream, max_tokens=5), "/v1/chat/completions"),
            (chat(not stream), "/v1/chat/completions"),
            (chat(stream), "/chat/completions"),
            (chat(stream), "/v1/chat/completions?a=b"),
        ]
        for body, path in others:
            other = await here.ask(body, path=path, fields=ONCE)
            assert (other.status, other.error["code"]) == (422, "idempotency_mismatch"), path
            assert other.fields["x-should-retry"] == "false"
        assert len(here.host.requests) == 1
        clock.at = began + DAY_S
        anew = await here.ask(chat(stream, max_tokens=5), fields=ONCE)
        assert (anew.status, replayed(anew), len(here.host.requests)) == (200, False, 2)

    _, path = play(tmp_path, script, act=act, prepare=prepare)
    assert [(row.kind, row.completion, row.attempts) for row in records(path)] == [("posted", 7, 1)] * 2


def test_another_tenant_never_meets_it(tmp_path: Path) -> None:
    """Case 113: the same key and the same body of another account is another request, and gets an answer of its own;
    another key of the same account gets the first one's answer; without a key of the platform nobody gets anything."""

    async def act(here: Stage) -> None:
        keys = here.app.store.keys
        await keys.save_account(Account("other", "other", True, 10))
        digest = sha256(b"key-of-another").digest()
        await keys.create(Key("another", "other", "another", 0.0), digest)
        await here.key("second-key-of-the-stage")
        mine = await here.ask(chat(False), fields=ONCE)
        theirs = await here.ask(chat(False), fields=ONCE, key="key-of-another")
        assert (theirs.status, replayed(theirs), len(here.host.requests)) == (200, False, 2)
        other = await here.ask(chat(False, max_tokens=9), fields=ONCE, key="key-of-another")
        assert other.status == 422
        again = await here.ask(chat(False), fields=ONCE, key="second-key-of-the-stage")
        assert (again.body, replayed(again)) == (mine.body, True)
        for key in ("no-such-key", ""):
            assert (await here.ask(chat(False), fields=ONCE, key=key)).status == 401

    _, path = play(tmp_path, good, act=act)
    assert len(records(path)) == 2


@pytest.mark.parametrize(
    ("key", "status"), [("", 400), ("a" * 255, 200), ("a" * 256, 400), ("ä", 400), ("a\tb", 400), (" x ", 200)]
)
def test_what_a_key_may_be(tmp_path: Path, key: str, status: int) -> None:
    """1 to 255 printable ASCII characters; anything else is a 400 that names the header, and nothing is asked for."""

    async def act(here: Stage) -> None:
        found = await here.ask(chat(False), fields=named(key))
        assert found.status == status
        if status == 400:
            assert found.error["param"] == "Idempotency-Key"
        assert len(here.host.requests) == (status == 200)

    play(tmp_path, good, act=act)


def test_refusals_before_the_hold_are_not_stored(tmp_path: Path) -> None:
    """A wrong field, a wrong key, too many at once, no money: the same Idempotency-Key can be used for the request as
    it should have been."""
    go = asyncio.Event()

    def script(request: Any) -> Any:
        return [gate(go), *good(request)]

    async def act(here: Stage) -> None:
        keys = here.app.store.keys
        bad = await here.ask(chat(False, temperature=9), fields=ONCE)
        assert bad.status == 400
        assert (await here.ask(chat(False), fields=ONCE, key="wrong")).status == 401
        running = await here.open(chat(False))
        await until(lambda: len(here.host.requests) == 1, "the only place is taken")
        busy = await here.ask(chat(False), fields=ONCE)
        assert (busy.status, busy.error["code"]) == (429, "20034")
        go.set()
        await running.rest()
        await keys.save_account(Account("bench", "bench", False, 1))
        poor = await here.ask(chat(False), fields=ONCE)
        assert (poor.status, poor.error["code"]) == (402, "20031")
        await keys.save_account(Account("bench", "bench", True, 1))
        found = await here.ask(chat(False, max_tokens=12), fields=ONCE)
        assert (found.status, replayed(found)) == (200, False)

    _, path = play(tmp_path, script, act=act, concurrency=1)
    assert [row.kind for row in records(path)] == ["posted", "posted"]


@pytest.mark.parametrize(
    ("steps", "status", "stored"),
    [
        (failed("400 Bad Request", "no"), 400, True),
        ([answer(b'{"no": "sense"}')], 502, True),
        (failed("503 Service Unavailable", "later"), 503, False),
        ([close], 502, None),
    ],
)
def test_failures_after_the_hold(tmp_path: Path, steps: Any, status: int, stored: bool | None) -> None:
    """A failure is stored and given again, but for one that cost nothing and told the client to try again: then the
    next try is done."""

    async def act(here: Stage) -> None:
        first = await here.ask(chat(False), fields=ONCE)
        again_at = first.fields["x-should-retry"] == "true"
        assert first.status == status
        assert stored is None or again_at is not stored
        asked = len(here.host.requests)
        steps[:] = [answer(whole_body())]
        again = await here.ask(chat(False), fields=ONCE)
        if again_at:
            assert (again.status, replayed(again)) == (200, False)
        else:
            assert (again.status, again.body, replayed(again)) == (status, first.body, True)
            assert len(here.host.requests) == asked
            assert again.fields["x-should-retry"] == "false"

    steps = list(steps)
    _, path = play(tmp_path, lambda _: steps, act=act)
    assert [row.kind for row in records(path)].count("posted") <= 1


def test_a_stream_that_broke_off(tmp_path: Path) -> None:
    """What was delivered is paid, so it is what is given again, with the error at its end; keep-alives are not."""
    steps = [*streamed(ROLE, *words(3), end=False), close]

    async def act(here: Stage) -> None:
        first = await here.ask(fields=ONCE)
        assert first.failure is not None
        again = await here.ask(fields=ONCE)
        assert (again.events, again.failure, replayed(again)) == (first.events, first.failure, True)
        assert (again.complete, len(here.host.requests)) == (True, 1)

    _, path = play(tmp_path, lambda _: steps, act=act)
    assert (only(path).kind, only(path).estimated) == ("posted", True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["running", "ended"])
def test_a_client_that_hangs_up_and_asks_again(tmp_path: Path, stream: bool, when: str) -> None:
    """The host is read on. Who asks again meanwhile takes the place of the client that left, and misses nothing; who
    comes later gets the answer that was stored. One dispatch, one charge, the whole answer."""
    go = asyncio.Event()
    whole = [answer(whole_body())]
    steps = [*streamed(ROLE, *words(2), end=False), gate(go)] if stream else [gate(go), *whole]

    def script(request: Any) -> Any:
        return [*steps, *streamed(*words(2, "more"), last(), DONE)[1:]] if stream else steps

    async def act(here: Stage) -> Answer:
        client = await here.open(chat(stream), fields=ONCE)
        if stream:
            await client.until(b"word1")
        else:
            await until(lambda: len(here.host.requests) == 1, "it is asked for")
        client.reset()
        await until(lambda: len(answers(here).detached) == 1, "it is seen that the client left")
        other = await here.ask(chat(stream, max_tokens=3), fields=ONCE)
        assert other.status == 422
        if when == "ended":
            go.set()
            await here.quiet()
        again = await here.open(chat(stream), fields=ONCE)
        if when == "running":
            await until(lambda: not answers(here).detached, "it has joined")
            second = await here.ask(chat(stream), fields=ONCE)
            assert second.status == 409
            if stream:
                await again.until(b"word1")
            go.set()
        found = await again.rest()
        assert (found.status, found.complete, replayed(found)) == (200, True, True)
        third = await here.ask(chat(stream), fields=ONCE)
        assert third.body == found.body
        assert len(here.host.requests) == 1
        return found

    found, path = play(tmp_path, script, act=act)
    if stream:
        assert found.text == "word0 word1 more0 more1 "
        assert found.events[-1] == "[DONE]"
    else:
        assert found.json["choices"][0]["message"]["content"] == "hello"
    assert (only(path).kind, only(path).cause, only(path).completion) == ("posted", "stop", 7)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish_s", [0.0, 30.0])
def test_a_client_that_hangs_up_for_good(tmp_path: Path, stream: bool, finish_s: float) -> None:
    """After `finish_s` the host is stopped. What was said of a stream is paid, and given with an error to who comes
    then; of a whole answer nothing was delivered: nothing is paid, and the key is free."""
    clock = Clock()
    steps = [*streamed(ROLE, *words(2), end=False), stall] if stream else [stall]

    async def act(here: Stage) -> None:
        client = await here.open(chat(stream), fields=ONCE)
        if stream:
            await client.until(b"word1")
        else:
            await until(lambda: len(here.host.requests) == 1, "it is asked for")
        client.reset()
        if finish_s:
            await until(lambda: len(answers(here).detached) == 1, "it is seen that the client left")
            clock.at += finish_s - 1
            here.beat()
            assert here.host.open == 1
            assert here.app.platform.active
            clock.at += 1
            here.beat()
        await here.quiet()
        await here.host.until_open(0)
        steps[:] = streamed(ROLE, *words(2), last(), DONE) if stream else [answer(whole_body())]
        again = await here.ask(chat(stream), fields=ONCE)
        if stream:
            assert again.text == "word0 word1 "
            assert again.failure is not None
            assert again.failure["code"] == "client_closed_request"
        else:
            assert again.status == 200
        assert replayed(again) is stream

    def prepare(app: App) -> None:
        app.platform.answers.monotonic = clock
        by_clock(clock)(app)

    _, path = play(tmp_path, lambda _: steps, act=act, prepare=prepare, idempotency=Idempotency(finish_s=finish_s))
    kinds = [(row.kind, row.estimated) for row in records(path)]
    assert kinds == ([("posted", True)] if stream else [("voided", False), ("posted", False)])


def test_with_a_tape(tmp_path: Path) -> None:
    """A stream may be resumable too: its client comes back to it by its id, and asks again with its key, for one
    charge; the answer that is given again can be resumed as well."""
    go = asyncio.Event()

    def script(_: Any) -> Any:
        return [*streamed(ROLE, *words(2), end=False), gate(go), *streamed(*words(2, "more"), last(), DONE)[1:]]

    async def act(here: Stage) -> None:
        fields = {**ONCE, "x-moonpool-resume": "1"}
        client = await here.open(fields=fields)
        await client.until(b"word1")
        client.reset()
        await until(lambda: len(here.app.platform.tapes.detached) == 1, "it is seen that the client left")
        assert (await here.ask(fields=ONCE)).status == 409
        go.set()
        await here.quiet()
        stream_id = client.fields["x-moonpool-stream"]
        resumed = await here.get(f"/v1/streams/{stream_id}?after=2")
        again = await here.ask(fields=fields)
        assert again.text == "word0 word1 more0 more1 "
        assert again.body.endswith(resumed.body)
        assert again.fields["x-moonpool-stream"] != stream_id
        third = await here.get(f"/v1/streams/{again.fields['x-moonpool-stream']}?after=0")
        assert third.body == again.body

    _, path = play(tmp_path, script, act=act)
    assert only(path).completion == 7


@pytest.mark.parametrize("leaves", [False, True])
def test_an_answer_too_long_to_keep(tmp_path: Path, leaves: bool) -> None:
    """It reaches its client whole, and is paid; who asks again is told that it cannot be given, and it is not done
    again. Without a client the host is stopped there."""
    go = asyncio.Event()
    steps = [*streamed(ROLE, *words(1), end=False), gate(go)]

    def script(_: Any) -> Any:
        return [*steps, *streamed(*words(20), end=False)[1:], *([stall] if leaves else streamed(last(), DONE)[1:])]

    async def act(here: Stage) -> None:
        client = await here.open(fields=ONCE)
        await client.until(b"word0")
        if leaves:
            client.reset()
            await until(lambda: len(answers(here).detached) == 1, "it is seen that the client left")
        go.set()
        if not leaves:
            assert (await client.rest()).events[-1] == "[DONE]"
        await here.quiet()
        again = await here.ask(fields=ONCE)
        assert (again.status, again.error["code"]) == (500, "idempotency_lost")
        assert again.fields["x-should-retry"] == "false"
        assert len(here.host.requests) == 1

    _, path = play(tmp_path, script, act=act, idempotency=Idempotency(answer_bytes_max=2048))
    assert (only(path).kind, only(path).estimated) == ("posted", leaves)


@pytest.mark.parametrize("stream", [False, True])
def test_killed_midway(tmp_path: Path, stream: bool) -> None:
    """A server is killed while it answers. After the restart the same key gets a whole answer, unless something of the
    first one was paid: then it is told so. What was answered outlives the next kill. Paid is once, whatever happens."""

    def script(request: Any) -> Any:
        if request.number:
            return good(request)
        return [*streamed(ROLE, *words(2), end=False), stall] if stream else [stall]

    async def run() -> tuple[Path, Answer]:
        async with Upstream(script) as host, served(tmp_path, host.base_url) as server:

            async def ask() -> Answer:
                client = await server.open(chat(stream), ONCE)
                try:
                    return await client.rest()
                finally:
                    await client.closed()

            async def kill() -> None:
                server.signal(signal.SIGKILL)
                await server.ended()
                await server.start()

            client = await server.open(chat(stream), ONCE)
            if stream:
                await client.until(b"word1")
            await until(lambda: len(host.requests) == 1, "it is asked for")
            await kill()
            await client.closed()
            first = await ask()
            assert not replayed(first)
            assert (await ask()).body == first.body
            await kill()
            again = await ask()
            assert (again.status, again.body) == (first.status, first.body)
            assert replayed(again) == (first.status == 200)
            server.signal(signal.SIGTERM)
            assert await server.ended() == 0
            return server.path, first

    path, first = uvloop.run(run())
    sound(path)
    rows = records(path)
    assert rows[0].kind == "recovered"
    assert sum(row.owed_pico > 0 for row in rows) <= 1
    assert first.status == (500 if rows[0].owed_pico else 200)


def test_a_disk_that_fails(tmp_path: Path) -> None:
    """Nothing begins while the disk fails; an answer that could not be stored is stored when it is back, and until then
    its key is running, never new."""

    async def walk() -> None:
        disk = Disk()
        store = SqliteStore(tmp_path / "m.db", connection_class=disk.connection_class)
        store.remember_with("a secret that is long enough for a test", OnceBounds())
        await store.start()
        once = store.once
        assert once is not None
        request = Asking("account:a", "k", b"d" * 32, "1", 1000.0)
        assert await once.begin(request) == "new"
        disk.fail = lambda text: OSError(5, "the disk is gone") if text.startswith(("BEGIN", "COMMIT")) else None
        once.finish(request, Told(200, "application/json", [], b"{}"))
        for each in range(3):
            with pytest.raises(Problem) as caught:
                await once.begin(Asking("account:a", "k", b"d" * 32, f"2{each}", 1000.0))
            assert caught.value.code == "platform.storage"
        disk.fail = lambda _: None
        found = await once.begin(Asking("account:a", "k", b"d" * 32, "3", 1000.0))
        assert isinstance(found, Told)
        await store.stop()

    asyncio.run(walk())


async def _admin(here: Stage, method: str, path: str, body: Any, fields: dict[str, str]) -> Answer:
    client = Client(*await asyncio.open_unix_connection(here.app.settings.socket_path()))
    here.clients.append(client)
    client.send(method, f"/admin/v1{path}", json.dumps(body).encode() if body is not None else b"", fields)
    return await client.rest()


def test_changes_of_an_operator(tmp_path: Path) -> None:
    """An admin write with a key is made once and answered again, a new key's secret too, sealed meanwhile; another body
    is 422; what was refused is not stored; reading takes no notice of the header."""

    async def act(here: Stage) -> None:
        new = {"account": "bench", "name": "laptop"}
        bad = await _admin(here, "POST", "/keys", {"account": "nobody"}, ONCE)
        assert bad.status == 404
        first, *others = await asyncio.gather(*(_admin(here, "POST", "/keys", new, ONCE) for _ in range(5)))
        for each in (first, *others):
            assert each.status in {201, 409}
        again = await _admin(here, "POST", "/keys", new, ONCE)
        assert (again.status, replayed(again)) == (201, True)
        secret = again.json["key"]
        assert (await here.ask(chat(False), key=secret)).status == 200
        assert (await _admin(here, "POST", "/keys", {**new, "name": "other"}, ONCE)).status == 422
        assert (await _admin(here, "POST", "/accounts", new, ONCE)).status == 422
        listed = await _admin(here, "GET", "/keys", None, ONCE)
        assert [row["name"] for row in listed.json["data"]].count("laptop") == 1
        gone = await _admin(here, "DELETE", f"/keys/{again.json['id']}", None, named("delete"))
        twice = await _admin(here, "DELETE", f"/keys/{again.json['id']}", None, named("delete"))
        assert (gone.status, twice.status, twice.body, replayed(twice)) == (200, 200, gone.body, True)
        assert (await _admin(here, "POST", "/keys", new, named("x" * 256))).error["param"] == "Idempotency-Key"

    _, path = play(tmp_path, good, act=act)
    assert b"sk-mp-" not in path.read_bytes()


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (Problem("caller.not_found"), "new"),
        (Problem("platform.storage"), "new"),
        (Problem("platform.fault"), "lost"),
        (ValueError("a fault"), "lost"),
        (asyncio.CancelledError(), "lost"),
    ],
)
def test_a_change_that_failed(tmp_path: Path, error: BaseException, after: str) -> None:
    """What was refused may be asked again under its key; what may have been made is not made again. Of two actors with
    one key neither meets the other."""

    async def walk() -> None:
        store = SqliteStore(tmp_path / "m.db")
        store.remember_with("a secret that is long enough for a test", OnceBounds())
        await store.start()
        assert store.once is not None
        arrival = Arrival("r1", "POST", "/admin/v1/keys", "", {"idempotency-key": "k"}, b"{}", "", 0.0)

        async def fails() -> tuple[int, object]:
            raise error

        async def works() -> tuple[int, object]:
            return 201, {"made": True}

        with pytest.raises(type(error)):
            await change_once(store.once, arrival, "ann", 1000.0, fails)
        assert (await change_once(store.once, arrival, "bob", 1000.0, works)).status == 201
        again = change_once(store.once, arrival, "ann", 1001.0, works)
        if after == "new":
            assert (await again).body == b'{"made":true}'
        else:
            with pytest.raises(Problem) as caught:
                await again
            assert caught.value.code == "platform.answer_lost"
        await store.stop()

    asyncio.run(walk())
