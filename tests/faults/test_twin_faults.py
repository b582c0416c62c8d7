"""Every kind of fault over a socket: what a client reads of it, and what the twin writes down about it."""

from __future__ import annotations

import io
import json
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from faults.stage import Answer
from faults.twins import FLASH, USER, ask, chat, opened, play
from moonpool.twin import Served, Twin, threaded

STREAM = chat(stream=True)
WHOLE = chat()


def _one(fault: dict[str, Any], body: Any = None, **options: Any) -> tuple[Answer, Served]:
    """What one request with this fault reads, and its record."""

    async def act(twin: Twin) -> tuple[Answer, Served]:
        got = await ask(twin, STREAM if body is None else body)
        (served,) = twin.served
        await twin.until(lambda: served.ended)
        return got, served

    return play(act, faults=[fault], **options)


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize(("how", "ended"), [("reset", "reset"), ("close", "cut")])
def test_no_answer_at_all(how: str, ended: str, body: Any) -> None:
    """The connection goes, with RST or FIN, before a byte of an answer; nothing is billed."""
    got, served = _one({"refuse": how}, body)
    assert (got.status, got.body) == (0, b"")
    assert (served.status, served.ended, served.billed_pico, served.fault) == (0, ended, 0, ["refuse"])


def test_busy() -> None:
    """503 in the provider's words."""
    got, served = _one({"refuse": "busy"})
    assert (got.status, got.error["type"]) == (503, "service_unavailable_error")
    assert got.error["message"].startswith("Service is too busy.")
    assert (served.ended, served.billed_pico) == ("refused", 0)


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("upstream.content_risk", 400, "Content Exists Risk"),
        ("account.no_quota", 402, "Insufficient Balance"),
        ("platform.fault", 500, "Internal Server Error"),
    ],
)
def test_a_refusal_of_ones_choice(code: str, status: int, sentence: str) -> None:
    """Any row of the error table, as this provider says it."""
    got, _ = _one({"problem": code})
    assert (got.status, got.error["message"]) == (status, sentence)


@pytest.mark.parametrize("said", ["-1", "999999999", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "0", ""])
def test_retry_after_as_it_is_written(said: str) -> None:
    """A 429 whose Retry-After is what the script says, or absent."""
    got, _ = _one({"rate_limit": said})
    assert got.status == 429
    assert got.fields.get("retry-after", "") == said


def test_retry_after_is_a_date_of_the_clock() -> None:
    """`now+N` is N seconds from now."""
    got, served = _one({"rate_limit": "now+90"})
    assert 89 <= parsedate_to_datetime(got.fields["retry-after"]).timestamp() - served.at + 1 <= 92


def test_octet_stream() -> None:
    """A refusal whose type says nothing."""
    got, _ = _one({"refuse": "busy", "octet_stream": True})
    assert (got.status, got.fields["content-type"]) == (503, "application/octet-stream")


