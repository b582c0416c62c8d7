"""Every setting as a row of the reference page: its name, type, default, bounds and help."""

from __future__ import annotations

import typing
from typing import Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from moonpool.settings import Declared, Settings
from moonpool.settings_money import Channel

_OVERLAYS: Final = {"hosts": "NAME", "models": "NAME", "calendars": "NAME", "holidays": "NAME.YEAR"}
_OVERLAID: Final = "Overlays a row of the catalogue, or adds one."


class Described(Struct, frozen=True):
    """A row of the settings page. `bounds` and `default` as a person writes them."""

    path: str
    type: str
    default: str
    bounds: str
    help: str


def describe() -> list[Described]:
    """All settings, in the order of the record, for the reference page."""
    rows: list[Described] = []
    _describe(Settings, "", rows)
    return [row for row in rows if row.path != "file"]


def _describe(record: type[Struct], prefix: str, rows: list[Described]) -> None:
    hints = typing.get_type_hints(record, include_extras=True)
    for field in msgspec.structs.fields(record):
        hint = hints[field.name]
        path = f"{prefix}{field.name}"
        if isinstance(hint, type) and issubclass(hint, Struct):
            _describe(hint, f"{path}.", rows)
        elif field.name == "accounts":
            _describe(Declared, "accounts[].", rows)
        elif field.name == "payments":
            _describe(Channel, "payments.NAME.", rows)
        elif path in _OVERLAYS:
            rows.append(Described(f"{path}.{_OVERLAYS[path]}", "table", "", "", _OVERLAID))
        else:
            base, *metas = typing.get_args(hint)
            meta = next(m for m in metas if isinstance(m, Meta))
            bounds = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
            said = ", ".join(
                f"{sign} {getattr(meta, name)}" for name, sign in bounds.items() if getattr(meta, name) is not None
            )
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory
            shown = (
                "required"
                if default is msgspec.NODEFAULT
                else msgspec.json.encode(default() if callable(default) else default).decode()
            )
            rows.append(Described(path, _type_name(base), shown, said, str(meta.description)))


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(f'"{value}"' for value in typing.get_args(kind))
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, "list of text")
