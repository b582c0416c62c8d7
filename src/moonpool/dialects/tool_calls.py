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

    @property
    def called(self) -> bool:
        """Whether a function was named, so that there is a call."""
        return len(self._ids) > len(self._unnamed)

    def read(self, deltas: Any, whole: bool, events: list[Event]) -> bool:
        """Add the events of one `tool_calls` member; what is not a list of objects says nothing.

        False when a client that joins deltas by index would read something else than these events.
        """
        if type(deltas) is not list:
            return False
        as_is = True
        for delta in deltas:
            as_is &= type(delta) is dict and self._one(delta, whole, events)
        return as_is

    def _one(self, delta: dict[str, Any], whole: bool, events: list[Event]) -> bool:
        function = delta.get("function")
        if type(function) is not dict:
            function = {}
        call_id, name = _word(delta.get("id")), _word(function.get("name"))
        arguments = function.get("arguments")
        as_is = True
        if arguments is None:
            arguments = ""
        elif type(arguments) is not str:
            arguments = json.dumps(arguments, ensure_ascii=False)
            as_is = False
        slot = self._slot(delta.get("index"), call_id, name)
        if slot is None:
            slot = len(self._ids)
            self._ids.append(call_id)
            self._by_key[delta["index"] if type(delta.get("index")) is int else call_id or f"#{slot}"] = slot
            self._unnamed[slot] = ""
        as_is &= delta.get("index") == slot or (whole and "index" not in delta)
        if slot in self._unnamed:
            self._ids[slot] = self._ids[slot] or call_id
            if not name:
                self._unnamed[slot] += arguments
                return as_is
            arguments = self._unnamed.pop(slot) + arguments
            as_is &= self._ids[slot] != ""  # clients need an id, and get one of ours
            events.append(ToolCall(slot, self._ids[slot] or None, name, arguments, self._candidate))
        else:
            as_is &= not name and not call_id
            if arguments:
                events.append(ToolCall(slot, None, None, arguments, self._candidate))
        return as_is

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
