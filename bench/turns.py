"""Is this version faster than that one? The same load on two or more checkouts, by turns, so that a machine whose speed
wanders is as slow for the one as for the other.

    git worktree add ../before v0.1 && python bench/turns.py ../before . --rounds 5 --seconds 3
    python bench/turns.py ../before . --mode sse

Each turn starts a fresh server on a core of its own with durable accounting in SQLite, as `make bench` does. Printed:
requests a second and microseconds of CPU a request, of each turn, then medians, and the last checkout as a multiple of
each other one. All run in this environment's Python with the source of their own folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import gateways
from measure import build, load, standin


def turn(tree: Path, mode: str, seconds: float) -> tuple[float, float]:
    """(requests a second, microseconds of CPU a request)."""
    os.environ["PYTHONPATH"] = str(tree / "src")
    with standin() as upstream:
        upstream.set()
        gateway = gateways.moonpool(upstream.port)
        try:
            load(gateway, mode=mode, connections=64, seconds=1)
            before = gateway.cpu_s()["gateway"]
            run = load(gateway, mode=mode, connections=64, seconds=seconds)
            used = gateway.cpu_s()["gateway"] - before
        finally:
            gateway.stop()
    assert not run["all_bad"], run["first_error"]
    return run["rate"], used / run["all_asked"] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--mode", choices=("json", "sse"), default="json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    wanted = parser.parse_args()
    build()
    trees = [tree.resolve() for tree in wanted.trees]
    found: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
    for _ in range(wanted.rounds):
        for tree in trees:
            found[tree].append(turn(tree, wanted.mode, wanted.seconds))
        print("   ".join(f"{found[tree][-1][0]:8,.0f}/s {found[tree][-1][1]:6.1f} us" for tree in trees), flush=True)
    middle = {
        tree: tuple(statistics.median(each[at] for each in turns) for at in (0, 1)) for tree, turns in found.items()
    }
    best = {tree: max(each[0] for each in turns) for tree, turns in found.items()}
    last = trees[-1]
    for tree in trees:
        print(
            f"{tree}: median {middle[tree][0]:,.0f}/s, {middle[tree][1]:.1f} us; best {best[tree]:,.0f}/s;"
            f" {last.name} is {middle[last][0] / middle[tree][0]:.2f} times it, {best[last] / best[tree]:.2f} at best,"
            f" with {middle[last][1] / middle[tree][1]:.2f} of its CPU"
        )


if __name__ == "__main__":
    main()
