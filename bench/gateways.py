"""What stands between the load generator and the stand-in: how each gateway is started, reached and ended.

Rules: every gateway runs alone, pinned to `GATEWAY_CORE`, with its state in a directory of its own under bench/out;
it is ended by its process id. A gateway that cannot run here says why (`Unavailable`) and is left out by name.
"""

from __future__ import annotations

import http.client
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
OUT = BENCH / "out"
CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE, LOAD_CORE = CORES[0], CORES[-1]
READY_S = {"nginx": 10.0, "litellm": 120.0, "moonpool": 60.0, "many": 60.0}


class Unavailable(Exception):
    """This gateway cannot be measured on this machine; the text says why."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started inside run on this core: they inherit it from us."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_sockets() -> None:
    """Raise the soft limit of open files, which all children inherit; a gateway holds two sockets a stream."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 60_000 if hard == resource.RLIM_INFINITY else min(hard, 60_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def http_get(port: int, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def end(process: subprocess.Popen[bytes], grace_s: float = 20.0) -> None:
    """Ask it to stop, wait, then insist. Children that lead their own session are ended by their group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


@dataclass
class Gateway:
    """One that runs. `pid` is None where nothing stands between (direct)."""

    name: str
    port: int
    path: str
    key: str
    version: str
    home: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    notes: list[str] = field(default_factory=list)
    services: Any = None
    """What runs beside it: services.Services, or None."""

    def rss_kib(self) -> int:
        """Resident memory of the process and all of its descendants, KiB."""
        if self.process is None:
            return 0
        total, waiting = 0, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
            waiting += [int(child) for child in children.split()]
        return total

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)

    def close(self) -> None:
        """After `stop`, and after its books were read: end what ran beside it."""
        if self.services is not None:
            self.services.stop()

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU so far, of the gateway and of what runs beside it."""
        from services import cpu_s

        pids = {"gateway": self.process.pid} if self.process is not None else {}
        return {name: cpu_s(pid) for name, pid in (pids | (self.services.pids() if self.services else {})).items()}

    def tail(self, lines: int = 15) -> str:
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _start(gateway: Gateway, command: list[str], probe: str, env: dict[str, str] | None = None) -> Gateway:
    assert gateway.home is not None
    gateway.log = gateway.home / "log.txt"
    with gateway.log.open("wb") as log, pinned(GATEWAY_CORE):
        gateway.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=gateway.home,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    until = time.monotonic() + READY_S[gateway.name]
    while time.monotonic() < until:
        if gateway.process.poll() is not None:
            break
        try:
            if http_get(gateway.port, probe)[0] == 200:
                return gateway
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    gateway.stop()
    raise Unavailable(f"{gateway.name} did not become ready; its last words:\n{gateway.tail()}")


def _home(name: str) -> Path:
    home = OUT / "homes" / f"{name}-{os.getpid()}-{secrets.token_hex(3)}"
    home.mkdir(parents=True)
    return home


def direct(upstream_port: int) -> Gateway:
    return Gateway("direct", upstream_port, "/v1/chat/completions", "none", "")


NGINX_CONF = """
daemon off; worker_processes 1; worker_rlimit_nofile 60000; pid {home}/nginx.pid; error_log {home}/error.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream standin {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://standin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 300s;
    }}
  }}
}}
"""


def nginx(upstream_port: int) -> Gateway:
    """Debian's nginx as a plain proxy: one worker, connections to the stand-in kept, nothing buffered."""
    program = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if program is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "nginx-light"], check=False, timeout=300, capture_output=True)
        program = "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None
    if program is None:
        raise Unavailable("nginx is not installed (Debian: apt-get install nginx)")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=10).stderr
    home = _home("nginx")
    port = free_port()
    conf = home / "nginx.conf"
    conf.write_text(NGINX_CONF.format(home=home, port=port, upstream=upstream_port))
    gateway = Gateway("nginx", port, "/v1/chat/completions", "none", said.strip().rpartition("/")[2], home)
    command = [program, "-p", str(home), "-c", str(conf)]
    return _start(gateway, command, "/v1/models")


