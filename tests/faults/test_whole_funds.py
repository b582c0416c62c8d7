"""Who has no funds, asked of a whole server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import uvloop

from faults.stage import good, records, stage
from moonpool.words import Account, Key


def test_without_funds_nothing_is_asked_of_a_host(tmp_path: Path) -> None:
    """CONTRACT 5: 402, 20031, `not enough quota`, for an account that must pay first; before any dispatch, and no
    hold is left."""

    async def run() -> Path:
        async with stage(tmp_path, good) as here:
            keys = here.app.store.keys
            await keys.save_account(Account("poor", "poor", False, 100))
            await keys.create(Key("poor", "poor", "poor", 0.0), hashlib.sha256(b"key-of-the-poor").digest())
            got = await here.ask(key="key-of-the-poor")
            assert got.status == 402
            assert got.error == {
                "message": "not enough quota",
                "type": "runtime_error",
                "param": None,
                "code": "20031",
            }
            assert here.host.requests == []
            assert (await here.ask()).status == 200
            return here.path

    assert [record.kind for record in records(uvloop.run(run()))] == ["posted"]
