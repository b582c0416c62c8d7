"""What does this body ask for? A client's JSON becomes a Call, or a Problem that names the field at fault.

Two tables, one for each operation, say which check a field has to pass; rules between fields follow. An explicit null
in a known field means that the field is absent, and it is taken out. Fields that stand in no table are kept and never
an error. What depends on the model (ranges, defaults, what is unsupported or ignored) is the catalogue's, later.

Sources: CONTRACT 3, PROVIDERS 1.3, 1.10, 1.11.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from moonpool.dialects import checks, gate, messages
from moonpool.dialects.checks import Check, missing, wrong
from moonpool.words import CHAT, Call, Operation

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max")
_NO_NEEDS: Final[frozenset[str]] = frozenset()
_FIM: Final = frozenset(("fim",))
_RARE: Final = frozenset(
    (
        "max_completion_tokens", "thinking", "reasoning_effort", "tools", "tool_choice", "response_format", "logprobs",
        "top_logprobs", "n",
    )
)  # fmt: skip
"""Fields that mean something for others, or for what the model has to be able to do. A chat without any of them, whose
last message is a role and a text, asks for text and no more."""


def _model(value: Any, param: str) -> None:
    if type(value) is not str or not value:
        checks.string(value, param)
        raise wrong(param, "Model Not Exist")


_SHARED: Final[dict[str, Check]] = {
    "model": _model,
    "max_tokens": checks.integer,
    "temperature": checks.number,
    "top_p": checks.number,
    "presence_penalty": checks.number,
    "frequency_penalty": checks.number,
    "n": checks.count,
    "seed": checks.integer,
    "stop": checks.stop,
    "stream": checks.boolean,
    "stream_options": checks.stream_options,
    "user_id": checks.string,
}


class Grammar:
    """The tables of one family of clients, made once. `server_tools`: tool types that hosts execute themselves."""

    __slots__ = ("_chat", "_completion")

    def __init__(self, server_tools: Collection[str] = ()) -> None:
        self._chat: Mapping[str, Check] = _SHARED | {
            "max_completion_tokens": checks.integer,
            "response_format": checks.response_format,
            "tools": checks.tools(server_tools),
            "tool_choice": checks.tool_choice,
            "parallel_tool_calls": checks.boolean,
            "logprobs": checks.boolean,
            "top_logprobs": checks.at_most_20,
            "thinking": checks.thinking,
            "reasoning_effort": checks.one_of(*EFFORTS),
            "enable_search": checks.boolean,
        }
        self._completion: Mapping[str, Check] = _SHARED | {
            "max_completion_tokens": checks.integer,
            "prompt": checks.string,
            "suffix": checks.string,
            "echo": checks.boolean,
            "logprobs": checks.at_most_20,
        }

    def parse(self, operation: Operation, raw: bytes, call_id: str) -> Call:
        """Raises Problem (`caller.malformed`, `caller.invalid_value`)."""
        fields = gate.read(raw)
        chat = operation == CHAT
        table = self._chat if chat else self._completion
        nulls = []
        for name, value in fields.items():
            check = table.get(name)
            if check is not None:
                if value is None:
                    nulls.append(name)
                else:
                    check(value, name)
        for name in nulls:
            del fields[name]
        model = fields.get("model")
        if model is None:
            raise missing("", "model")
        stream = fields.get("stream", False)
        options = fields.get("stream_options")
        if options is not None and not stream:
            raise wrong("stream_options", "stream_options should be set along with stream = true")
        adjusted: tuple[str, ...] = ()
        thinking = False
        needs = _NO_NEEDS
        if chat:
            said: Any = fields.get("messages")
            if said is None and "messages" not in fields:
                raise missing("", "messages")
            adjusted = messages.check(said)
            if len(said[-1]) > 2 or not _RARE.isdisjoint(fields):
                thinking, dropped = _thinking(fields)
                adjusted += dropped
                needs = _chat_needs(fields, thinking)
                if "max_completion_tokens" in fields:
                    adjusted += _rename_output_max(fields)
        else:
            if "prompt" not in fields:
                raise missing("", "prompt")
            needs = _completion_needs(fields)
            if "max_completion_tokens" in fields:
                adjusted += _rename_output_max(fields)
        return Call(
            call_id,
            operation,
            model,
            stream,
            fields,
            raw,
            options is not None and options.get("include_usage") is True,
            fields.get("max_tokens"),
            thinking,
            needs,
            adjusted,
        )


def _rename_output_max(fields: dict[str, Any]) -> tuple[str, ...]:
    """The newer name of `max_tokens`, which DeepSeek would ignore without a word."""
    value = fields.pop("max_completion_tokens")
    if "max_tokens" in fields:
        return ("max_completion_tokens:dropped",)
    fields["max_tokens"] = value
    return ("max_completion_tokens->max_tokens",)


def _thinking(fields: dict[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether thinking was asked for in so many words, and the receipts of what contradicts it."""
    thinking = fields.get("thinking")
    effort = fields.get("reasoning_effort")
    if thinking is None:
        return effort is not None and effort != "none", ()
    if thinking["type"] == "disabled":
        if effort is not None:
            # Live, both together are an error; a client that says "disabled" means it.
            del fields["reasoning_effort"]
            return False, ("reasoning_effort:dropped",)
        return False, ()
    return True, ()


def _chat_needs(fields: dict[str, Any], thinking: bool) -> frozenset[str]:
    needs = ["thinking"] if thinking else []
    tools = fields.get("tools")
    choice = fields.get("tool_choice")
    if choice is not None:
        _check_choice(choice, tools or ())
    if tools and choice != "none":
        needs.append("tools")
    last = fields["messages"][-1]
    prefix = last.get("prefix") is True and last["role"] == "assistant"
    if prefix:
        if tools:
            raise wrong("tools", "Function call should not be used with prefix")
        needs.append("prefix")
        if last.get("reasoning_content") and not last.get("content"):
            needs.append("prefix_thinking")
    form = fields.get("response_format")
    if form is not None and form["type"] != "text":
        if prefix:
            raise wrong("response_format", f"response_format {form['type']} should not be used with prefix")
        needs.append("json_object")
    if fields.get("logprobs"):
        needs.append("logprobs")
    elif "top_logprobs" in fields:
        raise wrong(
            "top_logprobs",
            "Invalid top_logprobs and logprobs value, logprobs must be set to true if top_logprobs is used.",
        )
    if fields.get("n", 1) > 1:
        needs.append("n")
    return frozenset(needs) if needs else _NO_NEEDS


def _check_choice(choice: Any, tools: Collection[Any]) -> None:
    if choice == "required" and not tools:
        raise wrong("tool_choice", "tool_choice is only allowed to be required when tools are given")
    if type(choice) is dict:
        name = choice["function"]["name"]
        if not any(tool["type"] == "function" and tool["function"]["name"] == name for tool in tools):
            raise wrong(
                "tool_choice",
                f"Invalid value for 'tool_call': no function named '{name[:128]}' "
                "was specified in the 'tools' parameter.",
            )


def _completion_needs(fields: dict[str, Any]) -> frozenset[str]:
    needs = _FIM
    if fields.get("logprobs"):
        needs |= {"logprobs"}
    if fields.get("n", 1) > 1:
        needs |= {"n"}
    return needs
