"""Conversations with tools whose client loses the thinking, through the official SDK, before a host that demands it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from conformance.backends import run
from faults.stage import KEY, MODEL, Stage, stage
from faults.strict import TURNS, Strict, accepts
from moonpool.ledger.money import bound
from moonpool.settings import Vault
from moonpool.words import Account, Key

_QUESTION = "Which coat for 杭州 or Oslo?"
_TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "coat")
]
_THINKS = {"thinking": "default_on", "replay": "keep", "can": ["tools", "thinking", "prefix", "json_object"]}
_OTHER_KEY = "key-of-another-account"


@dataclass
class Platform:
    """A Moonpool before the strict host, and what reached the host."""

    stage: Stage
    strict: Strict

    def client(self, key: str = KEY) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key=key, base_url=f"http://127.0.0.1:{self.stage.app.port}/v1", max_retries=0)


@contextlib.asynccontextmanager
async def platform(home: Path, strict: Strict | None = None, **model: Any) -> AsyncIterator[Platform]:
    """The host is scripted here, in one line: whatever speaks as strictly may stand in its place."""
    strict = strict or Strict()
    async with stage(home, strict, model={**_THINKS, **model}) as here:
        await here.app.store.keys.save_account(Account("other", "other", True))
        digest = hashlib.sha256(_OTHER_KEY.encode()).digest()
        if await here.app.store.keys.find(digest) is None:
            await here.app.store.keys.create(Key("other_key___", "other", "other", 0.0), digest)
        yield Platform(here, strict)


# What programs make of an answer: (content, calls as (id, name, arguments)) -> messages. None keeps the thinking.

Calls = list[tuple[str, str, str]]


def _called(calls: Calls, arguments: Callable[[str], str] = str) -> list[dict[str, Any]]:
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments(text)}}
        for call_id, name, text in calls
    ]


def _plain(content: str, calls: Calls) -> list[dict[str, Any]]:
    return [
        {"role": "assistant", "content": content, "tool_calls": _called(calls)},
        *({"role": "tool", "tool_call_id": call[0], "content": "cold"} for call in calls),
    ]


def _like_langchain(content: str, calls: Calls) -> list[dict[str, Any]]:
    """Arguments were read and written again, contents are null or lists."""
    return [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": content}] if content else None,
            "tool_calls": _called(calls, lambda text: json.dumps(json.loads(text))),
        },
        *({"role": "tool", "tool_call_id": call[0], "content": [{"type": "text", "text": "cold"}]} for call in calls),
    ]


def _like_vercel(content: str, calls: Calls) -> list[dict[str, Any]]:
    """Arguments as JavaScript writes them, an explicit null, results in the order in which they were ready."""

    def rewritten(text: str) -> str:
        value = json.loads(text, parse_float=lambda number: int(float(number)))
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    return [
        {
            "role": "assistant",
            "content": content or "",
            "reasoning_content": None,
            "tool_calls": _called(calls, rewritten),
        },
        *({"role": "tool", "tool_call_id": call[0], "content": "cold"} for call in reversed(calls)),
    ]


def _renumbered(content: str, calls: Calls) -> list[dict[str, Any]]:
    """Ids of the program's own."""
    return _plain(content, [(f"own-{at}-{name}", name, text) for at, (_, name, text) in enumerate(calls)])


def _blank(content: str, calls: Calls) -> list[dict[str, Any]]:
    """A blank in place of the thinking."""
    first, *rest = _plain(content, calls)
    return [{**first, "reasoning_content": " "}, *rest]


_SHAPES = [_plain, _like_langchain, _like_vercel, _renumbered, _blank]


