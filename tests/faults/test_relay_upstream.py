"""Hosts that fail, through the whole App: what the client reads, and what the ledger says afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from faults.stage import (
    DONE,
    ROLE,
    USAGE,
    Stage,
    chat,
    event,
    failed,
    good,
    last,
    only,
    play,
    streamed,
    until,
    whole_body,
    words,
)
from faults.upstream import STREAM_HEAD, Peer, answer, chunk, close, rst, sliced, stall


async def turns(_: Peer) -> None:
    """Let what was sent be read alone."""
    for _ in range(99):
        await asyncio.sleep(0)


async def ask_stream(here: Stage) -> Any:
    return await here.ask(chat())


async def ask_whole(here: Stage) -> Any:
    return await here.ask(chat(stream=False))


def test_a_good_answer_costs_what_the_host_said(tmp_path: Path) -> None:
    """The measure for all that follows: one hold, posted with the usage the host issued, not estimated."""
    got, path = play(tmp_path, good, act=ask_stream)
    assert (got.status, got.text, got.failure, got.complete) == (
        200,
        "".join(f"word{n} " for n in range(5)),
        None,
        True,
    )
    record = only(path)
    assert (record.kind, record.prompt, record.completion, record.estimated) == ("posted", 11, 7, False)
    assert (record.attempts, record.host, record.cause) == (1, "host0", "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_the_second_host_serves_when_the_first_refuses_connections(tmp_path: Path, stream: bool) -> None:
    """Case 14: one hold, two attempts, one charge; the answer names the host that gave it."""
    got, path = play(tmp_path, good, dead=1, act=lambda here: here.ask(chat(stream)))
    assert got.status == 200
    assert got.fields["x-moonpool-host"] == "host0"
    record = only(path)
    assert (record.kind, record.attempts, record.host, record.completion) == ("posted", 2, "host0", 7)


def test_no_host_at_all_is_a_502(tmp_path: Path) -> None:
    """All hosts refuse: 502, nothing owed."""
    got, path = play(tmp_path, dead=2, act=ask_stream)
    assert (got.status, got.error["code"]) == (502, "upstream_failed")
    assert (only(path).kind, only(path).attempts) == ("voided", 2)


def test_a_host_that_never_answers_is_left_for_the_next(tmp_path: Path) -> None:
    """Case 15: the first-content deadline, then another target."""
    got, path = play(tmp_path, lambda _: [stall], good, act=ask_stream, host={"first_s": 0.2})
    assert (got.status, got.failure) == (200, None)
    assert (only(path).host, only(path).attempts) == ("host1", 2)


def test_a_host_that_never_answers_is_a_504_when_it_is_the_only_one(tmp_path: Path) -> None:
    """Case 15: with no other target the client hears 504, and pays nothing."""
    got, path = play(tmp_path, lambda _: [stall], act=ask_stream, host={"first_s": 0.2})
    assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    assert (only(path).kind, only(path).cause) == ("voided", "upstream.timeout")


@pytest.mark.parametrize(
    ("fault", "code"),
    [(stall, "upstream_timeout"), (rst, "upstream_incomplete"), (close, "upstream_incomplete")],
    ids=["stall", "rst", "fin"],
)
def test_a_stream_that_breaks_is_told_so_and_not_tried_again(tmp_path: Path, fault: Any, code: str) -> None:
    """Cases 16 to 18: an error event, no [DONE], never another host; what was delivered is posted, estimated."""
    steps = [*streamed(ROLE, *words(3), end=False), fault]
    got, path = play(tmp_path, lambda _: steps, good, act=ask_stream, host={"gap_s": 0.2})
    assert (got.status, got.text) == (200, "word0 word1 word2 ")
    assert got.failure is not None
    assert (got.failure["code"], got.complete) == (code, True)
    record = only(path)
    assert (record.kind, record.estimated, record.attempts, record.host) == ("posted", True, 1, "host0")
    assert record.completion == 6


def test_a_break_before_anything_was_said_leaves_no_trace_of_the_first_host(tmp_path: Path) -> None:
    """A role chunk is no answer: another host may serve, and the client reads only what that one says."""
    broken = [*streamed(event({"role": "assistant", "content": ""}, name="chat-of-the-first"), end=False), rst]
    got, path = play(tmp_path, lambda _: broken, good, act=ask_stream)
    assert got.failure is None
    assert b"chat-of-the-first" not in got.body
    assert got.body.count(b'"role"') == 1
    assert only(path).host == "host1"


def test_usage_of_a_host_that_failed_is_not_the_clients(tmp_path: Path) -> None:
    """What a first host said it used before it failed is not posted with the answer of the second."""
    usage_only = event({}, usage=USAGE)
    got, path = play(
        tmp_path, lambda _: [*streamed(usage_only, end=False), rst],
        lambda _: streamed(ROLE, *words(2), last(None), DONE), act=ask_stream,
    )  # fmt: skip
    assert got.failure is None
    record = only(path)
    assert (record.kind, record.estimated, record.host, record.completion) == ("posted", True, "host1", 4)


def test_a_whole_answer_that_came_as_a_broken_stream_was_not_delivered(tmp_path: Path) -> None:
    """A host that streams to a client who wants it whole, and breaks: nothing was sent, so nothing is owed, another
    host may serve, and what the first one said is in no count."""
    broken = [*streamed(ROLE, *words(50), end=False), rst]
    got, path = play(tmp_path / "a", lambda _: broken, act=ask_whole)
    assert (got.status, only(path).kind, only(path).owed_pico) == (502, "voided", 0)
    unmetered = [answer(whole_body("word", None))]
    got, path = play(tmp_path / "b", lambda _: broken, lambda _: unmetered, act=ask_whole)
    assert got.json["choices"][0]["message"]["content"] == "word"
    record = only(path)
    assert (record.kind, record.host, record.completion, record.estimated) == ("posted", "host1", 2, True)


def test_a_stream_without_usage_is_estimated(tmp_path: Path) -> None:
    """Case 19: whole, but nobody said what it used: our own count, marked."""
    got, path = play(tmp_path, lambda _: streamed(ROLE, *words(3), last(None), DONE), act=ask_stream)
    assert got.failure is None
    assert (only(path).kind, only(path).estimated, only(path).completion) == ("posted", True, 6)


ABSURD: list[Any] = [
    {**USAGE, "completion_tokens": -1},
    {**USAGE, "completion_tokens": 10**18},
    {**USAGE, "completion_tokens": 7.5},
    {**USAGE, "completion_tokens": "7"},
    {**USAGE, "prompt_cache_hit_tokens": 12},
    [],
    "much",
]


@pytest.mark.parametrize("usage", ABSURD, ids=str)
@pytest.mark.parametrize("stream", [True, False])
def test_absurd_usage_is_refused(tmp_path: Path, usage: Any, stream: bool) -> None:
    """Case 20: a usage that cannot be right is none: our own count, and the client does not read it either."""
    steps = streamed(ROLE, *words(3), last(usage), DONE) if stream else [answer(whole_body("word " * 3, usage))]
    got, path = play(tmp_path, lambda _: steps, act=lambda here: here.ask(chat(stream)))
    assert got.status == 200
    record = only(path)
    assert (record.kind, record.estimated) == ("posted", True)
    assert 0 < record.completion < 20
    said = [value.get("usage") for value in got.events if value != "[DONE]"] if stream else [got.json["usage"]]
    assert usage not in said


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("tokens", [0, 1])
def test_usage_far_below_what_was_delivered_is_refused(tmp_path: Path, stream: bool, tokens: int) -> None:
    """Case 20: no host makes so much text of so few tokens: our own count."""
    usage = {**USAGE, "completion_tokens": tokens}
    steps = streamed(ROLE, *words(50), last(usage), DONE) if stream else [answer(whole_body("word " * 70, usage))]
    _, path = play(tmp_path, lambda _: steps, act=lambda here: here.ask(chat(stream)))
    record = only(path)
    assert (record.kind, record.estimated) == ("posted", True)
    assert record.completion > 90


def test_usage_of_long_tokens_is_believed(tmp_path: Path) -> None:
    """Case 20: blanks and rules are long tokens; an honest host is not doubted."""
    steps = streamed(ROLE, event({"content": " " * 200 + "=" * 200}), last({**USAGE, "completion_tokens": 16}), DONE)
    _, path = play(tmp_path, lambda _: steps, act=ask_stream)
    assert (only(path).completion, only(path).estimated) == (16, False)


def test_the_running_total_of_a_broken_stream_is_not_the_whole(tmp_path: Path) -> None:
    """A total that came with the first words says nothing of the many that followed."""
    first = event({"content": "word"}, usage={**USAGE, "completion_tokens": 1})
    _, path = play(tmp_path, lambda _: [*streamed(ROLE, first, *words(50), end=False), rst], act=ask_stream)
    assert (only(path).kind, only(path).estimated) == ("posted", True)
    assert only(path).completion > 90


def test_usage_said_twice_counts_once(tmp_path: Path) -> None:
    """Case 21: running totals: the last one counts."""
    first = event({"content": "word"}, usage={**USAGE, "completion_tokens": 1, "total_tokens": 12})
    got, path = play(tmp_path, lambda _: streamed(ROLE, first, last(), DONE), act=ask_stream)
    assert got.failure is None
    assert (only(path).completion, only(path).prompt, only(path).estimated) == (7, 11, False)


def test_blank_lines_before_a_whole_answer_are_no_part_of_it(tmp_path: Path) -> None:
    """Case 23."""
    body = whole_body()
    steps = [STREAM_HEAD.replace(b"text/event-stream", b"application/json"), chunk(b"\n"), chunk(b"\n\n"), chunk(body)]
    got, path = play(tmp_path, lambda _: [*steps, b"0\r\n\r\n"], act=ask_whole)
    assert got.json["choices"][0]["message"]["content"] == "hello"
    assert (only(path).completion, only(path).estimated) == (7, False)


def test_events_cut_anywhere_read_the_same(tmp_path: Path) -> None:
    """Case 24: byte by byte, inside UTF-8 too."""
    raw = b"".join([ROLE, event({"content": "é你🎉"}), event({"content": "\u2028\u0085x"}), last(), DONE])
    steps = [STREAM_HEAD, sliced(b"".join(chunk(raw[at : at + 1]) for at in range(len(raw))), 6, turns=1)]
    got, path = play(tmp_path, lambda _: [*steps, b"0\r\n\r\n"], act=ask_stream)
    assert (got.failure, got.text) == (None, "é你🎉\u2028\u0085x")
    assert only(path).completion == 7


@pytest.mark.parametrize("begun", [False, True])
def test_an_endless_event_is_cut(tmp_path: Path, begun: bool) -> None:
    """Case 25: more than an event may have: 502 before anything was sent, an error event after."""
    piece = b"x" * 65536
    steps = [STREAM_HEAD, *([chunk(ROLE), chunk(words(1)[0])] if begun else []), chunk(b'data: {"id":"')]
    steps += [chunk(piece)] * 40
    got, path = play(tmp_path, lambda _: [*steps, stall], act=ask_stream)
    if begun:
        assert got.failure is not None
        assert (only(path).kind, only(path).estimated) == ("posted", True)
    else:
        assert got.status == 502
        assert only(path).kind == "voided"
    assert only(path).cause == "upstream.too_large"


NO_ANSWERS = {
    "error": answer(b'{"error":{"message":"Internal","type":"server_error","param":null,"code":null}}'),
    "html": answer(b"<html><body>Bad gateway</body></html>", content_type="text/html"),
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "empty": answer(b""),
    "list": answer(b"[]"),
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "gzip": answer(b"\x1f\x8b").replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type"),
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_ANSWERS)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_no_answer_is_a_502_or_another_hosts(tmp_path: Path, name: str, stream: bool) -> None:
    """Cases 27, 35 and 36: 200 with an error, HTML, nothing at all, a redirect: never the client's 200."""
    steps = [NO_ANSWERS[name], close]
    got, path = play(tmp_path / "one", lambda _: steps, act=lambda here: here.ask(chat(stream)))
    assert (got.status, got.error["type"]) == (502, "upstream_error")
    assert only(path).kind == "voided"
    got, path = play(tmp_path / "two", lambda _: steps, good, act=lambda here: here.ask(chat(stream)))
    assert (got.status, only(path).host) == (200, "host1")


