"""Durable facts, by noun: what a request and an operator may ask of the store. Each method is one transaction.

Ids, times and amounts are made above the store and given to it. Answers are returned, not raised, because the
caller must look at each; a store that cannot be written raises Problem("platform.storage").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.ledger.funds import Pack
from moonpool.words import Account, Key, Limits, Price, Usage

if TYPE_CHECKING:
    from moonpool.state.base_admin import Office
    from moonpool.state.base_catalogue import KeptRows
    from moonpool.state.base_prices import Overrides
    from moonpool.state.base_reports import Reports


class Hold(Struct, frozen=True, gc=False):
    """What is set aside before a dispatch. `id` is the request's; `amount_pico` bounds what it can cost in money.

    Packs of `product` go first: it takes at most so many `tokens`, none dearer than `token_pico`, and `searches` at
    `search_pico` each. `limits` are those of the key, if it has any: the books keep the ones of money.
    """

    id: str
    account: str
    key: str
    model: str
    host: str
    amount_pico: int
    currency: str
    created_at: float
    expires_at: float
    product: str = ""
    tokens: int = 0
    token_pico: int = 0
    searches: int = 0
    search_pico: int = 0
    limits: Limits | None = None


class Cost(Struct, frozen=True, gc=False):
    """What we owe a host for a dispatch that was not the last one of its request."""

    host: str
    amount_pico: int
    currency: str


Kind = Literal["posted", "voided", "expired", "recovered"]


class Resolution(Struct, frozen=True, gc=False):
    """How a hold ended, at most once: posted with what was used, or voided, expired, recovered with a cause.

    `owed_pico` is what the client would owe without packs, in the hold's currency; only `posted` and `recovered` owe
    anything; `price` is what that was computed with. `cost_pico` is what we
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
    price: Price | None = None


class Progress(Struct, frozen=True, gc=False):
    """How far a running stream has come: what is charged if its process is killed now. Fields as in Resolution."""

    hold_id: str
    usage: Usage
    owed_pico: int
    cost_pico: int
    host: str
    cost_currency: str
    price: Price
    at: float


class Deposit(Struct, frozen=True, gc=False):
    """Money an account gets: `granted` by the operator or `topped_up` by the client. `id` makes it happen once."""

    id: str
    account: str
    fund: Literal["granted", "topped_up"]
    amount_pico: int
    currency: str
    note: str
    created_at: float


class PackBalance(Struct, frozen=True):
    """left = pack.units - used - held."""

    pack: Pack
    used: int
    held: int


Held = Literal["held", "short", "budget", "exists"]
Resolved = Literal["resolved", "exists", "unknown"]
Deposited = Literal["deposited", "exists"]


class Balance(Struct, frozen=True):
    """Pico-units. available = granted + topped_up + post_paid - held. `post_paid_pico` is zero or below: what was used
    on credit and not settled yet."""

    currency: str
    granted_pico: int
    topped_up_pico: int
    held_pico: int
    post_paid: bool
    post_paid_pico: int = 0


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

    def add_pack(self, pack: Pack) -> Awaitable[Deposited]:
        """Raises Problem("caller.invalid_value") as `deposit`."""

    def packs(self, account: str, now: float) -> Awaitable[Sequence[PackBalance]]:
        """Those that are neither used up nor over, in the order in which they are drawn."""

    def progress(self, rows: Sequence[Progress]) -> None:
        """Remember how far running streams have come; nobody waits, and what cannot be written is forgotten."""

    def settle_hours(self, now: float) -> Awaitable[int]:
        """Take what was used on credit before this hour from what was topped up, once for each account, currency and
        hour. Returns for how many."""

    def balance(self, account: str, currency: str | None = None) -> Awaitable[Balance | None]:
        """None for an unknown account. Without a currency: the first one that holds money or debts, else CNY."""

    def totals(self) -> Awaitable[dict[str, int]]:
        """holds, open, posted, voided, expired, recovered; prompt_miss, prompt_hit, completion, reasoning."""


class Revoked(Struct, frozen=True):
    """From now on nothing is done for this key (its id), or for any key of this account (its id); `why`, if it is not
    that the key was deleted."""

    key: str = ""
    account: str = ""
    why: str | None = None


class Keys(Protocol):
    """API keys and the accounts behind them. Secrets are never stored: `digest` is SHA-256 of the whole key.

    A key past `limits.expires_at` is still found, and so is, for as long, an old digest of one that was rotated, with
    the end of that as the key's: whoever finds a key with limits compares (ledger.access).
    """

    def find(self, digest: bytes) -> Awaitable[tuple[Key, Account] | None]: ...
    def create(self, key: Key, digest: bytes) -> Awaitable[None]:
        """Raises Problem("caller.invalid_value") for an unknown account, or an id or digest there is or ever was."""

    def ever(self, account: str) -> Awaitable[bool]:
        """Did this account (its id) ever have a key, deleted ones too?"""

    def get(self, key_id: str) -> Awaitable[Key | None]: ...
    def list(self, account: str | None = None) -> Awaitable[Sequence[Key]]: ...
    def delete(self, key_id: str, now: float) -> Awaitable[bool]:
        """Final. After it answers, `find` never gives this key again."""

    def used(self, key_id: str, at: float) -> None:
        """Remember the last use; written in batches, at most a minute late."""

    def account(self, name: str) -> Awaitable[Account | None]: ...
    def accounts(self) -> Awaitable[Sequence[Account]]: ...
    def save_account(self, account: Account) -> Awaitable[None]:
        """Make it, or change the one with this id. Raises Problem("caller.invalid_value") for a name that is taken."""

    def stands(self, key_id: str) -> bool:
        """May this key be used, as far as is known now? Not one that was deleted or has ended, nor one of a disabled
        account."""

    def listen(self, tell: Callable[[Revoked], None]) -> None:
        """Call `tell` whenever a key is deleted or has ended, or an account is disabled, before that is answered."""

    def change(self, key: Key) -> Awaitable[bool]:
        """Give the key with this id this name, these switches and these limits. Raises Problem("caller.invalid_value")
        for what cannot be a limit, as `create` does."""

    def rotate(self, key_id: str, digest: bytes, old_until: float) -> Awaitable[bool]:
        """From now on the key has this digest; the one it had is good until then (once more rotated: no longer), and
        never again afterwards. Raises Problem("caller.invalid_value") for a digest there is."""

    def switch_product(self, account: str, product: str, on: bool, now: float) -> Awaitable[None]:
        """Turn the use of a product on credit on or off. Raises Problem("account.rate") where that was changed less
        than SWITCH_S ago, Problem("caller.invalid_value") for an unknown account."""


