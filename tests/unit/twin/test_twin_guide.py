"""The guide says what is so: its script and its answers are read, its pytest example runs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from moonpool.dialects import CLIENT
from moonpool.twin import answers, faults
from moonpool.words import Host, Target

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "twin.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_scripts_of_the_guide_are_read(tmp_path: Path) -> None:
    """Each key exists."""
    (script,) = [block for block in _blocks("toml") if "[[fault]]" in block]
    path = tmp_path / "faults.toml"
    path.write_text(script)
    assert len(faults.load(path).rows) == script.count("[[fault]]")


def test_answers_of_the_guide_are_read(tmp_path: Path) -> None:
    """Each key exists, the recording too."""
    (rows,) = [block for block in _blocks("toml") if "[[answer]]" in block]
    (tmp_path / "own.toml").write_text(rows)
    (tmp_path / "real.http").write_text(
        'HTTP/1.1 200 OK\n\n{"choices":[{"index":0,"message":{"content":"Real."},"finish_reason":"stop"}]}'
    )
    found = answers.load(tmp_path, CLIENT, Target(Host("h", "deepseek"), "m"))
    assert [row.text for row in found] == ["Sunny.", "", "Real."]


def test_the_pytest_example_runs() -> None:
    """The fixture and its test, as they stand there."""
    (example,) = [block for block in _blocks("python") if "@pytest.fixture" in block]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(example).replace("@pytest.fixture", ""), names)
    provider = names["provider"]()
    names["test_my_app_tries_again"](next(provider))
    assert list(provider) == []
