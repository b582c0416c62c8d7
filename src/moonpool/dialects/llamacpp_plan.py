"""What does one call need of llama.cpp's server? Read once from the call and its target, before the first pass.

Rules: pure. What a GGUF is like comes as `target.options` (a row of the catalogue, or what `--model` found in the
file), never from its name:

- `thinks` (bool, False): the model writes `<think>…</think>` by itself; otherwise it is led to think;
- `budget` (tokens, 512): the longest thinking at effort `high`; `low` has a quarter, `max` the double;
- `limit_counts_thinking` (bool, True): whether the answer's limit includes the thinking;
- `context` (tokens, None): of one request, where known: an answer that would not fit in ends as `length`;
- `sampling` (mapping): native sampling fields for free text, beneath what the call itself says;
- `fingerprint` (str): instead of the one that is made from the model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.dialects.llamacpp_schema import ANY_OBJECT, arguments_schema, enforceable
from moonpool.dialects.llamacpp_text import without_marks
from moonpool.dialects.llamacpp_wire import FINAL_FIELDS
from moonpool.errors import Problem
from moonpool.words import COMPLETION, Call, Outbound, Target

BUDGET: Final = 512
CALLS_MAX: Final = 8
_EFFORT: Final = {"minimal": 0.25, "low": 0.25, "medium": 1.0, "high": 1.0, "xhigh": 1.0, "max": 2.0, "ultra": 2.0}
_SAMPLING: Final = {"top_k": 20, "repeat_penalty": 1.05}
_PENALTIES: Final = frozenset({"repeat_penalty", "presence_penalty", "frequency_penalty"})

encode = msgspec.json.encode


class Plan(Struct, frozen=True):
    """`tools` are the functions by name, each with the schema of its arguments (None: it takes none); `forced` is
    None where the model may choose to call; `schema` is the JSON the answer must be; `logprobs` the number of
    alternatives asked for, None for none at all; `answered` the calls since the last user's turn, whose results are
    there; `model` is named in each pass where it is not ""."""

    call: Call
    n: int
    stops: list[str]
    sampling: dict[str, Any]
    seed: int | None
    logprobs: int | None
    limit: int | None
    thinking: bool
    thinks: bool
    budget: int
    limit_counts_thinking: bool
    context: int | None
    fingerprint: str
    model: str = ""
    schema: dict[str, Any] | None = None
    tools: dict[str, dict[str, Any] | None] = {}
    forced: list[str] | None = None
    parallel: bool = True
    messages: list[Any] = []
    answered: list[tuple[str, str]] = []
    prefix: str = ""
    prefix_reasoning: str = ""

    def template(self, *, with_tools: bool = True) -> Outbound:
        """Pass 0 of a chat: the model's own chat template makes one prompt of the messages. Without tools, their
        results are told within the user's turn."""
        messages = self.messages if with_tools else _retold(self.messages)
        body: dict[str, Any] = {"messages": messages, "add_generation_prompt": True}
        if self.tools and with_tools:
            body["tools"] = [one for one in self.call.fields["tools"] if one["function"]["name"] in self.tools]
        if self.thinks:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking, "thinking": self.thinking}
        return self.ask("/apply-template", body, plain=True)

    def generate(
        self,
        prompt: str | list[str | int],
        *,
        limit: int | None,
        candidate: int,
        first: bool,
        stops: list[str] | None = None,
        schema: dict[str, Any] | None = None,
        grammar: str | None = None,
        form: str | None = None,
        suffix: str | None = None,
        greedy: bool = False,
    ) -> Outbound:
        """One generating pass of at most `limit` tokens; `first` of an answer, so that a seed means something;
        `grammar` is of something with a syntax, `form` a grammar of free text; `greedy` takes the likeliest, whatever
        the call's temperature."""
        body: dict[str, Any] = {
            **self.sampling,
            "stream": True,
            "n_predict": -1 if limit is None else max(1, limit),
            "response_fields": FINAL_FIELDS,
            # A warm prompt is evaluated in other batches than a cold one, which may change the last bits.
            "cache_prompt": not (first and self.seed is not None),
        }
        if suffix is None:
            body["prompt"] = prompt
        else:
            body["input_prefix"], body["input_suffix"] = prompt, suffix
        if self.seed is not None:
            body["seed"] = (self.seed + candidate) % 2**32
        if stops:
            body["stop"] = stops
        if self.logprobs is not None:
            body["n_probs"] = max(1, self.logprobs)
        if schema is not None:
            body["json_schema"] = schema
        if grammar is not None or form is not None:
            body["grammar"] = grammar or form
        if schema is not None or grammar is not None:
            for name in _PENALTIES:
                body.pop(name, None)
        if greedy:
            body["temperature"] = 0
        return self.ask("/completion" if suffix is None else "/infill", body, stream=True)

    def ask(self, path: str, body: dict[str, Any], *, stream: bool = False, plain: bool = False) -> Outbound:
        """One pass. `plain`: marks of the chat template in its texts are none."""
        raw = encode({**body, "model": self.model} if self.model else body)
        return Outbound(path, without_marks(raw) if plain else raw, stream=stream)

    def call_id(self, candidate: int, slot: int) -> str:
        """`call_00_` and 20 characters, the same whenever the same call is decoded."""
        digest = sha256(f"{self.call.id} {candidate} {slot}".encode()).hexdigest()
        return f"call_{slot:02d}_{digest[:20]}"