SWITCH_S: Final = 3600.0
"""How long a product's switch stays as it is, once it was turned (contract 6)."""

Role = Literal["owner", "member"]


class User(Struct, frozen=True):
    """Somebody who may use the admin API: an `operator` may do everything, others what their role in an account lets
    them. `roles` is by id of account."""

    id: str
    name: str
    operator: bool = False
    created_at: float = 0.0
    roles: Mapping[str, Role] = {}


class Token(Struct, frozen=True):
    """What a user shows to the admin API; kept as keys are, by digest."""

    id: str
    user: str
    name: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    last_used_at: float | None = None


class People(Protocol):
    """Users and their tokens."""

    def find(self, digest: bytes, now: float) -> Awaitable[tuple[Token, User] | None]: ...
    def used(self, token_id: str, at: float) -> None: ...
    def users(self) -> Awaitable[Sequence[User]]: ...
    def save_user(self, user: User) -> Awaitable[None]:
        """Make it, or change the one with this id, roles included. Raises Problem("caller.invalid_value") for a name
        that is taken and for an unknown account."""

    def delete_user(self, user_id: str, now: float) -> Awaitable[bool]:
        """Final; with all tokens."""

    def issue(self, token: Token, digest: bytes) -> Awaitable[None]:
        """Raises Problem("caller.invalid_value") for an unknown user, or an id or digest there is or ever was."""

    def tokens(self, user_id: str | None = None) -> Awaitable[Sequence[Token]]: ...
    def revoke(self, token_id: str, now: float) -> Awaitable[bool]:
        """Final."""


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


class Asking(Struct, frozen=True, gc=False):
    """A request that carries an `Idempotency-Key`. `scope` says whose key that is: nobody else can meet it; `digest`
    is of what it asks; `repeatable`: if the process that was at it died, it may be done again, unless it was paid."""

    scope: str
    key: str
    digest: bytes
    request_id: str
    now: float
    repeatable: bool = True


class Told(Struct, frozen=True, gc=False):
    """What such a request was answered; a `body` of None was not kept."""

    status: int
    content_type: str
    fields: Sequence[tuple[str, str]]
    body: bytes | None


class OnceBounds(Struct, frozen=True, gc=False):
    """How long an answer is kept, and how many bytes of answers: of all, and of one scope."""

    ttl_s: float = 86_400.0
    bytes_max: int = 1 << 30
    scope_bytes_max: int = 64 << 20


Begun = Literal["new", "running", "mismatch", "lost"]


class Once(Protocol):
    """Requests with an `Idempotency-Key`: each is done once, and its answer is kept for who asks again.

    Above the bounds the bodies of the oldest answers go, not that they were given: such a key is `lost`, never new.
    """

    def begin(self, asking: Asking) -> Awaitable[Begun | Told]:
        """Durable when it answers, and `new` for one of all that ask at once, in however many processes. `running`:
        another one is at it; `mismatch`: it asked something else; `lost`: it was answered, or may have been, and nobody
        knows what; else the answer. After `new`, either `finish` or `drop` must follow. Raises
        Problem("platform.storage")."""

    def finish(self, asking: Asking, told: Told) -> None:
        """Nobody waits. Until it is durable the key is `running`; what cannot be written is tried again."""

    def drop(self, asking: Asking) -> None:
        """As if it had not begun: the key is new again."""

    def sweep(self, now: float) -> None:
        """Forget what is older than its time."""


class StoreInUse(Problem):
    """Another process has this database open: ask that process instead."""

    def __init__(self, message: str) -> None:
        super().__init__("platform.storage", message)


class Store(Protocol):
    """Books, Keys, People, Reports, the office, and the Vault and Once, if there are any, over one database. Use it
    on one event loop, between `start` and `stop`."""

    books: Books
    keys: Keys
    people: People
    reports: Reports
    overrides: Overrides
    kept_rows: KeptRows
    office: Office
    vault: Vault | None
    once: Once | None

    async def start(self) -> None:
        """Open, migrate, refuse a schema newer than this program. Raises Problem("platform.storage"), and its kind
        StoreInUse where another process has it open."""

    async def stop(self) -> None:
        """Write what is pending, close. Raises Problem("platform.storage") if something could not be written."""

    def trouble(self) -> str | None:
        """Why nothing can be written at this moment, in a sentence; None when all is well."""
