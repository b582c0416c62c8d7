"""The family's plain flavour: hosts that speak OpenAI's Chat Completions and legacy Completions, and no more.

A flavour overrides what differs: where a request goes (`_path`), its table of errors (`rows`), what else it says of a
request (`sentences`), which tools the service executes itself (`grammar`). Everything else is the family's:
request.py, decode.py, encode.py, problems.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from moonpool.dialects import problems
from moonpool.dialects.base import Decoder
from moonpool.dialects.decode import Decoder as FamilyDecoder
from moonpool.dialects.encode import make_encoder
from moonpool.dialects.host_options import Options, options_of, say_prefix, say_thinking, spell
from moonpool.dialects.inline import InlineDecoder
from moonpool.dialects.problems import Row
from moonpool.dialects.replay import FIELD, replay
from moonpool.dialects.request import Grammar
from moonpool.dialects.sse import dumps
from moonpool.errors import Problem
from moonpool.words import CHAT, Call, Headers, Operation, Outbound, Target


class OpenAI:
    """A dialect (dialects.base). Options of a target or its host: catalog/options.py."""

    name: str = "openai"
    family: str = "openai"
    by_name: ClassVar[bool] = True
    """Whether such a host picks the model by its name in the request."""
    grammar: ClassVar[Grammar] = Grammar()
    sentences: ClassVar[Mapping[str, str]] = {}
    rows: ClassVar[tuple[Row, ...]] = (Row(0, "", None, "maximum context length", "caller.too_long"),)

    def parse_call(self, operation: Operation, raw: bytes, call_id: str) -> Call:
        return self.grammar.parse(operation, raw, call_id)

    def render_call(self, call: Call, target: Target) -> Outbound:
        """The fields again, under the host's own name for the model. A stream always asks for its usage.

        Raises Problem where reasoning is sent back to a host whose rule is to refuse it, and where something would be
        lost though the key wants an error then.
        """
        body = {**call.fields, "model": target.model}
        if call.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        options = options_of(target)
        adjusted: tuple[str, ...] = ()
        if call.operation == CHAT and (options or target.replay != "keep"):
            adjusted = self._adapt(call, target, options, body)
        if options:
            for name in options.get("drop", ()):
                body.pop(name, None)
        return Outbound(self._path(call, target), dumps(body), stream=call.stream, adjusted=adjusted)

    def _adapt(self, call: Call, target: Target, options: Options, body: dict[str, Any]) -> tuple[str, ...]:
        """A chat in the words of this host. Gives the receipts."""
        adjusted: tuple[str, ...] = say_thinking(call, body, options) if options else ()
        field = options.get("reasoning_field", FIELD)
        if target.replay != "keep" or field != FIELD:
            body["messages"], receipts = replay(call, target.replay, field, body["messages"])
            adjusted += receipts
        if options:
            adjusted += say_prefix(call, body, options)
            spell(body, options)
        if call.refuse:
            for receipt in adjusted:
                if ":dropped" in receipt or ":disabled" in receipt:
                    raise Problem(
                        "caller.unsupported",
                        f"This model's host does not take this request as it is ({receipt}).",
                        param=receipt.partition(":")[0],
                    )
        return adjusted

    def _path(self, call: Call, target: Target) -> str:
        return "/chat/completions" if call.operation == CHAT else "/completions"

    def decoder(self, call: Call, target: Target) -> Decoder:
        inner = FamilyDecoder(self.parse_problem)
        if not (target.options or target.host.options):
            return inner
        inline = option(target, "inline_thinking", "")
        if not inline or call.operation != CHAT:
            return inner
        # Where the thinking is off, or a text is continued, nothing is open.
        opened = (
            inline == "opened" and call.thinking and ("prefix" not in call.needs or "prefix_thinking" in call.needs)
        )
        return InlineDecoder(inner, opened=opened)

    encoder = staticmethod(make_encoder)

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        return problems.read_problem(status, headers, body, self.rows)

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        """In the words of the flavour's table; CONTRACT 5's where it has none."""
        row = problems.find_row(problem, self.rows)
        if row is None:
            return problems.render_problem(problem, in_stream=in_stream)
        return problems.write(self._error(row, problems.sentence(row, problem)), in_stream=in_stream)

    def _error(self, row: Row, message: str) -> Mapping[str, Any]:
        """The members of an error as the flavour writes them."""
        return {"message": message, "type": row.type, "param": None, "code": row.code}

    def status_of(self, problem: Problem) -> int:
        row = problems.find_row(problem, self.rows)
        return problem.status if row is None else row.status

    def read_balance(self, told: Mapping[str, Any]) -> tuple[str, bool] | None:
        """What the host says is left, for people, and whether that is too little to go on; None where it says nothing
        of it. `told`: the decoded answers to those paths of `Host.balance` that had one."""
        return None


def option(target: Target, name: str, default: Any) -> Any:
    """An option of the target, else of its host."""
    return target.options.get(name, target.host.options.get(name, default))
