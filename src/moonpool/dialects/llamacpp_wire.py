"""What does llama.cpp's server put on the wire? Its native stream events, its error bodies, its log probabilities.

Rules: pure; lines in, records out. Source: the server of llama.cpp as PyPI's `xllamacpp` 2026.10 runs it
(`/completion`, `/infill`), looked at on the wire; PROVIDERS 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from moonpool.errors import Problem
from moonpool.words import Headers

LINE_BYTES_MAX: Final = 4 * 1024 * 1024

# Of the last event of a pass the server would repeat the prompt and all settings; these are what we read.
FINAL_FIELDS: Final = (
    "content",
    "tokens",
    "stop",
    "tokens_predicted",
    "tokens_evaluated",
    "stop_type",
    "stopping_word",
    "truncated",
    "timings/cache_n",
)


class Top(Struct, frozen=True, gc=False):
    token: str = ""
    bytes: list[int] = []
    logprob: float | None = None


class Probability(Struct, frozen=True):
    token: str = ""
    bytes: list[int] = []
    logprob: float | None = None
    top_logprobs: list[Top] = []


class Piece(Struct, frozen=True):
    """One event of a generating pass. `tokens` are those made since the last event, `content` the text that is
    sure by now (a part of a stop text or of a character is held back). `stop` marks the last event."""

    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop_type: str = ""
    stopping_word: str = ""
    truncated: bool = False
    cache_n: int = field(default=0, name="timings/cache_n")
    completion_probabilities: list[Probability] = []
    error: Any = None


_decode_piece = msgspec.json.Decoder(Piece).decode


class Lines:
    """Pieces out of any slicing of an event stream. Comments and other fields are passed over."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, Piece]]:
        """Raises Problem("upstream.too_large" | "upstream.nonsense")."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_BYTES_MAX:
            raise Problem("upstream.too_large", detail="one event of llama.cpp's server")
        pieces = []
        for line in lines:
            if line.startswith(b"data:"):
                body = line[5:].strip()
                if body != b"[DONE]":
                    pieces.append((line, _piece(body)))
            elif line.startswith(b"error:"):
                pieces.append((line, Piece(error=_json(line[6:]), stop=True)))
        return pieces


def _piece(body: bytes) -> Piece:
    try:
        return _decode_piece(body)
    except msgspec.MsgspecError as error:
        raise Problem("upstream.nonsense", detail=f"an event of llama.cpp's server: {error}") from None


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return None


def whole(body: bytes) -> dict[str, Any]:
    """The JSON object a short pass was answered with. Raises Problem("upstream.nonsense")."""
    answer = _json(body)
    if not isinstance(answer, dict):
        raise Problem("upstream.nonsense", detail="llama.cpp's server did not answer with an object")
    return answer


def problem_of(status: int, headers: Headers, body: bytes) -> Problem:
    """What an error status of llama.cpp's server means. `code` in its body is an integer, the words decide."""
    answer = _json(body)
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(error, Mapping):
        return Problem("upstream.failed", detail=f"status {status}: {body[:200]!r}")
    return problem_in(error, status)


def problem_in(error: Any, status: int = 500) -> Problem:
    """The same for the `error` object inside an event stream."""
    if not isinstance(error, Mapping):
        return Problem("upstream.failed", detail=f"error {error!r}"[:300])
    kind = str(error.get("type", ""))
    message = str(error.get("message", ""))
    detail = f"{kind} {status}: {message}"[:300]
    code = error.get("code")
    if isinstance(code, int) and status == 500:
        status = code
    if kind == "exceed_context_size_error" or "exceeds the available context size" in message:
        return Problem("caller.too_long", detail=detail)
    if "input is not supported" in message:
        return Problem("caller.unsupported", "This model reads text only.", param="messages", detail=detail)
    if status in (401, 403):
        return Problem("upstream.credentials", detail=detail)
    if status == 400:
        return Problem("upstream.refused", message or None, detail=detail)
    if status == 503:
        return Problem("upstream.busy", detail=detail, retry_after_s=1)
    return Problem("upstream.failed", detail=detail)


# What stands for "very unlikely" where the server has no number, as DeepSeek's service writes it.
UNLIKELY: Final = -9999.0


def chat_logprobs(probabilities: Sequence[Probability], top: int) -> list[dict[str, Any]]:
    """`choices[].logprobs.content[]` (or `.reasoning_content[]`) of OpenAI's chat dialect; `top` alternatives."""
    return [
        {
            "token": one.token,
            "logprob": _or_unlikely(one.logprob),
            "bytes": one.bytes,
            "top_logprobs": [
                {"token": other.token, "logprob": _or_unlikely(other.logprob), "bytes": other.bytes}
                for other in one.top_logprobs[:top]
            ],
        }
        for one in probabilities
    ]


def completion_logprobs(probabilities: Sequence[Probability], top: int, offset: int) -> dict[str, Any]:
    """`choices[].logprobs` of OpenAI's completions dialect; `offset` is where the first token begins, in characters."""
    offsets = []
    for one in probabilities:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in probabilities],
        "token_logprobs": [_or_unlikely(one.logprob) for one in probabilities],
        "top_logprobs": [
            {other.token: _or_unlikely(other.logprob) for other in one.top_logprobs[:top]} for one in probabilities
        ]
        if top
        else None,
        "text_offset": offsets,
    }


def _or_unlikely(logprob: float | None) -> float:
    return UNLIKELY if logprob is None or logprob < UNLIKELY else logprob