def test_html_in_a_200() -> None:
    """A page where an answer should be."""
    got, served = _one({"html": True})
    assert (got.status, got.fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert got.body.startswith(b"<!doctype html>")
    assert served.billed_pico == 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cut_in_a_stream(after: int) -> None:
    """After k events the connection closes without the end of the body; what was said is billed."""
    got, served = _one({"cut_after": after})
    assert not got.complete
    assert got.body.count(b"data: ") == after
    assert (served.ended, served.events) == ("cut", after)
    assert served.usage.completion == max(0, after - 1)  # the first one says the role only
    assert (served.billed_pico > 0) == (after > 0)


def test_cut_in_a_whole_answer() -> None:
    """Half of the body; all of it was made, and is billed."""
    got, served = _one({"cut_after": 1}, WHOLE)
    assert (got.status, got.complete) == (200, False)
    assert 0 < len(got.body) == served.sent_bytes
    with pytest.raises(ValueError, match=r"."):
        json.loads(got.body)
    assert served.usage.completion > 0


@pytest.mark.parametrize("after", [0, 2])
def test_a_clean_end_too_early(after: int) -> None:
    """The body ends as HTTP wants, but the end mark and the last chunk never came."""
    got, served = _one({"end_after": after})
    assert got.complete
    assert (got.body.count(b"data: "), b"[DONE]" in got.body) == (after, False)
    assert served.ended == "ended early"


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_reset_after_bytes(count: int, body: Any) -> None:
    """So many bytes of the body, then RST."""
    got, served = _one({"reset_after_bytes": count}, body)
    assert not got.complete
    assert len(got.body) == count
    assert (served.ended, served.sent_bytes) == ("reset", count)


@pytest.mark.parametrize("body", [STREAM, WHOLE])
def test_a_stall_ends_when_the_client_goes(body: Any) -> None:
    """No answer comes; the twin sees when the client hung up, and counts nothing."""

    async def act(twin: Twin) -> None:
        async with opened(twin, body):
            await twin.until(lambda: twin.served)
            assert twin.summary()["running"] == 1
        await twin.until(lambda: twin.served[0].ended)
        (served,) = twin.served
        assert (served.ended, served.status, served.billed_pico) == ("gone", 0, 0)
        assert served.over_at >= served.at

    play(act, faults=[{"stall_after": 0}])


def test_a_stall_within_a_stream() -> None:
    """k events, then silence; they are billed when the client gives up."""

    async def act(twin: Twin) -> None:
        async with opened(twin, STREAM) as client:
            await client.until(b"data: ", 3)
        await twin.until(lambda: twin.served[0].ended)
        (served,) = twin.served
        assert (served.ended, served.events, served.usage.completion) == ("gone", 3, 2)

    play(act, faults=[{"stall_after": 3}])


def test_an_error_within_a_stream() -> None:
    """A 200 that had begun well says that it failed, and no end mark follows."""
    got, served = _one({"error_after": 2})
    assert (got.status, got.complete) == (200, True)
    assert got.failure is not None
    assert got.failure["type"] == "server_error"
    assert served.ended == "failed"


def test_an_error_of_ones_choice_within_a_stream() -> None:
    """`problem` says which one it is."""
    got, served = _one({"error_after": 1, "problem": "platform.overloaded"})
    assert got.failure is not None
    assert got.failure["type"] == "service_unavailable_error"
    assert served.fault == ["problem", "error_after"]


@pytest.mark.parametrize("fault", [{"refuse": "busy"}, {"refuse": "reset"}, {"html": True}])
def test_a_refusal_may_take_its_time(fault: dict[str, Any]) -> None:
    """Slow to refuse is a fault of its own; a client that leaves before is seen."""
    _, served = _one({**fault, "first_ms": 30})
    assert served.over_at - served.at >= 0.029

    async def act(twin: Twin) -> None:
        async with opened(twin, STREAM):
            await twin.until(lambda: twin.served)
        await twin.until(lambda: twin.served[0].ended)
        assert twin.served[0].ended == "gone"

    play(act, faults=[{**fault, "first_ms": 60_000}])


def test_an_error_for_an_answer() -> None:
    """A whole 200 whose body is an error."""
    got, _ = _one({"error_after": 0}, WHOLE)
    assert (got.status, got.error["type"]) == (200, "server_error")


@pytest.mark.parametrize("body", [STREAM, WHOLE])
def test_garbage(body: Any) -> None:
    """Bytes that are neither text nor JSON where an event should be."""
    got, _ = _one({"garbage_after": 1}, body)
    assert got.complete
    assert b"\x00\xff\xfe" in got.body
    assert got.body.count(b"chat.completion") == (1 if body is STREAM else 0)


@pytest.mark.parametrize(
    ("how", "prompt", "completion"), [("negative", -10, None), ("huge", 900_000_000, 900_000_000), ("zero", 0, 0)]
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_wrong_usage(how: str, prompt: int, completion: int | None, stream: bool) -> None:
    """The client is told nonsense; the log knows what was used."""
    got, served = _one({"usage": how}, chat(stream=stream))
    usage = got.events[-2]["usage"] if stream else got.json["usage"]
    assert usage["prompt_tokens"] == prompt
    assert completion is None or usage["completion_tokens"] == completion
    assert (served.usage.prompt_miss, served.usage.completion > 0) == (9, True)


@pytest.mark.parametrize("stream", [True, False])
def test_a_missing_usage(stream: bool) -> None:
    """None is told."""
    got, served = _one({"usage": "missing"}, chat(stream=stream))
    assert all(not event.get("usage") for event in (got.events[:-1] if stream else [got.json]))
    assert served.billed_pico > 0


def test_a_usage_that_is_said_twice() -> None:
    """Two of them, and they differ."""
    got, _ = _one({"usage": "twice"})
    said = [event["usage"]["completion_tokens"] for event in got.events[:-1] if event.get("usage")]
    assert said[1] == said[0] + 1
    whole, _ = _one({"usage": "twice"}, WHOLE)
    assert whole.body.count(b'"usage":') == 2


def test_another_reason_to_end() -> None:
    """As the script says."""
    got, _ = _one({"finish": "insufficient_system_resource"})
    assert got.events[-2]["choices"][0]["finish_reason"] == "insufficient_system_resource"


@pytest.mark.parametrize(("body", "beat"), [(STREAM, b": keep-alive\n\n"), (WHOLE, b"\n")])
def test_keep_alives_before_the_answer(body: Any, beat: bytes) -> None:
    """Comments in a stream, blank lines before a document, and then the answer as ever."""
    got, served = _one({"alive_s": 0.05, "alive_every_s": 0.01}, body)
    assert got.body.startswith(beat * 5)
    assert not got.body.startswith(beat * 6)
    assert got.complete
    assert served.ended == "whole"
    assert got.text if body is STREAM else got.json["choices"]


def test_a_slow_stream_is_whole() -> None:
    """Slow is not broken."""
    got, served = _one({"slow_ms": 1, "first_ms": 5})
    assert got.complete
    assert served.over_at - served.at >= 0.005


def test_a_client_that_hangs_up_is_billed_for_what_it_was_sent() -> None:
    """Of a slow stream that it left, not for all of it."""

    async def act(twin: Twin) -> int:
        async with opened(twin, STREAM) as client:
            await client.until(b"data: ", 4)
            client.reset()
        await twin.until(lambda: twin.served[0].ended)
        return twin.served[0].usage.completion

    whole = _one({"first_ms": 0.1})[1].usage.completion
    assert 3 <= play(act, faults=[{"slow_ms": 20}]) < whole


def test_the_same_seed_is_the_same_day() -> None:
    """Forty requests of which some fail: the same ones, and the same bytes, with the same seed."""

    async def act(twin: Twin) -> list[tuple[int, bytes]]:
        return [
            (got.status, got.body)
            for number in range(40)
            for got in [await ask(twin, {**WHOLE, "messages": [{"role": "user", "content": str(number)}]})]
        ]

    script = [{"probability": 0.3, "refuse": "busy"}]
    first = play(act, faults=script, seed=3, clock=lambda: 1_790_000_000.0)
    assert first == play(act, faults=script, seed=3, clock=lambda: 1_790_000_000.0)
    other = play(act, faults=script, seed=4, clock=lambda: 1_790_000_000.0)
    assert [status for status, _ in first] != [status for status, _ in other]


def test_a_line_for_each_request_and_no_content(tmp_path: Path) -> None:
    """What was asked in counts, what happened, what it would have cost; what was said only where that is wanted."""
    for content in (False, True):
        out = io.BytesIO()

        async def act(twin: Twin) -> None:
            await ask(twin, STREAM)
            await ask(twin, WHOLE)

        play(act, faults=[{"request": 2, "cut_after": 0}], log=out, log_content=content)
        first, second, last = [json.loads(line) for line in out.getvalue().splitlines()]
        assert (first["model"], first["stream"], first["ended"], first["asked"]) == (
            FLASH,
            True,
            "whole",
            {"messages": 1},
        )
        assert (second["fault"], second["ended"]) == (["cut_after"], "cut")
        assert last["summary"]["requests"] == 2
        assert (first.get("content", {}).get("messages") == [USER]) == content
        assert (b"Hi" in out.getvalue()) == content


def test_it_goes_and_comes_back() -> None:
    """`down` refuses everybody, `up` listens on the same port; the record goes on."""

    async def act(twin: Twin) -> None:
        port = twin.port
        assert (await ask(twin, WHOLE)).status == 200
        await twin.down()
        with pytest.raises(ConnectionRefusedError):
            await ask(twin, WHOLE)
        await twin.up()
        assert twin.port == port
        assert (await ask(twin, WHOLE)).status == 200
        assert len(twin.served) == 2

    play(act)


def test_a_port_that_is_taken_is_said() -> None:
    """Whoever starts it in a thread hears of it, and nothing is left running."""
    with (
        threaded(Twin("deepseek")) as first,
        pytest.raises(OSError, match="ddress"),
        threaded(Twin("deepseek", port=first.port)),
    ):
        raise AssertionError("it started")
