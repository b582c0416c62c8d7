"""What the admin API takes and answers about money, as types; see types.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(max_length=100)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3, description="ISO 4217, like CNY.")]
Amount = Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$", description='Like "12.50".')]
Id = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[0-9A-Za-z._-]+$(?!\n)")]

Fund = Literal["granted", "topped_up"]
PackKind = Literal["trial", "paid"]
Unit = Literal["tokens", "calls"]
Units = Annotated[int, Meta(ge=1, le=10**15)]
Days = Annotated[int, Meta(ge=1, le=3660)]


class Money(Struct):
    """A balance: available = granted + topped_up + post_paid - held."""

    currency: str
    available: str
    granted: str
    topped_up: str
    held: str
    post_paid: str


class PackRow(Struct):
    """Units of a product: left = units - used - held."""

    id: str
    kind: str
    product: str
    unit: str
    units: int
    used: int
    held: int
    left: int
    note: str
    bought_at: int
    expires_at: int


class NewDeposit(Struct, forbid_unknown_fields=True):
    """`id` makes it happen once, however often it is said; without one it happens each time."""

    fund: Fund
    amount: Amount
    currency: Currency
    id: Id | None = None
    note: Name = ""


class DepositRow(Struct):
    id: str
    fund: Fund
    amount: str
    currency: str
    note: str
    created_at: int


class NewPack(Struct, forbid_unknown_fields=True):
    """`units` tokens of the product's models, or search calls; `id` as for deposits."""

    kind: PackKind
    product: str
    unit: Unit
    units: Units
    valid_days: Days = 365
    id: Id | None = None
    note: Name = ""


class PackReceipt(Struct):
    id: str
    kind: str
    product: str
    unit: str
    units: int
    note: str
    bought_at: int
    expires_at: int


class GiftBody(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a code is good for: money (`fund`, `amount`, `currency`) or a pack (the others)."""

    fund: Fund | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    kind: PackKind | None = None
    product: str = ""
    unit: Unit = "tokens"
    units: Annotated[int, Meta(ge=0, le=10**15)] = 0
    valid_days: Days = 365


class NewCodes(Struct, forbid_unknown_fields=True):
    gift: GiftBody
    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    note: Name = ""
    expires_at: float | None = None


class CodeSecret(Struct):
    """`code` is the text to hand out: this is the only answer it is in."""

    id: str
    code: str


class CodeRow(Struct):
    """`redeemed_by` is the id of the account that did, null while nobody has."""

    id: str
    gift: GiftBody
    note: str
    created_at: int
    expires_at: int | None
    redeemed_by: str | None


class Redemption(Struct, forbid_unknown_fields=True):
    code: Annotated[str, Meta(max_length=200)]


class Redeemed(Struct):
    """`again`: this account had redeemed it before, and nothing was given now."""

    again: bool
    deposit: DepositRow | None = None
    pack: PackReceipt | None = None


class NewAlert(Struct, forbid_unknown_fields=True):
    """`balance_below`: what is available falls below the threshold; `spent_day`, `spent_month`: what was used since
    midnight in Beijing, or the first of the month, reaches it; `arrears`: more is owed than may be (the threshold does
    not matter)."""

    kind: Literal["balance_below", "spent_day", "spent_month", "arrears"]
    url: Annotated[str, Meta(max_length=2000)]
    currency: Currency
    threshold: Amount = "0"


class AlertRow(Struct):
    """`told_of` names what was last told of, "" while there is nothing to tell."""

    id: str
    kind: str
    threshold: str
    currency: str
    url: str
    created_at: int
    told_of: str


class AlertSecret(Struct):
    """`secret` is what messages are signed with: this is the only answer it is in."""

    id: str
    secret: str


class DeliveryRow(Struct):
    """A message: `next_at` is null when it arrived or was given up, `trouble` what went wrong last."""

    id: str
    body: dict[str, Any]
    tries: int
    trouble: str
    created_at: int
    next_at: int | None
    done_at: int | None
