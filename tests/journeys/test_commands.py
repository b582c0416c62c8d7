"""What an operator types, as processes of their own: with a server and without one, right and wrong.

No model is loaded here: the servers of this file have the embedded one switched off.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.upstream import Request, Step, Upstream, answer, threaded

CONFIG = """
[embedded]
enabled = false
[hosts.far]
base_url = "http://127.0.0.1:1/v1"
[models.tiny]
hosts = ["far"]
"""
COMMAND = [sys.executable, "-m", "moonpool"]
DEADLINE_S = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose file switches the embedded model off."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "moonpool.toml").write_text(CONFIG)
    return folder


def moonpool(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words, "--home", str(home)],
        cwd=home.parent,
        env={**os.environ, "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def data(home: Path, *words: str) -> Any:
    """What a command says to a program."""
    done = moonpool(home, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Running:
    """A server that was started here; `said` is what it printed until it was ready."""

    def __init__(self, process: subprocess.Popen[str], said: list[str]) -> None:
        self.process = process
        self.text = "\n".join(said)
        found = re.search(r"^  Base URL +(http://127\.0\.0\.1:(\d+)/v1)$", self.text, re.MULTILINE)
        assert found
        self.base, self.port = found[1], int(found[2])
        key = re.search(r"^  API key +(sk-mp-\w+)$", self.text, re.MULTILINE)
        self.key = key[1] if key else ""

    def get(self, path: str, key: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
            got = connection.getresponse()
            return got.status, got.read()
        finally:
            connection.close()


@contextmanager
def serving(home: Path, *words: str, **environ: str) -> Iterator[Running]:
    with (home.parent / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", "--home", str(home), *words],
            cwd=home.parent,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            # The blank line after the snippets, or after the few lines of a later start: it says no more, so that
            # nobody closes the pipe while it speaks.
            if not said[-1] and (said[-2:-1] == ["print()"] or "a new one:" in "".join(said[-2:])):
                break
        else:
            raise AssertionError((home.parent / "log.txt").read_text()[-4000:])
        yield Running(process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0


def test_first_start_says_everything_once(home: Path) -> None:
    """The first start prints address, key and programs to paste, and the key works; later starts print no key."""
    with serving(home) as server:
        assert server.key
        status, body = server.get("/v1/models", server.key)
        assert status == 200
        named = {row["id"] for row in json.loads(body)["data"]}
        curl = re.search(r"-d '(.*)'$", server.text, re.MULTILINE)
        assert curl
        assert json.loads(curl[1])["model"] in named
        assert server.text.count(server.key) == 3
        program = server.text[server.text.index("from openai import") :]
        compile(program, "snippet", "exec")
        assert stat.S_IMODE((home / "admin.sock").stat().st_mode) == 0o600
    with serving(home) as server:
        assert not server.key
        assert "moonpool keys create" in server.text


@pytest.mark.model
def test_a_home_is_its_owners_alone(tmp_path: Path) -> None:
    """Whichever command makes the home, nobody else may look inside."""
    folder = tmp_path / "new"
    assert data(folder, "models", "pull")["path"].startswith(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells the limits of another process")
def test_it_takes_the_descriptors_it_may_have(home: Path) -> None:
    """Started with few, as many systems do it, a server gives itself more: each stream needs two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with serving(home) as server:
            now, most = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (now, most) == (min(hard, 65_536) if hard >= 0 else 65_536, hard)


def test_keys_with_and_without_a_server(home: Path) -> None:
    """The same commands do the same whether or not a server runs; a deleted key is refused at once."""
    made = data(home, "keys", "create", "--account", "team", "--name", "without a server")
    assert sorted(made) == ["account", "created_at", "id", "key", "name"]
    assert made["account"] == "team"
    with serving(home) as server:
        assert server.get("/v1/models", made["key"])[0] == 200
        second = data(home, "keys", "create", "--account", "team", "--name", "with one")
        assert server.get("/v1/models", second["key"])[0] == 200
        listed = {row["id"]: row for row in data(home, "keys", "list", "--account", "team")}
        assert set(listed) == {made["id"], second["id"]}
        assert not any("key" in row for row in listed.values())
        assert data(home, "keys", "delete", made["id"]) == {"id": made["id"], "deleted": True}
        assert server.get("/v1/models", made["key"])[0] == 401
        assert server.get("/v1/models", second["key"])[0] == 200
    assert [row["name"] for row in data(home, "keys", "list", "--account", "team")] == ["with one"]
    assert data(home, "keys", "delete", second["id"])["deleted"]
    assert data(home, "keys", "list", "--account", "team") == []


