"""Accounts: who pays, what they may, and which products they use on credit."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from moonpool.errors import Problem
from moonpool.ledger.money import amount, exact
from moonpool.state.base import Balance, PackBalance
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import (
    AccountPage,
    AccountPatch,
    AccountRow,
    NewAccount,
    ProductRow,
    ProductSwitch,
)
from moonpool.web.admin.types_money import Money, PackRow
from moonpool.words import Account

CREDIT_PICO_MAX: Final = 2**63 - 1


def _row(account: Account) -> AccountRow:
    return AccountRow(
        id=account.id,
        name=account.name,
        post_paid=account.post_paid,
        concurrency=account.concurrency,
        disabled=account.disabled,
        credit=None if account.credit_pico is None else exact(account.credit_pico),
        requests_per_minute=account.requests_per_minute,
        tokens_per_minute=account.tokens_per_minute,
        products_off=sorted(account.products_off),
    )


def check_name(field: str, value: str, *, required: bool) -> None:
    if (required and not value) or len(value) > 100 or not value.isprintable() or value != value.strip():
        raise Problem("caller.invalid_value", "A name is up to 100 printable characters.", param=field)


def pico(field: str, text: str, highest: int) -> int:
    """Pico-units of an amount that was given as text. Raises caller.invalid_value."""
    try:
        found = amount(text)
    except ValueError as error:
        raise Problem("caller.invalid_value", f"{error}.", param=field) from None
    if found > highest:
        raise Problem("caller.invalid_value", f"{text} is more than can be booked.", param=field)
    return found


async def list_accounts(desk: Desk, ask: Ask) -> Answer:
    """Every account with its settings; to who is no operator, those where they have a role."""
    return 200, {"data": [_row(account) for account in await desk.keys.accounts() if ask.actor.sees(account.id)]}


async def create_account(desk: Desk, ask: Ask) -> Answer:
    """A new account. Raises caller.invalid_value for a name that is taken or unfit."""
    new: NewAccount = ask.body
    check_name("name", new.name, required=True)
    if await desk.keys.account(new.name) is not None:
        raise Problem("caller.invalid_value", f"There is an account {new.name!r} already.", param="name")
    account = Account(
        new.name,
        new.name,
        new.post_paid,
        _concurrency(new.concurrency),
        _credit(new.credit),
        requests_per_minute=new.requests_per_minute,
        tokens_per_minute=new.tokens_per_minute,
    )
    await ask.log(desk, account.name, **_differences(None, account))
    await desk.keys.save_account(account)
    return 201, _row(account)


async def change_account(desk: Desk, ask: Ask) -> Answer:
    """Other settings for an account; they hold from the next request on."""
    old, patch = ask.about(), ask.body
    assert isinstance(patch, AccountPatch)
    names = ("post_paid", "disabled", "requests_per_minute", "tokens_per_minute")
    wanted = {name: getattr(patch, name) for name in names if getattr(patch, name) is not UNSET}
    if patch.concurrency is not UNSET:
        wanted["concurrency"] = _concurrency(patch.concurrency)
    if patch.credit is not UNSET:
        wanted["credit_pico"] = _credit(patch.credit)
    account = replace(old, **wanted)
    changed = _differences(old, account)
    if changed:
        await ask.log(desk, account.name, **changed)
        await desk.keys.save_account(account)
    return 200, _row(account)


def _differences(old: Account | None, new: Account) -> dict[str, object]:
    """What an account is said to be that it was not said to be before."""
    after = _row(new)
    before = _row(old) if old is not None else None
    names = ("post_paid", "concurrency", "disabled", "credit", "requests_per_minute", "tokens_per_minute")
    return {
        name: getattr(after, name) for name in names if before is None or getattr(after, name) != getattr(before, name)
    }


def _concurrency(value: int) -> int:
    if not 1 <= value <= 10**6:
        raise Problem("caller.invalid_value", "An account may run at least one request.", param="concurrency")
    return value


def _credit(text: str | None) -> int | None:
    return None if text is None else pico("credit", text, CREDIT_PICO_MAX)


async def show_account(desk: Desk, ask: Ask) -> Answer:
    """An account with its money and its packs."""
    account = ask.about()
    balance = await desk.books.balance(account.id) or Balance("CNY", 0, 0, 0, account.post_paid)
    packs = await desk.books.packs(account.id, desk.clock())
    return 200, AccountPage(_row(account), money_row(balance), [pack_row(pack) for pack in packs])


def money_row(balance: Balance) -> Money:
    total = balance.granted_pico + balance.topped_up_pico + balance.post_paid_pico - balance.held_pico
    return Money(
        currency=balance.currency,
        available=signed(total),
        granted=signed(balance.granted_pico),
        topped_up=signed(balance.topped_up_pico),
        held=signed(balance.held_pico),
        post_paid=signed(balance.post_paid_pico),
    )


def signed(amount_pico: int) -> str:
    """Every digit, also below zero."""
    return exact(amount_pico) if amount_pico >= 0 else f"-{exact(-amount_pico)}"


def pack_row(found: PackBalance) -> PackRow:
    pack = found.pack
    return PackRow(
        id=pack.id,
        kind=pack.kind,
        product=pack.product,
        unit=pack.unit,
        units=pack.units,
        used=found.used,
        held=found.held,
        left=pack.units - found.used - found.held,
        note=pack.note,
        bought_at=int(pack.bought_at),
        expires_at=int(pack.expires_at),
    )


async def list_products(desk: Desk, ask: Ask) -> Answer:
    """The products of the catalogue, and whether the account uses them on credit."""
    off = ask.about().products_off
    return 200, {"data": [ProductRow(name, name not in off) for name in sorted(products(desk) | off)]}


def products(desk: Desk) -> frozenset[str]:
    """What packs and switches may be of."""
    return frozenset(desk.catalogue.products())


def check_product(desk: Desk, product: str) -> None:
    known = products(desk)
    if product not in known:
        sentence = f"There is no product {product!r}; there is: {', '.join(sorted(known)) or 'none'}."
        raise Problem("caller.invalid_value", sentence, param="product")


async def switch_product(desk: Desk, ask: Ask) -> Answer:
    """Turn the use of a product on credit on or off; once an hour at most. Raises account.rate."""
    account, product, switch = ask.about(), ask.names["product"], ask.body
    assert isinstance(switch, ProductSwitch)
    check_product(desk, product)
    await ask.log(desk, account.name, product=product, on=switch.on)
    await desk.keys.switch_product(account.id, product, switch.on, desk.clock())
    return 200, ProductRow(product, switch.on)


ROUTES: Final = (
    Route("GET", "/accounts", list_accounts, "List accounts.", AccountRow, many=True, who="member"),
    Route("POST", "/accounts", create_account, "Make an account.", AccountRow, status=201, body=NewAccount),
    Route(
        "GET",
        "/accounts/{name}",
        show_account,
        "Show an account with its money and its packs.",
        AccountPage,
        who="member",
        about="path",
    ),
    Route(
        "PATCH",
        "/accounts/{name}",
        change_account,
        "Change what an account may.",
        AccountRow,
        about="path",
        body=AccountPatch,
    ),
    Route(
        "GET",
        "/accounts/{name}/products",
        list_products,
        "List products and whether the account uses them on credit.",
        ProductRow,
        many=True,
        who="member",
        about="path",
    ),
    Route(
        "PUT",
        "/accounts/{name}/products/{product}",
        switch_product,
        "Turn the use of a product on credit on or off.",
        ProductRow,
        who="owner",
        about="path",
        body=ProductSwitch,
    ),
)
