"""How is a provider played? Rows of providers.toml, typed, and the models it has at a time, ruled by the catalogue.

A provider's model is a row of the catalogue under the provider's own name for it; what differs there is laid over it.
So a rule or a price is written once, for the server and for the twin.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from moonpool.catalog import load
from moonpool.catalog.catalog import build
from moonpool.catalog.model import Model
from moonpool.settings import ConfigError, Settings, nearest
from moonpool.settings_hosts import Embedded

FILE: Final = "providers.toml"
Shape = Literal[
    "reasoning", "usage_apart", "usage_openai", "usage_three", "no_nulls", "empty_finish", "stop_reason", "no_index"
]
_MADE_UP: Final = "http://twin.invalid"


class Played(Struct, frozen=True, forbid_unknown_fields=True):
    """A name that clients may ask for, from `since` until the day before `until`.

    `row` is the catalogue's row (its own name if empty), `over` what is otherwise there, in the fields of a row;
    `routed` is the name that answers carry, `listed` whether the list of models has it. `also` and `without` change the
    provider's `strict`.
    """

    name: str
    row: str = ""
    routed: str = ""
    listed: bool = True
    since: datetime.date = datetime.date(1970, 1, 1)
    until: datetime.date = datetime.date(9999, 1, 1)
    also: list[str] = []
    without: list[str] = []
    over: dict[str, Any] = {}


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of providers.toml.

    `host` is the row of hosts.toml that is played, `dialect` how it speaks where there is no such row. `key` is the
    shape of its keys, a regular expression; `key_env` where programs look for theirs. `base` is what a program appends
    to the address. `paths` map "METHOD /path" to an operation (`chat`, `completion`) or a page of pages.py, with the
    word `beta` behind it where what is in beta works. `ignores` are fields it does not look at, `switch` is the field
    whose `thinking` or `enable_thinking` turns the thinking on or off where that is not `thinking` itself, `continues`
    the field that says that the last message is to be continued where that is not its `prefix`. `fields` are header
    fields of every answer. `limit` are requests at once where the catalogue's row of the host has no number.
    `model_row` and `model_list` are what its list of models says beyond id and object; "{window}", "{created}" and
    "{name}" stand for the model's. `shape` are quirks of its answers (shape.py). `errors_in_200` are pages whose errors
    have the status 200. `funds` is the currency of its balance.
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
    limit: Annotated[int, Meta(ge=1)] = 1000
    model_row: dict[str, Any] = {}
    model_list: dict[str, Any] = {}
    shape: list[Shape] = []
    funds: str = "CNY"
    switch: str = ""
    continues: str = ""
    errors_in_200: list[str] = []


class Part(Struct, frozen=True):
    """A model as this provider has it: the catalogue's `model`, whose name is what clients ask for. `limit` is how many
    requests of an account may run at once."""

    model: Model
    routed: str
    listed: bool
    strict: tuple[str, ...]
    limit: int


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


def parts(name: str, at: float, more: Sequence[str] = ()) -> dict[str, Part]:
    """What the provider serves at a time (Unix seconds), by name. `more`: names that its first model has as well."""
    provider = find(name)
    day = datetime.datetime.fromtimestamp(at, datetime.UTC).date()
    living = [said for said in provider.models if said.since <= day < said.until]
    first = living[0]
    living += [replace(first, name=alias, row=first.row or first.name, routed="") for alias in more]
    host = provider.host or name
    shipped = load.shipped().models
    overlay = {}
    for said in living:
        table = {**shipped.get(said.row or said.name, {}), **said.over}
        if "alias" in table:
            raise ConfigError(FILE, f"{name}.models.{said.name}", "the row is an alias; name what it stands for.")
        overlay[said.name] = {**table, "hosts": [host], "json_word": "refuse"}  # nothing is added for anybody here
    row: dict[str, Any] = {"base_url": _MADE_UP, "api_key": "twin"}
    if provider.dialect:
        row["dialect"] = provider.dialect
    settings = Settings(embedded=Embedded(enabled=False), hosts={host: row}, models=overlay, file=FILE)
    found = build(settings, {}).by_name
    return {said.name: _part(said, provider, found[said.name]) for said in living}


def _part(said: Played, provider: Provider, model: Model) -> Part:
    strict = tuple(name for name in (*provider.strict, *said.also) if name not in said.without)
    routed = said.routed or said.name
    host = model.targets[0].host
    limit = host.concurrency_by_model.get(routed) or host.concurrency or provider.limit
    return Part(model, routed, said.listed, strict, limit)


def dialect_of(part: Part) -> str:
    return part.model.targets[0].host.dialect
