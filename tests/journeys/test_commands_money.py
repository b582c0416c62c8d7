"""Money, codes, alerts and the log of changes by command, with and without a server."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from journeys.test_commands import data, home, moonpool, serving

__all__ = ["home"]


@pytest.mark.parametrize("with_server", [True, False])
def test_money_by_command(home: Path, with_server: bool) -> None:
    """Deposits, packs, codes and alerts do what they say, whether or not a server runs, and each is in the log once."""

    def walk() -> None:
        assert data(home, "accounts", "create", "lab")["name"] == "lab"
        for _ in range(2):
            assert data(home, "accounts", "deposit", "lab", "12.50", "--id", "order-1")["amount"] == "12.50"
        assert data(home, "packs", "add", "lab", "tiny", "1000", "--trial")["units"] == 1000
        assert [row["left"] for row in data(home, "packs", "list", "lab")] == [1000]
        (code,) = data(home, "codes", "create", "--amount", "5")
        for again in (False, True):
            assert data(home, "accounts", "redeem", "lab", code["code"])["again"] is again
        assert data(home, "codes", "list")[0]["redeemed_by"] == "lab"
        alert = data(home, "alerts", "create", "lab", "balance_below", "https://example.com/x", "--threshold", "1")
        assert [row["id"] for row in data(home, "alerts", "list", "lab")] == [alert["id"]]
        assert data(home, "alerts", "delete", "lab", alert["id"])["deleted"]
        assert data(home, "audit", "verify")["ok"] is True
        rows = [(row["actor"], row["action"]) for row in data(home, "audit", "list") if row["actor"] == "socket"]
        assert [action for _, action in reversed(rows)] == [
            "POST /accounts",
            "POST /accounts/{name}/deposits",
            "POST /accounts/{name}/packs",
            "POST /codes",
            "POST /accounts/{name}/redeem",
            "POST /accounts/{name}/alerts",
            "DELETE /accounts/{name}/alerts/{id}",
        ]

    if with_server:
        with serving(home):
            walk()
    else:
        walk()


def test_tampering_ends_with_one(home: Path) -> None:
    """Case 126: `audit verify` finds a row that was edited behind our back, says which, and exits with 1."""
    data(home, "accounts", "create", "lab")
    data(home, "accounts", "create", "other")
    assert moonpool(home, "audit", "verify").returncode == 0
    with sqlite3.connect(home / "moonpool.db") as database:
        database.execute("UPDATE audit SET target = 'nobody' WHERE target = 'lab'")
    database.close()
    done = moonpool(home, "audit", "verify")
    assert done.returncode == 1
    assert "row 1 is not as it was written" in done.stderr


def test_a_first_operator(home: Path) -> None:
    """The guide's beginning: a user and a token made by command open the admin API at the port, and nothing else."""
    data(home, "users", "create", "alice", "--operator")
    token = data(home, "tokens", "create", "alice")["token"]
    with serving(home) as server:
        status, page = server.get("/admin/v1/accounts", token)
        assert status == 200
        assert [row["name"] for row in json.loads(page)["data"]] == ["default"]
        assert server.get("/v1/models", token)[0] == 401
        assert server.get("/admin/v1/accounts")[0] == 401
