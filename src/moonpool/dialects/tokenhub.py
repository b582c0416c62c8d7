"""TokenHub's flavour: six-digit codes, statuses of its own, and what its upstream said inside an error of its own.

A code begins with the status it stands under, except in the row of 402, whose codes begin with 401 and 403. An error
of 502 carries `upstream_status`: what the model's own server answered. That one's 400 is about the request; its refusal
of a key or a balance is TokenHub's matter, not ours.

Sources: PROVIDERS 3.1. Which of 400001, 400002 and 400004 means what was not published, nor were all the messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from moonpool.dialects import problems
from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row
from moonpool.errors import Problem
from moonpool.words import Call, Headers, Outbound, Target

STOPS_MAX: Final = 4
_BAD: Final = "invalid_request_error"
_MAY_NOT: Final = "permission_error"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(400, _BAD, "400001", "{message}", "caller.malformed"),
    Row(400, _BAD, "400002", "{message}", "caller.invalid_value"),
    Row(400, _BAD, "400002", "{message}", "caller.too_long"),
    Row(400, _BAD, "400004", "{message}", "caller.unsupported"),
    Row(400, _BAD, "400004", "{message}", "caller.unknown_model"),
    Row(401, "authentication_error", "401002", "invalid api key", "account.invalid_key"),
    Row(402, _MAY_NOT, "401007", "endpoint is inactive: FREE_QUOTA_EXHAUSTED", "account.no_quota"),
    Row(403, _MAY_NOT, "403001", "{message}", "upstream.forbidden"),
    Row(429, "rate_limit_error", "429001", "rate limit exceeded on dimension: {message:rpm}", "platform.queue_full"),
    Row(429, "rate_limit_error", "429001", "rate limit exceeded on dimension: concurrency", "account.concurrency"),
    Row(451, "content_filter_error", "451001", "{message}", "upstream.content_risk"),
    Row(502, "upstream_error", "502001", "{message}", "platform.fault"),
    # Whatever the status and the words.
    Row(0, "", "401002", "", "account.invalid_key"),
    Row(0, "", "401007", "", "account.no_quota"),
    Row(0, "", "401008", "", "account.no_quota"),
    Row(0, "", "403004", "", "account.no_quota"),
    Row(0, "", "403001", "", "upstream.forbidden"),
    Row(0, "", "403002", "", "upstream.forbidden"),
    Row(0, "", "403005", "", "upstream.forbidden"),
    Row(0, "", "429001", "", "platform.queue_full"),
    Row(0, "", "451001", "", "upstream.content_risk"),
)
_SERVERS: Final = (
    # Those of the model's own server, which it hands on.
    Row(0, "", None, "Content Exists Risk", "upstream.content_risk"),
    Row(0, "", None, "maximum context length", "caller.too_long"),
)
# fmt: on
_THEIRS: Final = ("upstream.credentials", "upstream.unpaid", "upstream.forbidden")


class TokenHub(OpenAI):
    """Options: those of OpenAI. No more than STOPS_MAX texts of `stop` are sent."""

    name = "tokenhub"
    rows: ClassVar[tuple[Row, ...]] = (*_SERVERS, *_ROWS)

    def render_call(self, call: Call, target: Target) -> Outbound:
        stops = call.fields.get("stop")
        if type(stops) is not list or len(stops) <= STOPS_MAX:
            return super().render_call(call, target)
        if call.refuse:
            raise Problem(
                "caller.unsupported",
                f"Stop string array too long: {len(stops)}. This model's host takes {STOPS_MAX}.",
                param="stop",
            )
        fewer = msgspec.structs.replace(call, fields={**call.fields, "stop": stops[:STOPS_MAX]})
        outbound = super().render_call(fewer, target)
        receipt = f"stop:{len(stops)}->{STOPS_MAX}"
        return msgspec.structs.replace(outbound, adjusted=(*outbound.adjusted, receipt))

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        problem = super().parse_problem(status, headers, body)
        theirs = _upstream_status(body) if problem.code == "upstream.failed" else None
        if theirs is None:
            return problem
        said = problems.read_problem(theirs, headers, body, _SERVERS)
        return problem if said.code in _THEIRS else said

    def _error(self, row: Row, message: str) -> Mapping[str, Any]:
        return {
            "type": row.type,
            "code": row.code,
            "message": message,
            "source": "upstream" if row.status == 502 else "client" if row.status == 400 else "gateway",
            "upstream_code": "",
            "upstream_status": 500 if row.status == 502 else 0,
            "request_id": hashlib.blake2s(f"{row.code} {message}".encode(), digest_size=16).hexdigest(),
        }


def _upstream_status(body: bytes) -> int | None:
    """What the model's own server answered, where the body tells and it was an error."""
    try:
        error = msgspec.json.decode(body)["error"]
        status = error["upstream_status"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError, IndexError):
        return None
    return status if type(status) is int and 400 <= status <= 599 else None
