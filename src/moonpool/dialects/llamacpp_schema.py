"""Which JSON may the model write? A schema made fit for llama.cpp's grammars, so that what comes out always matches.

Rules: what cannot be enforced at all is refused, never passed on: the grammar engine of the embedded server drops a
schema it cannot read without a word. An object lists all its members unless the schema says otherwise, because a
small model fills any freedom with noise; that is what DeepSeek's own `strict` does too. Blanks are fixed (`", "` and
`": "`, as DeepSeek writes arguments), so that a small model cannot run on in them; a plain llama.cpp without this
engine ignores that wish and is still valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moonpool.errors import Problem

_DEPTH_MAX: Final = 32
_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
_ENGINE: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
    "lenient": True,
}
_ONE: Final = ("items", "additionalProperties", "contains", "not")
_MANY: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")

ANY_OBJECT: Final[dict[str, Any]] = {"type": "object", "x-guidance": _ENGINE}
"""Of JSON mode: any object."""


def one_of(names: list[str]) -> str:
    """A grammar (GBNF) of one of these names, quoted, with the blank that stands before a value. The blank belongs to
    what is generated: a prompt that ends in one misleads a small model."""
    return "root ::= " + " | ".join(f'" \\"{name}\\""' for name in names)


def enforceable(schema: Any, param: str) -> dict[str, Any]:
    """`schema` with what the engine needs. Raises Problem("caller.invalid_value") naming `param`."""
    fit = _fit(schema, param, 0, closed=True)
    return {**fit, "x-guidance": _ENGINE}


def arguments_schema(function: Mapping[str, Any], param: str) -> dict[str, Any] | None:
    """What the arguments of a function may be, or None where it takes none (they are then `{}`)."""
    parameters = function.get("parameters")
    if not parameters:
        return None
    if not isinstance(parameters, Mapping):
        raise Problem("caller.invalid_value", "A function's parameters must be a JSON schema.", param=param)
    if not parameters.get("properties") and not (_MEMBERS_ELSEWHERE & parameters.keys()):
        return None
    return enforceable({"type": "object", **parameters}, param)


_MEMBERS_ELSEWHERE: Final = frozenset({"additionalProperties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref"})


def _fit(schema: Any, param: str, depth: int, *, closed: bool) -> dict[str, Any]:
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise Problem("caller.invalid_value", "A JSON schema must be an object.", param=param)
    if depth > _DEPTH_MAX:
        raise Problem("caller.invalid_value", "This JSON schema is nested too deeply.", param=param)
    fit = dict(schema)
    fit.pop("x-guidance", None)
    _check(fit, param)
    for word in _ONE:
        if isinstance(fit.get(word), Mapping):
            fit[word] = _fit(fit[word], param, depth + 1, closed=True)
    for word in _MANY:
        if isinstance(fit.get(word), list):
            # Members of one object may be spread over the branches of allOf: none of them may exclude the others'.
            fit[word] = [_fit(one, param, depth + 1, closed=word != "allOf") for one in fit[word]]
    for word in _NAMED:
        if isinstance(fit.get(word), Mapping):
            fit[word] = {name: _fit(one, param, depth + 1, closed=True) for name, one in fit[word].items()}
    spread = any(word in fit for word in ("allOf", "anyOf", "oneOf", "patternProperties"))
    if closed and not spread and "properties" in fit:
        fit.setdefault("additionalProperties", False)
    return fit


def _check(schema: Mapping[str, Any], param: str) -> None:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            raise Problem("caller.invalid_value", f"{kind!r} is no type of JSON schema.", param=param)
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise Problem("caller.invalid_value", "A $ref must point into the schema itself.", param=param)
