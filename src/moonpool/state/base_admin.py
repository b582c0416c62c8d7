"""What the admin API asks of the store besides keys, people and books: the log of changes, redemption codes, what came
in, and whom to tell of money. Rules as in base.py: each method is one transaction, ids and times come from above."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from moonpool.ledger.funds import Pack
from moonpool.ledger.guesses import Guesses
from moonpool.state.base import Deposit

DETAIL_BYTES_MAX: Final = 8192


class Change(Struct, frozen=True):
    """A change as the audit log keeps it: when, who, which route, of what; `detail` is without secrets, and of texts,
    whole numbers, booleans, lists and objects only."""

    at: float
    actor: str
    action: str
    target: str
    detail: Mapping[str, Any] = {}


class Logged(Struct, frozen=True):
    """A row of the audit log. `hash` is SHA-256 over the row and `before`, the hash of the row before it."""

    seq: int
    change: Change
    before: bytes
    hash: bytes


class Verdict(Struct, frozen=True):
    """What came of checking the audit log: `rows` that are in order, and the hash of the last one (whoever noted it
    elsewhere can see that none was cut off and written anew); `trouble` says what is wrong first, at row `seq`."""

    rows: int
    head: str
    trouble: str = ""
    seq: int = 0


class Audit(Protocol):
    """Who changed what. Rows are written once, in one order over all processes, each chained to the one before it."""

    def write(self, change: Change) -> Awaitable[int]:
        """Durable when it answers. Raises Problem("platform.storage"): then it is not there."""

    def page(self, before: int | None, limit: int) -> Awaitable[Sequence[Logged]]:
        """Newest first, those with a `seq` below `before`."""

    def verify(self) -> Awaitable[Verdict]:
        """Read all of it, in small steps between which others may write."""


class Gift(Struct, frozen=True, omit_defaults=True):
    """What a code is good for: money of a fund, or a pack of a product that is valid for so many days."""

    fund: Literal["granted", "topped_up"] | None = None
    amount_pico: int = 0
    currency: str = ""
    kind: Literal["trial", "paid"] | None = None
    product: str = ""
    unit: Literal["tokens", "calls"] = "tokens"
    units: int = 0
    valid_days: int = 365


class Code(Struct, frozen=True):
    """A redemption code; its text is kept as that of keys is, by digest."""

    id: str
    gift: Gift
    note: str
    created_at: float
    expires_at: float | None = None


class Codes(Protocol):
    """Redemption codes. That one was redeemed is a deposit or a pack with the id `code:ID`, so it happens once."""

    @property
    def guesses(self) -> Guesses:
        """Wrong ones, by who guessed."""

    def create(self, codes: Sequence[tuple[Code, bytes]]) -> Awaitable[None]:
        """All of them or none."""

    def find(self, digest: bytes) -> Awaitable[Code | None]: ...
    def page(self, after: str, limit: int) -> Awaitable[Sequence[Code]]:
        """In the order of their ids, those beyond `after`."""


class Receipts(Protocol):
    """What came in, as it was written down."""

    def deposit(self, deposit_id: str) -> Awaitable[Deposit | None]: ...
    def deposits(self, account: str, before: str | None, limit: int) -> Awaitable[Sequence[Deposit]]:
        """Newest first, those made before the one with that id."""

    def pack(self, pack_id: str) -> Awaitable[Pack | None]: ...
    def spent(self, account: str, currency: str, since: int) -> Awaitable[int]:
        """Pico-units that the account owed for what it used in the days from `since` on (the start of one)."""


AlertKind = Literal["balance_below", "spent_day", "spent_month", "arrears"]


class Alert(Struct, frozen=True):
    """Whom to tell when an account's money reaches a threshold. `sealed` is what the message is signed with;
    `fired_for` names what was last told of ("": nothing is to be told now)."""

    id: str
    account: str
    kind: AlertKind
    threshold_pico: int
    currency: str
    url: str
    sealed: bytes
    created_at: float
    fired_for: str = ""


class Delivery(Struct, frozen=True):
    """A message of an alert on its way: tried `tries` times, next at `next_at`; `trouble` is what went wrong last."""

    id: str
    alert: str
    body: Mapping[str, Any]
    tries: int
    next_at: float
    trouble: str
    created_at: float
    done_at: float | None = None


class Alerts(Protocol):
    """Alerts and their messages."""

    def seal_with(self, key: Callable[[], str]) -> None:
        """What the secrets of alerts are sealed with, asked for at the first one (raises ValueError with a sentence).
        Without it none can be made."""

    def save(self, alert: Alert, secret: str) -> Awaitable[None]:
        """Make it, its secret sealed. Raises Problem("platform.storage") where there is nothing to seal with."""

    def secret(self, alert: Alert) -> str | None:
        """None for what another key sealed."""

    def list(self, account: str | None = None) -> Awaitable[Sequence[Alert]]: ...
    def delete(self, account: str, alert_id: str) -> Awaitable[bool]:
        """Together with what is still to be delivered."""

    def fire(self, alert: Alert, fired_for: str, delivery: Delivery | None) -> Awaitable[bool]:
        """Remember what is told now, and the message; False when somebody else has done so already."""

    def due(self, now: float, lease_s: float) -> Awaitable[Sequence[Delivery]]:
        """Messages to try now; none of them is given out again before `lease_s` have passed."""

    def tried(self, delivery: Delivery) -> Awaitable[None]: ...
    def deliveries(self, alert_id: str, limit: int) -> Awaitable[Sequence[Delivery]]:
        """Newest first."""


class Office(Struct, frozen=True):
    """All of these over one database."""

    audit: Audit
    codes: Codes
    receipts: Receipts
    alerts: Alerts
