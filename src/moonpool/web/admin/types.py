"""What the admin API takes and answers, as types: the same that bodies are checked with and that are described in
`/openapi.json`. A field that is not here is refused (RELIABILITY case 111). Amounts are texts like "12.50", times are
whole Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from moonpool.web.admin.types_money import Amount, Money, Name, PackRow

SWITCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "keepalive": ("comment", "newline", "off"),
    "usage": ("finish", "chunk"),
    "reasoning": ("restored", "off"),
    "user_text": ("tagged", "all", "off"),
    "conflicts": ("adapt", "refuse"),
    "continuation": ("same", "on", "off"),
    "sees": ("own", "account"),
}
"""What `switches` of a key may say; the first of each is what holds without it."""

Rate = Annotated[int, Meta(ge=0, le=10**9, description="For a minute; 0: no limit.")]
Role = Literal["owner", "member"]


# Accounts


class NewAccount(Struct, forbid_unknown_fields=True):
    """`post_paid` accounts may owe, down to `credit` if it is given; `concurrency` is how many requests may run at
    once."""

    name: Name
    post_paid: bool = False
    concurrency: int = 100
    credit: Amount | None = None
    requests_per_minute: Rate = 0
    tokens_per_minute: Rate = 0


class AccountPatch(Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    post_paid: bool | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    concurrency: int | UnsetType = UNSET
    credit: Amount | UnsetType | None = UNSET
    requests_per_minute: Rate | UnsetType = UNSET
    tokens_per_minute: Rate | UnsetType = UNSET


class AccountRow(Struct):
    """An account. `credit` is how much it may owe, null: without bound."""

    id: str
    name: str
    post_paid: bool
    concurrency: int
    disabled: bool
    credit: str | None
    requests_per_minute: int
    tokens_per_minute: int
    products_off: list[str]


class AccountPage(Struct):
    """An account with its money and its packs."""

    account: AccountRow
    balance: Money
    packs: list[PackRow]


class ProductSwitch(Struct, forbid_unknown_fields=True):
    """Whether the product may be used on credit; changed once an hour at most."""

    on: bool


class ProductRow(Struct):
    product: str
    on: bool


# Keys


class KeyLimits(Struct, forbid_unknown_fields=True):
    """What a key may do at most; what is left out has no limit of its own. `addresses` are networks that a client must
    be in; `day` and `month` bound what is spent in each currency within a day or month of Beijing."""

    expires_at: float | None = None
    models: list[str] = []
    addresses: list[str] = []
    requests_per_minute: Rate = 0
    tokens_per_minute: Rate = 0
    concurrency: Annotated[int, Meta(ge=0, le=10**6)] = 0
    day: Amount | None = None
    month: Amount | None = None


class NewKey(Struct, forbid_unknown_fields=True):
    """`account` is the account's name; `switches` are those of docs/guides/programs.md."""

    account: str = "default"
    name: Name = ""
    switches: dict[str, str] = {}
    limits: KeyLimits | None = None


class KeyPatch(Struct, forbid_unknown_fields=True):
    """What is left out stays as it is; `limits` are given whole."""

    name: Name | UnsetType = UNSET
    switches: dict[str, str] | UnsetType = UNSET
    limits: KeyLimits | UnsetType | None = UNSET


class Rotation(Struct, forbid_unknown_fields=True):
    """For so long the old secret works beside the new one."""

    grace_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] = 0.0


class KeyRow(Struct):
    """A key; never its secret."""

    id: str
    name: str
    account: str
    created_at: int
    last_used_at: int | None
    switches: dict[str, str]
    limits: KeyLimits | None


class KeySecret(Struct):
    """`key` is the secret: this is the only answer it is in."""

    id: str
    key: str
    name: str
    account: str
    created_at: int


class Gone(Struct):
    id: str
    deleted: bool


# People


class NewUser(Struct, forbid_unknown_fields=True):
    """An `operator` may do everything; others what their roles let them."""

    name: Name
    operator: bool = False


class UserRow(Struct):
    """`roles` by name of account."""

    id: str
    name: str
    operator: bool
    created_at: int
    roles: dict[str, Role]


class RoleChange(Struct, forbid_unknown_fields=True):
    """null takes the role away."""

    role: Role | None


class NewToken(Struct, forbid_unknown_fields=True):
    """`user` is the user's id."""

    user: str
    name: Name = ""
    expires_at: float | None = None


class TokenRow(Struct):
    id: str
    user: str
    name: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None


class TokenSecret(Struct):
    """`token` is the secret: this is the only answer it is in."""

    id: str
    token: str
    user: str
    name: str
    created_at: int
    expires_at: int | None


# Catalogue and the whole


class ModelRow(Struct):
    name: str
    hosts: list[str]
    window: int
    output_max: int
    thinking: str
    can: list[str]
    owned_by: str
    created: int


class HostRow(Struct):
    name: str
    dialect: str
    transport: str
    base_url: str
    has_key: bool
    account: str
    concurrency: int
    concurrency_by_model: dict[str, int]


# Rows of the catalogue


class NewRow(Struct, forbid_unknown_fields=True):
    """`row` is the table that moonpool.toml would have for it, dates as texts; it replaces what was kept before."""

    row: dict[str, Any]


class CatalogueRow(Struct):
    """A kept row. `trouble` says why the server that answers cannot use it and leaves it as it was, "" where it can."""

    section: str
    name: str
    row: dict[str, Any]
    created_at: int
    trouble: str = ""


# The log of changes


class AuditRow(Struct):
    """One change: `actor` made it by `action` (a route) to `target`. `hash` chains it to the row before."""

    seq: int
    at: float
    actor: str
    action: str
    target: str
    detail: dict[str, Any]
    hash: str


class AuditVerdict(Struct):
    """`head` is the hash of the last row: noted elsewhere, it shows later that nothing was cut off and written anew."""

    ok: bool
    rows: int
    head: str
    trouble: str
