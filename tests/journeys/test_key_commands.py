"""What an operator types about keys, accounts, users and tokens, from the command line down to the database."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moonpool.cli.desk import Refused
from moonpool.cli.main import app

CONFIG = """
[embedded]
enabled = false
[hosts.far]
base_url = "http://127.0.0.1:1/v1"
[models.tiny]
hosts = ["far"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose file switches the embedded model off."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "moonpool.toml").write_text(CONFIG)
    return folder


def say(home: Path, *words: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, [*words, "--home", str(home), "--config", str(home / "moonpool.toml")])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def data(home: Path, *words: str) -> Any:
    return json.loads(say(home, *words, "--json"))


def test_a_key_with_limits(home: Path) -> None:
    """Limits are given at creation, changed one by one and taken away; the rest stays."""
    words = ["--expires", "30d", "--model", "tiny", "--address", "10.0.0.1", "--requests", "60", "--per-day", "12.5"]
    made = data(home, "keys", "create", "--account", "acme", "--name", "laptop", *words)
    (row,) = data(home, "keys", "list", "--account", "acme")
    limits = row["limits"]
    assert 0 <= time.time() + 30 * 86_400 - limits.pop("expires_at") < 60
    expected = {"models": ["tiny"], "addresses": ["10.0.0.1/32"], "requests_per_minute": 60, "tokens_per_minute": 0}
    assert limits == expected | {"concurrency": 0, "day": "12.50", "month": None}
    changed = data(
        home, "keys", "change", made["id"], "--expires", "never", "--requests", "0", "--switch", "usage=chunk"
    )
    assert changed["limits"] == limits | {"expires_at": None, "requests_per_minute": 0}
    assert (changed["name"], changed["switches"]) == ("laptop", {"usage": "chunk"})
    away = ["--model", "any", "--address", "any", "--per-day", "none"]
    assert data(home, "keys", "change", made["id"], *away, "--name", "desk")["limits"] is None
    assert "no limits of its own" in say(home, "keys", "change", made["id"])
    with pytest.raises(Refused, match="no key 'nobody'"):
        say(home, "keys", "change", "nobody", "--name", "x")
    with pytest.raises(Refused, match="no model 'huge'"):
        say(home, "keys", "change", made["id"], "--model", "huge")


def test_a_key_is_rotated(home: Path) -> None:
    """The new secret is printed alone, so that it can be piped; the id stays."""
    made = data(home, "keys", "create")
    again = say(home, "keys", "rotate", made["id"], "--grace", "24h").strip()
    assert again != made["key"]
    assert again[:18] == made["key"][:18]
    assert data(home, "keys", "rotate", made["id"])["id"] == made["id"]
    assert [row["id"] for row in data(home, "keys", "list")] == [made["id"]]


def test_accounts_are_changed(home: Path) -> None:
    """What an account may is changed one by one; it is disabled and enabled without losing anything."""
    data(home, "accounts", "create", "acme", "--concurrency", "5")
    row = data(home, "accounts", "change", "acme", "--post-paid", "--credit", "100", "--tokens", "9")
    assert (row["post_paid"], row["credit"], row["tokens_per_minute"], row["concurrency"]) == (True, "100.00", 9, 5)
    assert data(home, "accounts", "disable", "acme") == row | {"disabled": True}
    assert "disabled" in say(home, "accounts", "list")
    assert data(home, "accounts", "enable", "acme") == row
    assert data(home, "accounts", "change", "acme", "--credit", "none", "--pre-paid")["credit"] is None


def test_products_are_switched(home: Path) -> None:
    """A product's switch turns, is listed, and turns back no sooner than an hour later."""
    product = data(home, "accounts", "products", "default")[0]["product"]
    say(home, "accounts", "switch", "default", product, "off")
    assert {row["product"]: row["on"] for row in data(home, "accounts", "products", "default")}[product] is False
    with pytest.raises(Refused, match="less than an hour ago"):
        say(home, "accounts", "switch", "default", product, "on")


def test_users_and_tokens(home: Path) -> None:
    """Users by name, their roles, their tokens; a token is seen once, and goes with its user."""
    say(home, "users", "create", "ada", "--operator")
    say(home, "users", "create", "bob")
    assert data(home, "users", "role", "bob", "default", "owner")["roles"] == {"default": "owner"}
    secret = say(home, "tokens", "create", "bob", "--name", "laptop", "--expires", "7d").strip()
    assert secret.startswith("mp-op-")
    (token,) = data(home, "tokens", "list", "--user", "bob")
    assert secret[6:18] == token["id"]
    assert secret[18:] not in say(home, "tokens", "list")
    assert data(home, "tokens", "list", "--user", "ada") == []
    say(home, "tokens", "delete", token["id"])
    say(home, "tokens", "create", "bob")
    assert data(home, "users", "role", "bob", "default", "none")["roles"] == {}
    say(home, "users", "delete", "bob")
    assert data(home, "tokens", "list") == []
    assert [row["name"] for row in data(home, "users", "list")] == ["ada"]
