"""What is made at start, before anybody can ask for it: the accounts and keys of the operator's file, and a first key.
Each change stands in the audit log like any other, and only what is a change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.settings import Settings
from moonpool.state.base import Keys
from moonpool.state.base_admin import Audit, Change
from moonpool.words import Account, Key

DEFAULT_ACCOUNT: Final = "default"
ACTOR: Final = "start"


async def declare_accounts(
    settings: Settings, keys: Keys, audit: Audit, environ: Mapping[str, str], note: Callable[..., object]
) -> None:
    """Make the accounts and keys that the operator's file declares; what is there already is left as it is, but for
    what the file says of it. `note` is told what was left out."""
    for declared in settings.accounts:
        known = await keys.account(declared.name)
        account = replace(
            known or Account(declared.name, declared.name),
            post_paid=declared.post_paid,
            concurrency=declared.concurrency,
        )
        if account != known:
            said = {"post_paid": account.post_paid, "concurrency": account.concurrency}
            await _log(audit, "declare account", account.name, **said)
            await keys.save_account(account)
        for text in declared.secrets(environ):
            digest = key_rules.digest(text)
            if await keys.find(digest) is None:
                key = Key(key_rules.declared_id(text), account.id, "declared", time.time())
                await _declare_key(keys, audit, key, digest, account, note)


async def _declare_key(
    keys: Keys, audit: Audit, key: Key, digest: bytes, account: Account, note: Callable[..., object]
) -> None:
    """One that was deleted by command stays deleted. Logged after it was made: before, nobody knows whether it can be,
    and a start that cannot log fails."""
    try:
        await keys.create(key, digest)
    except Problem as problem:
        if problem.code != "caller.invalid_value":
            raise
        note("declared key left out", account=account.name, key=key.id, why=problem.message)
    else:
        await _log(audit, "declare key", key.id, account=account.name)


async def first_key(keys: Keys, audit: Audit) -> str | None:
    """At the very first start: one key for the account `default`. None when there ever was a key of its."""
    account = await keys.account(DEFAULT_ACCOUNT)
    if account is None or await keys.ever(account.id):
        return None
    key_id, secret = key_rules.make(os.urandom)
    await _log(audit, "first key", key_id, account=account.name)
    await keys.create(Key(key_id, account.id, "first", time.time()), key_rules.digest(secret))
    return secret


async def _log(audit: Audit, action: str, target: str, **detail: object) -> None:
    await audit.write(Change(time.time(), ACTOR, action, target, detail))
