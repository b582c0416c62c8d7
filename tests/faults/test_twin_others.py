"""Twins of the other providers: each with its own addresses, errors and shape; Moonpool understands each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import Stage, only, stage
from faults.twins import USER, ask, opened, play, thought
from moonpool.twin import Twin

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
LKEAP, HUB, GATEWAY, NEW = "lkeap", "tokenhub", "aigateway", "newapi"
PATHS = {
    LKEAP: "/v1/chat/completions",
    HUB: "/v1/chat/completions",
    GATEWAY: "/gateway/v1/chat/completions",
    NEW: "/v1/chat/completions",
}
THINKER = {LKEAP: "deepseek-r1-0528", HUB: "deepseek-v4-pro", GATEWAY: "deepseek-v4-pro", NEW: "deepseek-v4-pro"}


def _chat(provider: str, **more: Any) -> dict[str, Any]:
    return {"model": THINKER[provider], "messages": [USER], **more}


# What goes wrong, at whom: the status, and the members of its error that are fixed.
REFUSED: list[tuple[str, dict[str, Any], str, int, dict[str, Any]]] = [
    (LKEAP, {}, "sk-broke.1", 402, {"type": "runtime_error", "code": "20031", "message": "not enough quota"}),
    (LKEAP, {}, "sk-wrong.1", 401, {"type": "authentication_error"}),
    (LKEAP, {"messages": [{"role": "user", "content": "word " * 100_000}]}, "sk-team.1", 400,
     {"type": "runtime_error", "code": "20059", "message": "input content too long"}),
    (LKEAP, {"tools": [TOOL]}, "sk-team.1", 400, {"type": "invalid_request_error"}),
    (LKEAP, {"messages": [{"role": "assistant", "content": "x", "reasoning_content": "y"}, USER]}, "sk-team.1", 400,
     {"type": "invalid_request_error"}),
    (HUB, {}, "sk-broke.1", 402,
     {"type": "permission_error", "code": "401007", "message": "endpoint is inactive: FREE_QUOTA_EXHAUSTED"}),
    (HUB, {}, "sk-wrong.1", 401, {"type": "authentication_error", "code": "401002", "message": "invalid api key"}),
    (HUB, {}, "sk-forbidden.1", 403, {"type": "permission_error", "code": "403001"}),
    (HUB, {"stop": list("abcde")}, "sk-team.1", 400, {"type": "invalid_request_error", "code": "400002"}),
    (HUB, {"model": "nope"}, "sk-team.1", 400, {"type": "invalid_request_error", "code": "400004"}),
    (GATEWAY, {}, "sk-wrong.1", 401, {"code": "GATEWAY_INVALID_VIRTUAL_KEY", "source": "gateway"}),
    (NEW, {}, "sk-wrong.1", 401, {"type": "new_api_error", "param": ""}),
    (NEW, {}, "sk-broke.1", 403, {"type": "new_api_error", "code": "insufficient_user_quota"}),
    (NEW, {"model": "nope"}, "sk-team.1", 503, {"type": "new_api_error", "code": "model_not_found"}),
    (NEW, {"temperature": 3}, "sk-team.1", 400, {"type": "new_api_error", "code": "invalid_request"}),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "more", "key", "status", "error"), REFUSED)
def test_each_refuses_in_its_own_words(
    provider: str, more: dict[str, Any], key: str, status: int, error: dict[str, Any]
) -> None:
    """Statuses, types and codes, strings where they are strings."""

    async def act(twin: Twin) -> None:
        got = await ask(twin, _chat(provider, **more), PATHS[provider], key=key)
        found = got.json["error"]
        assert (got.status, {name: found.get(name) for name in error}) == (status, error), found

    play(act, provider)


@pytest.mark.parametrize("provider", list(PATHS))
def test_each_answers_in_its_own_shape(provider: str) -> None:
    """Streams end with the mark, usage stands where that provider puts it, thinking comes first."""

    async def act(twin: Twin) -> None:
        whole = (await ask(twin, _chat(provider), PATHS[provider])).json
        message = whole["choices"][0]["message"]
        assert message["content"]
        assert message["reasoning_content"]
        assert "prompt_cache_hit_tokens" not in whole["usage"]
        options = {"include_usage": True}
        streamed = await ask(twin, _chat(provider, stream=True, stream_options=options), PATHS[provider])
        assert (thought(streamed), streamed.text) == (message["reasoning_content"], message["content"])
        assert streamed.events[-1] == "[DONE]"
        said = [event for event in streamed.events[:-1] if event.get("usage")]
        assert len(said) == 1
        assert bool(said[0]["choices"]) == (provider == LKEAP)
        first = streamed.events[0]["choices"][0]
        assert first["finish_reason"] == ("" if provider == LKEAP else None)
        assert first["delta"]["role"] == "assistant"
        assert None not in first["delta"].values()

    play(act, provider)


@pytest.mark.parametrize("provider", list(PATHS))
def test_other_addresses_are_none(provider: str) -> None:
    """What only another provider has."""

    async def act(twin: Twin) -> None:
        for path in ("/beta/chat/completions", "/chat/completions", "/user/balance"):
            assert (await ask(twin, _chat(provider), path)).status == 404

    play(act, provider)


def test_search_in_the_answer() -> None:
    """Results come first, and the model is called after the search."""

    async def act(twin: Twin) -> None:
        body = _chat(LKEAP, enable_search=True)
        whole = (await ask(twin, body, PATHS[LKEAP])).json
        assert whole["model"] == "deepseek-r1-0528-aisearch"
        (found,) = whole["choices"][0]["message"]["search_results"]
        assert set(found) == {"index", "url", "name", "snippet", "icon", "site", "published_time"}
        streamed = await ask(twin, {**body, "stream": True}, PATHS[LKEAP])
        deltas = [event["choices"][0]["delta"] for event in streamed.events[:-1]]
        assert [delta["search_results"] for delta in deltas if "search_results" in delta] == [[found]]

    play(act, LKEAP)


def test_a_hundred_at_once() -> None:
    """LKEAP's own number and code for one too many."""

    async def act(twin: Twin) -> None:
        async with opened(twin, _chat(LKEAP, stream=True), PATHS[LKEAP]):
            await twin.until(lambda: twin.served)
            got = await ask(twin, _chat(LKEAP), PATHS[LKEAP])
            assert (got.status, got.error["code"]) == (429, "20034")

    play(act, LKEAP, concurrency=1, faults=[{"stall_after": 1, "times": 1}])


