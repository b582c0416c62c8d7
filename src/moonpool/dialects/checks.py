"""What shape may a JSON value have? Small checks that a table of fields is made of.

A check takes a value and the path of its field, as the client would write it (`messages[2].content`), and raises
Problem("caller.invalid_value") with that path as `param`, in the wording of the live service: what was found, what
was expected. None of them knows a model: ranges that differ between models are the catalogue's.

Sources: PROVIDERS 1.3 (wording probed and recorded), RELIABILITY 3.5 (numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Final

from moonpool.errors import Problem

Check = Callable[[Any, str], None]

EXACT_MAX: Final = 1 << 53
"""Beyond it a number is not the same for every reader of JSON."""

_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)
_TOOL_NAME_MAX: Final = 128
_STOPS_MAX: Final = 16


def wrong(param: str, message: str) -> Problem:
    return Problem("caller.invalid_value", message, param=param)


def mistyped(param: str, reason: str) -> Problem:
    return wrong(param, f"Failed to deserialize the JSON body into the target type: {param}: {reason}")


def missing(param: str, name: str) -> Problem:
    """Field `name` of the object at `param` ("" for the top) is not there."""
    inside = f"{param}: " if param else ""
    return wrong(
        f"{param}.{name}" if param else name,
        f"Failed to deserialize the JSON body into the target type: {inside}missing field `{name}`",
    )


def invalid_type(value: Any, param: str, expected: str) -> Problem:
    return mistyped(param, f"invalid type: {_found(value)}, expected {expected}")


def unknown_variant(value: Any, param: str, known: Collection[str]) -> Problem:
    if type(value) is not str:
        return invalid_type(value, param, "a string")
    listed = ", ".join(f"`{name}`" for name in known)
    return mistyped(param, f"unknown variant `{value[:64]}`, expected {'one of ' if len(known) > 1 else ''}{listed}")


def _found(value: Any) -> str:
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool:
        return f"boolean `{str(value).lower()}`"
    if kind is int:
        return f"integer `{value}`"
    if kind is float:
        return f"floating point `{value}`"
    if kind is str:
        return f"string {value[:64]!r}".replace("'", '"')
    return "sequence" if kind is list else "map"


def boolean(value: Any, param: str) -> None:
    if type(value) is not bool:
        raise invalid_type(value, param, "a boolean")


def string(value: Any, param: str) -> None:
    if type(value) is not str:
        raise invalid_type(value, param, "a string")


def map_(value: Any, param: str) -> None:
    if type(value) is not dict:
        raise invalid_type(value, param, "a map")


def integer(value: Any, param: str) -> None:
    if type(value) is not int:
        raise invalid_type(value, param, "an integer")
    if not -EXACT_MAX <= value <= EXACT_MAX:
        raise _inexact(value, param)


def number(value: Any, param: str) -> None:
    if type(value) is int:
        if not -EXACT_MAX <= value <= EXACT_MAX:
            raise _inexact(value, param)
    elif type(value) is not float:
        raise invalid_type(value, param, "a number")


def _inexact(value: int, param: str) -> Problem:
    return mistyped(param, f"invalid value: integer `{str(value)[:24]}`, expected one within 2^53")


def count(value: Any, param: str) -> None:
    integer(value, param)
    if value < 1:
        raise wrong(param, f"Invalid {param} value, the valid range of {param} is [1, {EXACT_MAX}]")


def at_most_20(value: Any, param: str) -> None:
    integer(value, param)
    if not 0 <= value <= 20:
        raise wrong(param, f"Invalid {param} value, the valid range of {param} is [0, 20].")


def one_of(*known: str) -> Check:
    def check(value: Any, param: str) -> None:
        if value not in known or type(value) is not str:
            raise unknown_variant(value, param, known)

    return check


def stop(value: Any, param: str) -> None:
    if type(value) is str:
        if not value:
            raise _empty(param)
        return
    if type(value) is not list:
        raise mistyped(param, "expected a string or a list")
    if len(value) > _STOPS_MAX:
        raise wrong(param, f"Stop string array too long: {len(value)}")
    for at, text in enumerate(value):
        string(text, f"{param}[{at}]")
        if not text:
            raise _empty(f"{param}[{at}]")


def _empty(param: str) -> Problem:
    return wrong(
        param,
        f"Invalid '{param}': empty string. Expected a string with minimum length 1, but got an empty string instead.",
    )


def stream_options(value: Any, param: str) -> None:
    map_(value, param)
    usage = value.get("include_usage")
    if usage is not None and type(usage) is not bool:
        boolean(usage, f"{param}.include_usage")


_formats: Final = one_of("json_object", "json_schema", "regex", "text")


def response_format(value: Any, param: str) -> None:
    map_(value, param)
    if "type" not in value:
        raise missing(param, "type")
    _formats(value["type"], f"{param}.type")
    if value["type"] == "json_schema":
        if "json_schema" not in value:
            raise missing(param, "json_schema")
        map_(value["json_schema"], f"{param}.json_schema")


_thinking_types: Final = one_of("adaptive", "enabled", "disabled")


def thinking(value: Any, param: str) -> None:
    map_(value, param)
    if "type" not in value:
        raise missing(param, "type")
    _thinking_types(value["type"], f"{param}.type")
    if value.get("reasoning_effort") is not None:
        string(value["reasoning_effort"], f"{param}.reasoning_effort")


def tools(server_tools: Collection[str]) -> Check:
    """`server_tools`: types besides `function` that the service itself executes."""
    known = ("function", *server_tools)

    def check(value: Any, param: str) -> None:
        if type(value) is not list:
            raise invalid_type(value, param, "a sequence")
        names: set[str] = set()
        for at, tool in enumerate(value):
            where = f"{param}[{at}]"
            map_(tool, where)
            kind = tool.get("type")
            if kind == "function":
                if "function" not in tool:
                    raise missing(where, "function")
                _function(tool.get("function"), f"{where}.function", names)
            elif "type" not in tool:
                raise missing(where, "type")
            elif kind not in known:
                raise unknown_variant(kind, f"{where}.type", ("function",))

    return check


def _function(value: Any, param: str, names: set[str]) -> None:
    map_(value, param)
    name = value.get("name")
    if name is None:
        raise missing(param, "name")
    string(name, f"{param}.name")
    if not name:
        raise _empty(f"{param}.name")
    if len(name) > _TOOL_NAME_MAX:
        raise wrong(
            f"{param}.name",
            f"Invalid '{param}.name': string too long. Expected a string with maximum length {_TOOL_NAME_MAX}, "
            f"but got a string with length {len(name)} instead.",
        )
    if not _TOOL_NAME.fullmatch(name):
        raise wrong(
            f"{param}.name",
            f"Invalid '{param}.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        )
    if name in names:
        raise wrong(f"{param}.name", "Tool names must be unique.")
    names.add(name)
    for field, check in (("description", string), ("parameters", map_), ("strict", boolean)):
        if value.get(field) is not None:
            check(value[field], f"{param}.{field}")


def tool_choice(value: Any, param: str) -> None:
    """Its shape only; whether the named function exists is seen when all fields are known."""
    if type(value) is dict:
        if value.get("type") != "function":
            raise unknown_variant(value.get("type"), f"{param}.type", ("function",))
        map_(value.get("function"), f"{param}.function")
        string(value["function"].get("name"), f"{param}.function.name")
    elif value not in ("none", "auto", "required") or type(value) is not str:
        raise mistyped(param, "expected one of `none`, `auto`, `required` or a tool")
