"""API keys and accounts of one process: all of them in memory, every change durable before it counts.

Rules:
- `find` never asks the database: a digest is known or it is not, so guesses cost no look-up and no memory. Nothing that
  reads writes into memory: no late look-up and no use can bring back a key that was deleted meanwhile.
- A key enters memory after its creation is durable and leaves it after its deletion is, before either is answered.
  Only `refresh`, for processes that share a database, reads again; what was changed here meanwhile makes it read anew.
- Whoever has to end what a key still does is told at once (`listen`): deleted, past its end, account disabled.
- An old digest finds its key with the limit that it ends. So a key without limits needs no look at the time.
- The last use of a key is a note in memory, written every USED_S seconds and at `stop`.
"""

from __future__ import annotations

import asyncio
import builtins
import math
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.ledger.access import checked
from moonpool.state import keyrows, tables
from moonpool.state.base import Revoked
from moonpool.state.keyrows import Kept, Known, Made
from moonpool.state.thread import Database, Jobs
from moonpool.words import Account, Key, Limits

USED_S: Final = 60.0
LOOK_S: Final = 60.0
"""How often the wall clock is looked at while a key will end some time: it may be set."""

Found = tuple[Key, Account] | None

_NOBODY: Final[Later[Found]] = Later()
_NOBODY.set(None)


