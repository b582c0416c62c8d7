"""How do tables become rows? Reads the shipped files, lays the operator's tables over them, refuses what is no row.

Whatever is wrong is a ConfigError with file, key and rule. Sources: DESIGN 8 (overlay by key).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from moonpool.catalog.calendars import Calendar, calendars, check_year
from moonpool.catalog.model import Bound, Check
from moonpool.catalog.options import checked
from moonpool.catalog.rows import (
    AgreedRow,
    CalendarRow,
    DialectRow,
    HostRow,
    ModelRow,
    PeakRow,
    PriceRow,
    RuleRow,
    Served,
    Shipped,
    YearRow,
)
from moonpool.settings import ConfigError, Settings, explained, nearest

R = TypeVar("R", HostRow, ModelRow, RuleRow, CalendarRow, YearRow, AgreedRow)

HOSTS_FILE: Final = "hosts.toml"
MODELS_FILE: Final = "models.toml"
CALENDARS_FILE: Final = "calendars.toml"

_UNKNOWN: Final = re.compile(r"object contains unknown field `(.*)`\.", re.IGNORECASE)
_PLAIN: Final = DialectRow()
_RANGE: Final = re.compile(r"([\[(])(\S+), (\S+)\]")


def read(file: str) -> dict[str, Any]:
    """A file that comes with this package."""
    return tomllib.loads(resources.files(__package__).joinpath(file).read_text("utf-8"))


def shipped() -> Shipped:
    return msgspec.convert(read(MODELS_FILE), Shipped)


def host_rows(settings: Settings) -> dict[str, HostRow]:
    """What the row of a host leaves open is as its dialect has it."""
    shipped = read(HOSTS_FILE)
    tables: dict[str, dict[str, Any]] = shipped["hosts"]
    dialects = {name: msgspec.convert(table, DialectRow) for name, table in shipped["dialects"].items()}
    rows = _rows(tables, settings.hosts, HostRow, "hosts", HOSTS_FILE, settings.file)
    for name, row in rows.items():
        checked(row.options, f"hosts.{name}.options", settings.file if name in settings.hosts else HOSTS_FILE)
    return {name: _completed(row, dialects.get(row.dialect, _PLAIN)) for name, row in rows.items()}


def _completed(row: HostRow, dialect: DialectRow) -> HostRow:
    return msgspec.structs.replace(
        row,
        cannot=dialect.cannot if row.cannot is None else row.cannot,
        replay=row.replay or dialect.replay,
        options={**dialect.options, **row.options},
    )


def model_rows(tables: Mapping[str, dict[str, Any]], settings: Settings) -> dict[str, ModelRow]:
    return _rows(tables, settings.models, ModelRow, "models", MODELS_FILE, settings.file)


def _rows(
    tables: Mapping[str, dict[str, Any]],
    own: Mapping[str, dict[str, Any]],
    kind: type[R],
    room: str,
    file: str,
    own_file: str,
) -> dict[str, R]:
    """Every row; a table of the operator's replaces the values it names and leaves the others."""
    rows = {}
    for name in [*tables, *(name for name in own if name not in tables)]:
        table = {**tables.get(name, {}), **own.get(name, {})}
        if name in tables and "hosts" in own.get(name, {}):
            table["hosts"] = as_before(table["hosts"], tables[name].get("hosts", []))
        rows[name] = row(table, kind, f"{room}.{name}", own_file if name in own else file)
    return rows


def as_before(entries: Any, before: Sequence[Any]) -> Any:
    """A host that is only named, and that the row beneath says more of, keeps that."""
    if not isinstance(entries, list):
        return entries
    known = {entry["name"]: entry for entry in before if isinstance(entry, Mapping)}
    return [known.get(entry, entry) if isinstance(entry, str) else entry for entry in entries]