LITELLM_CONF = """
model_list:
  - model_name: deepseek-chat
    litellm_params:
      model: openai/deepseek-chat
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


def litellm(upstream_port: int) -> Gateway:
    """LiteLLM's proxy from the package index: one worker, no database, its own environment."""
    venv = OUT / "litellm-venv"
    wanted = (BENCH / "litellm.txt").read_text()
    stamp = venv / "installed.txt"
    program = venv / "bin" / "litellm"
    if not program.exists() or not stamp.exists() or stamp.read_text() != wanted:
        print("installing LiteLLM into bench/out/litellm-venv …", file=sys.stderr, flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120, capture_output=True)
            pip = [str(venv / "bin" / "pip"), "install", "-q", "-r", str(BENCH / "litellm.txt")]
            subprocess.run(pip, check=True, timeout=900, capture_output=True)
        except (subprocess.SubprocessError, OSError) as problem:
            raise Unavailable(f"LiteLLM could not be installed: {problem}") from problem
        stamp.write_text(wanted)
    version = next((line.partition("==")[2] for line in wanted.splitlines() if line.startswith("litellm")), "")
    home, port, key = _home("litellm"), free_port(), "sk-bench-" + secrets.token_hex(12)
    conf = home / "config.yaml"
    conf.write_text(LITELLM_CONF.format(upstream=upstream_port, key=key))
    gateway = Gateway("litellm", port, "/v1/chat/completions", key, version, home)
    quiet = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_DOCS": "True",
        "LITELLM_TELEMETRY": "False",
    }
    command = [str(program), "--config", str(conf), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return _start(gateway, command, "/health/liveliness", quiet)


MOONPOOL_CONF = """
[embedded]
enabled = false
[hosts.mine]
base_url = "http://127.0.0.1:{upstream}/v1"
dialect = "deepseek"
api_key = "none"
concurrency = 100000
[models.deepseek-chat]
hosts = ["mine"]
[[accounts]]
name = "bench"
keys = ["{key}"]
post_paid = true
concurrency = 100000
"""


def moonpool(upstream_port: int) -> Gateway:
    """Ours as an operator starts it: durable accounting in SQLite on disk, logs on, no embedded model."""
    return _moonpool("moonpool", upstream_port, "")


def many(upstream_port: int) -> Gateway:
    """The same as one of many nodes: accounts and money in a durable PostgreSQL, limits in a Redis, both beside it."""
    from services import Services

    try:
        services = Services()
    except ImportError as error:
        raise Unavailable(f"what tests need is not installed: `make test` ({error})") from None
    try:
        return _moonpool("many", upstream_port, f'store = "{services.store}"\nlimits = "{services.limits}"\n', services)
    except BaseException:
        services.stop()
        raise


def _moonpool(name: str, upstream_port: int, more: str, services: Any = None) -> Gateway:
    program = ROOT / ".venv" / "bin" / "moonpool"
    if not program.exists():
        raise Unavailable("moonpool is not installed: run `make install`")
    home, port, key = _home(name), free_port(), "sk-bench-" + secrets.token_hex(12)
    conf = home / "moonpool.toml"
    conf.write_text(more + MOONPOOL_CONF.format(upstream=upstream_port, key=key))
    head = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    version = subprocess.run(head, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    gateway = Gateway(name, port, "/v1/chat/completions", key, version, home, services=services)
    command = [str(program), "serve", "--config", str(conf), "--home", str(home), "--port", str(port)]
    return _start(gateway, command, "/ready")


STARTERS: dict[str, Callable[[int], Gateway]] = {
    "direct": direct,
    "nginx": nginx,
    "litellm": litellm,
    "moonpool": moonpool,
    "many": many,
}