def test_new_api_tells_its_money() -> None:
    """Three addresses agree: granted less used is left, in their units."""

    async def act(twin: Twin) -> None:
        await ask(twin, _chat(NEW, messages=[{"role": "user", "content": "word " * 9000}]), PATHS[NEW])
        granted = (await ask(twin, None, "/v1/dashboard/billing/subscription")).json["hard_limit_usd"]
        used = (await ask(twin, None, "/dashboard/billing/usage?start_date=2026-01-01")).json["total_usage"]
        raw = (await ask(twin, None, "/api/usage/token")).json["data"]
        assert used > 0
        assert granted == 1000
        assert abs(raw["total_used"] / 500_000 - used / 100) < 1e-5
        assert raw["total_available"] + raw["total_used"] == raw["total_granted"]
        wrong = await ask(twin, None, "/v1/dashboard/billing/usage", key="sk-wrong.1")
        assert (wrong.status, wrong.json["error"]["type"]) == (200, "new_api_error")
        missing = await ask(twin, None, "/v1/models/nope")
        assert (missing.status, missing.json["error"]["code"]) == (200, "model_not_found")
        listed = (await ask(twin, None, "/v1/models")).json
        assert listed["success"] is True
        assert listed["data"][0]["created"] == 1626777600

    play(act, NEW)


# Moonpool before each.


def _before(home: Path, provider: str, act: Callable[[Stage, Twin], Awaitable[None]], **options: Any) -> Path:
    async def run() -> Path:
        async with Twin(provider, **options) as twin:
            row = {"base_url": twin.base_url, "dialect": provider, "api_key": "sk-pool.1"}
            name = "deepseek-r1" if provider == LKEAP else THINKER[provider]
            served = [{"name": "twin", "model": THINKER[provider]}]
            async with stage(home, rows={"twin": row}, model_name=name, model={"hosts": served}) as here:
                await act(here, twin)
            assert twin.faults_of_ours == []
        return here.path

    return uvloop.run(run())


