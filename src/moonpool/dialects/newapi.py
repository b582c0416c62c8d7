"""New API's flavour, and that of One API, from which it comes: hosts that stand before many others.

Errors carry words as codes, in bodies of any status, 200 too. What a host behind it said keeps that host's type or has
the type `upstream_error`; a key or a balance that was refused there is not ours. "No available channel" is what it says
both of a model it does not know and of one whose hosts all failed.

Sources: PROVIDERS 4.3 (balance), 4.4 (errors), 4.6 (`reasoning` beside `reasoning_content`: decode.py reads both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row, read_refusal
from moonpool.errors import Problem
from moonpool.words import Headers

_NEW: Final = "new_api_error"
_NO_CHANNEL: Final = "No available channel for model {message:of that name} under group default (distributor)"

# A table is read in columns. Rows without a status hold for both programs and for errors with status 200.
# fmt: off
_ROWS: Final = (
    Row(401, _NEW, "", "Invalid token", "account.invalid_key"),
    Row(403, _NEW, "insufficient_user_quota", "user quota is not enough", "account.no_quota"),
    Row(403, _NEW, "access_denied", "{message}", "upstream.forbidden"),
    Row(429, _NEW, "rate_limit_exceeded", "{message}", "account.concurrency"),
    Row(503, _NEW, "model_not_found", _NO_CHANNEL, "platform.overloaded"),
    Row(503, _NEW, "model_not_found", _NO_CHANNEL, "caller.unknown_model"),
    Row(400, _NEW, "invalid_request", "{message}", "caller.invalid_value"),
    Row(400, _NEW, "invalid_request", "{message}", "caller.malformed"),
    Row(400, _NEW, "invalid_request", "{message}", "caller.unsupported"),
    Row(400, _NEW, "sensitive_words_detected", "{message:sensitive words detected}", "upstream.content_risk"),
    Row(500, _NEW, "do_request_failed", "{message:do request failed}", "platform.fault"),
    # What hosts behind it say keeps its words.
    Row(0, "", None, "Content Exists Risk", "upstream.content_risk"),
    Row(0, "", None, "maximum context length", "caller.too_long"),
    Row(0, "", None, "No available channel", "platform.overloaded"),
    Row(0, "", "insufficient_user_quota", "", "account.no_quota"),
    Row(0, "", "pre_consume_token_quota_failed", "", "account.no_quota"),
    Row(0, "", "access_denied", "", "upstream.forbidden"),
    Row(0, "", "model_not_found", "", "caller.unknown_model"),
    Row(0, "", "sensitive_words_detected", "", "upstream.content_risk"),
    Row(0, "", "prompt_blocked", "", "upstream.content_risk"),
    Row(0, "", "invalid_request", "", "caller.invalid_value"),
    Row(0, "", "channel:no_available_key", "", "platform.overloaded"),
    Row(0, "", "channel:invalid_key", "", "platform.fault"),
    Row(0, "", "channel:model_mapped_error", "", "platform.fault"),
    Row(0, "", "channel:response_time_exceeded", "", "upstream.timeout"),
    Row(0, "", "do_request_failed", "", "platform.fault"),
    Row(0, "", "bad_response_status_code", "", "platform.fault"),
    Row(0, "", "bad_response", "", "platform.fault"),
    Row(0, "", "bad_response_body", "", "platform.fault"),
    Row(0, "", "empty_response", "", "platform.fault"),
    Row(0, "", "read_response_body_failed", "", "platform.fault"),
    Row(0, "", "convert_request_failed", "", "platform.fault"),
    Row(0, "", "gen_relay_info_failed", "", "platform.fault"),
)
# fmt: on
_THEIRS: Final = ("upstream.credentials", "upstream.unpaid", "upstream.forbidden")
_QUOTA_PER_USD: Final = 500_000
_UNLIMITED_USD: Final = 100_000_000


class NewAPI(OpenAI):
    """Options: those of OpenAI."""

    name = "newapi"
    rows: ClassVar[tuple[Row, ...]] = _ROWS

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        problem = super().parse_problem(status, headers, body)
        if problem.code in _THEIRS and read_refusal(body).type == "upstream_error":
            return Problem("upstream.failed", detail=problem.detail)
        return problem

    def _error(self, row: Row, message: str) -> Mapping[str, Any]:
        request = hashlib.blake2s(f"{row.code} {message}".encode(), digest_size=12).hexdigest()
        return {"message": f"{message} (request id: {request})", "type": row.type, "param": "", "code": row.code}

    def read_balance(self, told: Mapping[str, Any]) -> tuple[str, bool] | None:
        """Of the key, in raw quota, where that is told; else of limit and use, in the currency that is displayed there,
        use in hundredths (PROVIDERS 4.3). Errors come with status 200 and say nothing of it."""
        answers = [answer for answer in told.values() if type(answer) is dict]
        token: Any = next((answer["data"] for answer in answers if type(answer.get("data")) is dict), {})
        if token.get("unlimited_quota") is True:
            return "unlimited", False
        available = token.get("total_available")
        if type(available) is int:
            return f"{available / _QUOTA_PER_USD:.2f} USD", available <= 0
        limit: Any = next((answer["hard_limit_usd"] for answer in answers if "hard_limit_usd" in answer), None)
        used: Any = next((answer["total_usage"] for answer in answers if "total_usage" in answer), None)
        if type(limit) not in (int, float) or type(used) not in (int, float):
            return None
        if limit >= _UNLIMITED_USD:
            return "unlimited", False
        left = limit - used / 100
        return f"{left:.2f} USD", left <= 0
