"""A host that calls the model otherwise: the client reads the name it asked for, and all else as the host wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from faults.stage import DONE, MODEL, ROLE, USAGE, chat, last, stage, streamed, whole_body, words
from faults.upstream import Step, answer

THEIRS = "vendor/their-name-0324"


def renamed(raw: bytes, name: str = THEIRS) -> bytes:
    """As this host writes it: its own name, and a member that nobody else knows."""
    assert raw.count(b'"' + MODEL.encode() + b'"') == 1
    return raw.replace(b'"' + MODEL.encode() + b'"', b'"' + name.encode() + b'","x_new":[1,2.50]')


@pytest.mark.parametrize("name", [THEIRS, f"{THEIRS}-aisearch"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_alias_keeps_what_only_the_host_knows(tmp_path: Path, stream: bool, name: str) -> None:
    """Unknown members survive, the numbers in them as they were written; the host is asked under its own name."""
    ours = MODEL + name.removeprefix(THEIRS)

    def host(request: Any) -> list[Step]:
        assert json.loads(request.body)["model"] == THEIRS
        if not stream:
            return [answer(renamed(whole_body(), name))]
        return streamed(*(renamed(piece, name) for piece in (ROLE, *words(3), last(USAGE))), DONE)

    async def run() -> None:
        async with stage(tmp_path, host, model={"hosts": [{"name": "host0", "model": THEIRS}]}) as here:
            client = await here.open(chat(stream))
            got = await client.rest()
            assert (got.status, got.complete) == (200, True)
            for value in got.events[:-1] if stream else [got.json]:
                assert (value["model"], value["x_new"]) == (ours, [1, 2.5])
            assert THEIRS.encode() not in got.body
            assert got.fields["x-moonpool-model"] == THEIRS

    uvloop.run(run())
