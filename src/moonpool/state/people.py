"""Users, their roles in accounts and their tokens: all in memory, as keys are; every change durable before it counts.

Rules:
- `find` never asks the database, and nothing that reads writes into memory.
- Deleted users and tokens stay in their tables: neither an id nor the text of a token can come back. The name of a
  deleted user is free again: its row is called by name and id, which no user can be.
- The last use of a token is a note in memory, written every USED_S seconds and at `stop`.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Mapping
from functools import partial
from typing import Final, Literal, cast

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from moonpool.errors import Problem
from moonpool.state import changes, keyrows, tables
from moonpool.state.base import Role, Token, User
from moonpool.state.thread import Database, Jobs
from moonpool.words import Account

USED_S: Final = 60.0

Made = Literal["made", "exists", "unknown"]


class Everybody(Struct):
    """What this side takes over from a database: users and tokens that are not deleted, the tokens with digests."""

    users: list[User]
    tokens: list[tuple[Token, bytes]]


class SqlPeople:
    """People. All methods are called on the event loop; none blocks it. `accounts` is the dict that keys fill."""

    def __init__(self, thread: Jobs, accounts: Mapping[str, Account]) -> None:
        self._thread = thread
        self._accounts = accounts
        self._users: dict[str, User] = {}
        self._tokens: dict[str, tuple[Token, bytes]] = {}
        self._by_digest: dict[bytes, str] = {}
        self._used: dict[str, float] = {}
        self._changed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def start(self, everybody: Everybody) -> None:
        """Take over what `load` read."""
        self._take(everybody)
        self._timer = asyncio.get_running_loop().call_later(USED_S, self._write_used)

    async def stop(self) -> None:
        """Write the last uses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self.write_used()

    async def refresh(self) -> None:
        """Take over what other processes changed."""
        while True:
            before = self._changed
            everybody = await self._thread.call(_load)
            if before == self._changed:
                break
        self._take(everybody)

    async def find(self, digest: bytes, now: float) -> tuple[Token, User] | None:
        token_id = self._by_digest.get(digest)
        if token_id is None:
            return None
        token, _ = self._tokens[token_id]
        if token.expires_at is not None and now >= token.expires_at:
            return None
        return token, self._users[token.user]

    def used(self, token_id: str, at: float) -> None:
        self._used[token_id] = at

    async def users(self) -> list[User]:
        """Oldest first."""
        return sorted(self._users.values(), key=lambda user: (user.created_at, user.id))

    async def save_user(self, user: User) -> None:
        if any(account not in self._accounts for account in user.roles):
            raise Problem("caller.invalid_value", "There is no such account.", param="roles")
        saved: Made = await self._thread.call(partial(save_user, user))
        if saved == "exists":
            raise Problem("caller.invalid_value", f"There is another user with the name {user.name!r}.", param="name")
        if saved == "unknown":
            raise Problem("caller.invalid_value", "This user was deleted, for good.", param="id")
        self._changed += 1
        known = self._users.get(user.id)
        self._users[user.id] = user if known is None else replace(user, created_at=known.created_at)

    async def delete_user(self, user_id: str, now: float) -> bool:
        if user_id not in self._users or not await self._thread.call(partial(delete_user, user_id, now)):
            return False
        self._changed += 1
        for token, _ in list(self._tokens.values()):
            if token.user == user_id:
                self._forget(token.id)
        self._users.pop(user_id, None)
        return True

    async def issue(self, token: Token, digest: bytes) -> None:
        issued: Made = "unknown"
        if token.user in self._users:
            issued = await self._thread.call(partial(insert_token, token, digest))
        if issued == "unknown":
            raise Problem("caller.invalid_value", "There is no such user.", param="user")
        if issued == "exists":
            raise Problem("caller.invalid_value", "This token exists, or did and was deleted for good.", param="token")
        self._changed += 1
        if token.user in self._users:  # else it was deleted meanwhile, with this
            self._tokens[token.id] = (token, digest)
            self._by_digest[digest] = token.id

    async def tokens(self, user_id: str | None = None) -> builtins.list[Token]:
        """Oldest first, with their last use as it is known now; those past their end too."""
        found = [
            replace(token, last_used_at=self._used.get(token.id, token.last_used_at))
            for token, _ in self._tokens.values()
            if user_id is None or token.user == user_id
        ]
        return sorted(found, key=lambda token: (token.created_at, token.id))

    async def revoke(self, token_id: str, now: float) -> bool:
        if token_id not in self._tokens or not await self._thread.call(partial(delete_token, token_id, now)):
            return False
        self._changed += 1
        self._forget(token_id)
        return True

    async def write_used(self) -> None:
        """Make the last uses durable. What cannot be written now is kept for the next time."""
        used = dict(self._used)
        if not used:
            return
        try:
            await self._thread.call(partial(keyrows.write_used, tables.tokens, used))
        except Problem:
            return
        for token_id, at in used.items():
            if token_id in self._tokens:
                token, digest = self._tokens[token_id]
                self._tokens[token_id] = (replace(token, last_used_at=at), digest)
            if self._used.get(token_id) == at:
                del self._used[token_id]

    def _write_used(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(USED_S, self._write_used)
        self._writing = loop.create_task(self.write_used())

    def _take(self, everybody: Everybody) -> None:
        self._users = {user.id: user for user in everybody.users}
        self._tokens = {token.id: (token, digest) for token, digest in everybody.tokens}
        self._by_digest = {digest: token.id for token, digest in everybody.tokens}

    def _forget(self, token_id: str) -> None:
        _, digest = self._tokens.pop(token_id, (None, b""))
        self._by_digest.pop(digest, None)


# Jobs for the thread that owns the database; each is one transaction.


def load(connection: Connection) -> Everybody:
    users, tokens, members = tables.users, tables.tokens, tables.members
    roles: dict[str, dict[str, Role]] = {}
    for row in connection.execute(select(members)):
        roles.setdefault(row.user, {})[row.account] = cast(Role, row.role)
    alive = connection.execute(select(users).where(users.c.deleted_at.is_(None)))
    found = [User(row.id, row.name, row.operator, row.created_at, roles.get(row.id, {})) for row in alive]
    # A user's tokens are dead with it, also one that another process made in that very moment.
    issued = connection.execute(
        select(tokens).join(users).where(tokens.c.deleted_at.is_(None), users.c.deleted_at.is_(None))
    )
    return Everybody(
        found,
        [
            (Token(row.id, row.user, row.name, row.created_at, row.expires_at, row.last_used_at), row.digest)
            for row in issued
        ],
    )


def _load(database: Database) -> Everybody:
    with database.engine.begin() as connection:
        return load(connection)


def save_user(user: User, database: Database) -> Made:
    users, members = tables.users, tables.members
    settings = {"name": user.name, "operator": user.operator}
    roles = [{"user": user.id, "account": account, "role": role} for account, role in user.roles.items()]
    try:
        with database.engine.begin() as connection:
            there = connection.execute(select(users.c.deleted_at).where(users.c.id == user.id)).first()
            if there is None:
                connection.execute(insert(users), {"id": user.id, "created_at": user.created_at, **settings})
            elif there.deleted_at is not None:
                return "unknown"
            else:
                connection.execute(update(users).where(users.c.id == user.id).values(settings))
            connection.execute(delete(members).where(members.c.user == user.id))
            if roles:
                connection.execute(insert(members), roles)
            changes.count_up(connection, changes.PEOPLE)
    except IntegrityError:
        return "exists"
    return "made"


def delete_user(user_id: str, now: float, database: Database) -> bool:
    users, tokens, members = tables.users, tables.tokens, tables.members
    with database.engine.begin() as connection:
        # No name of a user has a line break in it.
        gone = {"deleted_at": now, "name": users.c.name + f"\n{user_id}"}
        statement = update(users).where(users.c.id == user_id, users.c.deleted_at.is_(None)).values(gone)
        if connection.execute(statement).rowcount != 1:
            return False
        connection.execute(
            update(tokens).where(tokens.c.user == user_id, tokens.c.deleted_at.is_(None)).values(deleted_at=now)
        )
        connection.execute(delete(members).where(members.c.user == user_id))
        changes.count_up(connection, changes.PEOPLE)
    return True


def insert_token(token: Token, digest: bytes, database: Database) -> Made:
    users = tables.users
    row = {
        "id": token.id,
        "digest": digest,
        "user": token.user,
        "name": token.name,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
    }
    try:
        with database.engine.begin() as connection:
            alive = select(users.c.id).where(users.c.id == token.user, users.c.deleted_at.is_(None))
            if connection.execute(alive).first() is None:
                return "unknown"
            connection.execute(insert(tables.tokens), row)
            changes.count_up(connection, changes.PEOPLE)
    except IntegrityError:
        return "exists"
    return "made"


def delete_token(token_id: str, now: float, database: Database) -> bool:
    tokens = tables.tokens
    with database.engine.begin() as connection:
        statement = update(tokens).where(tokens.c.id == token_id, tokens.c.deleted_at.is_(None)).values(deleted_at=now)
        if connection.execute(statement).rowcount != 1:
            return False
        changes.count_up(connection, changes.PEOPLE)
    return True
