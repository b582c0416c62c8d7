"""catalog/overlay.py: rows that were said at run time, over those of a file, and what may be kept at all."""

from __future__ import annotations

from typing import Any

import pytest

from moonpool.catalog.catalog import Catalogue, build
from moonpool.catalog.overlay import may_be_kept, overlaid
from moonpool.ledger.money import price_of
from moonpool.settings import ConfigError, Declared, Settings, Vault
from moonpool.settings_hosts import Embedded
from moonpool.settings_money import Channel

DATED = {"valid_from": "2026-01-01", "prompt_miss": "1", "prompt_hit": "1", "completion": "2"}
HOSTS = {name: {"base_url": f"http://127.0.0.1:9/{name}", "dialect": "openai", "api_key": name} for name in "ab"}
MODELS: dict[str, dict[str, Any]] = {
    "m": {"hosts": [{"name": "a", "model": "theirs"}], "window": 4096, "prices": [DATED]}
}
FILE = Settings(home="h", embedded=Embedded(enabled=False), hosts=HOSTS, models=MODELS)


def made(**kept: dict[str, dict[str, Any]]) -> Catalogue:
    return build(FILE, {}, None, kept)


def version(found: Catalogue) -> str:
    return found.find("m").prices.at(1.8e9).version


def test_nothing_kept_is_the_file() -> None:
    """The settings themselves, not a copy."""
    assert overlaid(FILE, {}) is FILE


def test_a_row_replaces_what_it_names() -> None:
    """And leaves the other fields, and the other rows; a host that is only named keeps what the file says of it."""
    found = made(models={"m": {"hosts": ["b", "a"], "output_max": 77}}, hosts={"b": {"concurrency": 3}})
    model = found.find("m")
    assert (model.window, model.output_max) == (4096, 77)
    assert [(target.host.name, target.model) for target in model.targets] == [("b", "m"), ("a", "theirs")]
    assert [(host.name, host.concurrency, host.base_url[-1]) for host in found.hosts()] == [
        ("a", 0, "a"),
        ("b", 3, "b"),
    ]
    assert [(target.host.name, target.model) for target in made().find("m").targets] == [("a", "theirs")]


def test_a_row_adds_models_hosts_and_calendars() -> None:
    """What no file knows."""
    found = made(
        hosts={"c": {"base_url": "http://127.0.0.1:9/c", "api_key": "env:C_KEY"}},
        models={"n": {"hosts": ["c", "b"], "prices": [{**DATED, "peak": {"calendar": "night", "factor": "2"}}]}},
        calendars={"night": {"hours": ["00:00-06:00"], "holidays": "ours"}},
        holidays={"ours": {"2027": {"off": ["2027-01-01"]}}},
    )
    assert found.absent["c"] == "C_KEY is not set in the environment"
    assert [target.host.name for target in found.find("n").targets] == ["b"]
    assert found.calendars["night"].years == {2027}


def test_what_is_off_is_not_there() -> None:
    """A model that nobody can ask for, a host as one without a key."""
    found = made(models={"m": {"off": True}}, hosts={"b": {"off": True}})
    assert "m" not in found.by_name
    assert [host.name for host in found.hosts()] == ["a"]
    assert found.absent["b"] == "its row says that it is off"


def test_a_price_that_is_said_anew_has_another_name() -> None:
    """In the books, though its day is the same; who says the same again has the same name, and the file's own price
    has the name that it always had."""
    dearer = {"m": {"prices": [{**DATED, "completion": "3"}]}}
    names = [
        version(made()),
        version(made(models={"m": {"prices": [DATED]}})),
        version(made(models=dearer)),
        version(made(models={"m": {**dearer["m"], "window": 5000}})),
    ]
    assert names[0] == version(made(models={"m": {"window": 5000}})) == "models.m@2026-01-01"
    assert names[2] == names[3] != names[1]
    assert all(name.startswith("models.m#") and name.endswith("@2026-01-01") for name in names[1:])
    assert made(models=dearer).find("m").price_at(1.8e9).completion == price_of("3")


def test_another_price_tomorrow_does_not_rename_todays() -> None:
    """Each dated row has a name of its own."""
    later = {**DATED, "valid_from": "2099-01-01", "completion": "9"}
    assert version(made(models={"m": {"prices": [DATED, later]}})) == version(made(models={"m": {"prices": [DATED]}}))


@pytest.mark.parametrize(
    ("kept", "key"),
    [
        ({"models": {"m": {"windoww": 1}}}, "models.m.windoww"),
        ({"models": {"m": {"window": "much"}}}, "models.m.window"),
        ({"models": {"m": {"hosts": ["nowhere"]}}}, "models.m.hosts"),
        ({"models": {"m": {"prices": [{**DATED, "completion": "free"}]}}}, "models.m.prices[0]"),
        ({"models": {"m": {"prices": [{**DATED, "valid_from": "soon"}]}}}, "models.m.prices[0].valid_from"),
        ({"hosts": {"a": {"dialect": "klingon"}}}, "hosts.a.dialect"),
        ({"hosts": {"a": {"base_url": "ftp://127.0.0.1"}}}, "hosts.a.base_url"),
        ({"calendars": {"night": {"hours": ["6-7"]}}}, "calendars.night.hours[0]"),
        ({"holidays": {"ours": {"2027": {"off": ["2026-01-01"]}}}}, "holidays.ours.2027.off"),
    ],
)
def test_what_is_no_row_is_refused_by_its_field(kept: Any, key: str) -> None:
    """In the same words as a file's."""
    with pytest.raises(ConfigError) as refused:
        made(**kept)
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("section", "name", "row", "key"),
    [
        ("hosts", "a", {"api_key": "sk-0123456789abcdef"}, "hosts.a.api_key"),
        ("hosts", "a", {"api_key": "file:relative"}, "hosts.a.api_key"),
        ("hosts", "a", {"base_url": "https://me:secret@far.example/v1"}, "hosts.a.base_url"),
        ("accounts", "a", {"name": "a"}, "accounts"),
        ("models", "", {}, "models"),
        ("models", "x" * 101, {}, "models"),
        ("models", "a\nb", {}, "models"),
    ],
)
def test_what_may_not_be_kept(section: str, name: str, row: dict[str, Any], key: str) -> None:
    """A secret, above all, and the sentence does not repeat it."""
    with pytest.raises(ConfigError) as refused:
        may_be_kept(FILE, section, name, row)
    assert refused.value.key == key
    assert "0123456789abcdef" not in str(refused.value)
    assert "me:secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "env:A_KEY", "file:/run/keys/a"])
def test_a_key_that_is_named_may_be_kept(key: str) -> None:
    """It lies where the server runs, or there is none."""
    may_be_kept(FILE, "hosts", "a", {"api_key": key, "base_url": "https://far.example/v1"})


@pytest.mark.parametrize(
    "key",
    [
        "env:VAULT_KEY",
        "env:PGPASSWORD",
        "env:STORE",
        "env:LIMITS",
        "env:PAID",
        "file:/run/acme",
        "file:/h/x/../vault.key",
    ],
)
def test_our_own_secrets_are_no_host_s_key(key: str) -> None:
    """What seals, pays or lets in here is sent to nobody, whoever says so."""
    settings = Settings(
        home="/h",
        store="env:STORE",
        limits="env:LIMITS",
        vault=Vault(key="" if "vault.key" in key else "env:VAULT_KEY"),
        payments={"p": Channel(secret="env:PAID")},
        accounts=[Declared(name="acme", keys=["file:/run/acme"])],
    )
    with pytest.raises(ConfigError, match="own"):
        may_be_kept(settings, "hosts", "a", {"api_key": key})
