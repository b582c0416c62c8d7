"""`moonpool serve` as a process of its own on a free port with a fresh home and the real embedded model.

What a journey needs to know is read from what `serve` prints, as a person reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from embedded import weights_path
from journeys import watch

ROOT = Path(__file__).resolve().parents[2]
MOONPOOL = Path(sys.executable).with_name("moonpool")
START_S = 90.0
CLIENT_S = 120.0
THINKING_TOKENS = 40

# The model of half a billion parameters thinks long if it may; journeys look at shapes, so it may think briefly.
CONFIG = f"""
[embedded]
thinking_budget_tokens = {THINKING_TOKENS}

# The same model without its own tools and JSON, which are then emulated: begun for it, and not.
[models.told-and-begun]
hosts = ["embedded"]
thinking = "never"
can = ["prefix"]
emulate = ["tools", "json_object"]

[models.told]
hosts = ["embedded"]
thinking = "never"
can = []
emulate = ["tools", "json_object"]
"""


class Server:
    """Where the server is and who we are there."""

    def __init__(self, root: str, key: str, home: str) -> None:
        self.root, self.key, self.home = root, key, Path(home)
        self.host = root.removeprefix("http://")

    def client(self, base: str = "/v1", **options: Any) -> openai.OpenAI:
        """The official SDK with nothing set but where and who."""
        return openai.OpenAI(
            base_url=self.root + base,
            api_key=options.pop("key", self.key),
            timeout=options.pop("timeout", CLIENT_S),
            **options,
        )

    def moonpool(self, *words: str) -> str:
        """What an operator's command prints."""
        done = subprocess.run(
            [str(MOONPOOL), *words, "--home", str(self.home)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def list_keys(self) -> list[dict[str, Any]]:
        """The keys an operator sees."""
        return list(json.loads(self.moonpool("keys", "list", "--json")))

    def new_key(self, **switches: str) -> str:
        """A key made as an operator makes one."""
        chosen = [f"--switch={name}={value}" for name, value in switches.items()]
        return str(json.loads(self.moonpool("keys", "create", "--name", "journey", "--json", *chosen))["key"])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pause(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment for the process to end; has it?"""
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return False
    return True


def _printed(output: Path, name: str) -> str | None:
    found = re.search(rf"^\s*{name}\s+(\S+)", output.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


_started: dict[int, subprocess.Popen[bytes]] = {}
"""By this test process; another one may end them."""


def start(home: Path, config_text: str = CONFIG) -> dict[str, Any]:
    """Start a server with this home, which is made, and this configuration beside it."""
    home.mkdir()
    output = home.parent / "serve.txt"
    config = home.parent / "moonpool.toml"
    config.write_text(config_text)
    command = [str(MOONPOOL), "serve", "--home", str(home), "--config", str(config), "--port", "0"]
    command += ["--model", str(weights_path())]
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    watch.begin(process.pid)
    until = time.monotonic() + START_S
    while time.monotonic() < until and not _pause(process):
        address, key = _printed(output, "Base URL"), _printed(output, "API key")
        if address and key:
            _started[process.pid] = process
            return {"root": address.removesuffix("/v1"), "key": key, "home": str(home), "pid": process.pid, "users": 0}
    process.kill()
    process.wait()
    raise AssertionError(f"`moonpool serve` did not say where it is:\n{output.read_text(errors='replace')[-4000:]}")


def end(pid: int, root: str) -> None:
    """Ask it to stop and wait until nobody listens any more; insist if it does not."""
    os.kill(pid, signal.SIGTERM)
    mine = _started.pop(pid, None)
    host, _, port = root.removeprefix("http://").partition(":")
    until = time.monotonic() + 45
    while time.monotonic() < until:
        if mine is not None:
            if _pause(mine):
                return
            continue
        try:
            with socket.create_connection((host, int(port)), 1) as probe:
                probe.settimeout(0.2)
                probe.recv(1)
        except TimeoutError:
            continue
        except OSError:
            return
    os.killpg(pid, signal.SIGKILL)
    raise AssertionError("the server did not stop")
