"""Ollama's own flavour, as its OpenAI-compatible API has it: its errors. Its switches: `[dialects.ollama]`.

An error has no code, and its type says little more than the status. Sources: the server's `openai.go`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row

_BAD: Final = "invalid_request_error"
_API: Final = "api_error"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(404, "not_found_error", None, "model {message:\"x\"} not found", "caller.unknown_model"),
    Row(0, "", None, "not found, try pulling it first", "caller.unknown_model"),
    Row(0, "", None, "exceeds the available context size", "caller.too_long"),
    Row(0, "", None, "exceeds maximum context length", "caller.too_long"),
    # It is another model than its row in the catalogue says: another host may have the right one.
    Row(0, "", None, "does not support thinking", "platform.fault"),
    Row(0, "", None, "does not support tools", "platform.fault"),
    Row(0, "", None, "does not support insert", "platform.fault"),
    Row(400, _BAD, None, "{message}", "caller.invalid_value"),
    Row(401, _API, None, "unauthorized", "account.invalid_key"),
    Row(503, _API, None, "server busy, please try again.  maximum pending requests exceeded", "platform.overloaded"),
    Row(500, _API, None, "{message:model runner has unexpectedly stopped}", "platform.fault"),
)
# fmt: on


class Ollama(OpenAI):
    """A dialect (dialects.base)."""

    name = "ollama"
    rows: ClassVar[tuple[Row, ...]] = _ROWS
