"""How fast is the embedded model through our server, compared with llama.cpp's own server on the same prompts?

    python bench/embedded.py OURS THEIRS

Each is `BASE_URL[,KEY[,MODEL]]`; both serve `POST {BASE_URL}/chat/completions`, streamed. The two are asked in turn,
round by round, so that both meet the same machine; a round's measure is tokens (as `usage` counts them) per second of
wall time, of one request alone and of four at once. Printed: the medians and the ratio ours to theirs, for each. Exit
code 1 if a ratio is below the goal of 0.9. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

GOAL = 0.9
PROMPTS = (
    "Write a short story about a lighthouse.",
    "Explain how rain is made.",
    "用三句话介绍杭州。",
    "Write a Python function that sorts a list.",
)


class Server(NamedTuple):
    base_url: str
    key: str
    model: str


def server(text: str) -> Server:
    base_url, key, model = [*text.split(","), "", ""][:3]
    return Server(base_url.rstrip("/"), key, model or "deepseek-chat")


def ask(to: Server, prompt: str, tokens: int) -> int:
    """One streamed answer, read to its end; the tokens that were generated."""
    url = urlsplit(to.base_url)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 80, timeout=600)
    body = {
        "model": to.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {to.key}"}
    connection.request("POST", f"{url.path}/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{to.base_url}: {answer.status} {answer.read()[:300]!r}")
    usage: dict[str, Any] = {}
    for line in answer:
        if line.startswith(b"data: {"):
            usage = json.loads(line[6:]).get("usage") or usage
    connection.close()
    return int(usage["completion_tokens"])


def speed(to: Server, at_once: int, tokens: int) -> float:
    """Tokens per second of `at_once` requests that run together."""
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda prompt=prompt: made.append(ask(to, prompt, tokens)))
        for prompt in PROMPTS[:at_once]
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(made) != at_once:
        raise SystemExit(f"{to.base_url}: only {len(made)} of {at_once} answers came")
    return sum(made) / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=server)
    parser.add_argument("theirs", type=server)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    worst = GOAL
    for at_once in (1, 4):
        speeds: dict[Server, list[float]] = {given.ours: [], given.theirs: []}
        for to in (given.ours, given.theirs):
            speed(to, at_once, given.tokens)
        for turn in range(given.rounds):
            order = (given.ours, given.theirs) if turn % 2 else (given.theirs, given.ours)
            for to in order:
                speeds[to].append(speed(to, at_once, given.tokens))
        ours, theirs = (statistics.median(speeds[to]) for to in (given.ours, given.theirs))
        print(f"{at_once} at once: ours {ours:.1f} tokens/s, theirs {theirs:.1f} tokens/s, ratio {ours / theirs:.2f}")
        worst = min(worst, ours / theirs)
    return 0 if worst >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
