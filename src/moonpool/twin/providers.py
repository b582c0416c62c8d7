"""How is a provider played? Rows of providers.toml, typed, and the models it has at a time, ruled by the catalogue.

A provider's model is a row of the catalogue under the provider's own name for it; what its row does not say is the
catalogue's. So a rule or a price is written once, for the server and for the twin.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from moonpool.catalog.catalog import build
from moonpool.catalog.model import Model
from moonpool.settings import ConfigError, Embedded, Settings, nearest

FILE: Final = "providers.toml"
_MADE_UP: Final = "http://twin.invalid"


class Played(Struct, frozen=True, forbid_unknown_fields=True):
    """A name that clients may ask for, from `since` until the day before `until`.

    `row` is the catalogue's row (its own name if empty), `routed` the name that answers carry, `listed` whether the
    list of models has it. `also` and `without` change the provider's `strict`; `can` and `replay` the catalogue's row.
    """

    name: str
    row: str = ""
    routed: str = ""
    listed: bool = True
    since: datetime.date = datetime.date(1970, 1, 1)
    until: datetime.date = datetime.date(9999, 1, 1)
    also: list[str] = []
    without: list[str] = []
    can: list[str] = []
    replay: str = ""


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of providers.toml.

    `host` is the row of hosts.toml that is played, `dialect` how it speaks where there is no such row. `key` is the
    shape of its keys, a regular expression; `key_env` where programs look for theirs. `base` is what a program appends
    to the address. `paths` map "METHOD /path" to an operation (`chat`, `completion`) or a page of pages.py, with the
    word `beta` behind it where what is in beta works. `ignores` are fields it does not look at. `fields` are header
    fields of every answer, `refusal_fields` those of refusals. `model_row` and `model_list` are what its list of models
    says beyond id and object; "{window}" and "{created}" stand for numbers. `shape` are quirks of its answers
    (shape.py). `funds` is the currency of its balance.
    """

    title: str
    key: str
    paths: dict[str, str]
    models: list[Played]
    says: dict[str, str] = {}
    host: str = ""
    dialect: str = ""
    key_env: str = "OPENAI_API_KEY"
    base: str = ""
    keyless: bool = False
    bad_request_type: str = "application/json"
    ignores: list[str] = []
    strict: list[str] = []
    stops_max: int = 16
    fields: dict[str, str] = {}
    limits: dict[str, Annotated[int, Meta(ge=1)]] = {}
    limit: Annotated[int, Meta(ge=1)] = 1000
    model_row: dict[str, Any] = {}
    model_list: dict[str, Any] = {}
    shape: list[Literal["reasoning", "usage_asked", "usage_plain", "null_content", "stop_reason"]] = []
    funds: str = "CNY"


class Part(Struct, frozen=True):
    """A model as this provider has it: the catalogue's `model`, whose name is what clients ask for."""

    model: Model
    routed: str
    listed: bool
    strict: tuple[str, ...]


@functools.cache
def providers() -> Mapping[str, Provider]:
    """By the name that the command takes."""
    text = resources.files("moonpool.twin").joinpath(FILE).read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Provider])


def find(name: str) -> Provider:
    """Raises ConfigError that names the nearest."""
    known = providers()
    if name not in known:
        raise ConfigError("", "provider", f"{name!r} is not known{nearest(name, known)}")
    return known[name]


def parts(name: str, at: float) -> dict[str, Part]:
    """What the provider serves at a time (Unix seconds), by name."""
    provider = find(name)
    day = datetime.datetime.fromtimestamp(at, datetime.UTC).date()
    living = [said for said in provider.models if said.since <= day < said.until]
    host = provider.host or name
    overlay: dict[str, dict[str, Any]] = {}
    for said in living:
        table: dict[str, Any] = {"hosts": [host]}
        if said.can:
            table["can"] = said.can
        if said.replay:
            table["replay"] = said.replay
        overlay[said.row or said.name] = table
    row: dict[str, Any] = {"base_url": _MADE_UP, "api_key": "twin"}
    if provider.dialect:
        row["dialect"] = provider.dialect
    settings = Settings(embedded=Embedded(enabled=False), hosts={host: row}, models=overlay, file=FILE)
    found = build(settings, {}, now=at).by_name
    return {said.name: _part(said, provider, found[said.row or said.name]) for said in living}


def _part(said: Played, provider: Provider, model: Model) -> Part:
    strict = tuple(name for name in (*provider.strict, *said.also) if name not in said.without)
    if model.name != said.name:
        unsupported = {need: text.replace(model.name, said.name) for need, text in model.unsupported.items()}
        model = replace(model, name=said.name, unsupported=unsupported)
    return Part(model, said.routed or said.name, said.listed, strict)


def dialect_of(part: Part) -> str:
    return part.model.targets[0].host.dialect
