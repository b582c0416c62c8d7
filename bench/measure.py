"""What is measured, and how: runs of the load generator against one gateway in front of one stand-in.

Every number is the median of `repeat` runs. Rates count what ended inside the counted span, after a warm-up.
Latencies are milliseconds, memory is KiB. The stand-in's own counters say how many requests reached it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateways import BENCH, LOAD_CORE, Gateway, end, http_get, pinned

BIN = BENCH / "bin"
EVENTS = 50
PACE_MS = 20
PACE_GOAL = 600
PACE_STEP = 50
PACE_MAX = 1500
LATE_P99_MS = 60.0
RATE_SHARE = 0.99
OPEN_STREAMS = 1000
OPEN_WITHIN_S = 45
Result = dict[str, Any]


def build() -> None:
    """Compile the two C programs into bench/bin."""
    BIN.mkdir(exist_ok=True)
    for name in ("upstream", "load"):
        command = ["gcc", "-O2", "-Wall", "-o", str(BIN / name), str(BENCH / f"{name}.c")]
        subprocess.run(command, check=True, timeout=120)


@dataclass
class Standin:
    port: int
    process: subprocess.Popen[bytes]

    def set(self, events: int = EVENTS, interval_ms: int = 0, delay_ms: int = 0) -> None:
        http_get(self.port, f"/set?events={events}&interval_ms={interval_ms}&delay_ms={delay_ms}")

    def counters(self) -> dict[str, int]:
        return dict(json.loads(http_get(self.port, "/counters")[1]))


@contextmanager
def standin() -> Iterator[Standin]:
    with pinned(LOAD_CORE):
        process = subprocess.Popen([str(BIN / "upstream"), "0"], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        yield Standin(int(process.stdout.readline()), process)
    finally:
        end(process, 2)


def _command(gateway: Gateway, options: dict[str, Any]) -> list[str]:
    asked = {"path": gateway.path, "key": gateway.key, **options}
    return [str(BIN / "load"), str(gateway.port), *(f"{name}={value}" for name, value in asked.items())]


def load(gateway: Gateway, **options: Any) -> Result:
    """One run to its end. Bounded by its own drain and by a deadline here."""
    limit_s = float(options.get("seconds", 4)) + 60
    with pinned(LOAD_CORE):
        done = subprocess.run(_command(gateway, options), stdout=subprocess.PIPE, timeout=limit_s, check=True)
    return dict(json.loads(done.stdout))


def _median(runs: list[Result], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


class Measure:
    """All measurements of one gateway; each adds to `found`. `tally` adds up what the load generator saw."""

    def __init__(self, gateway: Gateway, upstream: Standin, seconds: float, repeat: int) -> None:
        self.gateway, self.upstream, self.seconds, self.repeat = gateway, upstream, seconds, repeat
        self.tally = {"asked": 0, "ok": 0, "bad": 0, "hangups": 0}
        self.problems: list[str] = []
        self.found: Result = {}

    def run(self, **options: Any) -> Result:
        result = load(self.gateway, **options)
        for name in self.tally:
            self.tally[name] += result[f"all_{name}"]
        if result["all_bad"]:
            self.problems.append(f"{options}: {result['all_bad']} failed, first: {result['first_error']}")
        return result

    def rates(self) -> None:
        """Requests/s whole, streams/s and events/s of `EVENTS` events at once: 64 connections."""
        self.upstream.set()
        before = self.gateway.cpu_s()
        whole = [self.run(mode="json", connections=64, seconds=self.seconds) for _ in range(self.repeat)]
        asked = sum(run["all_asked"] for run in whole)
        # Where time goes: microseconds of CPU for each request, of each program.
        for name, seconds in self.gateway.cpu_s().items():
            self.found[f"cpu_{name}_us"] = (seconds - before[name]) / asked * 1e6
        streams = [self.run(mode="sse", connections=64, seconds=self.seconds) for _ in range(self.repeat)]
        self.found.update(
            requests_s=_median(whole, "rate"),
            p50_64_ms=_median(whole, "p50_ms"),
            p99_64_ms=_median(whole, "p99_ms"),
            streams_s=_median(streams, "rate"),
            events_s=_median(streams, "event_rate"),
        )

    def latency(self) -> None:
        """Whole answers, one at a time."""
        self.upstream.set()
        runs = [self.run(mode="json", connections=1, seconds=self.seconds) for _ in range(self.repeat)]
        self.found.update(p50_1_ms=_median(runs, "p50_ms"), p99_1_ms=_median(runs, "p99_ms"))

    def paced(self, streams: int, seconds: float) -> Result:
        """`streams` at once, an event every `PACE_MS`; a stream that ends is followed by another at once.

        It holds when 99 % of the events that were due arrived and 99 % of those were at most `LATE_P99_MS` late.
        """
        self.upstream.set(EVENTS, PACE_MS)
        result = self.run(
            mode="sse", connections=streams, seconds=seconds, stagger_ms=EVENTS * PACE_MS, warm_ms=500, drain_s=15
        )
        nominal = streams * 1000 / PACE_MS
        share = result["paced_rate"] / nominal
        return {
            "streams": streams,
            "events_s": result["paced_rate"],
            "share": round(share, 4),
            "late_p50_ms": result["late_p50_ms"],
            "late_p99_ms": result["late_p99_ms"],
            "late_max_ms": result["late_max_ms"],
            "holds": share >= RATE_SHARE and result["late_p99_ms"] <= LATE_P99_MS and not result["all_bad"],
        }

    def pace(self) -> None:
        """The highest number of paced streams that hold, by bisection on a grid; and the run at the goal.

        Where the events/s made unpaced are far below the goal, only small numbers are tried.
        """
        tried: dict[int, Result] = {}
        seconds = max(2.0, self.seconds * 0.75)

        def holds(streams: int) -> bool:
            tried[streams] = self.paced(streams, seconds)
            if not tried[streams]["holds"] and tried[streams]["share"] > 0.95:
                tried[streams] = self.paced(streams, seconds)  # a neighbour's burst is not ours: once more
            return bool(tried[streams]["holds"])

        low, high = 0, PACE_GOAL
        if self.found["events_s"] * PACE_MS / 1000 * 3 < PACE_GOAL:
            high = PACE_STEP
        elif holds(PACE_GOAL):
            low, high = PACE_GOAL, PACE_MAX + PACE_STEP
            if holds(PACE_MAX):
                low = PACE_MAX
        while high - low > PACE_STEP:
            middle = (low + high) // 2 // PACE_STEP * PACE_STEP
            low, high = (middle, high) if holds(middle) else (low, middle)
        best = low or next((n for n in (25, 10, 5) if holds(n)), 0)
        self.found.update(paced_streams=best, at_goal=tried.get(PACE_GOAL), runs=[tried[n] for n in sorted(tried)])

    def memory(self) -> None:
        """KiB per open stream: resident memory with 1,000 streams open (an event a second) minus that before.

        Taken on a gateway of its own that has answered a few requests and holds no memory of past load.
        """
        self.upstream.set()
        self.run(mode="json", connections=4, seconds=0.5, warm_ms=100)
        self.run(mode="sse", connections=4, seconds=0.5, warm_ms=100)
        self.upstream.set(events=120, interval_ms=1000)
        before = self.gateway.rss_kib()
        options = {"mode": "sse", "connections": OPEN_STREAMS, "seconds": 100, "stagger_ms": 2000, "drain_s": 0}
        with pinned(LOAD_CORE):
            process = subprocess.Popen(_command(self.gateway, options), stdout=subprocess.PIPE, start_new_session=True)
        opened = 0
        try:
            until = time.monotonic() + OPEN_WITHIN_S
            while opened < OPEN_STREAMS and time.monotonic() < until and process.poll() is None:
                time.sleep(0.25)
                opened = self.upstream.counters()["open"]
            time.sleep(2.5)
            opened = self.upstream.counters()["open"]
            during = self.gateway.rss_kib()
        finally:
            process.terminate()
            out = process.communicate(timeout=30)[0]
        result = json.loads(out) if out else {}
        self.tally["asked"] += result.get("all_asked", 0)
        self.tally["hangups"] += result.get("all_asked", 0) - result.get("all_ok", 0) - result.get("all_bad", 0)
        self.tally["ok"] += result.get("all_ok", 0)
        self.tally["bad"] += result.get("all_bad", 0)
        self.found.update(
            idle_kib=before,
            open_streams=opened,
            kib_per_stream=round((during - before) / opened, 1) if opened else None,
            closed_upstream_s=self._wait_for_quiet(30),
        )

    def hangups(self) -> None:
        """Clients that leave after seven events: seconds until the stand-in has no open stream left."""
        self.upstream.set(EVENTS, PACE_MS)
        result = self.run(mode="sse", connections=50, seconds=1.5, hangup=7, drain_s=3)
        self.found.update(hangups=result["all_hangups"], hangups_closed_s=self._wait_for_quiet(10))

    def _wait_for_quiet(self, limit_s: float) -> float | None:
        """Seconds until the stand-in has no open stream; None when the limit passed first."""
        start = time.monotonic()
        while time.monotonic() - start < limit_s:
            if self.upstream.counters()["open"] == 0:
                return round(time.monotonic() - start, 2)
            time.sleep(0.02)
        return None