def test_a_key_for_a_person(home: Path) -> None:
    """Without --json, standard output is the key alone, so that a shell can take it."""
    done = moonpool(home, "keys", "create")
    assert done.returncode == 0
    assert re.fullmatch(r"sk-mp-\w+\n", done.stdout)
    assert "shown this once" in done.stderr
    assert done.stdout.strip() not in moonpool(home, "keys", "list").stdout


def test_accounts(home: Path) -> None:
    """An account is made once; a second of that name is refused."""
    assert data(home, "accounts", "create", "lab", "--post-paid", "--concurrency", "7")["concurrency"] == 7
    rows = {row["name"]: row for row in data(home, "accounts", "list")}
    assert rows["lab"]["post_paid"] is True
    assert "default" in rows
    again = moonpool(home, "accounts", "create", "lab")
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr


def test_prices(home: Path) -> None:
    """What a model costs now can be read; what is agreed with an account is kept, shown and forgotten."""
    row = {"valid_from": "2026-01-01", "prompt_miss": "1", "prompt_hit": "0.5", "completion": "2"}
    told = ", ".join(f'{name} = "{value}"' for name, value in row.items())
    (home / "moonpool.toml").write_text(f"{CONFIG}[models.deepseek-chat]\nhosts = ['far']\nprices = [{{ {told} }}]\n")
    rows = {row["model"]: row for row in data(home, "prices", "show")["data"]}
    assert (rows["deepseek-chat"]["completion"], rows["deepseek-chat"]["product"]) == ("2.00", "chat-v3")
    assert "deepseek-chat" in moonpool(home, "prices", "show").stdout
    assert data(home, "prices", "show", "default")["data"] == []
    words = ("default", "deepseek-chat")
    assert data(home, "prices", "set", *words, "--factor", "0.5", "--from", "2026-02-01")["price"] == {"factor": "0.5"}
    amounts = ("--prompt-miss", "1", "--prompt-hit", "1", "--completion", "3", "--peak-factor", "2")
    done = moonpool(home, "prices", "set", *words, *amounts, "--from", "2099-01-01")
    assert done.stdout == ("default pays for deepseek-chat from 2099-01-01 on: 1 / 1 / 3 CNY, at peak (weekdays) × 2\n")
    page = data(home, "prices", "show", "default")
    assert page["now"]["deepseek-chat"]["completion"] == "1.00"
    shown = moonpool(home, "prices", "show", "default").stdout
    assert "0.5 × the list" in shown
    assert "2099-01-01" in shown
    assert moonpool(home, "prices", "set", *words, "--completion", "3").returncode == 2
    assert moonpool(home, "prices", "set", *words, "--factor", "x").returncode == 1
    assert data(home, "prices", "unset", *words)["deleted"] == 2
    assert moonpool(home, "prices", "unset", *words).returncode == 1
    assert "list prices" in moonpool(home, "prices", "show", "default").stderr


