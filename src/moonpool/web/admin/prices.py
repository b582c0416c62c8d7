"""Prices, as the admin API shows and changes them: what each model costs now, and what an account pays instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from moonpool.catalog import prices
from moonpool.catalog.calendars import date_of
from moonpool.catalog.rows import AgreedRow
from moonpool.errors import Problem
from moonpool.relay.tariffs import agreed
from moonpool.settings import ConfigError
from moonpool.state.base_prices import Override
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.words import Account


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
    account = ask.about()
    rows = desk.overrides.list(account.id)
    return 200, {"data": [_row(account, row) for row in rows], "now": _now(desk, account, rows)}


async def set_price(desk: Desk, ask: Ask) -> Answer:
    """Agree on a price; what was agreed for the same day is replaced. It holds for requests that arrive from now on.
    Raises caller.unknown_model, caller.invalid_value."""
    new: NewPrice = ask.body
    account = ask.about()
    model = desk.catalogue.find(ask.names["model"]).name
    now = desk.clock()
    day = new.valid_from or date_of(now).isoformat()
    override = Override(account.id, model, day, msgspec.to_builtins(new.price), now)
    others = [row for row in desk.overrides.list(account.id) if row.model == model and row.valid_from != day]
    try:
        agreed(desk.catalogue, account.id, model, [*others, override])
    except ConfigError as error:
        raise Problem("caller.invalid_value", f"{error.key}: {error.sentence}", param="price") from None
    await ask.log(desk, account.name, model=model, valid_from=day, price=dict(override.price))
    await desk.overrides.set(override)
    return 200, _row(account, override)


async def unset_price(desk: Desk, ask: Ask) -> Answer:
    """Forget what was agreed for a model, or what begins on one day: from now on the list's price holds, or what was
    agreed before. Raises caller.not_found."""
    account = ask.about()
    model = ask.names["model"]
    day = ask.query.get("valid_from")
    if not any(row.model == model and day in {None, row.valid_from} for row in desk.overrides.list(account.id)):
        raise Problem("caller.not_found", f"{account.name} has no such price for {model}.", param="model")
    await ask.log(desk, account.name, model=model, valid_from=day)
    gone = await desk.overrides.delete(account.id, model, day)
    return 200, {"account": account.name, "model": model, "deleted": gone}


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


ROUTES: Final = (
    Route("GET", "/prices", list_prices, "List what each model costs now.", None, who="member"),
    Route(
        "GET", "/accounts/{name}/prices", account_prices, "Show what was agreed with an account.", None,
        who="member", about="path",
    ),
    Route(
        "PUT", "/accounts/{name}/prices/{model}", set_price, "Agree on a price with an account.", None,
        about="path", body=NewPrice,
    ),
    Route(
        "DELETE", "/accounts/{name}/prices/{model}", unset_price, "Forget what was agreed for a model.", None,
        about="path", query=("valid_from",),
    ),
)  # fmt: skip
