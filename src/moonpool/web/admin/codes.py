"""Redemption codes: made by operators, redeemed by owners, each once.

A code is `mp-gift-`, then like a key: an id, 256 random bits, a checksum. Redeeming books a deposit or a pack under the
id `code:ID`; that can be there once, so no race gives two (RELIABILITY case 79).
"""

from __future__ import annotations

import os
from typing import Final

from moonpool.errors import Problem
from moonpool.ledger import entries
from moonpool.ledger import keys as key_rules
from moonpool.ledger.funds import Pack
from moonpool.ledger.money import exact
from moonpool.state.base import Deposit
from moonpool.state.base_admin import Code, Gift
from moonpool.web.admin.accounts import check_name, check_product, pico
from moonpool.web.admin.money import DAY_S, book_deposit, book_pack, deposit_row, pack_receipt
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types_money import CodeRow, CodeSecret, GiftBody, NewCodes, Redeemed, Redemption
from moonpool.web.admin.whole import whole_number

PREFIX: Final = "mp-gift-"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000


def _gift(desk: Desk, asked: GiftBody) -> Gift:
    """Raises caller.invalid_value unless it is money or a pack."""
    money, pack = asked.fund is not None, asked.kind is not None
    if money == pack:
        raise Problem("caller.invalid_value", "A gift has a fund (money) or a kind (a pack).", param="gift")
    if money:
        amount_pico = pico("gift.amount", asked.amount or "0", entries.AMOUNT_PICO_MAX)
        if amount_pico == 0 or asked.currency is None:
            raise Problem("caller.invalid_value", "Money has an amount and a currency.", param="gift")
        return Gift(fund=asked.fund, amount_pico=amount_pico, currency=asked.currency)
    check_product(desk, asked.product)
    if asked.units < 1:
        raise Problem("caller.invalid_value", "A pack has units.", param="gift.units")
    return Gift(kind=asked.kind, product=asked.product, unit=asked.unit, units=asked.units, valid_days=asked.valid_days)


def _gift_row(gift: Gift) -> GiftBody:
    if gift.fund is not None:
        return GiftBody(fund=gift.fund, amount=exact(gift.amount_pico), currency=gift.currency)
    return GiftBody(kind=gift.kind, product=gift.product, unit=gift.unit, units=gift.units, valid_days=gift.valid_days)


async def create_codes(desk: Desk, ask: Ask) -> Answer:
    """So many codes for one gift each; their texts are in this answer and nowhere else."""
    new, now = ask.body, desk.clock()
    assert isinstance(new, NewCodes)
    check_name("note", new.note, required=False)
    gift = _gift(desk, new.gift)
    if new.expires_at is not None and not now < new.expires_at < 10**11:
        raise Problem("caller.invalid_value", "expires_at is a moment to come, in Unix seconds.", param="expires_at")
    texts = [key_rules.make(os.urandom, PREFIX) for _ in range(new.count)]
    codes = [(Code(code_id, gift, new.note, now, new.expires_at), key_rules.digest(text)) for code_id, text in texts]
    first, last = texts[0][0], texts[-1][0]
    await ask.log(desk, f"{first}…{last}" if new.count > 1 else first, count=new.count, note=new.note)
    await desk.office.codes.create(codes)
    return 201, {"data": [CodeSecret(code_id, text) for code_id, text in texts]}


async def list_codes(desk: Desk, ask: Ask) -> Answer:
    """The codes in the order of their ids; the next page is asked for with `after` = the last `id` of this one."""
    found = await desk.office.codes.page(ask.query.get("after", ""), whole_number(ask, "limit", _PAGE, 1, _PAGE_MAX))
    rows = []
    for code in found:
        receipt = await (desk.office.receipts.deposit if code.gift.fund is not None else desk.office.receipts.pack)(
            _id(code)
        )
        ends = None if code.expires_at is None else int(code.expires_at)
        by = None if receipt is None else receipt.account
        rows.append(CodeRow(code.id, _gift_row(code.gift), code.note, int(code.created_at), ends, by))
    return 200, {"data": rows}


async def redeem(desk: Desk, ask: Ask) -> Answer:
    """Take what a code is good for, once. Codes that are wrong, over, or redeemed by somebody else are one answer."""
    account, redemption, now = ask.about(), ask.body, desk.clock()
    assert isinstance(redemption, Redemption)
    guesses = desk.office.codes.guesses
    guessers = [f"account {account.id}"] + ([f"peer {ask.actor.peer}"] if ask.actor.peer else [])
    wait_s = max(guesses.wait_s(name, now) for name in guessers)
    if wait_s:
        raise Problem("account.rate", "Too many wrong codes.", retry_after_s=wait_s)
    text = redemption.code.strip()
    code = await desk.office.codes.find(key_rules.digest(text)) if key_rules.well_formed(text, PREFIX) else None
    if code is None or (code.expires_at is not None and code.expires_at <= now):
        for name in guessers:
            guesses.missed(name, now)
        raise Problem("caller.invalid_value", "This code is not valid.", param="code")
    gift, note = code.gift, f"code {code.id}"
    try:
        if gift.fund is not None:
            deposit = Deposit(_id(code), account.id, gift.fund, gift.amount_pico, gift.currency, note, now)
            again = not await book_deposit(desk, ask, deposit)
            return 200, Redeemed(again, deposit=deposit_row(deposit))
        assert gift.kind is not None
        ends = now + gift.valid_days * DAY_S
        pack = Pack(_id(code), account.id, gift.kind, gift.product, gift.unit, gift.units, note, now, ends)
        again = not await book_pack(desk, ask, pack)
        return 200, Redeemed(again, pack=pack_receipt(pack))
    except Problem as problem:
        if problem.code == "caller.conflict":
            raise Problem("caller.invalid_value", "This code is not valid.", param="code") from None
        raise


def _id(code: Code) -> str:
    """What the deposit or the pack of a code is called."""
    return f"code:{code.id}"


ROUTES: Final = (
    Route(
        "GET",
        "/codes",
        list_codes,
        "List redemption codes and who redeemed them.",
        CodeRow,
        many=True,
        query=("after", "limit"),
    ),
    Route(
        "POST",
        "/codes",
        create_codes,
        "Make redemption codes; their texts are in this answer only.",
        CodeSecret,
        many=True,
        status=201,
        body=NewCodes,
    ),
    Route(
        "POST",
        "/accounts/{name}/redeem",
        redeem,
        "Redeem a code, once.",
        Redeemed,
        who="owner",
        about="path",
        body=Redemption,
    ),
)
