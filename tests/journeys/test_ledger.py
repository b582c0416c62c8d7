"""What an operator types to read the ledger, beside a server and without one."""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from faults.stage import good
from faults.upstream import Upstream, threaded
from journeys.test_commands import DEADLINE_S, Running, data, moonpool, serving
from moonpool.state.sqlite import SqliteStore
from moonpool.words import Account


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def configure(home: Path, base_url: str) -> None:
    (home / "moonpool.toml").write_text(
        f"""
[embedded]
enabled = false
[hosts.near]
base_url = "{base_url}"
api_key = "k"
[models.deepseek-chat]
hosts = ["near"]
[[models.deepseek-chat.prices]]
valid_from = "2020-01-01"
prompt_miss = "1000"
prompt_hit = "1000"
completion = "2000"
"""
    )


def chat(server: Running, key: str) -> None:
    body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {key}"})
    got = connection.getresponse()
    assert got.status == 200, got.read()
    got.read()
    connection.close()


def test_an_operator_reads_the_ledger(home: Path) -> None:
    """Sums by what one likes, as a table, JSON and CSV; a statement whose lines lead from the opening to the closing
    balance; an audit that agrees beside the server, after it, and over a copy that was made under load (case 63)."""
    with threaded(Upstream(good)) as host:
        configure(home, host.base_url)
        with serving(home) as server:
            for _ in range(3):
                chat(server, server.key)
            page = data(home, "usage", "--by", "account,model,day")
            (row,) = page["data"]
            assert (row["account"], row["model"], row["requests"], row["amount"]) == (
                "default",
                "deepseek-chat",
                3,
                "0.075",
            )
            month = row["day"][:7]
            assert data(home, "ledger", "audit") == {"differences": 0, "sentences": []}
            with sqlite3.connect(home / "moonpool.db") as live, sqlite3.connect(home / "copy.db") as copy:
                live.backup(copy)
            chat(server, server.key)
        assert data(home, "usage")["posted"] == 4

    done = moonpool(home, "usage", "--by", "key", "--csv")
    (line,) = csv.DictReader(io.StringIO(done.stdout, newline=""))
    assert (line["requests"], line["amount"], line["cost"]) == ("4", "0.10", "0.00")
    assert "deepseek-chat" in moonpool(home, "usage", "--by", "model", "--since", f"{month}-01").stdout
    assert data(home, "usage", "--model", "none")["data"] == []
    refused = moonpool(home, "usage", "--by", "weather")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)

    page = data(home, "ledger", "statement", "default", "--month", month)
    assert page["opening"][0]["total"] == "0.00"
    assert page["closing"][0]["total"] == "-0.10"
    assert sum(line["requests"] for line in page["lines"]) == 4
    told = moonpool(home, "ledger", "statement", "default", "--month", month).stdout
    assert told.startswith("opening  0.00 CNY")
    assert "closing  -0.10 CNY" in told
    (line, *_) = csv.DictReader(
        io.StringIO(moonpool(home, "ledger", "statement", "default", "--month", month, "--csv").stdout, newline="")
    )
    assert line["what"] == "usage"
    assert moonpool(home, "ledger", "statement", "nobody", "--month", month).returncode == 1

    done = moonpool(home, "ledger", "audit")
    assert (done.returncode, done.stdout) == (0, "the ledger adds up\n")
    assert moonpool(home, "ledger", "audit", "--database", str(home / "copy.db")).returncode == 0


def test_an_audit_names_what_somebody_changed(home: Path) -> None:
    """A difference is a sentence and exit code 1; nothing is mended."""
    with threaded(Upstream(good)) as host:
        configure(home, host.base_url)
        with serving(home) as server:
            chat(server, server.key)
    path = home / "moonpool.db"
    before = shutil.copy(path, home / "before.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE balances SET post_paid_pico = post_paid_pico + 1")
    connection.close()
    done = moonpool(home, "ledger", "audit")
    assert done.returncode == 1
    assert done.stdout.startswith(
        "The balance of default in CNY says post_paid -24999999999, its entries -25000000000."
    )
    found: Any = json.loads(moonpool(home, "ledger", "audit", "--json").stdout)
    assert found["differences"] == 1
    assert moonpool(home, "ledger", "audit", "--database", str(before)).returncode == 0
    assert moonpool(home, "ledger", "audit", "--database", str(home / "none.db")).returncode == 1


def test_a_copy_without_its_log(home: Path) -> None:
    """Case 52, as an operator meets it: such a copy is refused by every command with what to do, an audit says what is
    wrong with it; after `accept-loss`, which the audit log tells of, all goes on. `doctor` checks the whole file."""
    home.joinpath("moonpool.toml").write_text("[embedded]\nenabled = false\n")
    path, copy = home / "moonpool.db", home / "copy.db"

    async def walk() -> None:
        store = SqliteStore(path)
        await store.start()
        await store.keys.save_account(Account("acme", "acme"))
        shutil.copy(path, copy)
        await store.stop()

    asyncio.run(walk())
    copy.replace(path)
    for file in home.glob("moonpool.db-*"):
        file.unlink()
    done = moonpool(home, "accounts", "list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "moonpool.db-wal is not beside it" in done.stderr
    done = moonpool(home, "ledger", "audit")
    assert (done.returncode, done.stdout.count("copied without its log")) == (1, 1)
    assert data(home, "ledger", "accept-loss") == {"accepted": True}
    assert moonpool(home, "ledger", "accept-loss").stdout == "nothing is missing\n"
    assert [row["action"] for row in data(home, "audit", "list")].count("ledger accept-loss") == 1
    damaged = bytearray(path.read_bytes())
    damaged[4096:8192] = bytes(4096)
    path.write_bytes(damaged)
    found = {row["name"]: row for row in json.loads(moonpool(home, "doctor", "--json").stdout)}
    assert (found["store"]["state"], found["file"]["state"]) == ("fail", "fail")
    assert "is damaged" in found["store"]["says"]
