"""The table of providers: every row can be played, and what it names exists."""

from __future__ import annotations

import datetime
import re

import pytest

from moonpool.dialects import DIALECTS
from moonpool.settings import ConfigError
from moonpool.twin.pages import PAGES
from moonpool.twin.providers import dialect_of, find, parts, providers
from moonpool.twin.request import OPERATIONS, route
from moonpool.twin.strict import CHECKS

NAMES = list(providers())
NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_whole(name: str) -> None:
    """Its paths lead to something, its rules are written and have a sentence, its keys have a shape, it has models."""
    provider = find(name)
    for said in provider.paths.values():
        kind = said.split(" ")[0]
        assert kind in PAGES or kind in OPERATIONS, said
    assert re.fullmatch(provider.key, "sk-twin.1")
    found = parts(name, NOW)
    assert found
    dialect = DIALECTS[dialect_of(next(iter(found.values())))]
    sentences = {**getattr(dialect, "sentences", {}), **provider.says}
    every = {rule for said in provider.models for rule in (*provider.strict, *said.also)}
    for rule in every:
        assert rule in CHECKS, rule
        assert sentences.get(rule), f"{rule} has no sentence"
    for part in found.values():
        assert part.model.prices


def test_names_have_their_time() -> None:
    """A day is played with the names and rules of that day."""

    def day(text: str) -> float:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()

    assert [name for name, part in parts("deepseek", NOW).items() if part.listed] == [
        "deepseek-flash", "deepseek-v4-pro",
    ]  # fmt: skip
    assert parts("deepseek", NOW)["deepseek-v4-flash"].routed == "deepseek-flash"
    assert list(parts("deepseek", day("2025-06-01"))) == ["deepseek-chat", "deepseek-reasoner"]
    assert "successive_r1" in parts("deepseek", day("2025-06-01"))["deepseek-reasoner"].strict
    assert "reasoning_content_v3_2" in parts("deepseek", day("2026-01-01"))["deepseek-reasoner"].strict


def test_a_model_may_have_more_names() -> None:
    """Each is a model of its own, ruled as the first one."""
    found = parts("deepseek", NOW, ["mine"])
    assert found["mine"].routed == "mine"
    assert found["mine"].model.prices == found["deepseek-flash"].model.prices
    assert found["mine"].strict == found["deepseek-flash"].strict


def test_paths_are_the_providers_and_no_others() -> None:
    """What is in beta works there only; an address it has not is none."""
    provider = find("deepseek")
    assert route(provider, "POST", "/beta/chat/completions") == ("chat", True, "")
    assert route(provider, "POST", "/v1/chat/completions") == ("chat", False, "")
    assert route(provider, "POST", "/completions")[0] == ""
    assert route(provider, "POST", "/v1/completions")[0] == ""
    assert route(provider, "GET", "/chat/completions")[0] == ""


def test_an_unknown_provider_is_named_with_the_nearest() -> None:
    """As every other name that is no name."""
    with pytest.raises(ConfigError, match="did you mean deepseek"):
        find("deepsek")
