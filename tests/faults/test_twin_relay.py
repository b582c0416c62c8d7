"""A whole Moonpool whose hosts are twins: what one side says of a request, the other side knows as well."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import Stage, only, records, stage
from faults.twins import thought
from moonpool.settings import Streams
from moonpool.twin import Twin

FLASH = "deepseek-flash"
USER = {"role": "user", "content": "Hi"}


def _play(
    home: Path, act: Callable[[Stage, list[Twin]], Awaitable[Any]], *scripts: Any, streams: Streams | None = None
) -> Path:
    """Moonpool before as many twins as there are scripts, in that order of preference."""

    async def run() -> Path:
        async with contextlib.AsyncExitStack() as stack:
            twins = [await stack.enter_async_context(Twin("deepseek", faults=script)) for script in scripts]
            hosts = {
                f"twin{at}": {"base_url": twin.base_url, "dialect": "deepseek", "api_key": f"sk-pool.{at}"}
                for at, twin in enumerate(twins)
            }
            async with stage(home, model_name=FLASH, rows=hosts, streams=streams) as here:
                await act(here, twins)
            for twin in twins:
                assert twin.faults_of_ours == []
        return here.path

    return uvloop.run(run())


def _chat(**more: Any) -> dict[str, Any]:
    return {"model": FLASH, "messages": [USER], **more}


@pytest.mark.parametrize("stream", [True, False])
def test_both_sides_count_alike(tmp_path: Path, stream: bool) -> None:
    """What the client paid for is what the twin says it was: tokens to the last one."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        got = await here.ask(_chat(stream=stream))
        assert got.status == 200
        (served,) = twins[0].served
        assert (served.ended, served.path, served.account) == ("whole", "/chat/completions", "sk-pool")
        counted.append(served)

    counted: list[Any] = []
    path = _play(tmp_path, act, None)
    record, usage = only(path), counted[0].usage
    assert (record.kind, record.estimated) == ("posted", False)
    assert (record.prompt, record.completion) == (usage.prompt_miss + usage.prompt_hit, usage.completion)


def test_beta_is_found(tmp_path: Path) -> None:
    """A prefix and a middle go to the paths where a strict provider takes them."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        prefix = [USER, {"role": "assistant", "content": "Hel", "prefix": True}]
        assert (await here.ask(_chat(messages=prefix), path="/beta/chat/completions")).status == 200
        assert (await here.ask({"model": FLASH, "prompt": "def f():"}, path="/beta/completions")).status == 200
        assert [served.path for served in twins[0].served] == ["/beta/chat/completions", "/beta/completions"]

    _play(tmp_path, act, None)


@pytest.mark.parametrize(
    "fault",
    [
        {"refuse": "reset"},
        {"refuse": "busy"},
        {"problem": "account.no_quota"},
        {"problem": "account.invalid_key"},
        {"rate_limit": "-1"},
        {"html": True},
        {"error_after": 0},
        {"cut_after": 0},
        {"reset_after_bytes": 10},
        {"garbage_after": 0},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_failure_before_the_first_word_is_the_next_twins(tmp_path: Path, fault: dict[str, Any]) -> None:
    """The client reads a whole answer; one request failed at the first twin, one was served by the second."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        got = await here.ask(_chat(stream=True))
        assert got.status == 200
        assert got.failure is None
        assert got.text
        first, second = (twin.served for twin in twins)
        assert [served.fault for served in first] == [list(fault)]
        assert [served.ended for served in second] == ["whole"]

    path = _play(tmp_path, act, [fault], None)
    assert (only(path).kind, only(path).attempts, only(path).host) == ("posted", 2, "twin1")


