"""Who may do what: one function for every route.

Rules: an operator may do everything. Others need a role in the account that a request is about; an account, a key or an
alert of somebody else and one that does not exist are one answer, the same bytes. The account comes from the path, the
query or the body, and nothing that a route does for a tenant goes by another id than the one that was looked at here.

Source: RELIABILITY case 109 and defect D20 (ownership is part of the look-up), case 108 (only the owner changes).
"""

from __future__ import annotations

from moonpool.errors import Problem
from moonpool.web.admin.routing import Actor, Ask, Desk, Route
from moonpool.words import Account, Key


async def authorise(desk: Desk, route: Route, ask: Ask) -> Account | None:
    """The account that the request is about, None where it is about none. Raises account.forbidden, account.disabled,
    caller.not_found."""
    actor = ask.actor
    if route.who == "operator" and not actor.operator:
        raise Problem("account.forbidden", "Only operators may do that.")
    account = await _account_of(desk, route, ask)
    if account is None or actor.operator:
        return account
    if route.who == "owner" and actor.roles.get(account.id) != "owner":
        raise Problem("account.forbidden", "Only owners of the account may do that.")
    if route.logged and account.disabled:
        raise Problem("account.disabled")
    return account


async def _account_of(desk: Desk, route: Route, ask: Ask) -> Account | None:
    if route.about == "":
        return None
    if route.about == "key":
        key = await find_key(desk, ask.actor, ask.names["id"])
        return next(account for account in await desk.keys.accounts() if account.id == key.account)
    if route.about == "query":
        name = ask.query.get("account")
        if name is None:
            return None
    else:
        name = ask.names["name"] if route.about == "path" else ask.body.account
    account = await desk.keys.account(name)
    if account is not None and ask.actor.sees(account.id):
        return account
    if ask.actor.operator:
        known = ", ".join(account.name for account in await desk.keys.accounts()) or "none"
        raise Problem("caller.not_found", f"There is no account {name!r}; there is: {known}.", param="account")
    raise Problem("caller.not_found")


async def find_key(desk: Desk, actor: Actor, key_id: str) -> Key:
    """The key, if the actor may know that it exists. Raises caller.not_found."""
    key = await desk.keys.get(key_id)
    if key is not None and actor.sees(key.account):
        return key
    if actor.operator:
        raise Problem("caller.not_found", f"There is no key {key_id!r}.", param="id")
    raise Problem("caller.not_found")
