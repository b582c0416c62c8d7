"""The store of many processes: a PostgreSQL database, keys and people in the memory of each, confirmed every moment.

Rules:
- Threads with a connection each: one writes the books, one does everything else, one watches for changes; one does what
  may take long (reports), and connects when it is first asked.
- Nobody is let in on the word of a memory that could not be confirmed for a second: then `find` says that the storage
  is away (Problem "platform.storage"), which is true.
"""

from __future__ import annotations

import random
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial

from moonpool.errors import Problem
from moonpool.later import Later
from moonpool.state import changes
from moonpool.state.base import Token, User
from moonpool.state.keystore import Found, SqliteKeys
from moonpool.state.people import SqlPeople
from moonpool.state.pgbooks import PgBooks
from moonpool.state.pglink import PgDatabase
from moonpool.state.pgwatch import POLL_S, Watch
from moonpool.state.pgwrite import PgWriter
from moonpool.state.store import Loaded, SqlStore
from moonpool.state.thread import Database, WriterThread
from moonpool.words import Account


class PostgresStore(SqlStore):
    """Store over the database at `address`, a URL as libpq reads it; what it leaves out comes from the environment
    (PGPASSWORD, PGSSLMODE, ...). `poll_s` and the rest are for tests."""

    def __init__(
        self,
        address: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        poll_s: float = POLL_S,
    ) -> None:
        self._address = address
        self._monotonic = monotonic
        # Whose connections and whose row of `totals` these are: nobody else's, and to be recognised by people.
        self.name = f"{socket.gethostname()[:24]} {secrets.token_hex(8)}"
        accounts: dict[str, Account] = {}
        thread = WriterThread(self._connect("jobs"), "moonpool-jobs")
        self._shared_keys = SharedKeys(thread, accounts, clock)
        self._shared_people = SharedPeople(thread, accounts)
        slow = WriterThread(self._connect("slow", eager=False), "moonpool-slow")
        super().__init__(thread, slow, accounts, self._shared_keys, self._shared_people, clock, shared=True)
        self._writing = WriterThread(self._connect("books", once=True), "moonpool-books")
        writer = PgWriter(self.name, self._application("books"), accounts, chance=chance)
        self._books = PgBooks(self._writing, thread, accounts, writer, clock)
        self.watch = Watch(
            address,
            self._application("watch"),
            {
                changes.KEYS: self._shared_keys.refresh,
                changes.ACCOUNTS: self._shared_keys.refresh,
                changes.PEOPLE: self._shared_people.refresh,
                changes.OVERRIDES: self._overrides.refresh,
                changes.CATALOGUE: self._kept_rows.refresh,
            },
            monotonic=monotonic,
            poll_s=poll_s,
        )
        self._shared_keys.trusted = self._shared_people.trusted = self.watch.trusted

    @property
    def books(self) -> PgBooks:
        return self._books

    async def start(self) -> None:
        try:
            for thread in (self._thread, self._slow, self._writing):
                await thread.start()
            asked_at = self._monotonic()
            loaded, revisions = await self._thread.call(self._load)
            self._take(loaded)
            await self._books.start()
        except BaseException as error:
            await self._note_uses()
            await self._writing.stop()
            await self._end()
            if isinstance(error, Problem) and error.detail:
                raise Problem("platform.storage", f"PostgreSQL cannot be used ({error.detail}).") from error
            raise
        self.watch.start(revisions, asked_at)

    async def stop(self) -> None:
        await self.watch.stop()
        try:
            await self._note_uses()
            await self._books.stop()
        finally:
            await self._writing.stop()
            await self._end()

    def trouble(self) -> str | None:
        if self._books.trouble is None and not self.watch.trusted():
            return "The database does not answer: who may do what could not be confirmed for a second."
        return self._books.trouble

    def _application(self, what: str) -> str:
        return f"moonpool {what} {self.name}"[:63]

    def _connect(self, what: str, *, eager: bool = True, once: bool = False) -> Callable[[], Database]:
        return partial(PgDatabase, self._address, self._application(what), eager=eager, once=once)

    def _load(self, database: PgDatabase) -> tuple[Loaded, dict[str, int]]:
        self._prepare(database)
        with database.engine.begin() as connection:
            # First the numbers: what changes from here on has another.
            revisions = changes.revisions(connection)
            return self._read(connection), revisions


class SharedKeys(SqliteKeys):
    """Keys that other processes change too; `trusted` says whether memory may be believed now."""

    trusted: Callable[[], bool]

    def find(self, digest: bytes) -> Later[Found]:
        if self.trusted():
            return super().find(digest)
        return _away()


class SharedPeople(SqlPeople):
    """People that other processes change too."""

    trusted: Callable[[], bool]

    async def find(self, digest: bytes, now: float) -> tuple[Token, User] | None:
        if not self.trusted():
            raise Problem("platform.storage")
        return await super().find(digest, now)


def _away() -> Later[Found]:
    later: Later[Found] = Later()
    later.fail(Problem("platform.storage", detail="who may do what could not be confirmed for a second"))
    return later