@pytest.mark.parametrize("after", [2, 5, 11, 19, 20, 21, 22, 30, 40])
@pytest.mark.parametrize("how", ["cut_after", "end_after", "error_after"])
def test_a_stream_that_breaks_off_is_gone_on_with(tmp_path: Path, after: int, how: str) -> None:
    """One twin stops in the thinking or in the answer; what the client reads is the text of an uncut stream."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        cut = await here.ask(_chat(stream=True))
        first, second = [served for twin in twins for served in twin.served]
        assert (first.fault, second.fault) == ([how], [])
        assert second.path == "/beta/chat/completions"
        places.append(second.asked["prefix"])
        whole = await here.ask(_chat(stream=True))
        assert cut.failure is None
        assert (thought(cut), cut.text) == (thought(whole), whole.text)

    places: list[str] = []
    _play(tmp_path, act, [{"request": 1, how: after}], None, streams=Streams(continuation="same"))
    assert places == ["thinking" if after <= 20 else "answer"]


def test_a_refusal_of_the_request_is_the_clients(tmp_path: Path) -> None:
    """What a strict provider refuses for its content goes to no other, and the client reads its sentence."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        got = await here.ask(_chat())
        assert (got.status, got.error["message"]) == (400, "Content Exists Risk")
        assert twins[1].served == []

    _play(tmp_path, act, [{"problem": "upstream.content_risk"}], None)


def test_a_wrong_usage_is_not_believed(tmp_path: Path) -> None:
    """Numbers that cannot be right are counted again, and marked so."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        for _ in range(3):
            assert (await here.ask(_chat(stream=True))).failure is None

    path = _play(
        tmp_path, act, [{"request": at + 1, "usage": how} for at, how in enumerate(("negative", "huge", "missing"))]
    )
    assert [record.estimated for record in records(path)] == [True] * 3


def test_a_client_that_goes_frees_the_host(tmp_path: Path) -> None:
    """The twin sees the connection closed at once, though it had not said all."""

    async def act(here: Stage, twins: list[Twin]) -> None:
        client = await here.open(_chat(stream=True))
        await client.until(b"data: ", 3)
        client.reset()
        await twins[0].until(lambda: twins[0].served[0].ended)
        assert twins[0].served[0].ended == "gone"

    _play(tmp_path, act, [{"stall_after": 4}])


def test_what_a_client_gets_wrong_is_mended_before_it_reaches_a_strict_provider(tmp_path: Path) -> None:
    """The role `developer`, an effort without thinking, a forced tool: refused by the twin, taken through us."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    bodies = [
        _chat(messages=[{"role": "developer", "content": "x"}, USER]),
        _chat(thinking={"type": "disabled"}, reasoning_effort="high"),
        _chat(tools=[tool], tool_choice="required"),
        _chat(max_completion_tokens=5),
    ]

    async def act(here: Stage, twins: list[Twin]) -> None:
        for body in bodies:
            got = await here.ask(body)
            assert got.status == 200, got
            assert got.fields["x-moonpool-adjusted"]
        assert all(served.status == 200 for served in twins[0].served)
        last = json.loads(got.body)
        assert last["choices"][0]["finish_reason"] == "length"

    _play(tmp_path, act, None)


def test_reasoning_that_a_client_forgot_reaches_a_strict_provider(tmp_path: Path) -> None:
    """A loop with tools whose program drops the thinking: refused by the twin alone, true to the letter through us."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}

    async def run() -> None:
        async with Twin("deepseek", log_content=True) as twin:
            row = {"base_url": twin.base_url, "dialect": "deepseek", "api_key": "sk-pool.1"}
            async with stage(tmp_path, model_name=FLASH, rows={"twin": row}) as here:
                first = (await here.ask(_chat(tools=[tool]))).json["choices"][0]["message"]
                thinking = first.pop("reasoning_content")
                result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "ok"}
                got = await here.ask(_chat(tools=[tool], messages=[USER, first, result]))
                assert got.status == 200, got
            assert twin.served[-1].status == 200
            assert twin.served[-1].content["messages"][1]["reasoning_content"] == thinking

    uvloop.run(run())
