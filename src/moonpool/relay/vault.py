"""True reasoning for every host: remembered with each answer, put back where a client has lost it.

Hosts that think in tool loops refuse a conversation whose thinking does not come back, or forget their plan; many
programs drop it all the same. So two steps stand beside the path of a request. `restore`, before the hold: what was
lost is looked for and put back, tool results and user texts are brought into place (turns.py). `remember`, when the
answer has ended well: its reasoning is kept under its marks, of this account alone.

Remembered is what was thought about a request with tools, whatever its `tool_choice`, because only such reasoning is
ever asked for again; or all of it (`vault.remember`). Not remembered: answers that broke off, or were cut short before
they said anything, or in a tool call; answers of several candidates. Put back is all that was lost where the request
has tools (hosts then render all old reasoning), else what follows the user's last message (they ignore the rest).
Without thinking nothing is asked for, and nothing is done; the same where no host of the model takes reasoning back.

What stays unknown stays missing: where a host demands presence, its rendering fills in "".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from moonpool.catalog.model import Model
from moonpool.dialects.chunks import tool_call_id
from moonpool.relay import turns
from moonpool.relay.platform import Platform
from moonpool.relay.said import Said
from moonpool.relay.trip import Trip
from moonpool.state.base import Thought
from moonpool.words import CHAT, Call

_TAKES: Final = frozenset(("keep", "fill"))


async def restore(platform: Platform, trip: Trip, call: Call, model: Model, switches: Mapping[str, str]) -> Call:
    """The call, which is to be thought about, as its hosts should read it. Waits only where reasoning was lost and
    memory does not have it."""
    if model.replay != "keep" or call.operation != CHAT:
        return call
    if not any(target.replay in _TAKES for target in model.targets):
        return call
    fields = call.fields
    messages: list[Any] = fields["messages"]
    tools = bool(fields.get("tools"))
    changed, receipts = turns.rename(messages)
    vault = platform.vault
    if vault is not None and switches.get("reasoning", "restored") != "off":
        user = fields.get("user_id") or ""
        if (tools or platform.settings.vault.remember == "always") and fields.get("n", 1) == 1:
            trip.asked = turns.asked(messages, user)
            trip.said = trip.said or Said()
        lost = turns.find_lost(changed, user, 0 if tools else turns.since_user(messages))
        if lost:
            marks = [mark for each in lost for mark in (*each.marks.calls, each.marks.turn)]
            found = await vault.find(trip.account, marks, platform.clock())
            if found:
                back = turns.put_back(changed, lost, found)
                changed, trip.bytes_added = back.messages, back.bytes
                platform.meters.thoughts["restored"] += back.count
                receipts += back.receipts
    if tools:
        user_text = "off" if call.refuse else switches.get("user_text", platform.settings.vault.user_text)
        changed, repaired = turns.repair(changed, user_text)  # type: ignore[arg-type]
        receipts += repaired
    if not receipts:
        return call
    return replace(call, fields={**fields, "messages": changed}, adjusted=call.adjusted + receipts)


def remember(platform: Platform, trip: Trip, call: Call) -> None:
    """The answer is over: keep its reasoning if it was to be kept and ended well. Waits for nothing."""
    belongs, said, vault = trip.asked, trip.said, platform.vault
    if belongs is None or said is None or vault is None:
        return
    if not (trip.whole and said.whole and said.reasoned):
        return
    calls = [
        (call_id or tool_call_id(call.id, slot), name, arguments)
        for slot, (call_id, name, arguments) in enumerate(said.calls)
    ]
    text = said.text
    ended = trip.cause in ("stop", "tool_calls") or (trip.cause == "length" and not calls)
    if ended and (text or calls):
        marks = turns.marks_of(belongs, text, calls)
        platform.meters.thoughts["kept"] += 1
        vault.keep(Thought(trip.account, marks.calls, marks.turn, said.reasoning), platform.clock())