REFUSALS = {
    "400 Bad Request": (400, "invalid_request_error"),
    "401 Unauthorized": (502, "upstream_failed"),
    "402 Payment Required": (502, "upstream_failed"),
    "422 Unprocessable Entity": (400, "invalid_request_error"),
    "429 Too Many Requests": (503, "service_unavailable_error"),
    "500 Internal Server Error": (502, "upstream_failed"),
    "503 Service Unavailable": (503, "service_unavailable_error"),
}


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("stream", [True, False])
def test_refusals_mean_what_they_mean_to_the_client(tmp_path: Path, status: str, stream: bool) -> None:
    """Case 28: JSON called octet-stream; our key and our balance are never shown as the client's."""
    got, path = play(tmp_path, lambda _: failed(status, "It is so."), act=lambda here: here.ask(chat(stream)))
    assert (got.status, got.error["code"]) == REFUSALS[status]
    assert got.fields["content-type"] == "application/json"
    assert only(path).kind == "voided"
    assert got.fields["x-should-retry"] == ("true" if status[:3] in {"401", "402", "429", "503"} else "false")


@pytest.mark.parametrize("status", REFUSALS)
def test_only_what_another_host_may_mend_goes_to_another_host(tmp_path: Path, status: str) -> None:
    """A request that is wrong is wrong everywhere; a host that is broke, busy or broken is left for the next."""
    got, path = play(tmp_path, lambda _: failed(status, "It is so."), good, act=ask_stream)
    final = status[:3] in {"400", "422"}
    assert got.status == (400 if final else 200)
    assert only(path).attempts == (1 if final else 2)


