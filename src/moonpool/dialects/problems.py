"""What does an error mean, on either side? A host's refusal becomes a Problem, a Problem becomes the client's bytes.

Statuses alone are wrong too often, so a refusal is read in this order: its own code, its text where the host gives no
code, its status. Whose fault it is decides what the client hears: a host that refuses *our* key or balance is our
fault, never the client's 401 or 402. Nothing shaped like a key leaves this file.

Sources: PROVIDERS 1.6 and 7 (bodies), 8 rule 5; RELIABILITY cases 28 and 29; CONTRACT 5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.dialects.sse import dumps, event
from moonpool.errors import Problem
from moonpool.words import Headers

RETRY_AFTER_MAX_S: Final = 120.0
_MESSAGE_MAX: Final = 2000
_SECRET: Final = re.compile(r"\b(sk|Bearer)[-_ ][A-Za-z0-9_*-]{6,}")

Texts = Iterable[tuple[str, str]]
"""(part of a message in lower case, our code), for hosts that give no code of their own."""

_CODES: Final[Mapping[str, str]] = {
    "context_length_exceeded": "caller.too_long",
    "exceed_context_size_error": "caller.too_long",
    "content_filter": "upstream.content_risk",
    "content_policy_violation": "upstream.content_risk",
    "content_risk": "upstream.content_risk",
    "insufficient_quota": "upstream.unpaid",
    "invalid_api_key": "upstream.credentials",
    "authentication_error": "upstream.credentials",
}

# The host refuses who we are, not what was asked.
_OURS: Final[Mapping[int, str]] = {401: "upstream.credentials", 402: "upstream.unpaid", 403: "upstream.forbidden"}

# For errors inside an answer that began with 200: which status their type or code would have had.
_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "service_unavailable_error": 503,
    "unavailable_error": 503,
    "overloaded": 503,
}


class Refusal(Struct, frozen=True):
    """An error as a host wrote it, "" where it said nothing."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None


def read_refusal(body: bytes) -> Refusal:
    """Any error body: DeepSeek's and OpenAI's, the flat one of older vLLM and SGLang, plain text, a proxy's HTML.

    The header is not asked: DeepSeek sends JSON as application/octet-stream.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        return Refusal(_clean("" if text.startswith("<") else text))
    if type(value) is not dict:
        return Refusal(_clean(value if type(value) is str else ""))
    error: Any = value.get("error") or value
    if type(error) is str:
        return Refusal(_clean(error))
    if type(error) is not dict:
        return Refusal()
    message = error.get("message") or error.get("detail") or ""
    param = error.get("param")
    return Refusal(
        _clean(message if type(message) is str else dumps(message).decode()),
        _word(error.get("type")),
        _word(error.get("code")),
        param[:200] if type(param) is str else None,
    )


def read_problem(status: int, headers: Headers, body: bytes, texts: Texts = ()) -> Problem:
    """What an error answer means; `status` 200 stands for an error inside an answer that had begun well."""
    refusal = read_refusal(body)
    if status == 200:
        status = _status_of(refusal)
    detail = f"host: {status} {refusal.type} {refusal.code}: {refusal.message[:300]}"
    code = _CODES.get(refusal.code.lower()) or _CODES.get(refusal.type.lower())
    if code is None and status < 500:
        lower = refusal.message.lower()
        code = next((found for part, found in texts if part in lower), None)
    if code == "upstream.content_risk":
        return Problem(code, refusal.message or None, detail=detail)
    if code is not None:
        return Problem(code, detail=detail)
    if status in _OURS:
        return Problem(_OURS[status], detail=detail)
    if status in (429, 503):
        return Problem("upstream.busy", detail=detail, retry_after_s=retry_after(headers))
    if status in (400, 413, 415, 422):
        return Problem("upstream.refused", refusal.message or None, param=refusal.param, detail=detail)
    if 200 <= status < 300:
        return Problem("upstream.nonsense", detail=f"host: status {status}")
    # Also 404, 405 and redirects: they speak of our address or model name, not of the client's request.
    return Problem("upstream.failed", detail=detail)


def retry_after(headers: Headers) -> float | None:
    """Seconds, kept between 0 and RETRY_AFTER_MAX_S. A date is not read: there is no clock here."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if not math.isnan(seconds) else None


def _status_of(refusal: Refusal) -> int:
    if refusal.code.isdecimal() and len(refusal.code) == 3 and refusal.code[0] in "45":
        return int(refusal.code)
    for word in (refusal.code, refusal.type):
        if word.lower() in _STATUSES:
            return _STATUSES[word.lower()]
    return 500


def _word(value: Any) -> str:
    """Codes are integers at self-hosted servers and strings everywhere else."""
    if type(value) is str:
        return value[:100]
    return str(value) if type(value) is int else ""


def _clean(message: str) -> str:
    return _SECRET.sub(r"\1-…", message[:_MESSAGE_MAX])


def render_problem(problem: Problem, *, in_stream: bool) -> bytes:
    """CONTRACT 5's body, or in a stream the event after which nothing follows: SDKs raise on it."""
    row = problem.row
    body = {"error": {"message": problem.message, "type": row.type, "param": problem.param, "code": row.wire_code}}
    return event(body) if in_stream else dumps(body)
