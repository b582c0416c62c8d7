"""Durable facts, by noun: what a request and an operator may ask of the store. Each method is one transaction.

Ids, times and amounts are made above the store and given to it. Answers are returned, not raised, because the
caller must look at each; a store that cannot be written raises Problem("platform.storage").
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.words import Account, Key, Usage


class Hold(Struct, frozen=True, gc=False):
    """Money set aside before a dispatch. `id` is the request's; `amount_pico` bounds what it can cost."""

    id: str
    account: str
    key: str
    model: str
    host: str
    amount_pico: int
    currency: str
    created_at: float
    expires_at: float


class Cost(Struct, frozen=True, gc=False):
    """What we owe a host for a dispatch that was not the last one of its request."""

    host: str
    amount_pico: int
    currency: str


Kind = Literal["posted", "voided", "expired", "recovered"]


class Resolution(Struct, frozen=True, gc=False):
    """How a hold ended, at most once: posted with what was used, or voided, expired, recovered with a cause.

    `owed_pico` is what the client owes, in the hold's currency; only `posted` owes anything. `cost_pico` is what we
    owe the host, in `cost_currency` ("" is the hold's); `attempts` the dispatches that were made, `earlier` what we owe
    for those before the last one.
    """

    hold_id: str
    kind: Kind
    usage: Usage
    owed_pico: int
    cost_pico: int
    host: str
    cause: str
    attempts: int
    resolved_at: float
    cost_currency: str = ""
    earlier: tuple[Cost, ...] = ()


class Deposit(Struct, frozen=True, gc=False):
    """Money an account gets: `granted` by the operator or `topped_up` by the client. `id` makes it happen once."""

    id: str
    account: str
    fund: Literal["granted", "topped_up"]
    amount_pico: int
    currency: str
    note: str
    created_at: float


Held = Literal["held", "short", "exists"]
Resolved = Literal["resolved", "exists", "unknown"]
Deposited = Literal["deposited", "exists"]


class Balance(Struct, frozen=True):
    """Pico-units. available = granted + topped_up - held; `post_paid` accounts may go below zero."""

    currency: str
    granted_pico: int
    topped_up_pico: int
    held_pico: int
    post_paid: bool


class Books(Protocol):
    """The ledger. `hold` answers when the hold is durable; so does `resolve`, which nobody needs to wait for."""

    def hold(self, hold: Hold) -> Awaitable[Held]: ...
    def resolve(self, resolution: Resolution) -> Awaitable[Resolved]: ...
    def recover(self, now: float) -> Awaitable[int]:
        """At start: resolve as `recovered` what a killed process left held. Returns how many."""

    def expire(self, now: float) -> Awaitable[int]:
        """Resolve as `expired` what is past its `expires_at` and belongs to no living process. Returns how many."""

    def deposit(self, deposit: Deposit) -> Awaitable[Deposited]:
        """Raises Problem("caller.invalid_value") for an unknown account or an amount that cannot be."""

    def balance(self, account: str, currency: str | None = None) -> Awaitable[Balance | None]:
        """None for an unknown account. Without a currency: the first one that holds money or debts, else CNY."""

    def totals(self) -> Awaitable[dict[str, int]]:
        """holds, open, posted, voided, expired, recovered; prompt_miss, prompt_hit, completion, reasoning."""


class Keys(Protocol):
    """API keys and the accounts behind them. Secrets are never stored: `digest` is SHA-256 of the whole key."""

    def find(self, digest: bytes) -> Awaitable[tuple[Key, Account] | None]: ...
    def create(self, key: Key, digest: bytes) -> Awaitable[None]:
        """Raises Problem("caller.invalid_value") for an unknown account, or an id or digest there is or ever was."""

    def ever(self, account: str) -> Awaitable[bool]:
        """Did this account (its id) ever have a key, deleted ones too?"""

    def list(self, account: str | None = None) -> Awaitable[Sequence[Key]]: ...
    def delete(self, key_id: str, now: float) -> Awaitable[bool]:
        """Final. After it answers, `find` never gives this key again."""

    def used(self, key_id: str, at: float) -> None:
        """Remember the last use; written in batches, at most a minute late."""

    def account(self, name: str) -> Awaitable[Account | None]: ...
    def accounts(self) -> Awaitable[Sequence[Account]]: ...
    def save_account(self, account: Account) -> Awaitable[None]:
        """Make it, or change the one with this id. Raises Problem("caller.invalid_value") for a name that is taken."""


class Limiter(Protocol):
    """Shared, fast, may be lost. Leases that expire, never counters that go up and down."""

    def take(self, account: str, request_id: str, limit: int, now: float) -> bool: ...
    def renew(self, now: float) -> None: ...
    def give(self, account: str, request_id: str) -> None:
        """Idempotent."""

    def held(self, account: str, now: float) -> int: ...


class Thought(Struct, frozen=True, gc=False):
    """The reasoning of one answer of an account, and the marks that find it: one for each of its tool calls, `calls`,
    and one for all that was visible of it, `turn`. A mark that several answers have under `calls` finds none of them;
    under `turn` it finds the newest."""

    account: str
    calls: tuple[bytes, ...]
    turn: bytes
    reasoning: str


class VaultBounds(Struct, frozen=True, gc=False):
    """How long a thought is kept and how much of them: in memory, in the database, there of one account."""

    ttl_s: float = 604_800.0
    memory_bytes_max: int = 64 << 20
    bytes_max: int = 512 << 20
    rows_max: int = 200_000
    account_bytes_max: int = 64 << 20


class Vault(Protocol):
    """Thoughts, for a while; what is lost was never promised. Never fails and never makes anybody wait for a write."""

    def find(self, account: str, marks: Collection[bytes], now: float) -> Awaitable[Mapping[bytes, str]]:
        """The reasoning under each mark that is known; of this account only."""

    def keep(self, thought: Thought, now: float) -> None: ...
    def sweep(self, now: float) -> None:
        """Forget what is too old."""


class StoreInUse(Problem):
    """Another process has this database open: ask that process instead."""

    def __init__(self, message: str) -> None:
        super().__init__("platform.storage", message)


class Store(Protocol):
    """Books, Keys and the Vault, if there is one, over one database. Use it on one event loop, between `start` and
    `stop`."""

    books: Books
    keys: Keys
    vault: Vault | None

    async def start(self) -> None:
        """Open, migrate, refuse a schema newer than this program. Raises Problem("platform.storage"), and its kind
        StoreInUse where another process has it open."""

    async def stop(self) -> None:
        """Write what is pending, close. Raises Problem("platform.storage") if something could not be written."""

    def trouble(self) -> str | None:
        """Why nothing can be written at this moment, in a sentence; None when all is well."""