@pytest.mark.parametrize(
    ("said", "told"),
    [("7", "7"), ("86400", "120"), ("-1", "1"), ("0", "1"), ("abc", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None),
     ("nan", None), ("inf", "120"), ("1e400", "120"), ("", None)],
)  # fmt: skip
def test_retry_after_is_kept_within_reason(tmp_path: Path, said: str, told: str | None) -> None:
    """Case 29."""
    got, _ = play(tmp_path, lambda _: failed("429 Too Many Requests", "Slow.", f"Retry-After: {said}"), act=ask_stream)
    assert got.status == 503
    assert got.fields.get("retry-after") == told


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
@pytest.mark.parametrize("shape", ["{}", "Bearer {}", "Incorrect API key provided: {}.", "key={}&x"])
def test_our_key_never_reaches_a_client(tmp_path: Path, status: str, shape: str) -> None:
    """A host that quotes the key we sent it does not give it to our clients, in any answer."""
    secret = "sk-" + "h0st" * 8
    steps = failed(status, shape.format(secret))
    got, path = play(tmp_path, lambda _: steps, act=ask_stream, host={"api_key": secret})
    assert secret[3:].encode() not in got.body
    begun = [*streamed(ROLE, words(1)[0], b'data: {"error":{"message":"' + shape.format(secret).encode() + b'"}}\n\n')]
    got, path = play(tmp_path / "b", lambda _: begun, act=ask_stream, host={"api_key": secret})
    assert got.failure is not None
    assert secret[3:].encode() not in got.body
    assert secret.encode() not in path.read_bytes()


