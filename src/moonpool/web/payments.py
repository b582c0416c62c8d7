"""Where a payment service says that somebody paid: one address, signed, off without a secret.

Rules (RELIABILITY case 80): each channel has its own secret, and a message counts for the channel whose secret signed
it. The signature covers the moment and the very bytes of the body; older or newer than TOLERANCE_S it does not count.
An event is booked once, however often it is told; told with another account, amount or currency it is refused.

The header is `x-moonpool-signature: t=UNIX_SECONDS,v1=HEX`, HEX the HMAC-SHA256 of `t + "." + body`, which is the form
of Stripe's webhooks.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final

from msgspec import Meta, Struct

from moonpool.errors import Problem
from moonpool.ledger import entries
from moonpool.settings import ConfigError, Settings, secret
from moonpool.state.base import Deposit
from moonpool.web.admin.accounts import pico
from moonpool.web.admin.money import book_deposit
from moonpool.web.admin.routing import Actor, Answer, Ask, Desk
from moonpool.web.admin.table import decode
from moonpool.web.admin.types_money import Amount, Currency, Id
from moonpool.words import Arrival

PATH: Final = "/webhooks/payment"
HEADER: Final = "x-moonpool-signature"
TOLERANCE_S: Final = 300.0
SECRET_LENGTH: Final = 32
_DIGITS_MAX: Final = 12


class Payment(Struct, forbid_unknown_fields=True):
    """`event` names it at the channel; `account` is the account's name; `amount` a text like "12.50"."""

    event: Id
    account: str
    amount: Amount
    currency: Currency
    channel: Annotated[str, Meta(max_length=100)]


class Booked(Struct):
    """`again`: this event had been told before, and nothing was booked now."""

    deposit: str
    again: bool


def secrets(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Channel -> its secret. Raises ConfigError for one that is missing or could be guessed."""
    found: dict[str, str] = {}
    for name, channel in settings.payments.items():
        key = f"payments.{name}.secret"
        found[name] = secret(channel.secret, environ, key)
        if len(found[name]) < SECRET_LENGTH:
            raise ConfigError(settings.file, key, f"has less than {SECRET_LENGTH} characters.")
    if len(set(found.values())) < len(found):
        raise ConfigError(settings.file, "payments", "gives two channels the same secret.")
    return found


def sign(key: str, at: int, body: bytes) -> str:
    """The header's text for a body that is sent at that moment."""
    return f"t={at},v1={_mac(key, str(at), body)}"


def _mac(key: str, at: str, body: bytes) -> str:
    return hmac.new(key.encode(), at.encode() + b"." + body, sha256).hexdigest()


def signed(key: str, header: str, body: bytes, now: float) -> bool:
    """Did who has this secret sign that body just now? Takes the same time whatever is wrong with the digits."""
    at, given = "", []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            at = value
        elif name == "v1":
            given.append(value)
    if not (at.isascii() and at.isdecimal() and len(at) <= _DIGITS_MAX) or abs(now - int(at)) > TOLERANCE_S:
        return False
    right = _mac(key, at, body).encode()
    return sum(hmac.compare_digest(right, value.encode()) for value in given) > 0


async def take(desk: Desk, arrival: Arrival, channels: Mapping[str, str]) -> Answer:
    """Book what was paid. Raises account.signature, caller.conflict, caller.not_found for an unknown account."""
    if arrival.method != "POST":
        raise Problem("caller.wrong_method", "This address takes POST only.")
    header, now = arrival.headers.get(HEADER, ""), desk.clock()
    signers = [name for name, key in channels.items() if signed(key, header, arrival.body, now)]
    if not signers:
        raise Problem("account.signature")
    payment = decode(arrival.body, Payment)
    assert isinstance(payment, Payment)
    if payment.channel not in signers:
        raise Problem("account.signature")
    account = await desk.keys.account(payment.account)
    if account is None:
        raise Problem("caller.not_found", "There is no such account.", param="account")
    amount_pico = pico("amount", payment.amount, entries.AMOUNT_PICO_MAX)
    if amount_pico == 0:
        raise Problem("caller.invalid_value", "A payment is more than nothing.", param="amount")
    deposit_id = f"pay:{payment.channel}:{payment.event}"
    deposit = Deposit(deposit_id, account.id, "topped_up", amount_pico, payment.currency, payment.channel, now)
    ask = Ask(actor=Actor(f"payment {payment.channel}", peer=arrival.peer), action=f"POST {PATH}")
    try:
        made = await book_deposit(desk, ask, deposit)
    except Problem as problem:
        await ask.failed(desk, problem.code)
        raise
    return 200, Booked(deposit_id, not made)
