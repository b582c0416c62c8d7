"""How does a chunk of a stream look? DeepSeek's live chunks, built from parts that are rendered once per answer.

The rule: a chunk is `head + candidate + delta + tail`, all bytes, and only the text is rendered for each event. What
forms a delta takes in thinking and non-thinking answers, and in which order, is the table of PROVIDERS 1.5.
"""

from __future__ import annotations

import hashlib
from typing import Any

from moonpool.dialects.names import Names
from moonpool.dialects.sse import dumps, safe
from moonpool.dialects.usage import write_usage
from moonpool.words import CHAT, Found, Operation, Reasoning, Text, ToolCall, Usage


class Chunks:
    """Builds the chunks of one answer, and remembers per candidate whether its role was said and whether it thinks.
    `answer_id` is our own id for the answer: ids of calls whose host gave none are made from it."""

    __slots__ = (
        "_answer_id", "_chat", "_found", "_head", "_heads", "_no_usage", "_opened", "_roles_sent", "_tail", "_thinking",
    )  # fmt: skip

    def __init__(self, operation: Operation, names: Names, include_usage: bool, answer_id: str) -> None:
        self._chat = operation == CHAT
        self._answer_id = answer_id
        head = {
            "id": names.id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": names.created,
            "model": names.model,
            "system_fingerprint": names.fingerprint,
        }
        self._head = b"data: " + safe(dumps(head))[:-1] + b',"choices":['
        self._no_usage = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._no_usage
        self._heads: dict[int, bytes] = {}
        self._opened: set[int] = set()
        self._found: dict[int, bytes] = {}  # search results that wait for the role, whose form is not known yet
        self._thinking: set[int] = set()
        self._roles_sent = False

    def role_was_sent(self) -> None:
        """The host's own chunks have told the roles."""
        self._roles_sent = True

    def text(self, piece: Text) -> bytes:
        index = piece.index
        text = dumps(piece.text)
        if not text.isascii():
            text = safe(text)
        if not self._chat:
            return self._completion(text, piece)
        opening = b"" if index in self._opened else self._open(index, False)
        after = b',"reasoning_content":null}' if index in self._thinking else b"}"
        tail = self._tail if piece.logprobs is None else self._tail_of(piece.logprobs)
        return opening + self._heads[index] + b'{"content":' + text + after + tail

    def reasoning(self, piece: Reasoning) -> bytes:
        if not self._chat:
            return b""
        index = piece.index
        opening = b"" if index in self._opened else self._open(index, True)
        self._thinking.add(index)
        if not piece.text:
            return opening
        tail = self._tail if piece.logprobs is None else self._tail_of(piece.logprobs)
        text = safe(dumps(piece.text))
        return opening + self._heads[index] + b'{"content":null,"reasoning_content":' + text + b"}" + tail

    def tool_call(self, piece: ToolCall) -> bytes:
        """The opening of a call (id, name, no arguments) and the arguments stand in chunks of their own."""
        if not self._chat:
            return b""
        index = piece.index
        out = b"" if index in self._opened else self._open(index, False)
        head = self._heads[index]
        if piece.name is not None:
            call_id = piece.id or tool_call_id(self._answer_id, piece.slot)
            function = {"name": piece.name, "arguments": ""}
            call = {"index": piece.slot, "id": call_id, "type": "function", "function": function}
            out += head + safe(dumps({"tool_calls": [call]})) + self._tail
        if piece.arguments:
            more = {"index": piece.slot, "function": {"arguments": piece.arguments}}
            out += head + safe(dumps({"tool_calls": [more]})) + self._tail
        return out

    def found(self, piece: Found, now: bool) -> bytes:
        """Search results, in a chunk of their own behind the role. Unless `now`, they wait for what comes next, which
        settles the form of the role; where the host's own bytes are handed on nobody would send them later."""
        if not self._chat:
            return b""
        index = piece.index
        delta = safe(dumps({"search_results": piece.results}))
        chunk = self._head + b'{"index":%d,"delta":' % index + delta + self._tail
        if now or index in self._opened:
            return (b"" if index in self._opened else self._open(index, False)) + chunk
        self._found[index] = self._found.get(index, b"") + chunk
        return b""

    def finish(self, reason: str, index: int, usage: Usage | None) -> bytes:
        """The last chunk of a candidate; `usage` only on the very last."""
        end = self._no_usage if usage is None else b',"usage":' + self._usage(usage) + b"}\n\n"
        because = b',"logprobs":null,"finish_reason":' + dumps(reason) + b"}]"
        if not self._chat:
            return self._head + b'{"text":"","index":%d' % index + because + end
        opening = b"" if index in self._opened else self._open(index, False)
        delta = b'{"content":"","reasoning_content":null}' if index in self._thinking else b'{"content":""}'
        return opening + self._heads[index] + delta + because + end

    def usage_only(self, usage: Usage) -> bytes:
        """OpenAI's form: a chunk without choices after the last one."""
        return self._head + b'],"usage":' + self._usage(usage) + b"}\n\n"

    def _usage(self, usage: Usage) -> bytes:
        return dumps(write_usage(usage, bool(self._thinking)))

    def _open(self, index: int, thinking: bool) -> bytes:
        """The first chunk of a candidate: its role, in the form that says whether it will think."""
        self._opened.add(index)
        self._heads[index] = self._head + b'{"index":%d,"delta":' % index
        found = self._found.pop(index, b"")
        if self._roles_sent:
            return found
        content = b'"content":null,"reasoning_content":""}' if thinking else b'"content":""}'
        return self._heads[index] + b'{"role":"assistant",' + content + self._tail + found

    def _completion(self, text: bytes, piece: Text) -> bytes:
        logprobs = b"null" if piece.logprobs is None else safe(dumps(piece.logprobs))
        rest = b',"index":%d,"logprobs":%b,"finish_reason":null}]' % (piece.index, logprobs)
        return self._head + b'{"text":' + text + rest + self._no_usage

    def _tail_of(self, logprobs: Any) -> bytes:
        return b',"logprobs":' + safe(dumps(logprobs)) + b',"finish_reason":null}]' + self._no_usage


def tool_call_id(answer_id: str, slot: int) -> str:
    """An id for a call whose host gave none; the same for the same answer and slot."""
    digest = hashlib.blake2s(f"{answer_id} {slot}".encode(), digest_size=10).hexdigest()
    return f"call_{slot:02d}_{digest}"
