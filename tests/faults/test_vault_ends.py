"""Which answers are remembered, and what a vault that fails costs a request: nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from conformance.backends import run
from faults.disk import Disk
from faults.stage import DONE, ROLE, Stage, chat, event, stage, streamed
from faults.upstream import Step, close
from moonpool.app import App
from moonpool.settings import Vault

_TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
_THINKS = {"thinking": "default_on", "replay": "keep", "can": ["tools", "thinking", "n"]}
_CALL = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def _thought(text: str = "hm") -> bytes:
    return event({"content": None, "reasoning_content": text})


def _end(reason: str) -> list[bytes]:
    return [event({"content": ""}, finish=reason), DONE]


_ANSWERS: dict[str, tuple[list[Step], int]] = {
    "stop": (streamed(_thought(), event({"content": "x"}), *_end("stop")), 1),
    "calls": (streamed(_thought(), event(_CALL), *_end("tool_calls")), 1),
    "empty thinking": (
        streamed(event({"content": None, "reasoning_content": ""}), event(_CALL), *_end("tool_calls")),
        1,
    ),
    "cut short in the answer": (streamed(_thought(), event({"content": "x"}), *_end("length")), 1),
    "cut short in the thinking": (streamed(_thought(), *_end("length")), 0),
    "cut short in a call": (streamed(_thought(), event(_CALL), *_end("length")), 0),
    "nothing said": (streamed(_thought(), *_end("stop")), 0),
    "no thinking": (streamed(ROLE, event({"content": "x"}), *_end("stop")), 0),
    "refused": (streamed(_thought(), event({"content": "x"}), *_end("content_filter")), 0),
    "broken off": ([*streamed(_thought(), event({"content": "x"}), end=False), close], 0),
}


async def _kept(here: Stage) -> int:
    vault = here.app.store.vault
    assert vault is not None
    await vault.written()
    return vault.rows


@pytest.mark.parametrize("name", _ANSWERS)
def test_what_is_remembered(name: str, tmp_path: Path) -> None:
    """Answers that ended well, or were cut short in what they said; nothing of the others."""
    steps, kept = _ANSWERS[name]

    async def walk() -> None:
        async with stage(tmp_path, lambda _: steps, model=_THINKS) as here:
            await here.ask(chat(tools=_TOOLS))
            assert await _kept(here) == kept

    run(walk())


@pytest.mark.parametrize("asked, model, vault, kept", [
    ({"tools": _TOOLS, "tool_choice": "none"}, {}, {}, 1),
    ({}, {}, {}, 0),
    ({}, {}, {"remember": "always"}, 1),
    ({"tools": _TOOLS, "n": 2}, {}, {}, 0),
    ({"tools": _TOOLS, "thinking": {"type": "disabled"}}, {}, {}, 0),
    ({"tools": _TOOLS}, {"replay": "drop"}, {}, 0),
    ({"tools": _TOOLS}, {"hosts": [{"name": "host0", "replay": "strip"}]}, {}, 0),
    ({"tools": _TOOLS}, {"hosts": [{"name": "host0", "replay": "fill"}]}, {}, 1),
    ({"tools": _TOOLS}, {}, {"account_bytes_max": 0}, 0),
])  # fmt: skip
def test_for_whom(
    asked: dict[str, Any], model: dict[str, Any], vault: dict[str, Any], kept: int, tmp_path: Path
) -> None:
    """Of requests with tools, whatever the choice, to models that think and whose hosts take reasoning back."""
    more = {"cannot": []} if "n" in asked else {}

    async def walk() -> None:
        async with stage(
            tmp_path, lambda _: _ANSWERS["stop"][0], model=_THINKS | model, host=more, vault=Vault(**vault)
        ) as here:
            answer = await here.ask(chat(**asked))
            assert answer.status == 200
            assert await _kept(here) == kept

    run(walk())


def test_a_vault_that_fails(tmp_path: Path) -> None:
    """Neither a write nor a look-up that fails is any matter of the request's: it is answered and booked."""
    disk = Disk()
    disk.fail = lambda text: sqlite3.OperationalError("disk I/O error") if "thought" in text else None

    def failing(app: App) -> None:
        thread = app.store._thread
        thread.submit(lambda database: _swap(database, str(app.store._path), disk), lambda *_: None)

    async def walk() -> None:
        async with stage(tmp_path, lambda _: _ANSWERS["calls"][0], model=_THINKS) as here:
            await here.ask(chat(tools=_TOOLS))
            assert await _kept(here) == 1
            await here.quiet()
        async with stage(tmp_path, lambda _: _ANSWERS["calls"][0], model=_THINKS, prepare=failing) as here:
            lost = [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "", "tool_calls": _CALL["tool_calls"]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
            ]
            answer = await here.ask({**chat(tools=_TOOLS), "messages": lost})
            assert (answer.status, answer.failure) == (200, None)
            assert "x-moonpool-adjusted" not in answer.fields
            assert any("thought_marks" in text for text in asked)
            await _kept(here)
            assert here.app.store.vault is not None
            assert here.app.store.vault.lost == 1

    asked: list[str] = []
    fail = disk.fail
    disk.fail = lambda text: (asked.append(text), fail(text))[1]
    run(walk())


def _swap(database: Any, path: str, disk: Disk) -> None:
    """From now on this connection goes through the disk that fails."""
    database.connection = sqlite3.connect(path, isolation_level=None, factory=disk.connection_class)
    database.cursor.close()
    database.cursor = database.connection.cursor()
