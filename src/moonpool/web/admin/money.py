"""Money that comes in: deposits and packs by an operator's hand. Whoever gives an id can say it again: it happens
once."""

from __future__ import annotations

import os
from typing import Final

from moonpool.errors import Problem
from moonpool.ledger import entries
from moonpool.ledger.funds import Pack
from moonpool.state.base import Deposit
from moonpool.web.admin.accounts import check_name, check_product, pack_row, pico, signed
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types_money import DepositRow, NewDeposit, NewPack, PackReceipt, PackRow
from moonpool.web.admin.whole import whole_number

DAY_S: Final = 86_400.0
_PAGE: Final = 100
_PAGE_MAX: Final = 1000


def deposit_row(deposit: Deposit) -> DepositRow:
    return DepositRow(
        id=deposit.id,
        fund=deposit.fund,
        amount=signed(deposit.amount_pico),
        currency=deposit.currency,
        note=deposit.note,
        created_at=int(deposit.created_at),
    )


def pack_receipt(pack: Pack) -> PackReceipt:
    return PackReceipt(
        id=pack.id,
        kind=pack.kind,
        product=pack.product,
        unit=pack.unit,
        units=pack.units,
        note=pack.note,
        bought_at=int(pack.bought_at),
        expires_at=int(pack.expires_at),
    )


async def book_deposit(desk: Desk, ask: Ask, deposit: Deposit) -> bool:
    """Log and book it; False if it is there already, just so. Raises caller.conflict if its id stands for another."""
    known = await desk.office.receipts.deposit(deposit.id)
    if known is None:
        await ask.log(
            desk,
            deposit.account,
            id=deposit.id,
            fund=deposit.fund,
            amount=signed(deposit.amount_pico),
            currency=deposit.currency,
        )
        if await desk.books.deposit(deposit) == "deposited":
            return True
        await ask.failed(desk, "exists")
        known = await desk.office.receipts.deposit(deposit.id)
    if known is None or _same(known) != _same(deposit):
        raise Problem("caller.conflict", param="id")
    return False


def _same(deposit: Deposit) -> tuple[object, ...]:
    return deposit.account, deposit.fund, deposit.amount_pico, deposit.currency


async def book_pack(desk: Desk, ask: Ask, pack: Pack) -> bool:
    """As `book_deposit`."""
    known = await desk.office.receipts.pack(pack.id)
    if known is None:
        await ask.log(
            desk, pack.account, id=pack.id, kind=pack.kind, product=pack.product, unit=pack.unit, units=pack.units
        )
        if await desk.books.add_pack(pack) == "deposited":
            return True
        await ask.failed(desk, "exists")
        known = await desk.office.receipts.pack(pack.id)
    if known is None or (known.account, known.kind, known.product, known.unit, known.units) != (
        pack.account,
        pack.kind,
        pack.product,
        pack.unit,
        pack.units,
    ):
        raise Problem("caller.conflict", param="id")
    return False


async def deposit_money(desk: Desk, ask: Ask) -> Answer:
    """Give an account money, once for each id. 201 when it came, 200 when it had come before."""
    new, account = ask.body, ask.about()
    assert isinstance(new, NewDeposit)
    check_name("note", new.note, required=False)
    amount_pico = pico("amount", new.amount, entries.AMOUNT_PICO_MAX)
    if amount_pico == 0:
        raise Problem("caller.invalid_value", "A deposit is more than nothing.", param="amount")
    deposit = Deposit(
        new.id or f"dep_{os.urandom(12).hex()}",
        account.id,
        new.fund,
        amount_pico,
        new.currency,
        new.note,
        desk.clock(),
    )
    made = await book_deposit(desk, ask, deposit)
    return 201 if made else 200, deposit_row(deposit)


async def list_deposits(desk: Desk, ask: Ask) -> Answer:
    """What an account got, newest first; the next page is asked for with `before` = the last `id` of this one."""
    limit = whole_number(ask, "limit", _PAGE, 1, _PAGE_MAX)
    found = await desk.office.receipts.deposits(ask.about().id, ask.query.get("before"), limit)
    return 200, {"data": [deposit_row(deposit) for deposit in found]}


async def add_pack(desk: Desk, ask: Ask) -> Answer:
    """Give an account a pack, once for each id. 201 when it came, 200 when it had come before."""
    new, account = ask.body, ask.about()
    assert isinstance(new, NewPack)
    check_name("note", new.note, required=False)
    check_product(desk, new.product)
    now = desk.clock()
    pack = Pack(
        new.id or f"pack_{os.urandom(12).hex()}",
        account.id,
        new.kind,
        new.product,
        new.unit,
        new.units,
        new.note,
        now,
        now + new.valid_days * DAY_S,
    )
    made = await book_pack(desk, ask, pack)
    return 201 if made else 200, pack_receipt(pack)


async def list_packs(desk: Desk, ask: Ask) -> Answer:
    """The packs that are neither used up nor over, in the order in which they are drawn."""
    found = await desk.books.packs(ask.about().id, desk.clock())
    return 200, {"data": [pack_row(pack) for pack in found]}


ROUTES: Final = (
    Route(
        "GET",
        "/accounts/{name}/deposits",
        list_deposits,
        "List what an account got, newest first.",
        DepositRow,
        many=True,
        who="member",
        about="path",
        query=("before", "limit"),
    ),
    Route(
        "POST",
        "/accounts/{name}/deposits",
        deposit_money,
        "Give an account money, once for each id.",
        DepositRow,
        status=201,
        about="path",
        body=NewDeposit,
    ),
    Route(
        "GET",
        "/accounts/{name}/packs",
        list_packs,
        "List an account's packs in the order they are drawn.",
        PackRow,
        many=True,
        who="member",
        about="path",
    ),
    Route(
        "POST",
        "/accounts/{name}/packs",
        add_pack,
        "Give an account a pack, once for each id.",
        PackReceipt,
        status=201,
        about="path",
        body=NewPack,
    ),
)
