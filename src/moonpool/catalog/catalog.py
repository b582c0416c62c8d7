"""Loads the catalogue: shipped rows, the operator's rows laid over them by key, all of it checked before it is used.

Whatever is wrong is a ConfigError that names file, key and rule. A host without its key is not there; a model that
then has no host is served by the embedded one, which serves every name.
"""

from __future__ import annotations

import datetime
import difflib
import tomllib
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from moonpool.catalog.model import Model, Rule
from moonpool.catalog.weights import weights_rows
from moonpool.errors import Problem
from moonpool.ledger.money import price_of
from moonpool.settings import ConfigError, Settings, masked, secret
from moonpool.words import Host, Price, Target

EMBEDDED: Final = "embedded"
DIALECTS: Final = ("openai", "deepseek", "llamacpp")
TRANSPORTS: Final = ("http", "llama")
NEEDS: Final = ("tools", "thinking", "json_object", "prefix", "fim", "logprobs", "n")

Text = Annotated[str, Meta(min_length=1)]


class HostRow(Struct, forbid_unknown_fields=True):
    """A row of hosts.toml, or `[hosts.NAME]` of moonpool.toml."""

    dialect: Annotated[Text, Meta(description="How it speaks: openai, deepseek or llamacpp.")]
    base_url: Annotated[str, Meta(description="Where it is; /chat/completions and the like are appended.")] = ""
    transport: Annotated[str, Meta(description="How bytes get there: http, or llama for the embedded model.")] = "http"
    api_key: Annotated[str, Meta(description="Its API key: a literal, env:NAME or file:/path.")] = ""
    env: Annotated[
        str, Meta(description="Environment variable that holds its API key; without it the host is not there.")
    ] = ""
    env_url: Annotated[str, Meta(description="Environment variable that holds its base URL.")] = ""
    owner: Annotated[str, Meta(description="Whom GET /models names as owner of what it serves.")] = ""
    concurrency: Annotated[
        int, Meta(ge=0, description="Requests at once its account allows; 0 for no limit known.")
    ] = 0
    listed: Annotated[bool, Meta(description="Whether the models' list prices are what it charges us.")] = False
    connect_s: Annotated[float | None, Meta(description="Seconds to connect; upstream.connect_s if not given.")] = None
    first_s: Annotated[
        float | None, Meta(description="Seconds until first content; upstream.first_s if not given.")
    ] = None
    gap_s: Annotated[float | None, Meta(description="Seconds of silence allowed; upstream.gap_s if not given.")] = None
    total_s: Annotated[float | None, Meta(description="Seconds for a whole answer; upstream.total_s if not given.")] = (
        None
    )
    options: Annotated[dict[str, Any], Meta(description="For its dialect: drop (fields never sent), beta_path.")] = {}


class Served(Struct, forbid_unknown_fields=True):
    """An entry of a model's `hosts` that says more than the host's name."""

    name: Text
    model: str = ""
    weight: int = 1
    options: dict[str, Any] = {}


class PriceRow(Struct, forbid_unknown_fields=True):
    """A dated price: decimal texts per million tokens."""

    valid_from: datetime.date
    prompt_miss: str
    prompt_hit: str
    completion: str
    currency: str = "CNY"


class ModelRow(Struct, forbid_unknown_fields=True):
    """A row of models.toml, or `[models.NAME]` of moonpool.toml."""

    window: Annotated[int, Meta(ge=1, description="Tokens of context, answer included.")] = 65_536
    output_max: Annotated[int, Meta(ge=1, description="Longest answer that can be asked for, in tokens.")] = 8_192
    output_default: Annotated[int, Meta(ge=1, description="Longest answer where max_tokens is not given.")] = 4_096
    output_default_thinking: Annotated[int, Meta(ge=0, description="The same with thinking; 0 for no difference.")] = 0
    limit_counts_thinking: Annotated[bool, Meta(description="Whether max_tokens includes the thinking.")] = True
    thinking_max: Annotated[int, Meta(ge=0, description="Longest thinking where max_tokens does not include it.")] = 0
    thinking: Annotated[
        Literal["always", "never", "default_on", "default_off"],
        Meta(description="Whether it thinks: always, never, default_on or default_off."),
    ] = "never"
    forced_tools: Annotated[
        Literal["", "thinking_off"], Meta(description="thinking_off: thinking gives way to a forced tool_choice.")
    ] = ""
    can: Annotated[
        tuple[str, ...], Meta(description="What it can beyond text: tools thinking json_object prefix fim logprobs n.")
    ] = ("tools", "json_object", "prefix", "fim", "logprobs", "n")
    replay: Annotated[
        Literal["reject", "strip", "keep"], Meta(description="What becomes of reasoning_content in the messages.")
    ] = "keep"
    released: Annotated[datetime.date, Meta(description="When it came out; GET /models gives it as created.")] = (
        datetime.date(2025, 1, 1)
    )
    rules: Annotated[tuple[str, ...], Meta(description="Sets of field rules that apply, later ones win.")] = ("common",)
    hosts: Annotated[
        list[str | Served],
        Meta(description="Hosts in order of preference: names, or tables with name, model, weight, options."),
    ] = []
    prices: Annotated[list[PriceRow], Meta(description="Dated prices, decimal texts per million tokens.")] = []


