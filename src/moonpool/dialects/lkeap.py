"""LKEAP's flavour: errors whose codes are numbers in strings, and answers that were searched for.

Its statuses are not relied on: a code says what it means under any of them, and a `runtime_error` whose code nobody
published is the host's failure though its status be 400. `search_results` and the name that ends in `-aisearch` are the
family's (decode.py, names.py).

Sources: PROVIDERS 2; CONTRACT 3 to 5.
"""

from __future__ import annotations

from typing import ClassVar, Final

from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row, read_refusal
from moonpool.errors import Problem
from moonpool.words import Headers

_BAD: Final = "invalid_request_error"
_RUN: Final = "runtime_error"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(402, _RUN, "20031", "not enough quota", "account.no_quota"),
    Row(429, _RUN, "20034", "concurrency exceeded", "account.concurrency"),
    Row(400, _RUN, "20059", "input content too long", "caller.too_long"),
    Row(401, "authentication_error", "invalid_api_key", "{message}", "account.invalid_key"),
    # Whatever the status and the words.
    Row(0, "", "20031", "", "account.no_quota"),
    Row(0, "", "20034", "", "account.concurrency"),
    Row(0, "", "20059", "", "caller.too_long"),
    Row(400, _BAD, _BAD, "{message}", "caller.invalid_value"),
    Row(500, _RUN, None, "{message}", "platform.fault"),
)
# fmt: on


class LKEAP(OpenAI):
    """Options: those of OpenAI."""

    name = "lkeap"
    rows: ClassVar[tuple[Row, ...]] = _ROWS

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        problem = super().parse_problem(status, headers, body)
        if problem.code == "upstream.refused" and read_refusal(body).type == _RUN:
            return Problem("upstream.failed", detail=problem.detail)
        return problem
