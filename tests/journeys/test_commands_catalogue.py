"""The catalogue by command, with and without a server: rows are set, refused, shown and forgotten."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from journeys.test_commands import COMMAND, data, home, moonpool, serving

__all__ = ["home"]

PRICE = '{ valid_from = 2026-01-01, prompt_miss = "1", prompt_hit = "0.5", completion = "2" }'


@pytest.mark.parametrize("with_server", [True, False])
def test_rows_by_command(home: Path, with_server: bool) -> None:
    """Fields, a file of TOML or JSON, or standard input say a row; what holds is shown; each is in the log once."""
    with serving(home) if with_server else contextlib.nullcontext():
        row = data(home, "catalogue", "set", "models", "small", "hosts=['far']", f"prices=[{PRICE}]", "product=house")
        assert row["row"]["prices"][0]["valid_from"] == "2026-01-01"
        assert data(home, "models", "show", "small")["now"]["completion"] == "2.00"
        assert data(home, "models", "show", "small")["product"] == "house"
        (home / "row.toml").write_text('alias = "tiny"\n')
        assert data(home, "catalogue", "set", "models", "small", "--file", str(home / "row.toml"))["row"] == {
            "alias": "tiny"
        }
        assert said(home, "set", "hosts", "far", "-f", "-", stdin='{"off": true}')["row"] == {"off": True}
        assert "not in use: far (its row says that it is off)" in moonpool(home, "hosts", "list").stderr
        assert [row["name"] for row in data(home, "catalogue", "list")] == ["far", "small"]
        assert '{"alias":"tiny"}' in moonpool(home, "catalogue", "list").stdout
        for section, name in (("hosts", "far"), ("models", "small")):
            assert data(home, "catalogue", "unset", section, name)["deleted"] == 1
        assert data(home, "catalogue", "list") == []
        assert [row["name"] for row in data(home, "models", "list")] == ["tiny"]
        actions = [row["action"].split()[0] for row in data(home, "audit", "list") if row["actor"] == "socket"]
        assert actions == ["DELETE", "DELETE", "PUT", "PUT", "PUT"]


def said(home: Path, *words: str, stdin: str) -> Any:
    command = [*COMMAND, "catalogue", *words, "--json", "--home", str(home)]
    return json.loads(subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout)


def test_what_is_wrong_is_one_sentence(home: Path) -> None:
    """With the field; usage is exit code 2, a refusal 1; nothing is kept, and a secret is not repeated."""
    wrong = [
        (("models", "small", "hosts=['nowhere']"), 1, "models.small.hosts: 'nowhere' is not known"),
        (("models", "small", "windoww=1"), 1, "models.small.windoww: is no field; did you mean window?"),
        (("hosts", "far", "api_key=sk-0123456789abcdef"), 1, "no secret goes into the database"),
        (("models", "small"), 2, "FIELD=VALUE"),
        (("models", "small", "window"), 2, "is not FIELD=VALUE"),
    ]
    for words, code, sentence in wrong:
        done = moonpool(home, "catalogue", "set", *words)
        assert done.returncode == code, done.stderr
        assert sentence in " ".join(done.stderr.split())
        assert "0123456789abcdef" not in done.stderr
    (home / "row").write_text("x = ")
    assert "is no TOML" in moonpool(home, "catalogue", "set", "models", "small", "-f", str(home / "row")).stderr
    assert moonpool(home, "catalogue", "unset", "models", "small").returncode == 1
    assert data(home, "catalogue", "list") == []


def test_a_row_that_stops_a_start_can_be_forgotten(home: Path) -> None:
    """The key's file is gone: the server says which row it cannot use, the list says why, and `unset` mends it."""
    key = home / "far.key"
    key.write_text("secret")
    key.chmod(0o600)
    data(home, "catalogue", "set", "hosts", "far", f"api_key=file:{key}")
    key.unlink()
    done = moonpool(home, "serve", "--port", "0", "--no-pull")
    assert done.returncode == 2
    assert "hosts.far.api_key" in done.stderr
    assert "moonpool catalogue unset" in done.stderr
    assert "not in force here: hosts.far (hosts.far.api_key" in moonpool(home, "catalogue", "list").stderr
    data(home, "catalogue", "unset", "hosts", "far")
    with serving(home):
        assert data(home, "catalogue", "list") == []
