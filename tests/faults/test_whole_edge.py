"""What clients may ask of a whole Moonpool: addresses, methods, keys, limits, receipts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import KEY, MODEL, Stage, chat, good, only, play, records, stage
from faults.upstream import gate, stall

BASES = ["", "/v1", "/beta", "/gateway/v1"]


def test_every_base_url_has_every_route(tmp_path: Path) -> None:
    """Shared contract section 1: chat, completions, models and balance, under all four base URLs."""

    async def act(here: Stage) -> None:
        for base in BASES:
            assert (await here.ask(chat(stream=False), path=f"{base}/chat/completions")).status == 200
            fim = {"model": MODEL, "prompt": "def f(", "suffix": "\n"}
            assert (await here.ask(fim, path=f"{base}/completions")).status == 200
            listed = (await here.get(f"{base}/models")).json
            assert listed["object"] == "list"
            assert MODEL in [row["id"] for row in listed["data"]]
            assert (await here.get(f"{base}/models/{MODEL}")).json["id"] == MODEL
            assert (await here.get(f"{base}/models/none")).status == 404
            assert (await here.get(f"{base}/user/balance")).json["is_available"] is True

    _, path = play(tmp_path, good, act=act)
    assert len(records(path)) == 8


def test_wrong_addresses_and_methods(tmp_path: Path) -> None:
    """404 and 405 with `Allow` in the error's shape; HEAD has a head only; nothing of it makes a hold."""

    async def act(here: Stage) -> None:
        for path in ("/v2/chat/completions", "/v1/chat", "/v1/chat/completions/", "//v1/models", "/v1/Models", "/%2e"):
            got = await here.get(path)
            assert (got.status, got.error["code"]) == (404, "not_found"), path
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            got = await here.get("/v1/chat/completions", method)
            assert (got.status, got.fields["allow"]) == (405, "POST"), method
            if method != "HEAD":
                assert got.error["code"] == "method_not_allowed"
        for path in ("/v1/models", "/v1/user/balance", f"/v1/models/{MODEL}"):
            got = await here.ask({}, path=path)
            assert got.status == 405
            assert "GET" in got.fields["allow"]
            got = await here.get(path, "HEAD")
            assert (got.status, got.body) == (200, b"")

    _, path = play(tmp_path, good, act=act)
    assert records(path) == []


WRONG_KEYS: list[tuple[str, str]] = [
    ("x-api-key", KEY),
    ("Cookie", f"Authorization=Bearer {KEY}"),
    ("Authorization", KEY),
    ("Authorization", f"Basic {KEY}"),
    ("Authorization", "Bearer"),
    ("Authorization", "Bearer "),
    ("Authorization", f"Bearer {KEY}x"),
    ("Authorization", f"Bearer {KEY[:-1]}"),
    ("Authorization", f"Bearer {KEY.upper()}"),
    ("Authorization", f"Bearer {KEY} {KEY}"),
    ("Authorization", f"Bearer Bearer {KEY}"),
    ("Authorization", f"Bearer {KEY}, Bearer {KEY}"),
    ("Authorization", "Bearer " + "x" * 10_000),
    ("Authorization", "Bearer ' OR '1'='1"),
    ("Authorization", "Bearer \xe4\xf6\xfc\xff"),
    ("Authorization", "Bearer %"),
    ("Authorization", "Bearer sk-mp-" + "0" * 61),
]


def test_a_key_counts_in_one_place_only(tmp_path: Path) -> None:
    """Case 106: `Authorization: Bearer`, and nowhere else: 401 that never says the key again, and no hold."""

    async def act(here: Stage) -> None:
        body = json.dumps(chat(stream=False)).encode()
        for fields in [{}, *({name: value} for name, value in WRONG_KEYS)]:
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/user/balance")):
                client = await here.connect()
                client.send(method, path, body if method == "POST" else b"", fields)
                got = await client.rest()
                assert (got.status, got.error["code"]) == (401, "invalid_api_key"), fields
                assert got.error["type"] == "authentication_error"
                assert got.fields["www-authenticate"] == "Bearer"
                assert KEY.encode() not in got.body
                client.close()
        for path in (f"/v1/models?api_key={KEY}", f"/v1/models?Authorization=Bearer%20{KEY}"):
            assert (await here.get(path, fields={})).status == 401
        for value in (f"bearer {KEY}", f"BEARER {KEY}", f"Bearer  {KEY} "):
            assert (await here.get("/v1/models", fields={"authorization": value})).status == 200

    _, path = play(tmp_path, good, act=act)
    assert records(path) == []


