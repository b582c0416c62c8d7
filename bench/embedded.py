"""How fast is the embedded model through our server, compared with llama.cpp's own server on the same prompts?

    python bench/embedded.py [--rounds 5] [--tokens 64] [--threads 2] [--seconds 120]

Starts both by itself, on the same weights with the same settings: ours is `moonpool serve` with a fresh home; theirs is
the child process alone (`moonpool.transports.llama_child`, llama.cpp's server and nothing else), asked directly. Both
are asked `POST …/v1/chat/completions`, streamed, in turn, round by round, so that both meet the same machine; while one
is asked the other one waits. No prompt is asked of a server twice. A round's measure is tokens (as `usage` counts them)
per second of wall time, of one request alone and of four at once, and the time to the first token of one alone.

Printed: the medians and the ratio ours to theirs. Whatever happens, it is over after `--seconds` and the two starts.
Exit code 1 if a ratio is below the goal of 0.9.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from moonpool.catalog import weights_rows
from moonpool.transports import llama_child
from moonpool.transports.weights import pull

GOAL = 0.9
AT_ONCE = (1, 4)
PARALLEL = 4
CONTEXT = 2048
START_S = 60.0
PROMPTS = (
    "Write a short story about a lighthouse.",
    "Explain how rain is made.",
    "用三段话介绍杭州。",
    "Write a Python program that sorts a list, and explain it.",
)


class Server(NamedTuple):
    name: str
    port: int
    key: str


class Told(NamedTuple):
    """One answer: tokens that were generated, seconds to the first piece of text."""

    tokens: int
    first_s: float


def weights() -> Path:
    """The file tests use too, fetched once per machine."""
    folder = os.environ.get("MOONPOOL_WEIGHTS") or "~/.cache/moonpool/weights"
    return pull(weights_rows()[0], Path(folder).expanduser())


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@contextmanager
def theirs(model: Path, folder: Path, threads: int) -> Iterator[Server]:
    """llama.cpp's own server, as our server runs it, alone."""
    key = secrets.token_hex(16)
    wanted = llama_child.Settings(str(model), key, os.getpid(), CONTEXT, PARALLEL, threads)
    with (folder / "theirs.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", llama_child.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    watch = threading.Timer(START_S, process.kill)
    watch.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(wanted) + b"\n")
        process.stdin.flush()
        report = process.stdout.readline()
        watch.cancel()
        if not report:
            raise SystemExit("llama.cpp's server did not start:\n" + (folder / "theirs.log").read_text()[-2000:])
        yield Server("theirs", json.loads(report)["port"], key)
    finally:
        watch.cancel()
        end(process)


@contextmanager
def ours(model: Path, folder: Path, threads: int) -> Iterator[Server]:
    """`moonpool serve` with a fresh home, as an operator starts it."""
    config, said = folder / "moonpool.toml", folder / "ours.log"
    config.write_text(f"[embedded]\nthreads = {threads}\nparallel = {PARALLEL}\ncontext = {CONTEXT}\n")
    command = [str(Path(sys.executable).with_name("moonpool")), "serve", "--port", "0", "--model", str(model)]
    command += ["--home", str(folder / "home"), "--config", str(config)]
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_S
        while time.monotonic() < until and process.poll() is None:
            text = said.read_text(errors="replace")
            address = re.search(r"^\s*Base URL\s+http://[^/\s]+:(\d+)/", text, re.MULTILINE)
            key = re.search(r"^\s*API key\s+(\S+)", text, re.MULTILINE)
            if address and key:
                yield Server("ours", int(address[1]), key[1])
                return
            time.sleep(0.1)
        raise SystemExit("moonpool did not start:\n" + said.read_text(errors="replace")[-2000:])
    finally:
        end(process)


def ask(to: Server, prompt: str, tokens: int, until: float) -> Told:
    """One streamed answer, read to its end."""
    left_s = max(1.0, until - time.monotonic())
    connection = http.client.HTTPConnection("127.0.0.1", to.port, timeout=left_s)
    body = {
        "model": "deepseek-chat",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {to.key}"}
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{to.name}: {answer.status} {answer.read()[:300]!r}")
    usage: dict[str, Any] = {}
    first_s = 0.0
    for line in answer:
        if time.monotonic() > until:
            raise TimeoutError("this machine is too slow for that many tokens: --tokens, --seconds")
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        usage = chunk.get("usage") or usage
        if not first_s and any(choice["delta"].get("content") for choice in chunk.get("choices") or ()):
            first_s = time.perf_counter() - began
    connection.close()
    return Told(int(usage["completion_tokens"]), first_s)


def speed(to: Server, prompts: list[str], tokens: int, until: float) -> tuple[float, float]:
    """Tokens per second of requests that run together, and the mean of their seconds to the first token."""
    told: list[Told] = []
    failures: list[str] = []

    def one(prompt: str) -> None:
        try:
            told.append(ask(to, prompt, tokens, until))
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{to.name}: {len(failures)} of {len(prompts)} answers did not come: {failures[0]}")
    took_s = time.perf_counter() - began
    return sum(answer.tokens for answer in told) / took_s, statistics.mean(answer.first_s for answer in told)


def measure(both: list[Server], at_once: int, rounds: int, tokens: int, until: float) -> dict[str, list[Any]]:
    """By name, a (tokens/s, first token s) per round; as many whole rounds as there is time for, one at least."""
    measured: dict[str, list[Any]] = {to.name: [] for to in both}
    took_s = 0.0
    for turn in range(-1, rounds):
        began = time.monotonic()
        if turn > 0 and began + took_s > until:
            break
        prompts = [f"{prompt} ({at_once}.{turn + 1})" for prompt in PROMPTS[turn % 4 :] + PROMPTS[: turn % 4]]
        for to in both if turn % 2 else both[::-1]:
            result = speed(to, prompts[:at_once], tokens, until + START_S)
            if turn >= 0:  # the round before the first warms up
                measured[to.name].append(result)
        took_s = time.monotonic() - began
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="at most so many, of each kind (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="that compute, in either server (%(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="for all that is measured (%(default)s)")
    given = parser.parse_args()
    model = weights()
    print(f"{model.name}, {given.threads} threads, {given.tokens} tokens an answer, load {os.getloadavg()[0]:.1f}")
    print("requests  rounds  ours, tokens/s  theirs, tokens/s  ratio  first token: ours, s  theirs, s")
    worst = float("inf")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both = [stack.enter_context(start(model, folder, given.threads)) for start in (ours, theirs)]
        began = time.monotonic()
        for place, at_once in enumerate(AT_ONCE, 1):
            until = began + given.seconds * place / len(AT_ONCE)
            measured = measure(both, at_once, given.rounds, given.tokens, until)
            (own, own_s), (other, other_s) = (
                [statistics.median(one[what] for one in measured[to.name]) for what in (0, 1)] for to in both
            )
            rounds = len(measured["ours"])
            speeds = f"{own:14.1f}  {other:16.1f}  {own / other:5.2f}"
            print(f"{at_once:8}  {rounds:6}  {speeds}  {own_s:20.2f}  {other_s:9.2f}", flush=True)
            worst = min(worst, own / other)
    print(f"goal of {GOAL}: {'met' if worst >= GOAL else 'MISSED'}")
    return 0 if worst >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
