"""The connection to a PostgreSQL database, as jobs of a writer thread see it.

Rules:
- Nothing waits for ever: connecting CONNECT_S, a statement STATEMENT_S (the server's clock) and ANSWER_S (ours, because
  a server that was stopped or cut off keeps no time), a lock LOCK_S, a transaction that forgot itself IDLE_S.
- A connection that broke is made anew by the next job that needs one, after pauses that grow; meanwhile jobs fail at
  once. Whether what was under way was written, the job that did it has to find out.
- psycopg is imported here and in the other `pg*.py`, and only by who uses PostgreSQL: it is the extra `many`.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from moonpool.state.thread import Database

T = TypeVar("T")

CONNECT_S: Final = 5
STATEMENT_S: Final = 2.0
ANSWER_S: Final = 2.5
LOCK_S: Final = 1.5
IDLE_S: Final = 10.0
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0

_KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SET: Final = "SELECT set_config(%s, %s, false)"
_SESSION: Final = (
    ("statement_timeout", STATEMENT_S),
    ("lock_timeout", LOCK_S),
    ("idle_in_transaction_session_timeout", IDLE_S),
)
_ONCE: Final = (
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
)
"""For a connection that runs the same few statements, all of them by keys, again and again: each is planned once (to
plan was a fifth of the server's work for the books). A plan that was made while tables were empty must do when they are
full, so it goes by indexes."""


class Link(psycopg.Connection[Any]):
    """A connection whose every wait ends: after `answer_s` without an answer it is closed."""

    answer_s: float | None = ANSWER_S
    prepared: dict[str, bytes]
    """What pgbatch.py has prepared here, by its SQL."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server did not answer within {self.answer_s} s") from None


def connect(address: str, name: str, *, once: bool = False) -> Link:
    """A new connection to `address` (a URL of libpq), outside a transaction. With `once` it is for pgbatch.py: what
    runs there is planned once. Raises psycopg.Error."""
    link = Link.connect(address, application_name=name, **_KEEPALIVE)
    link.prepared = {}
    try:
        if once:
            link.prepare_threshold = None  # with each rollback psycopg would end what is prepared, ours as well
            for setting in _ONCE:
                link.execute(_SET, setting)
        _bound(link)
    except BaseException:
        link.close()
        raise
    return link


def _bound(link: Link) -> None:
    for setting, seconds in _SESSION:
        link.execute(_SET, (setting, str(int(seconds * 1000))))
    link.commit()


class PgDatabase(Database):
    """`engine` and `execute` speak over one connection, which is made when it is needed."""

    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(
        self,
        address: str,
        name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        eager: bool = True,
        once: bool = False,
    ) -> None:
        self._address = address
        self._name = name
        self._once = once
        self._monotonic = monotonic
        self._chance = chance
        self._link: Link | None = None
        self._engine: Engine | None = None
        self._pause_s = 0.0
        self._again_at = 0.0
        self._why = ""
        if eager:
            self.link  # noqa: B018 - whoever opens a database wants to know whether it is there

    @property
    def link(self) -> Link:
        """The connection; a new one where the last one broke. Raises psycopg.OperationalError."""
        if self._link is not None and not self._link.closed:
            return self._link
        self._drop()
        if self._monotonic() < self._again_at:
            raise psycopg.OperationalError(f"waiting before connecting again: {self._why}")
        try:
            self._link = connect(self._address, self._name, once=self._once)
        except psycopg.Error as error:
            self._why = str(error)
            self._rest_for_a_while()
            raise
        self._pause_s = 0.0
        return self._link

    def link_lost(self) -> bool:
        """Did the connection break? Then nobody knows what became of what was under way."""
        return self._link is None or bool(self._link.closed)

    @property
    def engine(self) -> Engine:
        link = self.link
        if self._engine is None:
            self._engine = create_engine(
                "postgresql+psycopg://",
                creator=lambda: link,
                poolclass=StaticPool,
                hide_parameters=True,
                use_native_hstore=False,
            )
        return self._engine

    def execute(self, text: str, values: Sequence[Any] = ()) -> Any:
        return self.link.execute(text.replace("?", "%s"), values)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True, rows: int = 1) -> Iterator[None]:
        link = self.link
        if not durable:
            link.execute("SET LOCAL synchronous_commit = off")
        yield
        link.commit()

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        link = self.link
        link.answer_s = None
        try:
            link.execute("SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)")
            link.commit()
            yield
        finally:
            link.answer_s = ANSWER_S
            if not link.closed:
                link.rollback()
                _bound(link)

    def rest(self) -> bool:
        """A connection that cannot go on is dropped; there will be another, at once if that can be."""
        link = self._link
        if link is None:
            return True
        try:
            if link.closed or link.info.transaction_status is not TransactionStatus.IDLE:
                link.rollback()
        except psycopg.Error as error:
            self._why = str(error)
            self._drop()
        return True

    def discard(self) -> None:
        self._drop()

    def _drop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                engine.dispose()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _rest_for_a_while(self) -> None:
        self._pause_s = min(max(2 * self._pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
        self._again_at = self._monotonic() + self._pause_s * (0.5 + self._chance() / 2)