async def _ask(client: openai.AsyncOpenAI, messages: list[Any], stream: bool, **more: Any) -> tuple[str, Calls, str]:
    """Content, calls and thinking of an answer, as the SDK reads them."""
    asked: dict[str, Any] = {"model": MODEL, "messages": messages, "tools": _TOOLS, **more}
    if not stream:
        message = (await client.chat.completions.create(**asked)).choices[0].message
        whole: Any = message.tool_calls or ()
        thought = message.model_extra["reasoning_content"] if message.model_extra else ""
        return message.content or "", [(c.id, c.function.name, c.function.arguments) for c in whole], thought
    content, thought, calls = "", "", []
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                if call.id:
                    calls.append([call.id, call.function.name, ""])
                calls[call.index][2] += call.function.arguments or ""
    return content, [tuple(call) for call in calls], thought


async def _unknown(here: Platform, client: openai.AsyncOpenAI, messages: list[Any], **more: Any) -> None:
    """The thinking of these messages is not known: the host refuses them, or was given an empty text in its place."""
    before = len(here.stage.host.requests)
    with contextlib.suppress(openai.BadRequestError):
        await _ask(client, messages, True, **more)
        assert not any(_thoughts(here.strict.seen[-1]))
    assert len(here.stage.host.requests) > before
    assert all(TURNS[0][0].encode() not in each.body for each in here.stage.host.requests[before:])


def _thoughts(body: dict[str, Any]) -> list[Any]:
    return [message.get("reasoning_content") for message in body["messages"] if message["role"] == "assistant"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_a_loop_goes_on(shape: Callable[[str, Calls], list[Any]], stream: bool, tmp_path: Path) -> None:
    """Whatever the program makes of an answer, the strict host gets its true thinking back, turn after turn, also once
    the user speaks again."""

    async def walk() -> None:
        async with platform(tmp_path) as here, here.client() as client:
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            for thought, text, calls in TURNS:
                content, called, told = await _ask(client, messages, stream)
                assert (content, told, len(called)) == (text, thought, len(calls))
                messages += shape(content, called) if called else [{"role": "assistant", "content": content}]
            messages.append({"role": "user", "content": [{"type": "text", "text": "And for Rome?"}]})
            await _ask(client, messages, stream)
            true = [turn[0] for turn in TURNS]
            assert [_thoughts(body) for body in here.strict.seen] == [[], true[:1], true[:2], true]
            assert all(accepts(body) for body in here.strict.seen)
            ids = [call["id"] for call in here.strict.seen[-1]["messages"][1]["tool_calls"]]
            assert [message["tool_call_id"] for message in here.strict.seen[-1]["messages"][2:4]] == ids

    run(walk())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("shape", _SHAPES)
def test_a_restart_between(shape: Callable[[str, Calls], list[Any]], stream: bool, tmp_path: Path) -> None:
    """The same when the server was stopped and started between two turns."""

    async def walk() -> None:
        messages: list[Any] = [{"role": "user", "content": _QUESTION}]
        strict = Strict()
        for thought, _, _ in TURNS:
            async with platform(tmp_path, strict) as here, here.client() as client:
                content, called, told = await _ask(client, messages, stream)
                assert told == thought
                messages += shape(content, called) if called else []
        assert _thoughts(strict.seen[-1]) == [turn[0] for turn in TURNS[:2]]

    run(walk())


def test_the_hold_covers_it(tmp_path: Path) -> None:
    """What is put back is set aside for, byte by byte, as if the client had sent it."""

    async def walk() -> None:
        async with platform(tmp_path) as here, here.client() as client, here.client(_OTHER_KEY) as other:
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            content, called, _ = await _ask(client, messages, True)
            messages += _plain(content, called)
            await _unknown(here, other, messages)
            await _ask(client, messages, True)
        with sqlite3.connect(here.stage.path) as connection:
            _, without, covering = (
                amount for (amount,) in connection.execute("SELECT amount_pico FROM holds ORDER BY seq")
            )
        connection.close()
        price = here.stage.app.platform.catalogue.find(MODEL).price_at(time.time())
        assert covering - without == bound(len(TURNS[0][0].encode()), 0, price) - bound(0, 0, price) > 0

    run(walk())


def test_the_receipt(tmp_path: Path) -> None:
    """The answer's head names what was put back, sorted and renamed; what the client sends itself stays."""

    async def walk() -> None:
        async with platform(tmp_path) as here, here.client() as client:
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            content, called, _ = await _ask(client, messages, False)
            messages += _like_vercel(content, called)
            raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, tools=_TOOLS)
            assert raw.headers["x-moonpool-adjusted"] == (
                "messages[1].reasoning_content:restored, messages[2].tool_call_id:sorted"
            )
            messages[1]["reasoning"] = "the client's own, in another spelling"
            raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, tools=_TOOLS)
            assert raw.headers["x-moonpool-adjusted"].startswith("messages[1].reasoning->reasoning_content, ")
            assert _thoughts(here.strict.seen[-1]) == ["the client's own, in another spelling"]
            messages[1]["reasoning_content"] = "the client's own"
            await client.chat.completions.create(model=MODEL, messages=messages, tools=_TOOLS)
            assert _thoughts(here.strict.seen[-1]) == ["the client's own"]

    run(walk())


