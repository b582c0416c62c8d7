"""Which value fits this JSON schema? One plain example, the same every time: for arguments of tools and for JSON."""

from __future__ import annotations

from typing import Any, Final

_DEPTH_MAX: Final = 12
_TEXTS: Final = {
    "date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z", "time": "03:04:05", "email": "twin@example.com",
    "uri": "https://example.com/", "uuid": "00000000-0000-4000-8000-000000000001",
}  # fmt: skip


def example(schema: Any, depth: int = 0, root: Any = None) -> Any:
    """What is required and no more; constants, enumerations, defaults and bounds are kept to. A schema that says
    nothing is an object."""
    if type(schema) is not dict or depth > _DEPTH_MAX:
        return {} if depth == 0 else None
    root = schema if root is None else root
    if type(schema.get("$ref")) is str:
        return example(_resolve(schema["$ref"], root), depth + 1, root)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example(schema[name][0], depth + 1, root)
    kind = schema.get("type") or ("object" if "properties" in schema or depth == 0 else "string")
    if type(kind) is list:
        kind = next((name for name in kind if name != "null"), "null")
    return _of_kind(kind, schema, depth, root)


def _of_kind(kind: str, schema: dict[str, Any], depth: int, root: Any) -> Any:
    if kind == "object":
        properties = schema.get("properties") or {}
        wanted = schema["required"] if type(schema.get("required")) is list else properties
        return {name: example(properties.get(name, {}), depth + 1, root) for name in wanted}
    if kind == "array":
        return [example(schema.get("items") or {}, depth + 1, root)] * max(1, int(schema.get("minItems", 1)))
    if kind in ("integer", "number"):
        low = schema.get("minimum", min(1, schema.get("maximum", 1)))
        return int(low) if kind == "integer" else low
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text = _TEXTS.get(schema.get("format", ""), "example")
    return text.ljust(int(schema.get("minLength", 0)), "x")[: int(schema.get("maxLength", 1 << 20))]


def _resolve(ref: str, root: Any) -> Any:
    found = root
    for name in ref.removeprefix("#/").split("/"):
        found = found.get(name) if type(found) is dict else None
    return found
