"""One freshly started server for all journeys. Test processes that run side by side share it: the first one starts
it, the last one to finish ends it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import openai
import pytest

from journeys.server import Server, end, locked, start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shared server; `users` in its note counts the test processes that hold it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    note, lock = shared / "journeys.json", shared / "journeys.lock"
    with locked(lock):
        if note.exists():
            about = json.loads(note.read_text())
        else:
            folder = tmp_path_factory.mktemp("journeys")
            about = start(folder / "home")
        about["users"] += 1
        note.write_text(json.dumps(about))
    yield Server(about["root"], about["key"], about["home"])
    with locked(lock):
        about = json.loads(note.read_text())
        about["users"] -= 1
        if about["users"]:
            note.write_text(json.dumps(about))
        else:
            note.unlink()
            end(about["pid"], about["root"])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever the machine's environment says."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The SDK at the default address."""
    with server.client() as made:
        yield made
