"""`make bench`: moonpool beside nginx and LiteLLM, each on one core, in one sitting.

    python bench/run.py [--quick] [--only moonpool,nginx,litellm] [--seconds 4] [--repeat 3] [--json FILE]

Prints one table, the ratios and whether each goal is met; writes the same and all details to bench/out/latest.json.
Ends by itself, and ends what it started. Exit code 0 when everything that could be measured was measured (whether
or not a goal is met), 1 when moonpool could not be measured or its books are wrong, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
from books import check_books, ledger
from gateways import CORES, OUT, STARTERS, Unavailable, allow_many_sockets
from measure import Measure, build, standin


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="short runs, once each: to see that it works, not to quote"
    )
    parser.add_argument("--only", default=",".join(STARTERS), help="which gateways, by name; direct always runs")
    parser.add_argument("--seconds", type=float, default=4.0, help="counted span of each run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the median is taken")
    parser.add_argument("--json", type=Path, help="where to write all numbers as well")
    options = parser.parse_args()
    options.names = [name for name in STARTERS if name == "direct" or name in options.only.split(",")]
    unknown = set(options.only.split(",")) - set(STARTERS)
    if unknown or options.repeat < 1 or options.seconds <= 0:
        parser.error(f"unknown gateway {', '.join(sorted(unknown))}" if unknown else "spans and repeats are positive")
    if options.quick:
        options.seconds, options.repeat = min(options.seconds, 1.0), 1
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


Step = Callable[[Measure], None]


def session(name: str, steps: list[Step], seconds: float, repeat: int) -> dict[str, Any]:
    """Start a stand-in and a gateway, take these steps, stop both, check the gateway's books."""
    with standin() as upstream:
        gateway = STARTERS[name](upstream.port)
        m = Measure(gateway, upstream, seconds, repeat)
        try:
            try:
                for step in steps:
                    step(m)
            except BaseException:
                say(gateway.tail())
                raise
            finally:
                gateway.stop()
            found = {"version": gateway.version, **m.found, "problems": m.problems, "tally": [m.tally]}
            found["dispatches"] = upstream.counters()["requests"]
            if name in {"moonpool", "many"}:
                with ledger(gateway) as ask:
                    found["books"] = [check_books(ask, m.tally, found["dispatches"])]
        finally:
            gateway.close()
            if gateway.home is not None:
                shutil.rmtree(gateway.home, ignore_errors=True)
    return found


def one(name: str, seconds: float, repeat: int) -> dict[str, Any]:
    """All numbers of one gateway: memory in a session of its own, then the rest."""
    row = session(name, [Measure.rates, Measure.latency, Measure.pace, Measure.hangups], seconds, repeat)
    if name != "direct":
        fresh = session(name, [Measure.memory], seconds, repeat)
        row = {
            **fresh,
            **row,
            **{k: fresh[k] + row[k] for k in ("problems", "tally", "books", "dispatches") if k in row},
        }
    row["failed_all"] = sum(tally["bad"] for tally in row["tally"])
    return row


def main() -> int:
    options = arguments()
    if len(CORES) < 2:
        say("two cores are needed: one for the gateway, one for what loads it")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    OUT.mkdir(exist_ok=True)
    allow_many_sockets()
    build()
    results: report.Results = {}
    left_out: dict[str, str] = {}
    machine = report.machine()
    for name in options.names:
        say(f"{name} …")
        began = time.monotonic()
        try:
            results[name] = one(name, options.seconds, options.repeat)
        except Unavailable as why:
            left_out[name] = str(why)
            say(f"{name} left out: {why}")
            continue
        say(f"{name}: {time.monotonic() - began:.0f} s")
    report.derive(results)
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    print(f"counted {options.seconds} s a run, median of {options.repeat}\n")
    print(report.table(results), end="\n\n")
    if "moonpool" in results:
        print(report.ratios(results), end="\n\n")
        print(report.goals_text(results))
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    for name, row in results.items():
        for problem in row["problems"]:
            print(f"{name}: {problem}")
    document = json.dumps({"machine": machine, "results": results, "left_out": left_out}, indent=1, ensure_ascii=False)
    for file in (OUT / "latest.json", *([options.json] if options.json else [])):
        file.write_text(document + "\n")
    ours = results.get("moonpool")
    right = ours is not None and all(book["right"] for book in ours["books"])
    return 0 if right or "moonpool" not in options.names else 1


if __name__ == "__main__":
    sys.exit(main())
