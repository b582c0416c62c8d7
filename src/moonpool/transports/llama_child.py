"""The process that the embedded model lives in: llama.cpp's own HTTP server, on loopback, behind a random key.

`python -m moonpool.transports.llama_child` reads one line of JSON from its standard input (`Settings` below), loads
the model, prints one line `{"port": …}` to its standard output when it serves, and lives until its standard input
ends: so it never outlives its parent, however that died. Everything the model's code prints goes to standard error.

Rules: imports nothing of ours, so that it starts quickly; the key comes by the pipe, never by the command line, which
other users of the machine can read. Exit codes: 0 asked to end, 1 the model could not be loaded, 2 wrong input.
Source of the parameters: llama.cpp's `common_params` as `xllamacpp` gives them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

_PR_SET_PDEATHSIG = 1
# How often a thread that waits for the others of its step looks before it sleeps. OpenMP's own 300,000 cost the whole
# slice of a core whenever another program has the other one: two models beside each other are ten times slower then.
# With this many a model alone is as fast as with OpenMP's own (bench/README.md).
_SPINS = "300"


class Settings(Struct, frozen=True):
    """`context` is in tokens, of one request; `prompt_cache_mib` the memory for prompts that lost their slot."""

    model: str
    key: str
    parent: int
    context: int = 4096
    parallel: int = 2
    threads: int = 0
    prompt_cache_mib: int = 256
    verbosity: int = 2


def _die_with(parent: int) -> None:
    """Where the kernel can do it, be killed when the parent is; the pipe does it everywhere, a moment later."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def _watch(pipe: BinaryIO) -> None:
    while pipe.read(4096):
        pass
    os._exit(0)


def _parameters(settings: Settings) -> Any:
    import xllamacpp

    threads = settings.threads or os.cpu_count() or 1
    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [settings.key]
    parameters.n_parallel = settings.parallel
    parameters.n_ctx = settings.context * settings.parallel
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    # Each waiting request holds a thread of its HTTP server.
    parameters.n_threads_http = 64
    parameters.cont_batching = True
    parameters.warmup = False
    parameters.cache_ram_mib = settings.prompt_cache_mib
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.endpoint_metrics = False
    # An assistant message at the end is closed, as DeepSeek does; what is to be continued, we append to the prompt.
    parameters.prefill_assistant = False
    parameters.sse_ping_interval = 5
    parameters.verbosity = settings.verbosity
    return parameters


def main() -> int:
    line = sys.stdin.buffer.readline()
    try:
        settings = msgspec.json.decode(line, type=Settings)
    except msgspec.MsgspecError as error:
        print(f"the first line of standard input: {error}", file=sys.stderr)
        return 2
    _die_with(settings.parent)
    watcher = threading.Thread(target=_watch, args=(sys.stdin.buffer,), daemon=True)
    watcher.start()
    report = os.dup(1)
    os.dup2(2, 1)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(settings))
    except Exception as error:  # the edge to foreign code: whatever it is, the parent reads it in our last lines
        print(f"the model could not be loaded: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    port = int(server.listening_address.rsplit(":", 1)[1])
    os.write(report, msgspec.json.encode({"port": port}) + b"\n")
    os.close(report)
    watcher.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
