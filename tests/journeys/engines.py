"""Engines of our own as hosts: real servers, started as processes of their own on free ports, and a `moonpool serve`
that has no embedded model and asks them.

`serving(…)` is for one test module: it starts both, and ends both.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from embedded import weights_path
from journeys import watch
from journeys.server import Server, end, start

KEY = "the-key-of-the-engine"
VLLM_START_S = 600.0


@contextmanager
def llama_server() -> Iterator[str]:
    """llama.cpp's own server with the model that tests have; gives where it is."""
    command = [sys.executable, "-m", "moonpool.transports.llama_child"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    watch.begin(process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    settings = {"model": str(weights_path()), "key": KEY, "parent": os.getpid(), "context": 2048}
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()  # its end, if it cannot load: an empty line
        assert line, "the engine did not start"
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def serving(folder: Path, base_url: str, host: dict[str, Any], models: dict[str, dict[str, Any]]) -> Iterator[Server]:
    """A server whose one host is the engine at `base_url`."""
    row = {"base_url": base_url, "api_key": KEY, **host}
    tables = [("embedded", {"enabled": False}), ("hosts.engine", row)]
    tables += [(f"models.{name}", model) for name, model in models.items()]
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items()) for name, table in tables
    )
    about = start(folder / "home", text)
    try:
        yield Server(about["root"], about["key"], about["home"])
    finally:
        end(about["pid"], about["root"])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(member)}" for key, member in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(member) for member in value) + "]"
    return json.dumps(value)


def vllm_command() -> str:
    """The `vllm` command to test with, "" if this machine has none: it is large, and nothing of ours needs it."""
    return os.environ.get("MOONPOOL_TEST_VLLM", "")


@contextmanager
def vllm_server(folder: Path) -> Iterator[str]:
    """vLLM with the model that tests have, on a free port; gives where it is."""
    command = Path(vllm_command())
    model = folder / "model"
    model.mkdir()
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    make = [str(command.with_name("python")), str(Path(__file__).with_name("engine_model.py"))]
    subprocess.run([*make, str(weights_path()), str(model)], env=offline, check=True, timeout=VLLM_START_S)
    port = _free_port()
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "served"]
    words += ["--max-model-len", "2048", "--enforce-eager", "--api-key", KEY, "--reasoning-parser", "deepseek_v3"]
    words += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    log = folder / "vllm.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(command), *words],
            env=offline,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    watch.begin(process.pid)
    try:
        until = time.monotonic() + VLLM_START_S
        while not _listens(port):
            assert time.monotonic() < until, "vLLM did not start in time"
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
                raise AssertionError(log.read_text(errors="replace")[-4000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
