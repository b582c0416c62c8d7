"""How hosts are spoken to is data: checked when the catalogue is built, and laid over what is known of the dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from moonpool.catalog import load
from moonpool.catalog.catalog import Catalogue, build
from moonpool.catalog.options import OptionsRow, checked
from moonpool.catalog.rows import DIALECTS, NEEDS, describe
from moonpool.settings import ConfigError, Settings
from moonpool.settings_hosts import Embedded

MODEL = {"hosts": ["mine"], "can": list(NEEDS), "thinking": "default_on"}


def made(host: dict[str, Any], served: dict[str, Any] | None = None) -> Catalogue:
    model = {**MODEL, "hosts": [{"name": "mine", **(served or {})}]}
    settings = Settings(
        home="/nowhere",
        file="moonpool.toml",
        embedded=Embedded(enabled=False),
        hosts={"mine": {"base_url": "http://127.0.0.1:8000/v1", **host}},
        models={"m": model},
    )
    return build(settings, {})


@pytest.mark.parametrize(
    ("options", "key", "sentence"),
    [
        ({"thinkin": "none"}, "thinkin", "did you mean thinking?"),
        ({"inline": "tagged"}, "inline", "is no option"),
        ({"thinking": "kwargs"}, "thinking", "kwargs"),
        ({"efforts": {"maximal": "max"}}, "efforts.maximal", "did you mean minimal?"),
        ({"drop": "seed"}, "drop", "expected a list"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], key: str, sentence: str) -> None:
    """With file, key and the nearest name there is, at the host and at the model's entry of it."""
    with pytest.raises(ConfigError) as at_host:
        made({"options": options})
    assert at_host.value.file == "moonpool.toml"
    assert at_host.value.key.startswith(f"hosts.mine.options.{key}")
    assert sentence in str(at_host.value)
    with pytest.raises(ConfigError) as at_model:
        made({}, {"options": options})
    assert at_model.value.key.startswith(f"models.m.hosts.mine.options.{key}")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_known_of_a_dialect_is_right(dialect: str) -> None:
    """Rows of `[dialects]` are of dialects that there are, and their options are options."""
    shipped = load.read(load.HOSTS_FILE)["dialects"]
    assert set(shipped) <= set(DIALECTS)
    checked(shipped.get(dialect, {}).get("options", {}), dialect, "")


@pytest.mark.parametrize(
    ("dialect", "cannot", "thinking", "field"),
    [
        ("vllm", {"fim", "prefix_thinking"}, "template", "reasoning"),
        ("sglang", {"fim", "prefix_thinking"}, "template", "reasoning_content"),
        ("ollama", {"n", "prefix", "prefix_thinking"}, "effort", "reasoning"),
    ],
)
def test_engines(dialect: str, cannot: set[str], thinking: str, field: str) -> None:
    """A row that says where the engine is suffices; what it says besides goes before."""
    (target,) = made({"dialect": dialect}).find("m").targets
    options = target.host.options
    assert set(NEEDS) - target.can == cannot
    assert (options["thinking"], options.get("reasoning_field", "reasoning_content")) == (thinking, field)
    own = {"dialect": dialect, "cannot": [], "replay": "strip", "options": {"thinking": "none"}}
    (target,) = made(own, {"replay": "fill", "options": {"inline_thinking": "opened"}}).find("m").targets
    assert target.can == set(NEEDS)
    assert target.host.options == {**options, "thinking": "none"}
    assert (target.options, target.replay) == ({"inline_thinking": "opened"}, "fill")


def test_every_option_explains_itself() -> None:
    """The reference page is made from it."""
    assert [name for name, says in describe(OptionsRow) if not says] == []
    assert msgspec.convert({}, OptionsRow).thinking == "thinking"