class Catalogue(Struct, frozen=True):
    """What is served. `effective` is all of it as tables, secrets masked."""

    by_name: Mapping[str, Model]
    all_hosts: tuple[Host, ...]
    effective: Mapping[str, Any]

    def find(self, name: str) -> Model:
        """The model of this name or alias. Raises Problem("caller.unknown_model") that lists the names there are."""
        model = self.by_name.get(name)
        if model is None:
            names = ", ".join(model.name for model in self.models())
            raise Problem(
                "caller.unknown_model",
                f"The supported API model names are {names}, but you passed {name[:100]}.",
                param="model",
            )
        return model

    def models(self) -> tuple[Model, ...]:
        """Each once, by name."""
        return tuple(
            sorted({model.name: model for model in self.by_name.values()}.values(), key=lambda model: model.name)
        )

    def hosts(self) -> tuple[Host, ...]:
        """The hosts in use."""
        return self.all_hosts


def build(settings: Settings, environ: Mapping[str, str], embedded: Mapping[str, Any] | None = None) -> Catalogue:
    """The catalogue that these settings make. `embedded`: what is known of a GGUF file of the operator's own
    (`model`, `thinks`), over what the settings say. Raises ConfigError."""
    shipped = {name: _shipped(f"{name}.toml") for name in ("hosts", "models")}
    host_tables = _overlaid(shipped["hosts"]["hosts"], settings.hosts)
    model_tables = _overlaid(shipped["models"]["models"], settings.models)
    host_rows = {name: _row(table, HostRow, f"hosts.{name}", settings) for name, table in host_tables.items()}
    model_rows = {name: _row(table, ModelRow, f"models.{name}", settings) for name, table in model_tables.items()}
    own = frozenset(settings.hosts)
    hosts = _hosts(host_rows, own, settings, environ)
    rules = {name: {field: _row(rule, Rule, f"rules.{name}.{field}", settings) for field, rule in table.items()}
             for name, table in shipped["models"]["rules"].items()}  # fmt: skip
    efforts = shipped["models"]["efforts"]
    here = _embedded(settings, dict(embedded or {})) if EMBEDDED in hosts else None
    models: dict[str, Model] = {}
    for name, row in model_rows.items():
        model = _model(name, row, hosts, host_rows, rules, efforts, here, settings)
        if model.targets:
            models[name] = model
    for alias, name in shipped["models"]["aliases"].items():
        if alias in models:
            raise ConfigError("models.toml", f"aliases.{alias}", "is the name of a model too.")
        if name in models:
            models[alias] = models[name]
    effective = {"hosts": {name: _shown(host_tables[name]) for name in hosts}, "models": model_tables}
    return Catalogue(models, tuple(hosts.values()), effective)


def _shipped(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text("utf-8"))


