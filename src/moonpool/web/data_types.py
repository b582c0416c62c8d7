"""What the data plane takes and answers, as types: only for people and programs that read `/openapi.json`. What is read
and checked is the dialects' matter; a test holds real answers against these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class Message(Struct):
    """`content` is a text or a list of parts of kind text."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    prefix: bool = False
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Struct):
    include_usage: bool = False


class ChatRequest(Struct):
    """What each model does with each field: docs/concepts/models-and-rules.md. Fields that are not here go on to the
    host unchanged."""

    model: str
    messages: list[Message]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    thinking: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    enable_search: bool | None = None


class CompletionRequest(Struct):
    """Text that goes on, or, with `suffix`, a middle that is filled in."""

    model: str
    prompt: str
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None


class CompletionDetails(Struct):
    reasoning_tokens: int = 0


class UsageBody(Struct):
    """prompt_tokens = hit + miss; completion_tokens includes the reasoning."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_cache_hit_tokens: int = 0
    prompt_cache_miss_tokens: int = 0
    completion_tokens_details: CompletionDetails | None = None


class Answered(Struct):
    role: str
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    search_results: list[dict[str, Any]] | None = None


class Choice(Struct):
    index: int
    message: Answered
    finish_reason: str | None
    logprobs: Any = None


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBody | None = None
    system_fingerprint: str | None = None


class TextChoice(Struct):
    index: int
    text: str
    finish_reason: str | None
    logprobs: Any = None


class TextCompletion(Struct):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageBody | None = None
    system_fingerprint: str | None = None


class ModelEntry(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Struct):
    object: Literal["list"]
    data: list[ModelEntry]


class BalanceInfo(Struct):
    """Amounts are texts with two decimals."""

    currency: str
    total_balance: str
    granted_balance: str
    topped_up_balance: str


class BalanceBody(Struct):
    is_available: bool
    balance_infos: list[BalanceInfo]


class UsagePage(Struct):
    """Sums within [start, end) by what `group_by` names; `next` is the `after` of the following page."""

    object: Literal["list"]
    start: float
    end: float
    group_by: list[str]
    data: list[dict[str, Any]]
    next: str | None


class Subscription(Struct):
    """In New API's shape; units of the account's currency."""

    object: Literal["billing_subscription"]
    has_payment_method: bool
    soft_limit_usd: float
    hard_limit_usd: float
    system_hard_limit_usd: float
    access_until: int


class BillingUsage(Struct):
    """In New API's shape; hundredths of the account's currency, this month."""

    object: Literal["list"]
    total_usage: float


class TokenUsage(Struct):
    """In New API's shape."""

    code: bool
    message: str
    data: dict[str, Any]


class ErrorBody(Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorPage(Struct):
    """Every refusal; all codes: docs/reference/errors.md."""

    error: ErrorBody