def test_endings(home: Path) -> None:
    """0 is done, 1 is refused, 2 is wrong usage or configuration; each failure is said in one sentence."""
    assert moonpool(home, "models", "list").returncode == 0
    for words, code, said in (
        (("keys", "delete", "nobody"), 1, "no key"),
        (("keys", "list", "--account", "nobody"), 1, "no account"),
        (("keys", "create", "--switch", "keepalive=never"), 1, "switch"),
        (("models", "show", "no-such-model"), 1, "no-such-model"),
        (("hosts", "check", "nowhere"), 1, "no host"),
    ):
        done = moonpool(home, *words)
        assert done.returncode == code, (words, done.stderr)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
    for usage in (("keys", "create", "--switch", "keepalive"), ("serve", "--port", "70000"), ("nonsense",)):
        assert moonpool(home, *usage).returncode == 2, usage


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("prot = 1\n", "port"),
        ("[edge]\nhed_s = 1\n", "edge.head_s"),
        ("[edge]\nhead_s = 'x'\n", "edge.head_s"),
        ("port = \n", "TOML"),
        ("workers = 2\n", "workers"),
        ("[hosts.mine]\nbase_url = 'http://127.0.0.1:1'\ndialect = 'klingon'\n", "dialect"),
        ("[[accounts]]\nname = 'a'\nkeys = ['env:NOT_THERE']\n", "NOT_THERE"),
    ],
)
def test_wrong_configuration_is_one_sentence(home: Path, file: str, said: str) -> None:
    """A file that cannot be used ends every command with exit code 2 and a sentence that says where."""
    (home / "moonpool.toml").write_text(file)
    for words in (("config", "check"), ("serve", "--port", "0", "--no-pull")):
        done = moonpool(home, *words)
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_config_show_masks_secrets(home: Path) -> None:
    """What is shown is TOML that says the same; no secret is in it."""
    secret = "not-a-real-one-5f31"
    (home / "moonpool.toml").write_text(
        CONFIG + f"[hosts.mine]\nbase_url = 'http://127.0.0.1:1/v1'\ndialect = 'openai'\napi_key = '{secret}'\n"
        f"[[accounts]]\nname = 'a'\nkeys = ['{secret}']\n"
    )
    import tomllib

    for words in (("config", "show"), ("config", "show", "--json")):
        done = moonpool(home, *words)
        assert done.returncode == 0, done.stderr
        assert secret not in done.stdout
        table = json.loads(done.stdout) if "--json" in words else tomllib.loads(done.stdout)
        assert table["embedded"]["enabled"] is False
        assert table["hosts"]["mine"]["base_url"] == "http://127.0.0.1:1/v1"
        assert table["accounts"][0]["name"] == "a"
    assert data(home, "config", "check")["ok"] is True


def _host(port: int, name: str = "mine") -> str:
    return f"[hosts.{name}]\nbase_url = 'http://127.0.0.1:{port}/v1'\ndialect = 'openai'\napi_key = 'k'\n"


def test_hosts_check(home: Path) -> None:
    """Each host is asked for its models with its key; one that fails makes the exit code 1, and says why."""
    listing = answer(b'{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}')
    with (
        threaded(Upstream(lambda _: [listing])) as good,
        threaded(Upstream(lambda _: [answer(b"{}", "401 Unauthorized")])) as bad,
    ):
        (home / "moonpool.toml").write_text(CONFIG + _host(good.port))
        checked = {row["name"]: row for row in data(home, "hosts", "check", "mine")}
        assert checked["mine"]["ok"] is True
        assert "2 models" in checked["mine"]["says"]
        assert good.requests[0].target == "/v1/models"
        assert good.requests[0].fields["authorization"] == "Bearer k"
        (home / "moonpool.toml").write_text(CONFIG + _host(good.port) + _host(bad.port, "other"))
        done = moonpool(home, "hosts", "check", "--json")
        assert done.returncode == 1
        checked = {row["name"]: row for row in json.loads(done.stdout)}
        assert checked["mine"]["ok"] is True
        assert checked["other"]["ok"] is False
        assert "API key" in checked["other"]["says"]
        with serving(home):
            assert moonpool(home, "hosts", "check", "mine").returncode == 0
    assert {row["name"] for row in data(home, "hosts", "list")} >= {"mine", "other"}