class SqliteKeys:
    """Keys. All methods are called on the event loop; none blocks it."""

    def __init__(self, thread: Jobs, accounts: dict[str, Account], clock: Callable[[], float]) -> None:
        self._thread = thread
        self._accounts = accounts
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._ready: dict[bytes, Later[Found]] = {}
        self._used: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        """When something of a key ends next: itself, or its old digest."""
        self._next_end = math.inf
        self._changed = 0
        self._listeners: list[Callable[[Revoked], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def start(self, known: Known) -> None:
        """Take over what `load` read."""
        self._take(known)
        self._timer = asyncio.get_running_loop().call_later(USED_S, self._write_used)

    async def stop(self) -> None:
        """Write the last uses."""
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self.write_used()

    async def refresh(self) -> None:
        """Take over what other processes changed."""
        while True:
            before = self._changed
            known = await self._thread.call(_load)
            if before == self._changed:
                break
        self._take(known)

    def stands(self, key_id: str) -> bool:
        kept = self._kept.get(key_id)
        return kept is not None and not self._has_ended(kept.key) and not self._accounts[kept.key.account].disabled

    def listen(self, tell: Callable[[Revoked], None]) -> None:
        self._listeners.append(tell)

    # Keys

    def find(self, digest: bytes) -> Later[Found]:
        """Already there: the answer is made when a key changes, not when it is asked for."""
        return self._ready.get(digest, _NOBODY)

    def used(self, key_id: str, at: float) -> None:
        self._used[key_id] = at

    async def create(self, key: Key, digest: bytes) -> None:
        if key.account not in self._accounts:
            raise Problem("caller.invalid_value", "There is no such account.", param="account")
        key = replace(key, limits=checked(key.limits))
        made: Made = await self._thread.call(partial(keyrows.insert_key, key, digest))
        if made == "exists":
            raise _taken("This key exists, or did and was deleted for good.", "key")
        self._remember(Kept(key, digest))

    async def get(self, key_id: str) -> Key | None:
        kept = self._kept.get(key_id)
        return None if kept is None else replace(kept.key, last_used_at=self._used.get(key_id, kept.key.last_used_at))

    async def list(self, account: str | None = None) -> builtins.list[Key]:
        """Oldest first, with their last use as it is known now."""
        found = [
            replace(kept.key, last_used_at=self._used.get(kept.key.id, kept.key.last_used_at))
            for kept in self._kept.values()
            if account is None or kept.key.account == account
        ]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def ever(self, account: str) -> bool:
        return bool(await self._thread.call(partial(keyrows.ever, account)))

    async def change(self, key: Key) -> bool:
        key = replace(key, limits=checked(key.limits))
        if key.id not in self._kept or not await self._thread.call(partial(keyrows.change_key, key)):
            return False
        kept = self._kept.get(key.id)
        if kept is not None:
            same = kept.key
            self._remember(replace(kept, key=replace(same, name=key.name, switches=key.switches, limits=key.limits)))
            if self._has_ended(key):
                self._tell(_expired(key))
        return True

    async def rotate(self, key_id: str, digest: bytes, old_until: float) -> bool:
        if key_id not in self._kept:
            return False
        rotated: keyrows.Rotated = await self._thread.call(partial(keyrows.rotate_key, key_id, digest, old_until))
        if rotated == "exists":
            raise _taken("This text is a key's, or was.", "key")
        kept = self._kept.get(key_id)
        if rotated == "unknown" or kept is None:
            return False
        self._remember(Kept(kept.key, digest, kept.digest, old_until))
        return True

    async def delete(self, key_id: str, now: float) -> bool:
        if key_id not in self._kept or not await self._thread.call(partial(keyrows.delete_key, key_id, now)):
            return False
        self._changed += 1
        self._forget(key_id)
        self._tell(Revoked(key_id))
        return True

    # Accounts

    async def account(self, name: str) -> Account | None:
        return next((account for account in self._accounts.values() if account.name == name), None)

    async def accounts(self) -> builtins.list[Account]:
        return list(self._accounts.values())

    async def save_account(self, account: Account) -> None:
        made: Made = await self._thread.call(partial(keyrows.save_account, account, self._clock()))
        if made == "exists":
            raise _taken(f"There is another account with the name {account.name!r}.", "name")
        before = self._accounts.get(account.id)
        self._keep_account(replace(account, products_off=frozenset() if before is None else before.products_off))

    async def switch_product(self, account: str, product: str, on: bool, now: float) -> None:
        if account not in self._accounts:
            raise Problem("caller.invalid_value", "There is no such account.", param="account")
        again_at = await self._thread.call(partial(keyrows.switch_product, account, product, on, now))
        if again_at is not None:
            minutes = max(1, math.ceil((again_at - now) / 60))
            raise Problem(
                "account.rate",
                f"{product!r} was switched less than an hour ago; it can be switched again in {minutes} min.",
                param="product",
                retry_after_s=again_at - now,
            )
        known = self._accounts[account]
        off = known.products_off - {product} if on else known.products_off | {product}
        if off != known.products_off:
            self._keep_account(replace(known, products_off=off))

    # What falls due

    def end(self) -> None:
        """Let old digests past their end find nothing more, and tell of keys past theirs. Happens when it is due."""
        now = self._clock()
        self._next_end = math.inf
        for key_id in [key_id for key_id, at in self._ends.items() if at <= now]:
            kept = self._kept[key_id]
            self._remember(kept)
            if self._has_ended(kept.key):
                self._tell(_expired(kept.key))
        self._look_at(min(self._ends.values(), default=math.inf))

    async def write_used(self) -> None:
        """Make the last uses durable. What cannot be written now is kept for the next time."""
        used = dict(self._used)
        if not used:
            return
        try:
            await self._thread.call(partial(keyrows.write_used, tables.keys, used))
        except Problem:
            return
        for key_id, at in used.items():
            kept = self._kept.get(key_id)
            if kept is not None:
                self._kept[key_id] = replace(kept, key=replace(kept.key, last_used_at=at))
            if self._used.get(key_id) == at:
                del self._used[key_id]

    def _write_used(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(USED_S, self._write_used)
        self._writing = loop.create_task(self.write_used())

    # Memory

    def _take(self, known: Known) -> None:
        """Be what the database says, and tell of what is no more."""
        alive = {kept.key.id for kept in self._kept.values() if not self._has_ended(kept.key)}
        was_on = {account.id for account in self._accounts.values() if not account.disabled}
        for key_id in self._kept.keys() - {kept.key.id for kept in known.keys}:
            self._forget(key_id)
        changed = {account.id for account in known.accounts if self._accounts.get(account.id) != account}
        self._accounts.clear()
        self._accounts.update((account.id, account) for account in known.accounts)
        for kept in known.keys:
            if kept.key.account in changed or self._kept.get(kept.key.id) != kept:
                self._remember(kept)
        for key_id in alive:
            now_is = self._kept.get(key_id)
            if now_is is None:
                self._tell(Revoked(key_id))
            elif self._has_ended(now_is.key):
                self._tell(_expired(now_is.key))
        for account in known.accounts:
            if account.disabled and account.id in was_on:
                self._tell(_disabled(account))

    def _keep_account(self, account: Account) -> None:
        before = self._accounts.get(account.id)
        self._accounts[account.id] = account
        for kept in list(self._kept.values()):
            if kept.key.account == account.id:
                self._remember(kept)
        self._changed += 1
        if account.disabled and not (before is not None and before.disabled):
            self._tell(_disabled(account))

    def _remember(self, kept: Kept) -> None:
        self._changed += 1
        key, now = kept.key, self._clock()
        self._forget(key.id)
        self._kept[key.id] = kept
        account = self._accounts[key.account]
        self._ready[kept.digest] = _later(key, account)
        ends = [_end_of(key.limits)]
        if kept.old_digest is not None and kept.old_until > now:
            until = min(kept.old_until, ends[0])
            old = replace(key, limits=replace(key.limits or Limits(), expires_at=until))
            self._ready[kept.old_digest] = _later(old, account)
            ends.append(kept.old_until)
        end = min((end for end in ends if end > now), default=math.inf)
        if end < math.inf:
            self._ends[key.id] = end
            self._look_at(end)

    def _forget(self, key_id: str) -> None:
        kept = self._kept.pop(key_id, None)
        self._ends.pop(key_id, None)
        if kept is not None:
            del self._ready[kept.digest]
            if kept.old_digest is not None:
                self._ready.pop(kept.old_digest, None)

    def _look_at(self, end: float) -> None:
        """Something ends then."""
        if end < self._next_end:
            self._next_end = end
            if self._end_timer is not None:
                self._end_timer.cancel()
            wait_s = min(max(0.0, end - self._clock()), LOOK_S)
            self._end_timer = asyncio.get_running_loop().call_later(wait_s, self.end)

    def _has_ended(self, key: Key) -> bool:
        return _end_of(key.limits) <= self._clock()

    def _tell(self, revoked: Revoked) -> None:
        for tell in self._listeners:
            tell(revoked)


def _load(database: Database) -> Known:
    with database.engine.begin() as connection:
        return keyrows.load(connection)


def _later(key: Key, account: Account) -> Later[Found]:
    ready: Later[Found] = Later()
    ready.set((key, account))
    return ready


def _end_of(limits: Limits | None) -> float:
    return math.inf if limits is None or limits.expires_at is None else limits.expires_at


def _expired(key: Key) -> Revoked:
    return Revoked(key.id, why="The API key has expired.")


def _disabled(account: Account) -> Revoked:
    return Revoked(account=account.id, why="This account was disabled.")


def _taken(message: str, param: str) -> Problem:
    return Problem("caller.invalid_value", message, param=param)