def plan(call: Call, target: Target) -> Plan:
    """Raises Problem("caller.invalid_value" | "caller.unsupported") for what no grammar can enforce."""
    fields, options = call.fields, {**target.host.options, **target.options}
    here = target.host.transport == "llama"
    limit = call.output_max
    counts = bool(options.get("limit_counts_thinking", True))
    common: dict[str, Any] = {
        "call": call,
        "n": max(1, fields.get("n") or 1),
        "stops": _stops(fields.get("stop")),
        # What small models need; a server elsewhere has settings of its own.
        "sampling": _sampling(fields, options, _SAMPLING if here else {}),
        "seed": fields.get("seed"),
        "limit": limit,
        "thinks": bool(options.get("thinks", False)),
        "limit_counts_thinking": counts,
        "context": options.get("context"),
        "fingerprint": options.get("fingerprint") or _fingerprint(target),
        # A server that has several models is told which; the embedded one has one.
        "model": "" if here else target.model,
    }
    if call.operation == COMPLETION:
        return Plan(**common, logprobs=fields.get("logprobs"), thinking=False, budget=0)
    messages, prefix, prefix_reasoning = _prefix(fields["messages"])
    tools, forced = _tools(fields)
    return Plan(
        **common,
        logprobs=(fields.get("top_logprobs") or 0) if fields.get("logprobs") else None,
        thinking=call.thinking,
        budget=_budget(fields, options, limit if counts else None),
        schema=_schema(fields.get("response_format")),
        tools=tools,
        forced=forced,
        parallel=fields.get("parallel_tool_calls") is not False,
        messages=messages,
        answered=_answered(messages) if tools else [],
        prefix=prefix,
        prefix_reasoning=prefix_reasoning,
    )


def _fingerprint(target: Target) -> str:
    kind = "moonpool_embedded" if target.host.transport == "llama" else "llamacpp"
    return f"fp_{kind}_{target.model}"


def _stops(stop: Any) -> list[str]:
    if not stop:
        return []
    return [stop] if isinstance(stop, str) else list(stop)


def _sampling(fields: Mapping[str, Any], options: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` stands beneath what the options say, and those beneath what the call says."""
    sampling = dict(options.get("sampling") or own)
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        if fields.get(name) is not None:
            sampling[name] = fields[name]
    if fields.get("presence_penalty") or fields.get("frequency_penalty"):
        sampling.pop("repeat_penalty", None)
    return sampling


def _budget(fields: Mapping[str, Any], options: Mapping[str, Any], limit: int | None) -> int:
    """Tokens of thinking. Half of a limit that counts them is left for the answer."""
    thinking = fields.get("thinking")
    nested = thinking.get("reasoning_effort") if isinstance(thinking, Mapping) else None
    effort = fields.get("reasoning_effort") or nested or "high"
    budget = int(options.get("budget", BUDGET) * _EFFORT.get(effort, 1.0))
    context = options.get("context")
    if context:
        budget = min(budget, context // 2)
    if limit is not None:
        budget = min(budget, limit // 2)
    return max(1, budget)


def _schema(response_format: Any) -> dict[str, Any] | None:
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "json_object":
        return ANY_OBJECT
    if kind == "json_schema":
        wanted = response_format.get("json_schema")
        schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
        return enforceable(schema, "response_format.json_schema.schema")
    return None


def _tools(fields: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any] | None], list[str] | None]:
    choice = fields.get("tool_choice")
    tools = fields.get("tools") or []
    if not tools or choice == "none":
        return {}, None
    schemas = {
        tool["function"]["name"]: arguments_schema(tool["function"], f"tools[{place}].function.parameters")
        for place, tool in enumerate(tools)
    }
    if isinstance(choice, Mapping):
        name = choice.get("function", {}).get("name")
        if name not in schemas:
            raise Problem("caller.invalid_value", f"No tool is called {name!r}.", param="tool_choice")
        return schemas, [name]
    return schemas, list(schemas) if choice == "required" else None


def _prefix(messages: list[Any]) -> tuple[list[Any], str, str]:
    """The messages for the template, and what the last one wants continued: content, reasoning."""
    last = messages[-1]
    if last.get("role") != "assistant" or not last.get("prefix"):
        return messages, "", ""
    content, reasoning = _text(last.get("content")), last.get("reasoning_content") or ""
    return messages[:-1], without_marks(content.encode()).decode(), without_marks(reasoning.encode()).decode()


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _retold(messages: list[Any]) -> list[Any]:
    """A conversation without tool calls: what the tools said stands behind the question it answers."""
    retold: list[dict[str, Any]] = []
    for message in messages:
        if message.get("role") == "tool":
            said = f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"
            if retold and retold[-1].get("role") == "user":
                retold[-1] = {**retold[-1], "content": f"{_text(retold[-1].get('content'))}\n\n{said}"}
            else:
                retold.append({"role": "user", "content": said})
        elif message.get("content") or not message.get("tool_calls"):
            retold.append({name: value for name, value in message.items() if name != "tool_calls"})
    return retold


def canonical(arguments: str) -> str:
    """Arguments in one spelling, to be compared; as they are if they are no JSON."""
    try:
        return encode(msgspec.json.decode(arguments), order="sorted").decode()
    except msgspec.MsgspecError:
        return arguments


def _answered(messages: list[Any]) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    for message in messages:
        if message.get("role") == "user":
            calls = []
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            calls.append((str(function.get("name")), canonical(str(function.get("arguments", "")))))
    return calls if messages[-1].get("role") == "tool" else []
