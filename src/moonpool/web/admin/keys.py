"""API keys: made, changed, given a new secret, deleted. Only owners change them, members read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.ledger import access
from moonpool.ledger import keys as key_rules
from moonpool.ledger.money import exact
from moonpool.web.admin.access import find_key
from moonpool.web.admin.accounts import check_name, pico
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import (
    SWITCHES,
    Gone,
    KeyLimits,
    KeyPatch,
    KeyRow,
    KeySecret,
    NewKey,
    Rotation,
)
from moonpool.words import Key, Limits


def _row(key: Key, names: Mapping[str, str]) -> KeyRow:
    return KeyRow(
        id=key.id,
        name=key.name,
        account=names.get(key.account, key.account),
        created_at=int(key.created_at),
        last_used_at=None if key.last_used_at is None else int(key.last_used_at),
        switches=dict(key.switches),
        limits=_limits_row(key.limits),
    )


def _limits_row(limits: Limits | None) -> KeyLimits | None:
    if limits is None:
        return None
    return KeyLimits(
        expires_at=limits.expires_at,
        models=sorted(limits.models),
        addresses=list(limits.addresses),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrency=limits.concurrency,
        day=None if limits.day_pico is None else exact(limits.day_pico),
        month=None if limits.month_pico is None else exact(limits.month_pico),
    )


def _limits(desk: Desk, asked: KeyLimits | None) -> Limits | None:
    """As they are kept. Raises caller.invalid_value with the field as the client wrote it."""
    if asked is None:
        return None
    known = {model.name for model in desk.catalogue.models()}
    for name in asked.models:
        if name not in known:
            raise Problem("caller.invalid_value", f"There is no model {name!r}.", param="limits.models")
    money = {
        field: None if text is None else pico(f"limits.{field}", text, access.NUMBER_MAX)
        for field, text in (("day", asked.day), ("month", asked.month))
    }
    return access.checked(
        Limits(
            asked.expires_at,
            frozenset(asked.models),
            tuple(asked.addresses),
            asked.requests_per_minute,
            asked.tokens_per_minute,
            asked.concurrency,
            money["day"],
            money["month"],
        )
    )


def _check_switches(switches: Mapping[str, str]) -> None:
    for switch, value in switches.items():
        if value not in SWITCHES.get(switch, ()):
            known = "; ".join(f"{name}: {', '.join(values)}" for name, values in SWITCHES.items())
            raise Problem("caller.invalid_value", f"A switch is one of {known}.", param=f"switches.{switch}")


async def _names(desk: Desk) -> dict[str, str]:
    return {account.id: account.name for account in await desk.keys.accounts()}


async def list_keys(desk: Desk, ask: Ask) -> Answer:
    """The keys, of one account or of all that the actor sees; never a secret."""
    names = await _names(desk)
    found = await desk.keys.list(None if ask.account is None else ask.account.id)
    return 200, {"data": [_row(key, names) for key in found if ask.actor.sees(key.account)]}


async def create_key(desk: Desk, ask: Ask) -> Answer:
    """A new key; its secret is in this answer and nowhere else."""
    new, account = ask.body, ask.about()
    assert isinstance(new, NewKey)
    check_name("name", new.name, required=False)
    _check_switches(new.switches)
    key_id, secret = key_rules.make(os.urandom)
    key = Key(key_id, account.id, new.name, desk.clock(), None, new.switches, _limits(desk, new.limits))
    await ask.log(desk, key.id, account=account.name, **_said(key))
    await desk.keys.create(key, key_rules.digest(secret))
    return 201, KeySecret(key.id, secret, key.name, account.name, int(key.created_at))


def _said(key: Key) -> dict[str, object]:
    limits = _limits_row(key.limits)
    shown = None if limits is None else {name: getattr(limits, name) for name in limits.__struct_fields__}
    if shown is not None and shown["expires_at"] is not None and limits is not None and limits.expires_at is not None:
        shown["expires_at"] = int(limits.expires_at)  # the log has whole numbers only
    return {"name": key.name, "switches": dict(key.switches), "limits": shown}


async def change_key(desk: Desk, ask: Ask) -> Answer:
    """Another name, other switches or other limits; they hold from the next request on."""
    old, patch = await find_key(desk, ask.actor, ask.names["id"]), ask.body
    assert isinstance(patch, KeyPatch)
    key = old
    if not isinstance(patch.name, UnsetType):
        check_name("name", patch.name, required=False)
        key = replace(key, name=patch.name)
    if not isinstance(patch.switches, UnsetType):
        _check_switches(patch.switches)
        key = replace(key, switches=patch.switches)
    if patch.limits is not UNSET:
        key = replace(key, limits=_limits(desk, patch.limits))
    if key != old:
        await ask.log(desk, key.id, account=ask.about().name, **_said(key))
        if not await desk.keys.change(key):
            raise Problem("caller.not_found")  # somebody deleted it meanwhile
    return 200, _row(key, await _names(desk))


async def rotate_key(desk: Desk, ask: Ask) -> Answer:
    """A new secret for the key; the old one works for `grace_s` more seconds."""
    key, rotation = await find_key(desk, ask.actor, ask.names["id"]), ask.body
    assert isinstance(rotation, Rotation)
    secret = key_rules.again(key.id, os.urandom)
    await ask.log(desk, key.id, account=ask.about().name, grace_s=int(rotation.grace_s))
    if not await desk.keys.rotate(key.id, key_rules.digest(secret), desk.clock() + rotation.grace_s):
        raise Problem("caller.not_found")
    return 200, KeySecret(key.id, secret, key.name, ask.about().name, int(key.created_at))


async def delete_key(desk: Desk, ask: Ask) -> Answer:
    """Delete a key, for good. Raises caller.not_found."""
    key_id = ask.names["id"]
    await ask.log(desk, key_id, account=ask.about().name)
    if not await desk.keys.delete(key_id, desk.clock()):
        raise Problem("caller.not_found")
    return 200, Gone(key_id, True)


ROUTES: Final = (
    Route("GET", "/keys", list_keys, "List keys.", KeyRow, many=True, who="member", about="query", query=("account",)),
    Route(
        "POST",
        "/keys",
        create_key,
        "Make a key; its secret is in this answer only.",
        KeySecret,
        status=201,
        who="owner",
        about="body",
        body=NewKey,
    ),
    Route(
        "PATCH",
        "/keys/{id}",
        change_key,
        "Change a key's name, switches and limits.",
        KeyRow,
        who="owner",
        about="key",
        body=KeyPatch,
    ),
    Route(
        "POST",
        "/keys/{id}/rotate",
        rotate_key,
        "Give a key a new secret; it is in this answer only.",
        KeySecret,
        who="owner",
        about="key",
        body=Rotation,
    ),
    Route("DELETE", "/keys/{id}", delete_key, "Delete a key, for good.", Gone, who="owner", about="key"),
)