def test_hosts_check_says_what_to_do(home: Path) -> None:
    """Balances are told in each dialect's shape, models that are not served there are named, and so is what helps."""
    told = {
        "/v1/models": {"object": "list", "data": [{"id": "served"}]},
        "/user/balance": {
            "is_available": False,
            "balance_infos": [{"currency": "CNY", "total_balance": "0.00", "granted_balance": "0.00"}],
        },
        "/v1/dashboard/billing/subscription": {"hard_limit_usd": 20.5},
        "/v1/dashboard/billing/usage": {"total_usage": 1050},
    }

    def tell(request: Request) -> list[Step]:
        known = told.get(request.target)
        return [answer(b"", "404 Not Found") if known is None else answer(json.dumps(known).encode())]

    with threaded(Upstream(tell)) as host:
        base = f"base_url = 'http://127.0.0.1:{host.port}/v1'\n"
        (home / "moonpool.toml").write_text(
            CONFIG
            + f"[hosts.one]\n{base}dialect = 'deepseek'\napi_key = 'k'\nbalance = ['/user/balance']\n"
            + f"[hosts.two]\n{base}dialect = 'newapi'\napi_key = 'k'\nbalance = ['/api/usage/token', "
            "'/v1/dashboard/billing/subscription', '/v1/dashboard/billing/usage']\n"
            "[models.big]\nhosts = ['one', { name = 'two', model = 'served' }]\n"
        )
        done = moonpool(home, "hosts", "check")
        checked = {row["name"]: row for row in json.loads(moonpool(home, "hosts", "check", "--json").stdout)}
    assert done.returncode == 1, "the host `far` does not run"
    assert checked["far"]["do"].startswith("see that it runs")
    one, two = checked["one"], checked["two"]
    assert (one["ok"], one["dialect"], one["models"], one["missing"]) == (True, "deepseek", 1, ["big"])
    assert (one["balance"], one["do"]) == ("0.00 CNY", "top up the account there: requests will be refused")
    assert (two["models"], two["missing"], two["balance"], two["do"]) == (1, [], "10.00 USD", "")
    for text in (
        "not there",
        "big",
        "0.00 CNY",
        "10.00 USD",
        "FAILED",
        "one: top up the account there",
        "far: see that",
    ):
        assert text in done.stdout


def test_hosts_check_of_nobody(home: Path) -> None:
    """A host where nobody listens is a failed check, not a failed command."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (home / "moonpool.toml").write_text(CONFIG + _host(taken.getsockname()[1]))
        done = moonpool(home, "hosts", "check", "mine", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["ok"] is False


def test_doctor(home: Path) -> None:
    """Every check has a line that says ok, warn or fail, and a failure says what to do."""
    found = {row["name"]: row for row in data(home, "doctor")}
    assert {"python", "home", "server", "store", "weights", "llama.cpp", "port", "hosts", "clock"} <= set(found)
    assert found["prices"]["state"] == "ok", "no price of this home goes by a calendar"
    assert (found["store"]["state"], found["file"]["state"]) == ("ok", "ok")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home / "moonpool.toml").write_text(f"port = {port}\n[embedded]\nmodel = '{home}/none.gguf'\n")
        done = moonpool(home, "doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("fail  port") for line in lines)
    assert any(line.startswith("fail  weights") for line in lines)
    assert sum("→" in line for line in lines) >= 2


def test_usage_and_models(home: Path) -> None:
    """The ledger's sums and the catalogue's models can be read by a program."""
    assert data(home, "usage")["holds"] == 0
    rows = data(home, "models", "list")
    assert rows
    shown = data(home, "models", "show", rows[0]["name"])
    assert shown["name"] == rows[0]["name"]
    assert moonpool(home, "models", "show", rows[0]["name"]).stdout.startswith("name: ")


def test_two_servers_in_one_home(home: Path) -> None:
    """Case 75: a second server in the same home is refused with a sentence, and the first goes on."""
    with serving(home) as server:
        second = moonpool(home, "serve", "--port", "0", "--no-pull")
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith("moonpool: ")
        assert server.get("/health")[0] == 200


def test_a_port_that_is_taken(home: Path) -> None:
    """A port that somebody else has is one sentence and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = moonpool(home, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "in use" in done.stderr


def test_a_home_with_a_long_name(tmp_path: Path) -> None:
    """A home whose path is longer than a socket's address may be works like any other."""
    home = tmp_path / ("h" * 60) / ("o" * 60)
    home.mkdir(parents=True)
    (home / "moonpool.toml").write_text(CONFIG)
    with serving(home):
        assert data(home, "keys", "list")
        # The store is the server's: had the command not found its socket, it could not have answered.
        assert "runs" in {row["name"]: row for row in data(home, "doctor")}["server"]["says"]


def test_operations_pages(home: Path) -> None:
    """Health and readiness answer machines, metrics answer Prometheus and name nobody."""
    with serving(home) as server:
        assert json.loads(server.get("/health")[1])["status"] == "ok"
        assert server.get("/ready")[0] == 200
        server.get("/v1/models", server.key)
        status, page = server.get("/metrics")
        assert status == 200
        text = page.decode()
        assert "moonpool_store_ready 1.0" in text
        assert "moonpool_connections_open 1.0" in text
        assert server.key not in text
        assert "default" not in text
        assert server.get("/admin/v1/keys", server.key)[0] == 401
        assert server.get("/nowhere")[0] == 404