def _overlaid(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = {name: dict(table) for name, table in shipped.items()}
    for name, table in own.items():
        tables[name] = {**tables.get(name, {}), **table}
    return tables


def _row(table: Any, kind: Any, key: str, settings: Settings) -> Any:
    names = kind.__struct_fields__
    if isinstance(table, Mapping):
        for name in table:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}."
                raise ConfigError(settings.file, f"{key}.{name}", f"is unknown{hint}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        sentence, _, where = str(error).partition(" - at `$")
        raise ConfigError(settings.file, key + where.rstrip("`"), f"{sentence}.") from None


def _hosts(
    rows: Mapping[str, HostRow], own: Collection[str], settings: Settings, environ: Mapping[str, str]
) -> dict[str, Host]:
    """The hosts that are there: declared by the operator, or with their key in the environment."""
    hosts: dict[str, Host] = {}
    upstream = settings.upstream
    for name, row in rows.items():
        key = f"hosts.{name}"
        _one_of(row.dialect, DIALECTS, f"{key}.dialect", settings)
        _one_of(row.transport, TRANSPORTS, f"{key}.transport", settings)
        base_url = row.base_url or environ.get(row.env_url, "")
        api_key = environ.get(row.env, "") if row.env else ""
        if row.api_key:
            api_key = secret(row.api_key, environ, f"{key}.api_key")
        if row.transport == "llama":
            if not settings.embedded.enabled:
                continue
        elif name not in own and not api_key:
            continue
        elif not base_url.startswith(("http://", "https://")):
            where = f" (or {row.env_url} in the environment)" if row.env_url else ""
            raise ConfigError(settings.file, f"{key}.base_url", f"must begin with http:// or https://{where}.")
        hosts[name] = Host(
            name=name,
            dialect=row.dialect,
            transport=row.transport,
            base_url=base_url.rstrip("/"),
            api_key=api_key,
            concurrency=row.concurrency,
            connect_s=row.connect_s or upstream.connect_s,
            first_s=row.first_s or upstream.first_s,
            gap_s=row.gap_s or upstream.gap_s,
            total_s=row.total_s or upstream.total_s,
            options=row.options,
        )
    return hosts


def _embedded(settings: Settings, known: dict[str, Any]) -> dict[str, Any]:
    """What the embedded model is called, can do, and how it is led."""
    wanted = settings.embedded.model
    row = next((row for row in weights_rows() if row.name == (wanted or row.name)), None)
    own = row is None
    thinks = known.pop("thinks", False) if own else row.thinks  # type: ignore[union-attr]
    if settings.embedded.thinks != "auto":
        thinks = settings.embedded.thinks == "yes"
    options = {
        "thinks": thinks,
        "budget": settings.embedded.thinking_budget_tokens,
        "context": settings.embedded.context,
    }
    if row is not None and row.sampling:
        options["sampling"] = dict(row.sampling)
    return {
        "model": known.pop("model", wanted) if own else row.name,  # type: ignore[union-attr]
        "can": frozenset(NEEDS) if row is None else frozenset(row.can),
        "options": options,
    }


def _model(
    name: str,
    row: ModelRow,
    hosts: Mapping[str, Host],
    host_rows: Mapping[str, HostRow],
    sets: Mapping[str, Mapping[str, Rule]],
    efforts: Mapping[str, str],
    here: Mapping[str, Any] | None,
    settings: Settings,
) -> Model:
    key = f"models.{name}"
    for need in row.can:
        _one_of(need, NEEDS, f"{key}.can", settings)
    rules: dict[str, Rule] = {}
    for chosen in row.rules:
        _one_of(chosen, sets, f"{key}.rules", settings)
        rules.update(sets[chosen])
    prices = _prices(row, key, settings)
    targets: list[Target] = []
    for entry in row.hosts:
        served = Served(entry) if isinstance(entry, str) else entry
        _one_of(served.name, host_rows, f"{key}.hosts", settings)
        host = hosts.get(served.name)
        if host is None or host.transport == "llama":
            continue
        price = prices[-1][1] if host_rows[served.name].listed else Price()
        targets.append(Target(host, served.model or name, frozenset(NEEDS), price, served.options))
    can, window = frozenset(row.can), row.window
    if here is not None and (not targets or EMBEDDED in row.hosts):
        options = {**here["options"], "limit_counts_thinking": row.limit_counts_thinking}
        targets.append(Target(hosts[EMBEDDED], here["model"], here["can"], Price(), options))
        if len(targets) == 1:
            # What runs on this machine costs nothing.
            prices = ((0.0, Price()),)
            window = min(window, settings.embedded.context)
    return Model(
        name=name,
        window=window,
        output_max=row.output_max,
        output_default=row.output_default,
        output_default_thinking=row.output_default_thinking or row.output_default,
        thinking=row.thinking,
        limit_counts_thinking=row.limit_counts_thinking,
        thinking_extra=0 if row.limit_counts_thinking else row.thinking_max,
        can=can,
        replay=row.replay,
        forced_tools=row.forced_tools,
        rules=rules,
        defaults=tuple((field, rule.default) for field, rule in rules.items() if rule.default is not None),
        efforts=efforts,
        prices=prices,
        targets=tuple(targets),
        owned_by=(host_rows[targets[0].host.name].owner or targets[0].host.name) if targets else "",
        created=_midnight(row.released),
    )


def _prices(row: ModelRow, key: str, settings: Settings) -> tuple[tuple[float, Price], ...]:
    prices: list[tuple[float, Price]] = []
    for number, dated in enumerate(row.prices):
        try:
            price = Price(
                price_of(dated.prompt_miss),
                price_of(dated.prompt_hit),
                price_of(dated.completion),
                dated.currency,
                dated.valid_from.isoformat(),
            )
        except ValueError as error:
            raise ConfigError(settings.file, f"{key}.prices[{number}]", f"{error}.") from None
        start = float(_midnight(dated.valid_from))
        if prices and start <= prices[-1][0]:
            raise ConfigError(settings.file, f"{key}.prices[{number}]", "prices must be in the order of their dates.")
        prices.append((start, price))
    return tuple(prices) or ((0.0, Price()),)


def _midnight(day: datetime.date) -> int:
    """Unix seconds of a day's begin in Beijing, where the prices are made."""
    zone = datetime.timezone(datetime.timedelta(hours=8))
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def _one_of(name: str, known: Collection[str], key: str, settings: Settings) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), 1)
        raise ConfigError(
            settings.file,
            key,
            f"{name!r} is not known{f'; did you mean {near[0]}?' if near else '; there are ' + ', '.join(known) + '.'}",
        )


def _shown(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: masked(value) if name == "api_key" else value for name, value in table.items()}
