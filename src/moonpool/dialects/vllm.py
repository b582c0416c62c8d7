"""vLLM's own flavour: its errors. Where its switches are: `[dialects.vllm]` of hosts.toml.

Older ones write an error flat, newer ones as an object; the code is an integer either way. A wrong key is refused
before the API is reached, with a body of its own. Sources: PROVIDERS 7; what version 0.32 says on the wire.
"""

from __future__ import annotations

from typing import ClassVar, Final

from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row, find_row
from moonpool.dialects.sse import dumps
from moonpool.errors import Problem

_BAD: Final = "BadRequestError"
_UNAUTHORIZED: Final = "Unauthorized"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(401, "", None, _UNAUTHORIZED, "account.invalid_key"),
    Row(404, "NotFoundError", 404, "The model {message:`x`} does not exist.", "caller.unknown_model"),
    Row(400, _BAD, 400, "This model's maximum context length is {message:4096 tokens. However, your prompt contains at "
        "least 4097 input tokens, which exceeds this limit even without any output tokens}. Please reduce the length "
        "of the input prompt.", "caller.too_long"),
    Row(0, "", None, "maximum context length", "caller.too_long"),
    Row(0, "", None, "longer than the maximum model length", "caller.too_long"),
    # It was started without what the request needs: another host may have it.
    Row(0, "", None, "requires --", "platform.fault"),
    Row(400, _BAD, 400, "{message}", "caller.invalid_value"),
    Row(503, "ServiceUnavailableError", 503, "{message:The engine is overloaded.}", "platform.overloaded"),
    Row(500, "InternalServerError", 500, "{message:Internal server error}", "platform.fault"),
)
# fmt: on


class Vllm(OpenAI):
    """A dialect (dialects.base)."""

    name = "vllm"
    rows: ClassVar[tuple[Row, ...]] = _ROWS

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        row = find_row(problem, self.rows)
        if row is not None and row.text == _UNAUTHORIZED and not in_stream:
            return dumps({"error": _UNAUTHORIZED})
        return super().render_problem(problem, in_stream=in_stream)
