"""How many steps of the interpreter does a request take, and in which functions? Numbers that do not depend on how fast
the machine happens to be today, where two cores of a virtual machine wander by a factor of two.

    python bench/steps.py                      # whole answers; --mode sse: streams of 50 events, which come at once
    python bench/steps.py --mode paced         # streams of 50 events that come one by one
    python bench/steps.py --many --top 60      # one of many nodes, over PostgreSQL and Redis
    python bench/steps.py --tree ../other      # the same load on another checkout, run by this one's environment

`moonpool serve` runs under `sys.settrace`, all of its threads, with the benchmark's stand-in and load generator; what
is counted while the load lasts is divided by the requests it made. What C code does inside a step is not seen: JSON,
SQL, digests, the event loop, the kernel. What happens once a second looks larger, as few requests fit into one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

FOLDER: Final = "MOONPOOL_STEPS"
SLOW_S: Final = 300.0
"""A traced server takes its time to become ready."""

Counts = dict[CodeType, list[int]]


def child() -> None:
    """The traced server. A file `zero` in the folder begins the count anew, `tell` has it written to `steps.json`."""
    folder = Path(os.environ[FOLDER])
    counts: Counts = {}

    def step(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            counts.setdefault(frame.f_code, [0, 0])[1] += 1
        return step

    def call(frame: FrameType, _: str, __: Any) -> Any:
        counts.setdefault(frame.f_code, [0, 0])[0] += 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    def watch() -> None:
        while True:
            time.sleep(0.05)
            if (folder / "zero").exists():
                for each in list(counts.values()):
                    each[:] = 0, 0
                (folder / "zero").unlink()
            if (folder / "tell").exists():
                rows = [(code.co_filename, code.co_qualname, *each) for code, each in list(counts.items()) if any(each)]
                (folder / "part").write_text(json.dumps(rows))
                (folder / "part").rename(folder / "steps.json")
                (folder / "tell").unlink()

    threading.Thread(target=watch, daemon=True).start()
    threading.settrace(call)
    sys.settrace(call)
    from moonpool.cli.main import main

    main()


LOADS: Final[dict[str, dict[str, Any]]] = {
    "json": {"mode": "json", "connections": 64},
    "sse": {"mode": "sse", "connections": 64},
    # Few: the traced server must keep up, or events come together after all.
    "paced": {"mode": "sse", "connections": 10, "stagger_ms": 1000, "drain_s": 5},
}
PACE_MS: Final = 20


def _until(there: bool, path: Path) -> None:
    while path.exists() is not there:
        time.sleep(0.05)


def count(tree: Path, mode: str, seconds: float, more: str) -> tuple[int, list[tuple[str, str, int, int]]]:
    """(requests, rows of file, function, calls, steps) of one load."""
    import gateways
    from measure import build, load, standin

    build()
    gateways.READY_S["moonpool"] = SLOW_S
    with standin() as upstream, tempfile.TemporaryDirectory() as folder:
        upstream.set(50, PACE_MS if mode == "paced" else 0)
        home, port, key = gateways._home("steps"), gateways.free_port(), "sk-bench-steps-0000000000"
        conf = home / "moonpool.toml"
        conf.write_text(more + gateways.MOONPOOL_CONF.format(upstream=upstream.port, key=key))
        gateway = gateways.Gateway("moonpool", port, "/v1/chat/completions", key, "", home)
        command = [sys.executable, __file__, "serve", "--config", str(conf), "--home", str(home), "--port", str(port)]
        environ = {FOLDER: folder, "PYTHONPATH": str(tree / "src")}
        gateways._start(gateway, command, "/ready", environ)
        try:
            load(gateway, seconds=1, **LOADS[mode])
            (Path(folder) / "zero").touch()
            _until(False, Path(folder) / "zero")
            run = load(gateway, seconds=seconds, **LOADS[mode])
            (Path(folder) / "tell").touch()
            _until(True, Path(folder) / "steps.json")
            rows = json.loads((Path(folder) / "steps.json").read_text())
        finally:
            gateway.stop()
    if run["all_bad"]:
        print(f"{run['all_bad']} failed, first: {run['first_error']}", file=sys.stderr)
    return run["all_asked"], rows


def report(requests: int, rows: list[tuple[str, str, int, int]], top: int) -> None:
    modules: dict[str, list[float]] = {}
    functions = []
    for file, function, calls, steps in rows:
        module = file.rpartition("/src/moonpool/")[2].rpartition("site-packages/")[2]
        found = modules.setdefault(module, [0.0, 0.0])
        found[0] += calls / requests
        found[1] += steps / requests
        functions.append((steps / requests, calls / requests, f"{module}:{function}"))
    calls, steps = (sum(each[at] for each in modules.values()) for at in (0, 1))
    print(f"{requests} requests; each {steps:,.0f} steps in {calls:,.1f} calls\n\n   steps   calls")
    for module, (calls, steps) in sorted(modules.items(), key=lambda each: -each[1][1])[:top]:
        print(f"{steps:8.1f} {calls:7.2f}  {module}")
    print()
    for steps, calls, name in sorted(functions, reverse=True)[:top]:
        print(f"{steps:8.1f} {calls:7.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=tuple(LOADS), default="json")
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=6.0)
    wanted = parser.parse_args()
    services: Any = None
    more = ""
    if wanted.many:
        from services import Services

        services = Services()
        more = f'store = "{services.store}"\nlimits = "{services.limits}"\nlimits_call_s = 5\n'
    try:
        requests, rows = count(wanted.tree.resolve(), wanted.mode, wanted.seconds, more)
    finally:
        if services is not None:
            services.stop()
    report(requests, rows, wanted.top)


if __name__ == "__main__":
    child() if FOLDER in os.environ else main()
