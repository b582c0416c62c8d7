"""SGLang's own flavour: its errors, flat but for those inside a stream. Its switches: `[dialects.sglang]`.

Sources: PROVIDERS 7; the server's `serving_base.py` and `serving_chat.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row, find_row, sentence
from moonpool.dialects.sse import dumps
from moonpool.errors import Problem

_BAD: Final = "BadRequestError"
_UNAUTHORIZED: Final = "Unauthorized"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(401, "", None, _UNAUTHORIZED, "account.invalid_key"),
    Row(400, _BAD, 400, "The input {message:(5000 tokens)} is longer than the model's context length (4096 tokens).",
        "caller.too_long"),
    Row(0, "", None, "longer than the model's context length", "caller.too_long"),
    Row(0, "", None, "exceeds the model's maximum context length", "caller.too_long"),
    Row(0, "", None, "maximum context length", "caller.too_long"),
    Row(400, _BAD, 400, "{message}", "caller.invalid_value"),
    Row(503, "503", 503, "{message:The request queue is full.}", "platform.overloaded"),
    Row(500, "InternalServerError", 500, "{message:Internal server error}", "platform.fault"),
)
# fmt: on


class SgLang(OpenAI):
    """A dialect (dialects.base)."""

    name = "sglang"
    rows: ClassVar[tuple[Row, ...]] = _ROWS

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        row = find_row(problem, self.rows)
        if row is None or in_stream:
            return super().render_problem(problem, in_stream=in_stream)
        if row.text == _UNAUTHORIZED:
            return dumps({"error": _UNAUTHORIZED})
        return dumps(self._error(row, sentence(row, problem)))

    def _error(self, row: Row, message: str) -> Mapping[str, Any]:
        return {"object": "error", **super()._error(row, message)}