@pytest.mark.parametrize("restart", [False, True])
def test_never_for_another(restart: bool, tmp_path: Path) -> None:
    """Another account that sends the same messages with the same ids gets nothing of it, nor does another end user of
    the same account: the host refuses, and no word of the thinking left the vault."""
    strict = Strict()

    async def first() -> list[Any]:
        messages: list[Any] = [{"role": "user", "content": _QUESTION}]
        async with platform(tmp_path, strict) as here, here.client() as client:
            content, called, _ = await _ask(client, messages, True, extra_body={"user_id": "alice"})
            messages += _plain(content, called)
            if not restart:
                await others(here, messages)
        return messages

    async def others(here: Platform, messages: list[Any]) -> None:
        for key, user in ((_OTHER_KEY, "alice"), (_OTHER_KEY, ""), (KEY, "bob"), (KEY, "")):
            async with here.client(key) as client:
                await _unknown(here, client, messages, extra_body={"user_id": user})
        async with here.client() as client:
            await _ask(client, messages, True, extra_body={"user_id": "alice"})
        assert _thoughts(strict.seen[-1]) == [TURNS[0][0]]

    async def walk() -> None:
        messages = await first()
        if restart:
            async with platform(tmp_path, strict) as here:
                await others(here, messages)

    run(walk())