def row(table: Mapping[str, Any], kind: type[R], key: str, file: str) -> R:
    """A table as a row of this kind. Raises ConfigError."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        found = explained(error, file, key)
        unknown = _UNKNOWN.fullmatch(found.sentence)
        if unknown is None:
            raise found from None
        inner = _kind_at(found.key.removeprefix(key), kind)
        names = [field.name for field in msgspec.structs.fields(inner)]
        raise ConfigError(file, f"{found.key}.{unknown[1]}", f"is no field{nearest(unknown[1], names)}") from None


def _kind_at(path: str, kind: type[Struct]) -> type[Struct]:
    if path.endswith(".peak"):
        return PeakRow
    if ".prices[" in path:
        return PriceRow
    return Served if path.startswith(".hosts[") else kind


def one_of(name: str, known: Collection[str], key: str, file: str) -> None:
    """Raises ConfigError for a name that is not known."""
    if name not in known:
        raise ConfigError(file, key, f"{name!r} is not known{nearest(name, known)}")


def known_calendars(settings: Settings) -> dict[str, Calendar]:
    """When it is peak: shipped rows with the operator's over them. Raises ConfigError."""
    shipped = read(CALENDARS_FILE)
    file = settings.file or CALENDARS_FILE
    rows = _rows(shipped["calendars"], settings.calendars, CalendarRow, "calendars", CALENDARS_FILE, settings.file)
    years: dict[str, dict[str, YearRow]] = {}
    for name in {**shipped["holidays"], **settings.holidays}:
        tables, own = shipped["holidays"].get(name, {}), settings.holidays.get(name, {})
        # A year that the operator writes is whole: what was shipped of it is not announced, or he knows better.
        years[name] = {
            year: row({**tables, **own}[year], YearRow, f"holidays.{name}.{year}", file) for year in {**tables, **own}
        }
    try:
        for name, by_year in years.items():
            for year, said in by_year.items():
                check_year(name, year, said)
        return calendars(rows, years)
    except ConfigError as error:
        raise ConfigError(file, error.key, error.sentence) from None


def checks(
    chosen: Sequence[str], sets: Mapping[str, Mapping[str, Mapping[str, Any]]], model: str, file: str
) -> tuple[dict[str, Check], tuple[Bound, ...], tuple[tuple[str, Any], ...]]:
    """The rules of fields, ready to run: checks, bounds, defaults. Of several sets a later goes before an earlier."""
    merged: dict[str, dict[str, Any]] = {}
    for name in chosen:
        one_of(name, sets, f"models.{model}.rules", file)
        for field, said in sets[name].items():
            merged[field] = {**merged.get(field, {}), **said}
    ready, bounds, defaults = {}, [], []
    for field, table in merged.items():
        rule = row(table, RuleRow, f"rules.{field}", MODELS_FILE)
        ready[field] = Check(drop=rule.drop, refuse=rule.refuse.format(model=model))
        if rule.range:
            ready[field] = _ranged(ready[field], field, rule.range)
        if rule.thinking or rule.plain:
            bounds.append(Bound(field, _bound(rule.thinking), _bound(rule.plain)))
        if rule.default is not None:
            defaults.append((field, rule.default))
    return ready, tuple(bounds), tuple(defaults)


def _bound(text: str) -> tuple[float, float] | None:
    found = _RANGE.fullmatch(text)
    return (float(found[2]), float(found[3])) if found is not None else None


def _ranged(check: Check, field: str, text: str) -> Check:
    """With the range that is written in `text`, as people read it in the refusal."""
    found = _RANGE.fullmatch(text)
    assert found is not None, f"{field}: {text}"
    message = f"Invalid {field} value, the valid range of {field} is {text}"
    return msgspec.structs.replace(
        check, low=float(found[2]), high=float(found[3]), above=found[1] == "(", message=message
    )


def limit(field: str, high: int) -> Check:
    """The rule of a length: at least 1, at most `high`."""
    return _ranged(Check(), field, f"[1, {high}]")