@pytest.mark.parametrize("value", [f"Bearer {KEY}\x00", f"Bearer \x01{KEY}", "Bearer \r\n x"])
def test_a_key_with_control_characters_is_no_request(tmp_path: Path, value: str) -> None:
    """Case 106: such a head is a 400 at the latest, never a 5xx."""
    got, _ = play(tmp_path, good, act=lambda here: here.get("/v1/models", fields={"Authorization": value}))
    assert got.status == 400


def test_a_key_sent_twice_is_refused(tmp_path: Path) -> None:
    """Case 106: two fields of that name are no key, and not the first or last of them."""

    async def act(here: Stage) -> Any:
        client = await here.connect()
        line = f"Authorization: Bearer {KEY}\r\n"
        client.writer.write(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{line}{line}\r\n".encode())
        return await client.rest()

    got, _ = play(tmp_path, good, act=act)
    assert got.status in {400, 401}


def test_too_many_at_once(tmp_path: Path) -> None:
    """Concurrency: exactly as many as the account may; the rest hears 20034 and when to come again; then all is as
    before (cases 7 and 8 of the limits, I7, I8)."""
    limit = 5

    async def act(here: Stage) -> None:
        for _ in range(3):
            go.clear()
            before = len(here.host.requests)
            running = [await here.open(chat(number % 2 == 0)) for number in range(limit)]
            await here.host.until_asked(before + limit)
            for number in range(20):
                got = await here.ask(chat(number % 2 == 0))
                assert (got.status, got.error["code"], got.error["type"]) == (429, "20034", "runtime_error")
                assert got.error["message"] == "concurrency exceeded"
                assert int(got.fields["retry-after"]) >= 1
                assert got.fields["x-should-retry"] == "true"
            go.set()
            for client in running:
                assert (await client.rest()).status == 200
            await here.quiet()
        assert here.host.most <= limit

    go = asyncio.Event()
    _, path = play(tmp_path, lambda request: [gate(go), *good(request)], act=act, concurrency=limit)
    assert [record.kind for record in records(path)] == ["posted"] * (3 * limit)


def test_requests_that_are_refused_leave_nothing(tmp_path: Path) -> None:
    """Case 95: malformed, unknown model, wrong key: no hold, no lease, however many there are."""
    bad: list[tuple[bytes, int]] = [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"model":"no-such-model","messages":[{"role":"user","content":"x"}]}', 400),
        (b'{"model":"%s"}' % MODEL.encode(), 400),
        (b'{"model":"%s","messages":[]}' % MODEL.encode(), 400),
        (json.dumps(chat(temperature=3)).encode(), 400),
        (json.dumps(chat(max_tokens=10**9)).encode(), 400),
        (b'{"model":"%s","model":"%s","messages":[]}' % (MODEL.encode(), MODEL.encode()), 400),
    ]

    async def act(here: Stage) -> None:
        client = await here.connect()
        for number in range(1000):
            body, status = bad[number % len(bad)]
            client.send("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
            client.status, client.body = 0, b""
            got = await client.rest()
            assert (got.status, got.error["type"]) == (status, "invalid_request_error")
        assert not here.host.requests

    _, path = play(tmp_path, good, act=act)
    assert records(path) == []


RECEIPTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"max_completion_tokens": 5}, {}, r"max_completion_tokens->max_tokens"),
    ({"messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]}, {}, r"developer->system"),
    ({"thinking": {"type": "enabled"}}, {}, r"thinking:dropped"),
    ({"reasoning_effort": "high"}, {}, r"reasoning_effort:dropped"),
    ({"enable_search": True}, {}, r"enable_search:dropped"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "reasoning_content": "z"},
                      {"role": "user", "content": "u"}]}, {}, r"messages\.reasoning_content:dropped",
    ),
    ({"presence_penalty": 1}, {"rules": ["common", "v4"]}, r"presence_penalty:dropped"),
    ({"frequency_penalty": 1}, {"rules": ["common", "v4"]}, r"frequency_penalty:dropped"),
    ({"logprobs": True, "top_logprobs": 2}, {"rules": ["common", "s0"]}, r"logprobs:dropped.*top_logprobs:dropped"),
    ({"temperature": 0.3, "top_p": 0.3}, {"rules": ["reasoner"]}, r"temperature:dropped.*top_p:dropped"),
    ({"reasoning_effort": "xhigh"}, {"thinking": "default_on"}, r"reasoning_effort:xhigh->high"),
    ({"reasoning_effort": "none"}, {"thinking": "default_on"}, r"reasoning_effort:none->thinking\.type:disabled"),
    (
        {"thinking": {"type": "adaptive", "reasoning_effort": "max"}}, {"thinking": "default_off"},
        r"thinking\.reasoning_effort->reasoning_effort.*thinking\.type:adaptive->enabled",
    ),
    ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"thinking": "default_off"}, r"thinking\.budget_tokens"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
         "tool_choice": "required"},
        {"thinking": "default_on", "thinking_forced_tools": "thinking_off"},
        r"thinking\.type:disabled \(tool_choice\)",
    ),
]  # fmt: skip
THINKS = ["tools", "thinking", "json_object", "prefix", "fim", "logprobs"]


