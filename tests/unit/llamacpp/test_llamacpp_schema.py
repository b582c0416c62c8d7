"""Schemas made fit for the grammar engine, which drops without a word what it cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from moonpool.dialects.llamacpp_schema import arguments_schema, enforceable, one_of
from moonpool.errors import Problem


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    """A small model invents no members; one that may have others keeps that freedom."""
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    fit = enforceable({"properties": {"x": inner, "y": {**inner, "additionalProperties": True}}}, "p")
    assert fit["additionalProperties"] is False
    assert fit["properties"]["x"]["additionalProperties"] is False
    assert fit["properties"]["y"]["additionalProperties"] is True


def test_branches_do_not_exclude_each_other() -> None:
    """Members spread over allOf stay possible together."""
    branch = {"properties": {"a": {"type": "string"}}}
    fit = enforceable({"allOf": [branch, {"properties": {"b": {}}}]}, "p")
    assert "additionalProperties" not in fit
    assert all("additionalProperties" not in one for one in fit["allOf"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "banana"},
        {"type": ["string", "banana"]},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"items": {"type": "text"}},
        {"anyOf": ["string"]},
        "string",
        None,
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: Any) -> None:
    """A promise that cannot be kept is a 400 that names the field."""
    with pytest.raises(Problem) as told:
        enforceable(schema, "tools[0].function.parameters")
    assert told.value.code == "caller.invalid_value"
    assert told.value.param == "tools[0].function.parameters"


def test_endless_nesting_is_refused() -> None:
    """Depth is bounded."""
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}
    with pytest.raises(Problem):
        enforceable(schema, "p")


@pytest.mark.parametrize("function", [{}, {"parameters": None}, {"parameters": {"type": "object", "properties": {}}}])
def test_functions_without_arguments(function: dict[str, Any]) -> None:
    """No parameters, or none named: the arguments are `{}`."""
    assert arguments_schema(function, "p") is None


def test_names_make_a_grammar() -> None:
    """The choice among tools is a grammar of their quoted names."""
    assert one_of(["a", "b-2"]) == 'root ::= " \\"a\\"" | " \\"b-2\\""'
