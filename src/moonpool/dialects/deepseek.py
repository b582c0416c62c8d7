"""DeepSeek's own flavour: the beta path, its errors, the tools it runs itself.

Sources: PROVIDERS 1.2 and 1.11 (paths), 1.3 (server tools), 1.3, 1.6, 1.7 and 1.11 (errors: the codes say little, so
texts are matched; transcripts `error-*` pin them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from moonpool.dialects.openai import OpenAI, option
from moonpool.dialects.problems import Row
from moonpool.dialects.request import Grammar
from moonpool.words import CHAT, Call, Target

_BAD: Final = "invalid_request_error"
_BUSY: Final = "service_unavailable_error"

# A table is read in columns. Type and code of 429 and 500 were not recorded: they are those of the family.
# fmt: off
_ROWS: Final = (
    Row(400, _BAD, _BAD, "Content Exists Risk", "upstream.content_risk"),
    Row(400, _BAD, _BAD, "This model's maximum context length is {message:1048576 tokens}. "
        "Please reduce the length of the messages or completion.", "caller.too_long"),
    Row(400, _BAD, _BAD, "The supported API model names are {message:deepseek-flash, deepseek-v4-pro, but you passed "
        "another}.", "caller.unknown_model"),
    Row(401, "authentication_error", _BAD, "Authentication Fails, Your api key: ****{message} is invalid",
        "account.invalid_key"),
    Row(402, "unknown_error", _BAD, "Insufficient Balance", "account.no_quota"),
    Row(503, _BUSY, _BUSY, "Service is too busy. We advise users to temporarily switch to alternative LLM API service "
        "providers.", "platform.overloaded"),
    Row(429, "rate_limit_error", "rate_limit_exceeded", "Your current concurrency is {message:2501, which exceeds your "
        "concurrency limit of 2500} based on your remaining balance. Please top up your balance to restore your "
        "concurrency.", "account.concurrency"),
    Row(429, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached for TPM", "platform.queue_full"),
    Row(500, "server_error", "server_error", "Internal Server Error", "platform.fault"),
    # As intermediaries, older servers and resellers write it: other statuses, other codes.
    Row(0, "", None, "Content Exists Risk", "upstream.content_risk"),
    Row(0, "", None, "Insufficient Balance", "account.no_quota"),
    Row(0, "", None, "Authentication Fails", "account.invalid_key"),
    Row(0, "", None, "maximum context length", "caller.too_long"),
    Row(0, "", None, "Model Not Exist", "caller.unknown_model"),
    # Whatever else is said of a request.
    Row(400, _BAD, _BAD, "{message}", "caller.invalid_value"),
    Row(400, _BAD, _BAD, "{message}", "caller.malformed"),
    Row(400, _BAD, _BAD, "{message}", "caller.unsupported"),
)
# fmt: on

_GUIDES: Final = "https://api-docs.deepseek.com/guides"
_PASS_BACK: Final = "The `{part}` in the thinking mode must be passed back to the API."
SENTENCES: Final[Mapping[str, str]] = {
    # What the live service says of a request (PROVIDERS 1.3, 1.7, 1.8, 1.10, 1.11), where no parser of ours does.
    "unknown_model": "The supported API model names are {names}, but you passed {model}.",
    "max_tokens": "Invalid max_tokens value, the valid range of max_tokens is [1, {most}]",
    "context": "This model's maximum context length is {window} tokens. However, you requested {total} tokens "
    "({prompt} in the messages, {completion} in the completion). Please reduce the length of the messages or "
    "completion.",
    "n": "Invalid n value (currently only n = 1 is supported)",
    "disabled_effort": "thinking options type cannot be disabled when reasoning_effort is set",
    "forced_tool": "Thinking mode does not support this tool_choice",
    "format": "This response_format type is unavailable now",
    "json_word": "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
    "json_prefix": "response_format json_object should not be used with prefix",
    "reasoning_content": _PASS_BACK.format(part="reasoning_content"),
    "concurrency": "Your current concurrency is {now}, which exceeds your concurrency limit of {most} based on your "
    "remaining balance. Please top up your balance to restore your concurrency.",
    "rate": "Rate limit reached for TPM",
    # V3.2
    "reasoning_content_v3_2": "Missing `reasoning_content` field in the assistant message at message index {at}. For "
    f"more information, please refer to {_GUIDES}/thinking_mode#tool-calls",
    # R1
    "unknown_model_r1": "Model Not Exist",
    "successive_r1": "deepseek-reasoner does not support successive user or assistant messages (messages[{at}] and "
    "messages[{next}] in your input). You should interleave the user/assistant messages in the message sequence.",
    "last_r1": "The last message of deepseek-reasoner must be a user message, or an assistant message with prefix mode "
    f"on (refer to {_GUIDES}/chat_prefix_completion).",
    "json_r1": "deepseek-reasoner does not support Json Output.",
    "tool_choice_r1": "deepseek-reasoner does not support this tool_choice",
}


class DeepSeek(OpenAI):
    """Options: those of OpenAI, and `beta_path` (default "/beta"): what stands before the path of what is in beta."""

    name = "deepseek"
    grammar: ClassVar[Grammar] = Grammar(server_tools=("deepseek_web_search", "deepseek_read_url"))
    rows: ClassVar[tuple[Row, ...]] = _ROWS
    sentences: ClassVar[Mapping[str, str]] = SENTENCES

    def _path(self, call: Call, target: Target) -> str:
        if call.operation != CHAT:
            return f"{option(target, 'beta_path', '/beta')}/completions"
        tools = call.fields.get("tools")
        if "prefix" in call.needs or (tools and _is_strict(tools)):
            return f"{option(target, 'beta_path', '/beta')}/chat/completions"
        return "/chat/completions"

    def read_balance(self, told: Mapping[str, Any]) -> tuple[str, bool] | None:
        """One amount for each currency, as texts; `is_available` is about them all (PROVIDERS 1.2)."""
        for answer in told.values():
            infos = answer.get("balance_infos") if type(answer) is dict else None
            if type(infos) is list:
                amounts = (
                    f"{info.get('total_balance')} {info.get('currency')}" for info in infos if type(info) is dict
                )
                return ", ".join(amounts) or "0", answer.get("is_available") is False
        return None


def _is_strict(tools: Any) -> bool:
    return any(tool["type"] == "function" and tool["function"].get("strict") for tool in tools)
