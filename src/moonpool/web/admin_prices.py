"""Prices, as the admin API shows and changes them: what each model costs now, and what an account pays instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from moonpool.catalog import prices
from moonpool.catalog.calendars import date_of
from moonpool.catalog.rows import AgreedRow
from moonpool.errors import Problem
from moonpool.relay.tariffs import agreed
from moonpool.settings import ConfigError
from moonpool.state.base_prices import Override
from moonpool.words import Account

if TYPE_CHECKING:
    from moonpool.web.admin import Answer, Ask, Desk


class NewPrice(Struct, forbid_unknown_fields=True):
    """What an account pays for a model from the first moment of `valid_from` in Beijing (ISO date; empty: today)."""

    price: AgreedRow
    valid_from: str = ""


async def list_prices(desk: Desk, _: Ask) -> Answer:
    """Every model with its product, what it costs now, whether that is peak, and until when."""
    now = desk.clock()
    rows = [
        {"model": model.name, "product": model.product, **prices.now_table(model.prices, now)}
        for model in desk.catalogue.models()
    ]
    return 200, {"data": rows, "warnings": desk.catalogue.warnings(now)}


async def account_prices(desk: Desk, ask: Ask) -> Answer:
    """What was agreed with an account (`data`), and what it pays now for each of these models (`now`)."""
    account = await _account(desk, ask.names["name"])
    rows = desk.overrides.list(account.id)
    return 200, {"data": [_row(account, row) for row in rows], "now": _now(desk, account, rows)}


async def set_price(desk: Desk, ask: Ask) -> Answer:
    """Agree on a price; what was agreed for the same day is replaced. It holds for requests that arrive from now on.
    Raises caller.unknown_model, caller.invalid_value."""
    new: NewPrice = ask.body
    account = await _account(desk, ask.names["name"])
    model = desk.catalogue.find(ask.names["model"]).name
    now = desk.clock()
    day = new.valid_from or date_of(now).isoformat()
    override = Override(account.id, model, day, msgspec.to_builtins(new.price), now)
    others = [row for row in desk.overrides.list(account.id) if row.model == model and row.valid_from != day]
    try:
        agreed(desk.catalogue, account.id, model, [*others, override])
    except ConfigError as error:
        raise Problem("caller.invalid_value", f"{error.key}: {error.sentence}", param="price") from None
    await desk.overrides.set(override)
    return 200, _row(account, override)


async def unset_price(desk: Desk, ask: Ask) -> Answer:
    """Forget what was agreed for a model, or what begins on one day: from now on the list's price holds, or what was
    agreed before. Raises caller.not_found."""
    account = await _account(desk, ask.names["name"])
    model = ask.names["model"]
    gone = await desk.overrides.delete(account.id, model, ask.query.get("valid_from"))
    if not gone:
        raise Problem("caller.not_found", f"{account.name} has no such price for {model}.", param="model")
    return 200, {"account": account.name, "model": model, "deleted": gone}


async def _account(desk: Desk, name: str) -> Account:
    account = await desk.keys.account(name)
    if account is None:
        known = ", ".join(account.name for account in await desk.keys.accounts()) or "none"
        raise Problem("caller.not_found", f"There is no account {name!r}; there is: {known}.", param="account")
    return account


def _row(account: Account, row: Override) -> dict[str, Any]:
    return {
        "account": account.name,
        "model": row.model,
        "valid_from": row.valid_from,
        "price": dict(row.price),
        "created_at": int(row.created_at),
    }


def _now(desk: Desk, account: Account, rows: Sequence[Override]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in {row.model: None for row in rows}:
        if name in desk.catalogue.by_name:
            own = agreed(desk.catalogue, account.id, name, [row for row in rows if row.model == name])
            found[name] = prices.now_table(own, desk.clock())
    return found