def test_the_key_of_a_host_without_a_prefix_does_not_leak_either(tmp_path: Path) -> None:
    """Whatever a key looks like, a host that quotes it does not hand it to our clients."""
    secret = "0123456789abcdef" * 2
    steps = failed("400 Bad Request", f"Your key {secret} is tired.")
    got, _ = play(tmp_path, lambda _: steps, act=ask_stream, host={"api_key": secret})
    assert secret.encode() not in got.body


@pytest.mark.parametrize("fault", [stall, rst, close], ids=["stall", "rst", "fin"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_end_mark_is_the_end(tmp_path: Path, fault: Any, stream: bool) -> None:
    """A host that said [DONE] has answered, whatever becomes of the connection, whoever reads whole or streamed."""
    steps = [STREAM_HEAD, chunk(b"".join([ROLE, *words(2)])), sliced(chunk(last()), 4096, 99), chunk(DONE), turns]
    got, path = play(tmp_path, lambda _: [*steps, fault], act=lambda here: here.ask(chat(stream)))
    if stream:
        assert got.failure is None
    else:
        assert got.json["choices"][0]["message"]["content"] == "word0 word1 "
    record = only(path)
    assert (record.kind, record.cause, record.completion, record.estimated) == ("posted", "stop", 7, False)


def test_an_end_mark_and_nothing_else_is_no_answer(tmp_path: Path) -> None:
    """[DONE] after a role chunk alone: 502, not an empty 200."""
    got, path = play(tmp_path, lambda _: [STREAM_HEAD, chunk(ROLE + DONE), b"0\r\n\r\n"], act=ask_stream)
    assert (got.status, only(path).kind) == (502, "voided")


def test_a_stream_with_finish_reason_but_no_end_mark_is_whole(tmp_path: Path) -> None:
    """Hosts that leave out [DONE] have answered when a finish_reason came and the body ended."""
    got, path = play(tmp_path, lambda _: streamed(ROLE, *words(2), last()), act=ask_stream)
    assert got.failure is None
    assert (only(path).kind, only(path).estimated) == ("posted", False)


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "content_filter", "length", "something_new"])
def test_reasons_are_passed_on_and_paid(tmp_path: Path, reason: str) -> None:
    """Case 39: after output, whatever the host says ended it is what the client reads."""
    end = event({"content": ""}, finish=reason, usage=USAGE)
    got, path = play(tmp_path, lambda _: streamed(ROLE, *words(1), end, DONE), act=ask_stream)
    assert got.failure is None
    assert reason in [choice["finish_reason"] for value in got.events[:-1] for choice in value["choices"]]
    assert (only(path).kind, only(path).cause) == ("posted", reason)


