"""Which tool call does this delta belong to? Hosts agree on little, so it is decided here, for one candidate.

By `index`; else by `id`; else by order: a delta that names a function begins a call, any other goes on with the last.
An id or a name counts once, with the first part of its call; repeated ones are dropped and never joined on.

Source: PROVIDERS 6 (tool deltas), 1.4 (arguments that are an object).
"""

from __future__ import annotations

import json
from typing import Any

from moonpool.words import Event, ToolCall


class Slots:
    """The tool calls of one candidate, counted from 0 in the order in which they began."""

    __slots__ = ("_by_key", "_candidate", "_ids", "_unnamed")

    def __init__(self, candidate: int) -> None:
        self._candidate = candidate
        self._by_key: dict[int | str, int] = {}
        self._ids: list[str] = []
        self._unnamed: dict[int, str] = {}  # slot -> arguments that came before the name

    def read(self, deltas: Any) -> list[Event]:
        """The events of one `tool_calls` member; what is not a list of objects says nothing."""
        if type(deltas) is not list:
            return []
        events: list[Event] = []
        for delta in deltas:
            if type(delta) is dict:
                self._one(delta, events)
        return events

    def _one(self, delta: dict[str, Any], events: list[Event]) -> None:
        function = delta.get("function")
        if type(function) is not dict:
            function = {}
        call_id, name = _word(delta.get("id")), _word(function.get("name"))
        arguments = function.get("arguments")
        if arguments is None:
            arguments = ""
        elif type(arguments) is not str:
            arguments = json.dumps(arguments, ensure_ascii=False)
        slot = self._slot(delta.get("index"), call_id, name)
        if slot is None:
            slot = len(self._ids)
            self._ids.append(call_id)
            self._by_key[delta["index"] if type(delta.get("index")) is int else call_id or f"#{slot}"] = slot
            self._unnamed[slot] = ""
        if slot in self._unnamed:
            self._ids[slot] = self._ids[slot] or call_id
            if not name:
                self._unnamed[slot] += arguments
                return
            arguments = self._unnamed.pop(slot) + arguments
            events.append(ToolCall(slot, self._ids[slot] or None, name, arguments, self._candidate))
        elif arguments:
            events.append(ToolCall(slot, None, None, arguments, self._candidate))

    def _slot(self, index: Any, call_id: str, name: str) -> int | None:
        """The slot that a delta goes on with, None when it begins a call."""
        if type(index) is int:
            slot = self._by_key.get(index)
            # Some hosts number every parallel call 0: another id with a name is another call.
            if slot is not None and name and call_id and self._ids[slot] not in ("", call_id):
                return None
            return slot
        if call_id:
            return self._by_key.get(call_id)
        return None if name or not self._ids else len(self._ids) - 1


def _word(value: Any) -> str:
    return value if type(value) is str else ""
