"""A whole server whose admin API is asked: by function, and over its port with tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from moonpool.app import App
from moonpool.relay.platform import Platform
from moonpool.settings import load
from moonpool.web import admin

CONFIG = (
    '[embedded]\nenabled = false\n[hosts.far]\nbase_url = "http://127.0.0.1:1/v1"\n[models.tiny]\nhosts = ["far"]\n'
)


def on_app(folder: Path, run: Callable[[App], Awaitable[Any]], config: str = "", **environ: str) -> Any:
    """What `run` answers, given an app that listens on a free port."""
    (folder / "moonpool.toml").write_text(CONFIG + config)
    settings = load(folder / "moonpool.toml", environ, {"home": str(folder), "port": 0})

    async def live() -> Any:
        app = App(settings, environ)
        await app.start()
        try:
            return await run(app)
        finally:
            await app.stop()

    return asyncio.run(live())


def on_platform(folder: Path, run: Callable[[Platform], Awaitable[Any]]) -> Any:
    """As `on_app`, given its platform."""
    return on_app(folder, lambda app: run(app.platform))


class Answer(Struct):
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def page(self) -> Any:
        return json.loads(self.body)


async def call(
    port: int, method: str, path: str, body: object = None, token: str = "", fields: Mapping[str, str] | None = None
) -> Answer:
    """One request over a connection of its own; `body` is JSON unless it is bytes."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"host": "localhost", "connection": "close", "content-length": str(len(data)), **(fields or {})}
    if token:
        head["authorization"] = f"Bearer {token}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    first, _, rest = raw.partition(b"\r\n\r\n")
    status, *named = first.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in named)
    return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, rest)


async def ask(platform: Any, method: str, path: str, body: object = None, query: str = "") -> Any:
    """The page of an admin route, asked as who has the socket."""
    data = b"" if body is None else json.dumps(body).encode()
    return (await admin.handle(platform, method, path, query, data))[1]


async def token_of(platform: Any, user: str, operator: bool = False, **roles: str) -> str:
    """A new user with these roles by name of account, and a token."""
    made = await ask(platform, "POST", "/users", {"name": user, "operator": operator})
    for account, role in roles.items():
        await ask(platform, "PUT", f"/users/{made['id']}/roles/{account}", {"role": role})
    return str((await ask(platform, "POST", "/tokens", {"user": made["id"]}))["token"])
