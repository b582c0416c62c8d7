"""Users of the admin API, their roles in accounts, and the tokens they show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.ledger import keys as key_rules
from moonpool.state.base import Token, User
from moonpool.web.admin.accounts import check_name
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import (
    Gone,
    NewToken,
    NewUser,
    RoleChange,
    TokenRow,
    TokenSecret,
    UserRow,
)


async def _names(desk: Desk) -> dict[str, str]:
    return {account.id: account.name for account in await desk.keys.accounts()}


def _row(user: User, names: Mapping[str, str]) -> UserRow:
    roles = {names.get(account, account): role for account, role in user.roles.items()}
    return UserRow(user.id, user.name, user.operator, int(user.created_at), roles)


async def find_user(desk: Desk, user_id: str) -> User:
    """By id, or by name, which is what people type. Raises caller.not_found."""
    users = await desk.people.users()
    for user in users:
        if user.id == user_id:
            return user
    for user in users:
        if user.name == user_id:
            return user
    raise Problem("caller.not_found", f"There is no user {user_id!r}.", param="user")


async def list_users(desk: Desk, _: Ask) -> Answer:
    """Every user with their roles."""
    names = await _names(desk)
    return 200, {"data": [_row(user, names) for user in await desk.people.users()]}


async def create_user(desk: Desk, ask: Ask) -> Answer:
    """A new user, who may do nothing yet unless they are an operator."""
    new = ask.body
    assert isinstance(new, NewUser)
    check_name("name", new.name, required=True)
    if any(user.name == new.name for user in await desk.people.users()):
        raise Problem("caller.invalid_value", f"There is a user {new.name!r} already.", param="name")
    user = User(key_rules.make(os.urandom)[0], new.name, new.operator, desk.clock())
    await ask.log(desk, user.id, name=user.name, operator=user.operator)
    await desk.people.save_user(user)
    return 201, _row(user, {})


async def delete_user(desk: Desk, ask: Ask) -> Answer:
    """Delete a user with all tokens, for good."""
    user = await find_user(desk, ask.names["id"])
    await ask.log(desk, user.id, name=user.name)
    if not await desk.people.delete_user(user.id, desk.clock()):
        raise Problem("caller.not_found")
    return 200, Gone(user.id, True)


async def change_role(desk: Desk, ask: Ask) -> Answer:
    """What a user may do in an account: owners change it, members read it."""
    user, account, change = await find_user(desk, ask.names["id"]), ask.about(), ask.body
    assert isinstance(change, RoleChange)
    roles = {where: role for where, role in user.roles.items() if where != account.id}
    if change.role is not None:
        roles[account.id] = change.role
    if roles != dict(user.roles):
        await ask.log(desk, user.id, name=user.name, account=account.name, role=change.role)
        await desk.people.save_user(replace(user, roles=roles))
    return 200, _row(replace(user, roles=roles), await _names(desk))


def _token_row(token: Token) -> TokenRow:
    return TokenRow(
        id=token.id,
        user=token.user,
        name=token.name,
        created_at=int(token.created_at),
        expires_at=None if token.expires_at is None else int(token.expires_at),
        last_used_at=None if token.last_used_at is None else int(token.last_used_at),
    )


async def list_tokens(desk: Desk, ask: Ask) -> Answer:
    """The tokens, of one user or of all; never a secret."""
    user = await find_user(desk, ask.query["user"]) if "user" in ask.query else None
    return 200, {"data": [_token_row(token) for token in await desk.people.tokens(user.id if user else None)]}


async def create_token(desk: Desk, ask: Ask) -> Answer:
    """A new token of a user; its secret is in this answer and nowhere else."""
    new = ask.body
    assert isinstance(new, NewToken)
    check_name("name", new.name, required=False)
    user = await find_user(desk, new.user)
    if new.expires_at is not None and not desk.clock() < new.expires_at < 10**11:
        raise Problem("caller.invalid_value", "expires_at is a moment to come, in Unix seconds.", param="expires_at")
    token_id, secret = key_rules.make(os.urandom, key_rules.TOKEN_PREFIX)
    token = Token(token_id, user.id, new.name, desk.clock(), new.expires_at)
    await ask.log(desk, token.id, user=user.name, name=token.name)
    await desk.people.issue(token, key_rules.digest(secret))
    ends = None if token.expires_at is None else int(token.expires_at)
    return 201, TokenSecret(token.id, secret, user.id, token.name, int(token.created_at), ends)


async def delete_token(desk: Desk, ask: Ask) -> Answer:
    """Delete a token, for good."""
    token_id = ask.names["id"]
    if all(token.id != token_id for token in await desk.people.tokens()):
        raise Problem("caller.not_found", f"There is no token {token_id!r}.", param="id")
    await ask.log(desk, token_id)
    if not await desk.people.revoke(token_id, desk.clock()):
        raise Problem("caller.not_found")
    return 200, Gone(token_id, True)


ROUTES: Final = (
    Route("GET", "/users", list_users, "List users.", UserRow, many=True),
    Route("POST", "/users", create_user, "Make a user.", UserRow, status=201, body=NewUser),
    Route("DELETE", "/users/{id}", delete_user, "Delete a user and their tokens, for good.", Gone),
    Route(
        "PUT",
        "/users/{id}/roles/{name}",
        change_role,
        "Say what a user is in an account.",
        UserRow,
        about="path",
        body=RoleChange,
    ),
    Route("GET", "/tokens", list_tokens, "List tokens.", TokenRow, many=True, query=("user",)),
    Route(
        "POST",
        "/tokens",
        create_token,
        "Make a token; its secret is in this answer only.",
        TokenSecret,
        status=201,
        body=NewToken,
    ),
    Route("DELETE", "/tokens/{id}", delete_token, "Delete a token, for good.", Gone),
)