@pytest.mark.parametrize(("fields", "model", "receipt"), RECEIPTS, ids=lambda value: str(value)[:40])
def test_every_adjustment_has_its_receipt(
    tmp_path: Path, fields: dict[str, Any], model: dict[str, Any], receipt: str
) -> None:
    """What was dropped, clamped or mapped stands in x-moonpool-adjusted, of whole and of streamed answers."""

    async def act(here: Stage) -> list[Any]:
        return [await here.ask(chat(stream, **fields)) for stream in (True, False)]

    row = {"can": THINKS, **model} if "thinking" in model else model
    found, path = play(tmp_path, good, act=act, model=row)
    for got in found:
        assert got.status == 200, got.body
        assert re.search(receipt, got.fields["x-moonpool-adjusted"])
    assert len(records(path)) == 2


def test_a_longer_middle_than_there_is_gets_a_receipt(tmp_path: Path) -> None:
    """FIM: max_tokens is lowered, and the header says so."""
    fim = {"model": MODEL, "prompt": "a", "suffix": "b", "max_tokens": 8000}
    got, _ = play(tmp_path, good, act=lambda here: here.ask(fim, path="/beta/completions"))
    assert got.fields["x-moonpool-adjusted"] == "max_tokens:8000->4096"


def test_an_untouched_request_has_no_receipt(tmp_path: Path) -> None:
    """Defaults that are filled in are none."""
    got, _ = play(tmp_path, good, act=lambda here: here.ask(chat(False, temperature=1, presence_penalty=0)))
    assert "x-moonpool-adjusted" not in got.fields


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x", "é", "x" * 5000, "\x00", "a, b"])
def test_no_field_of_a_client_forges_a_header(tmp_path: Path, name: str) -> None:
    """Names that clients make up reach the receipt header in a safe form or not at all."""
    got, _ = play(
        tmp_path, good, act=lambda here: here.ask(chat(False, thinking={"type": "enabled", name: 1})),
        model={"thinking": "default_off", "can": THINKS},
    )  # fmt: skip
    assert got.status in {200, 400}
    assert "set-cookie" not in got.fields


def test_stopping_ends_what_runs_with_a_503_or_an_event(tmp_path: Path) -> None:
    """The app's own stop, with requests under way that have and have not begun."""

    async def run() -> Path:
        async with stage(tmp_path, lambda _: [stall]) as here:
            clients = [await here.open(chat(number % 2 == 0)) for number in range(6)]
            await here.host.until_asked(6)
            stopping = asyncio.ensure_future(here.app.stop())
            for client in clients:
                got = await client.rest()
                assert (got.status, got.error["code"]) == (503, "overloaded")
            await stopping
            here.app.stop = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
        return here.path

    path = uvloop.run(run())
    assert {(record.kind, record.cause) for record in records(path)} == {("voided", "platform.stopping")}


def test_one_request_is_one_record(tmp_path: Path) -> None:
    """The measure of the above: with all receipts off, one request, one hold, one charge."""
    got, path = play(tmp_path, good, act=lambda here: here.ask(chat(False)))
    assert got.status == 200
    assert only(path).attempts == 1
