"""What is served here? `build` joins shipped rows, the operator's rows, and the keys of the environment.

A host without its key is not there; a model that then has no host is served by the embedded one, under every name.
Everything is checked and computed here, once: a request finds a Model by its name and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from moonpool.catalog import load, prices
from moonpool.catalog.calendars import Calendar, midnight, warnings
from moonpool.catalog.model import Bound, Check, Model
from moonpool.catalog.options import checked
from moonpool.catalog.overlay import NOTHING_KEPT, KeptTables, overlaid
from moonpool.catalog.prices import Schedule
from moonpool.catalog.rows import DIALECTS, EMBEDDED, NEEDS, HostRow, ModelRow, PriceRow, Served, Shipped
from moonpool.catalog.weights import weights_rows
from moonpool.errors import Problem
from moonpool.settings import ConfigError, Secret, Settings, masked, nearest, secret
from moonpool.words import Host, Target

__all__ = ["SEARCH", "Catalogue", "Model", "build"]

SEARCH: Final = "web-search"
"""The product whose packs are of search calls."""


class Catalogue(Struct, frozen=True):
    """Models by name, hosts that are there, why the others are not (name -> sentence), and when it is peak."""

    by_name: Mapping[str, Model]
    present: tuple[Host, ...]
    absent: Mapping[str, str]
    calendars: Mapping[str, Calendar] = {}

    def find(self, name: str) -> Model:
        """Raises Problem("caller.unknown_model") that lists the names there are."""
        model = self.by_name.get(name)
        if model is None:
            raise Problem(
                "caller.unknown_model",
                f"The supported API model names are {', '.join(self.by_name)}, but you passed {name[:128]}.",
                param="model",
            )
        return model

    def models(self) -> tuple[Model, ...]:
        """By name."""
        return tuple(self.by_name.values())

    def hosts(self) -> tuple[Host, ...]:
        return self.present

    def products(self) -> tuple[str, ...]:
        """What packs and switches may be of."""
        return (*sorted({model.product for model in self.by_name.values()}), SEARCH)

    def warnings(self, now: float) -> list[str]:
        """What an operator ought to know about these prices, in sentences."""
        used = [model.prices for model in self.by_name.values()]
        used += [
            target.prices
            for model in self.by_name.values()
            for target in model.targets
            if isinstance(target.prices, Schedule)
        ]
        return warnings((calendar for schedule in used for calendar in schedule.calendars()), now)

    def effective(self) -> dict[str, Any]:
        """All of it as plain tables for people, keys masked, amounts per million tokens."""
        return {
            "hosts": {host.name: _host_table(host) for host in self.present},
            "absent": dict(self.absent),
            "models": {model.name: _model_table(model) for model in self.by_name.values()},
        }


class _Local(Struct, frozen=True):
    """What the embedded model is called, can do, and how it is led."""

    model: str
    can: frozenset[str]
    options: Mapping[str, Any]


class _Parts(Struct, frozen=True):
    """What models are made of."""

    settings: Settings
    shipped: Shipped
    hosts: Mapping[str, Host]
    host_rows: Mapping[str, HostRow]
    rows: Mapping[str, ModelRow]
    local: _Local | None
    calendars: Mapping[str, Calendar]
    kept: Mapping[str, Mapping[str, Any]]

    def file(self, model: str) -> str:
        return self.settings.file if model in self.settings.models else load.MODELS_FILE


def build(
    settings: Settings,
    environ: Mapping[str, str],
    embedded: Mapping[str, Any] | None = None,
    kept: KeptTables = NOTHING_KEPT,
) -> Catalogue:
    """The catalogue that these settings make. Raises ConfigError.

    `embedded` is what a GGUF file of the operator's own says of itself (`model`, `thinks`); `kept` are rows that were
    said at run time, laid over those of the settings.
    """
    settings = overlaid(settings, kept)
    shipped = load.shipped()
    host_rows = load.host_rows(settings)
    hosts, absent = _hosts(host_rows, settings, environ)
    parts = _Parts(
        settings,
        shipped,
        hosts,
        host_rows,
        load.model_rows(shipped.models, settings),
        _local(settings, embedded or {}) if EMBEDDED in hosts else None,
        load.known_calendars(settings),
        kept.get("models", {}),
    )
    models = {}
    for name in sorted(parts.rows):
        model = _model(name, parts)
        if model is not None:
            models[name] = model
    return Catalogue(models, tuple(hosts.values()), absent, parts.calendars)


# Hosts


def _hosts(
    rows: Mapping[str, HostRow], settings: Settings, environ: Mapping[str, str]
) -> tuple[dict[str, Host], dict[str, str]]:
    """The hosts that are there, and why the others are not."""
    hosts: dict[str, Host] = {}
    absent: dict[str, str] = {}
    for name, row in rows.items():
        file = settings.file if name in settings.hosts else load.HOSTS_FILE
        load.one_of(row.dialect, DIALECTS, f"hosts.{name}.dialect", file)
        if row.off:
            absent[name] = "its row says that it is off"
            continue
        if row.transport == "llama":
            if settings.embedded.enabled:
                hosts[name] = _host(name, row, "", Secret(), settings)
            else:
                absent[name] = "embedded.enabled is false"
            continue
        unset = _unset(row, environ)
        if unset:
            absent[name] = f"{unset} is not set in the environment"
            continue
        base_url = environ[row.base_url[4:]] if row.base_url.startswith("env:") else row.base_url
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(file, f"hosts.{name}.base_url", "begins with http:// or https://.")
        key = Secret()
        if row.api_key:
            try:
                key = secret(row.api_key, environ, f"hosts.{name}.api_key")
            except ConfigError as error:
                raise ConfigError(file, error.key, error.sentence) from None
        hosts[name] = _host(name, row, base_url.rstrip("/"), key, settings)
    return hosts, absent


def _unset(row: HostRow, environ: Mapping[str, str]) -> str:
    """A variable that the row names and the environment has not."""
    for text in (row.api_key, row.base_url):
        if text.startswith("env:") and not environ.get(text[4:]):
            return text[4:]
    return ""


def _host(name: str, row: HostRow, base_url: str, key: Secret, settings: Settings) -> Host:
    upstream = settings.upstream
    return Host(
        name=name,
        dialect=row.dialect,
        transport=row.transport,
        base_url=base_url,
        api_key=key,
        account=row.account or name,
        concurrency=row.concurrency,
        concurrency_by_model=row.concurrency_by_model,
        balance=tuple(row.balance),
        connect_s=row.connect_s or upstream.connect_s,
        first_s=row.first_s or upstream.first_s,
        gap_s=row.gap_s or upstream.gap_s,
        total_s=row.total_s or upstream.total_s,
        options=row.options,
    )


def _local(settings: Settings, facts: Mapping[str, Any]) -> _Local:
    embedded = settings.embedded
    rows = weights_rows()
    row = next((row for row in rows if row.name == (embedded.model or rows[0].name)), None)
    options: dict[str, Any] = {"budget": embedded.thinking_budget_tokens, "context": embedded.context}
    if row is not None:
        options["thinks"] = row.thinks
        if row.sampling:
            options["sampling"] = dict(row.sampling)
        return _Local(row.name, row.can, options)
    name = facts.get("model") or embedded.model.rpartition("/")[2].removesuffix(".gguf")
    options["thinks"] = bool(facts.get("thinks")) if embedded.thinks == "auto" else embedded.thinks == "yes"
    return _Local(name, frozenset(NEEDS), options)


# Models


def _model(name: str, parts: _Parts) -> Model | None:
    """None for a model that nothing serves."""
    row = parts.rows[name]
    if row.off:
        return None
    if row.alias:
        return _alias(name, row, parts)
    file = parts.file(name)
    targets = _targets(name, row, parts)
    if not targets:
        return None
    first = targets[0].host
    checks, bounds, defaults = load.checks(row.rules, parts.shipped.rules, name, file)
    checks["max_tokens"] = load.limit("max_tokens", row.output_max)
    searches = any(parts.host_rows[target.host.name].searches for target in targets)
    if not searches:
        checks["enable_search"] = Check(drop=True)
    local = first.transport == "llama"
    free = local and "prices" not in parts.settings.models.get(name, {})
    thinking = row.output_default_thinking or row.output_default
    can = frozenset[str]().union(*(target.can for target in targets))
    text_only = row.text_only or any(parts.host_rows[target.host.name].text_only for target in targets)
    return Model(
        name=name,
        window=parts.settings.embedded.context if local else row.window,
        output_max=row.output_max,
        output_default=row.output_default,
        output_default_thinking=thinking,
        output_default_effort_max=row.output_default_effort_max or thinking,
        output_default_sent=row.output_default_sent,
        fim_output_max=row.fim_output_max or row.output_max,
        limit_counts_thinking=row.limit_counts_thinking,
        thinking_max=row.thinking_max,
        # Where no host can think, what thinks by default does not.
        thinking=row.thinking if "thinking" in can else "never",
        thinking_forced_tools=row.thinking_forced_tools,
        can=can,
        mixed=len({target.can for target in targets}) > 1,
        routing=row.routing or parts.settings.routing.policy,
        emulate=row.emulate,
        json_word=row.json_word,
        replay=row.replay,
        peculiar=row.replay != "keep" or row.system != "keep" or text_only,
        system=row.system,
        text_only=text_only,
        checks=checks,
        bounds=bounds,
        defaults=defaults,
        efforts=parts.shipped.efforts,
        unsupported={need: text.format(model=name) for need, text in parts.shipped.unsupported.items()},
        prices=prices.FREE if free else _prices(name, row.prices, f"models.{name}", parts, "prices"),
        product=row.product or name,
        searches=searches,
        targets=targets,
        owned_by=parts.host_rows[first.name].owner or first.name,
        created=midnight(row.released) if row.released else 0,
    )


def _alias(name: str, row: ModelRow, parts: _Parts) -> Model | None:
    """The same model under one more name."""
    key, file = f"models.{name}.alias", parts.file(name)
    load.one_of(row.alias, [other for other in parts.rows if other != name], key, file)
    if parts.rows[row.alias].alias:
        raise ConfigError(file, key, f"{row.alias} is itself an alias.")
    model = _model(row.alias, parts)
    return None if model is None else replace(model, name=name)


def _targets(name: str, row: ModelRow, parts: _Parts) -> tuple[Target, ...]:
    targets = []
    key, file = f"models.{name}.hosts", parts.file(name)
    for entry in row.hosts:
        served = Served(entry) if isinstance(entry, str) else entry
        load.one_of(served.name, parts.host_rows, key, file)
        checked(served.options, f"{key}.{served.name}.options", file)
        host = parts.hosts.get(served.name)
        if host is not None:
            targets.append(_target(name, row, served, host, parts))
    if len({(target.host.name, target.model) for target in targets}) < len(targets):
        raise ConfigError(file, key, "the same host stands there twice.")
    if not targets and parts.local is not None:
        targets.append(_target(name, row, Served(EMBEDDED), parts.hosts[EMBEDDED], parts))
    return tuple(targets)


def _target(name: str, row: ModelRow, served: Served, host: Host, parts: _Parts) -> Target:
    host_row = parts.host_rows[host.name]
    can = row.can - (host_row.cannot or frozenset())
    if host.transport == "llama":
        assert parts.local is not None
        options = {
            **parts.local.options,
            "limit_counts_thinking": row.limit_counts_thinking,
            **served.options,
        }
        return Target(host, served.model or parts.local.model, can & parts.local.can, None, options, served.weight)
    model = served.model or name
    costs: Schedule | None = None
    if served.prices:
        costs = _prices(name, served.prices, f"models.{name}.hosts.{host.name}", parts, "hosts")
    elif host_row.listed:
        known = model if model in parts.rows else name
        costs = _prices(known, parts.rows[known].prices, f"models.{known}", parts, "prices")
    replay = served.replay or host_row.replay or "keep"
    return Target(host, model, can, costs, served.options, served.weight, replay)


def _prices(name: str, rows: str | list[PriceRow], key: str, parts: _Parts, field: str) -> Schedule:
    """What stands under `prices` of `key`, which names it in the books unless it is a list's; `field` of the model's
    row is where it was said: at run time, if that is kept."""
    file, listed, marked = parts.file(name), key, field in parts.kept.get(name, {})
    if isinstance(rows, str):
        lists = parts.shipped.prices
        if rows not in lists:
            raise ConfigError(file, f"{key}.prices", f"there is no list {rows!r}{nearest(rows, lists)}")
        listed, rows, marked = rows, lists[rows], False
    steps = prices.schedule(rows, listed, f"{key}.prices", file, parts.calendars, marked=marked)
    return Schedule(steps) if steps else prices.FREE


# For people


def _host_table(host: Host) -> dict[str, Any]:
    table = {name: getattr(host, name) for name in host.__struct_fields__ if name != "name"}
    return {**table, "api_key": masked(host.api_key) if host.api_key else "", "options": dict(host.options)}


def _model_table(model: Model) -> dict[str, Any]:
    plain = (
        "window output_max output_default output_default_thinking limit_counts_thinking thinking_max thinking "
        "thinking_forced_tools replay system text_only json_word owned_by created"
    )
    return {
        **{name: getattr(model, name) for name in plain.split()},
        "can": sorted(model.can),
        "emulate": sorted(model.emulate),
        "defaults": dict(model.defaults),
        "rules": {name: _check_text(check) for name, check in model.checks.items()},
        "bounds": {bound.field: _bound_text(bound) for bound in model.bounds},
        "product": model.product,
        "prices": [prices.step_table(step) for step in model.prices.steps],
        "hosts": [
            {
                "name": target.host.name,
                "model": target.model,
                "can": sorted(target.can),
                "prices": [
                    prices.step_table(step)
                    for step in (target.prices.steps if isinstance(target.prices, Schedule) else ())
                ],
            }
            for target in model.targets
        ],
    }


def _bound_text(bound: Bound) -> str:
    said = (("thinking", bound.thinking), ("plain", bound.plain))
    return ", ".join(f"{name} [{ends[0]:g}, {ends[1]:g}]" for name, ends in said if ends is not None)


def _check_text(check: Check) -> str:
    if check.refuse:
        return "refused"
    ranged = check.message.rpartition(" is ")[2]
    return ", ".join(filter(None, (ranged, "dropped" if check.drop else "")))
