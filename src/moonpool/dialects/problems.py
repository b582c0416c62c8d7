"""What does an error mean, on either side? A host's refusal becomes a Problem, a Problem becomes bytes.

A flavour has one table (`Row`) that serves both ways: what a host said is found in it, and who plays that host finds
the host's words in it. Statuses alone are wrong too often, so a refusal is read in this order: the flavour's table
(status, code and text), a code that many hosts share, the status. Whose fault it is decides what the client hears: a
host that refuses *our* key or balance is our fault, never the client's 401 or 402. Nothing shaped like a key leaves
this file.

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

_BLANK: Final = re.compile(r"\{message(?::([^}]*))?\}")


class Row(Struct, frozen=True):
    """An error as one provider writes it. `meaning` is our code, from where the provider stands: its client's key
    that it does not know is an `account.invalid_key` there.

    `text` is its sentence; what a problem has to say itself goes where `{message}` stands, and `{message:so}` is "so"
    where it has nothing to say. A row is read where its status, its code (numbers are their digits; None is any) and
    every part of its text are found. Status 0: the row is for reading only, whatever the status (below 500 where it
    has no code), and its `type` must be found too unless it is "".
    """

    status: int
    type: str
    code: str | int | None
    text: str
    meaning: str


# What a provider says of its client is what we hear of ourselves; other codes mean the same from both sides.
_HEARD: Final[Mapping[str, str]] = {
    "caller.malformed": "upstream.refused",
    "caller.invalid_value": "upstream.refused",
    "caller.unsupported": "upstream.refused",
    "caller.unknown_model": "upstream.failed",  # it speaks of our name for it, not of the client's
    "account.invalid_key": "upstream.credentials",
    "account.no_quota": "upstream.unpaid",
    "account.concurrency": "upstream.busy",
    "platform.queue_full": "upstream.busy",
    "platform.overloaded": "upstream.busy",
    "platform.stopping": "upstream.busy",
    "platform.storage": "upstream.busy",
    "platform.model_failed": "upstream.busy",
    "platform.fault": "upstream.failed",
}


def heard(meaning: str) -> str:
    """Our code for what a provider says with `meaning`."""
    return _HEARD.get(meaning, meaning)


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

# A thinking conversation with tools lacks what was thought (PROVIDERS 1.7, three generations and routes of one rule).
_REASONING_WANTED: Final = ("in the thinking mode must be passed back", "missing `reasoning_content` field")

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
        param[:200] or None if type(param) is str else None,
    )


def read_problem(status: int, headers: Headers, body: bytes, rows: Iterable[Row] = ()) -> Problem:
    """What an error answer means; `status` 200 stands for an error inside an answer that had begun well."""
    refusal = read_refusal(body)
    row = next((row for row in rows if _fits(row, status, refusal)), None)
    if status == 200:
        status = _status_of(refusal) if row is None or not row.status else row.status
    detail = f"host: {status} {refusal.type} {refusal.code}: {refusal.message[:300]}"
    if row is not None:
        code = heard(row.meaning)
    else:
        code = _CODES.get(refusal.code.lower()) or _CODES.get(refusal.type.lower()) or _by_status(status)
    if code == "upstream.refused" and _wants_reasoning(refusal.message):
        code = "upstream.reasoning_wanted"
    if code == "upstream.busy":
        return Problem(code, detail=detail, retry_after_s=retry_after(headers))
    if code == "upstream.refused":
        return Problem(code, refusal.message or None, param=refusal.param, detail=detail)
    if code == "upstream.content_risk":
        return Problem(code, refusal.message or None, detail=detail)
    return Problem(code, detail=f"host: status {status}" if code == "upstream.nonsense" else detail)


def _wants_reasoning(message: str) -> bool:
    """Whoever is asked: hosts pass the words of the model's maker on."""
    lower = message.lower()
    return any(part in lower for part in _REASONING_WANTED)


def _by_status(status: int) -> str:
    if status in _OURS:
        return _OURS[status]
    if status in (429, 503):
        return "upstream.busy"
    if status in (400, 413, 415, 422):
        return "upstream.refused"
    if 200 <= status < 300:
        return "upstream.nonsense"
    # Also 404, 405 and redirects: they speak of our address or model name, not of the client's request.
    return "upstream.failed"


def _fits(row: Row, status: int, refusal: Refusal) -> bool:
    parts = _parts(row.text)
    if row.code is None and not parts and status == 200:
        # Inside an answer the status is not known; what is left of such a row is its type.
        return bool(row.type) and row.type == refusal.type
    if row.status:
        if status not in (row.status, 200):
            return False
    elif (row.type and row.type != refusal.type) or (row.code is None and status >= 500):
        return False
    if row.code is not None and str(row.code).lower() != refusal.code.lower():
        return False
    return all(part in refusal.message.lower() for part in parts)


def _parts(text: str) -> list[str]:
    """What stands around the blank of a row's text, in lower case."""
    return [part.lower() for part in _BLANK.sub("\0", text).split("\0") if part.strip()]


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


def find_row(problem: Problem, rows: Iterable[Row]) -> Row | None:
    """How a provider would say it: the row that means it, else one that its client would hear alike."""
    said = [row for row in rows if row.status]
    return next(
        (row for row in said if row.meaning == problem.code),
        next((row for row in said if heard(row.meaning) == heard(problem.code)), None),
    )


def sentence(row: Row, problem: Problem) -> str:
    """The provider's sentence. A message that is in the provider's words already stands as it is."""
    own = "" if problem.message == problem.row.sentence else problem.message
    lower = own.lower()
    if own and all(part in lower for part in _parts(row.text)):
        return own
    if row.text == "{message}":
        return problem.message
    return _BLANK.sub(lambda blank: own or blank[1] or "", row.text)


def render_problem(problem: Problem, *, in_stream: bool) -> bytes:
    """CONTRACT 5's body, or in a stream the event after which nothing follows: SDKs raise on it."""
    row = problem.row
    return write(
        {"message": problem.message, "type": row.type, "param": problem.param, "code": row.wire_code},
        in_stream=in_stream,
    )


def write(error: Mapping[str, Any], *, in_stream: bool) -> bytes:
    body = {"error": error}
    return event(body) if in_stream else dumps(body)