@pytest.mark.parametrize("name", [MODEL, "called-otherwise"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_ids_that_we_made(stream: bool, name: str, tmp_path: Path) -> None:
    """Where the host names no ids, those that the client was given find the thinking."""

    async def walk() -> None:
        served = [{"name": "host0", "model": name}]
        async with platform(tmp_path, Strict(ids=False), hosts=served) as here, here.client() as client:
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            _, called, _ = await _ask(client, messages, stream)
            assert all(call_id for call_id, _, _ in called)
            # The question and the content are others than they were: only the ids are left to find it by.
            messages = [{"role": "user", "content": "(shortened)"}, *_plain("(none)", called)]
            await _ask(client, messages, stream)
            assert _thoughts(here.strict.seen[-1]) == [TURNS[0][0]]

    run(walk())


def test_ids_that_name_nobody(tmp_path: Path) -> None:
    """Where a host counts ids from 0 in every answer, two conversations with the same calls are not mixed up: the
    visible turn finds each, and an id alone neither."""

    async def walk() -> None:
        async with platform(tmp_path, Strict(fixed=True)) as here, here.client() as client:
            for question in (_QUESTION, "And again?"):
                messages: list[Any] = [{"role": "user", "content": question}]
                content, called, _ = await _ask(client, messages, False)
                messages += _plain(content, called)
            await _ask(client, messages, False)
            assert _thoughts(here.strict.seen[-1]) == [TURNS[0][0]]
            await _unknown(here, client, [{"role": "user", "content": "(shortened)"}, *messages[1:]])

    run(walk())


def test_switched_off(tmp_path: Path) -> None:
    """A key with the switch remembers and restores nothing."""

    async def walk() -> None:
        async with platform(tmp_path) as here:
            off = await here.stage.key("key-without-vault", reasoning="off")
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            async with here.client(off) as client, here.client() as other:
                content, called, _ = await _ask(client, messages, False)
                messages += _plain(content, called)
                for each in (client, other):
                    await _unknown(here, each, messages)

    run(walk())


def test_without_thinking(tmp_path: Path) -> None:
    """A request that does not think is passed on as it came, though what was thought is known."""

    async def walk() -> None:
        async with platform(tmp_path) as here, here.client() as client:
            messages: list[Any] = [{"role": "user", "content": _QUESTION}]
            content, called, _ = await _ask(client, messages, False)
            messages += _like_vercel(content, called)
            await _ask(client, messages, False, extra_body={"thinking": {"type": "disabled"}})
            assert here.strict.seen[-1]["messages"] == messages

    run(walk())


_DETAILS = "<environment_details>\nopen files: none\n</environment_details>"


@pytest.mark.parametrize("said, switch, goes_in", [
    (_DETAILS, None, True),
    (_DETAILS, "off", False),
    ("Take the red one instead.", None, False),
    ("Take the red one instead.", "all", True),
])  # fmt: skip
def test_text_in_a_loop(said: str, switch: str | None, goes_in: bool, tmp_path: Path) -> None:
    """What a program says in the user's name behind a tool result goes into the result, now and in later turns; what a
    person may have said does not, unless the key says so."""

    async def walk() -> None:
        async with platform(tmp_path) as here:
            key = KEY if switch is None else await here.stage.key("key-with-a-switch", user_text=switch)
            async with here.client(key) as client:
                messages: list[Any] = [{"role": "user", "content": _QUESTION}]
                content, called, _ = await _ask(client, messages, False)
                messages += [*_plain(content, called), {"role": "user", "content": said}]
                content, called, _ = await _ask(client, messages, False)
                first = here.strict.seen[-1]["messages"]
                assert [message["role"] for message in first[3:]] == (["tool"] if goes_in else ["tool", "user"])
                assert first[3]["content"] == (f"cold\n\n{said}" if goes_in else "cold")
                messages += [*_plain(content, called), {"role": "user", "content": said}]
                await _ask(client, messages, False)
                assert here.strict.seen[-1]["messages"][: len(first)] == first

    run(walk())


def test_a_lost_key(tmp_path: Path) -> None:
    """When vault.key is lost the server starts and says so, and what it had is unknown."""

    async def walk() -> None:
        messages: list[Any] = [{"role": "user", "content": _QUESTION}]
        async with platform(tmp_path) as here, here.client() as client:
            content, called, _ = await _ask(client, messages, False)
            messages += _plain(content, called)
            path = here.stage.app.settings.vault_key_path()
            assert path.stat().st_mode & 0o777 == 0o600
        await asyncio.to_thread(path.unlink)
        async with platform(tmp_path) as here, here.client() as client:
            vault = here.stage.app.store.vault
            assert vault is not None
            assert vault.trouble
            await _unknown(here, client, messages)

    run(walk())


def test_not_enabled(tmp_path: Path) -> None:
    """With `vault.enabled = false` nothing is kept or put back; text of programs is still moved."""

    async def walk() -> None:
        async with stage(tmp_path, strict := Strict(), model=_THINKS, vault=Vault(enabled=False)) as here:
            async with Platform(here, strict).client() as client:
                messages: list[Any] = [{"role": "user", "content": _QUESTION}]
                content, called, _ = await _ask(client, messages, True)
                messages += _plain(content, called)
                await _unknown(Platform(here, strict), client, messages)
                messages[1]["reasoning_content"] = ""
                await _ask(client, [*messages, {"role": "user", "content": _DETAILS}], True)
                assert strict.seen[-1]["messages"][-1]["role"] == "tool"
            assert here.app.store.vault is None

    run(walk())