@pytest.mark.parametrize("provider", list(PATHS))
@pytest.mark.parametrize("stream", [True, False])
def test_moonpool_reads_each(tmp_path: Path, provider: str, stream: bool) -> None:
    """Thinking and answer arrive under the name that was asked for; both sides count the same tokens."""
    counted: list[Any] = []

    async def act(here: Stage, twin: Twin) -> None:
        name = "deepseek-r1" if provider == LKEAP else THINKER[provider]
        got = await here.ask({"model": name, "messages": [USER], "stream": stream})
        assert got.status == 200
        if stream:
            assert (got.failure, bool(got.text), bool(thought(got))) == (None, True, True)
            assert got.events[0]["model"] == name
        else:
            assert got.json["model"] == name
            assert got.json["choices"][0]["message"]["reasoning_content"]
        counted.append(twin.served[0])

    path = _before(tmp_path, provider, act)
    record, usage = only(path), counted[0].usage
    assert (record.prompt, record.completion) == (usage.prompt_miss + usage.prompt_hit, usage.completion)
    assert not record.estimated


@pytest.mark.parametrize("provider", list(PATHS))
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("account.no_quota", 502),
        ("account.invalid_key", 502),
        ("account.concurrency", 503),
        ("platform.overloaded", 503),
        ("platform.fault", 502),
        ("caller.too_long", 400),
        ("upstream.content_risk", 400),
    ],
)
def test_moonpool_understands_what_each_refuses(tmp_path: Path, provider: str, code: str, status: int) -> None:
    """A problem that a flavour has written is the same problem when that flavour has read it: dialects go both ways."""

    async def act(here: Stage, twin: Twin) -> None:
        name = "deepseek-r1" if provider == LKEAP else THINKER[provider]
        got = await here.ask({"model": name, "messages": [USER]})
        assert got.status == status, got

    _before(tmp_path, provider, act, faults=[{"problem": code}])


def test_vllm_is_an_engine() -> None:
    """No key, its own field for the thinking, which is off unless the template is told; usage where asked; code 404."""
    body = {"model": "deepseek-v3.2", "messages": [USER]}
    path = "/v1/chat/completions"

    async def act(twin: Twin) -> None:
        plain = (await ask(twin, body, path, key="")).json
        assert "reasoning" not in plain["choices"][0]["message"]
        thinks = {**body, "chat_template_kwargs": {"thinking": True}}
        whole = (await ask(twin, thinks, path, key="")).json["choices"][0]
        assert whole["message"]["reasoning"]
        assert "reasoning_content" not in whole["message"]
        assert whole["stop_reason"] is None
        streamed = await ask(twin, {**thinks, "stream": True}, path)
        assert all("usage" not in event for event in streamed.events[:-1])
        asked = await ask(twin, {**thinks, "stream": True, "stream_options": {"include_usage": True}}, path)
        assert asked.events[-2]["choices"] == []
        assert set(asked.events[-2]["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
        missing = await ask(twin, {**body, "model": "nope"}, path)
        assert (missing.status, missing.json["error"]["code"]) == (404, 404)
        wrong = await ask(twin, body, path, key="sk-wrong")
        assert (wrong.status, wrong.json) == (401, {"error": "Unauthorized"})
        text = plain["choices"][0]["message"]["content"]
        last = {"role": "assistant", "content": text[:9]}
        goes_on = {**body, "messages": [USER, last], "continue_final_message": True, "add_generation_prompt": False}
        rest = (await ask(twin, goes_on, path)).json["choices"][0]["message"]["content"]
        assert text[:9] + rest == text
        assert (await ask(twin, None, "/health", key="")).status == 200
        assert (await ask(twin, {**body, "model": "mine"}, path)).json["model"] == "mine"

    play(act, "vllm", names=["mine"])


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_moonpool_switches_an_engine(tmp_path: Path, thinks: bool, stream: bool) -> None:
    """The switch goes where the engine looks for it, its spelling of the thinking comes back in ours."""

    async def run() -> None:
        async with Twin("vllm", names=["mine"]) as twin:
            row = {"base_url": twin.base_url, "dialect": "vllm"}
            async with stage(
                tmp_path, rows={"twin": row}, model_name="mine", model={"thinking": "default_off"}
            ) as here:
                kind = {"type": "enabled" if thinks else "disabled"}
                got = await here.ask({"model": "mine", "messages": [USER], "stream": stream, "thinking": kind})
                assert got.status == 200
                message = got.json["choices"][0]["message"] if not stream else {"reasoning_content": thought(got)}
                assert bool(message.get("reasoning_content")) == thinks
                (served,) = twin.served
                assert (served.usage.reasoning > 0) == thinks
            assert twin.faults_of_ours == []

    uvloop.run(run())