def test_a_wrong_name_in_the_answer_changes_nothing(tmp_path: Path) -> None:
    """Case 34: what was asked for is what is billed."""
    body = whole_body().replace(b'"deepseek-chat"', b'"other"')
    got, path = play(tmp_path, lambda _: [answer(body)], act=ask_whole)
    assert got.status == 200
    assert (only(path).model, only(path).kind) == ("deepseek-chat", "posted")


def test_header_bombs_stay_outside(tmp_path: Path) -> None:
    """Case 37: nothing of a host's header fields reaches the client, and too many are a 502."""
    many = b"".join(b"X-%d: y\r\n" % at for at in range(1000))
    bomb = answer(whole_body()).replace(b"Content-Type", many + b"Content-Type")
    got, path = play(tmp_path, lambda _: [bomb, close], act=ask_whole)
    assert (got.status, only(path).kind) == (502, "voided")
    spiced = answer(whole_body()).replace(b"Content-Type", b"Set-Cookie: a=b\r\nX-Request-Id: theirs\r\nContent-Type")
    got, _ = play(tmp_path / "b", lambda _: [spiced], act=ask_whole)
    assert got.status == 200
    assert "set-cookie" not in got.fields
    assert got.fields["x-request-id"] != "theirs"


def test_an_error_within_a_stream_ends_it(tmp_path: Path) -> None:
    """Case 167: before the first event an HTTP status; after it an error event, and nothing behind it."""
    broken = b'data: {"error":{"message":"gone","type":"server_error","code":null}}\n\n'
    got, path = play(tmp_path, lambda _: streamed(broken, *words(1), DONE), act=ask_stream)
    assert (got.status, only(path).kind) == (502, "voided")
    got, path = play(tmp_path / "b", lambda _: streamed(ROLE, *words(2), broken, *words(3), DONE), act=ask_stream)
    assert (got.status, got.text) == (200, "word0 word1 ")
    assert got.failure is not None
    assert (only(path).kind, only(path).estimated) == ("posted", True)


def test_the_connection_of_a_good_answer_serves_the_next(tmp_path: Path) -> None:
    """Nothing in the relay wastes the pool's connections."""

    async def act(here: Stage) -> Any:
        for _ in range(5):
            assert (await here.ask(chat())).failure is None
            await until(lambda: not here.app.transports["http"].active)  # type: ignore[attr-defined]
        return here.host.connections

    assert play(tmp_path, good, act=act)[0] == 1
