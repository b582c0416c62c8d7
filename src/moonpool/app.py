"""Joins everything: Settings -> Platform -> a server that listens. The only file that sees every room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moonpool import settings_store
from moonpool.catalog import weights_rows
from moonpool.declared import declare_accounts, first_key
from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.base import Dialect
from moonpool.errors import Problem
from moonpool.relay import pulse
from moonpool.relay.brake import Brake
from moonpool.relay.fleet import Fleet
from moonpool.relay.journal import Journal
from moonpool.relay.limits import lose
from moonpool.relay.meters import Meters
from moonpool.relay.offer import Offer, follow
from moonpool.relay.once import Answers
from moonpool.relay.platform import Platform, request_ids, switches_of
from moonpool.relay.reply import refuse
from moonpool.relay.resume import Tapes
from moonpool.relay.revoked import Revocations
from moonpool.relay.tariffs import tariffs_of
from moonpool.relay.writer import Writer
from moonpool.settings import ConfigError, Settings, address_of, make_home, secret
from moonpool.state.base import OnceBounds, VaultBounds
from moonpool.state.base_limits import Limiter
from moonpool.state.limiters import open_limiter
from moonpool.state.sealing import key_file
from moonpool.state.sqlite import SqliteStore
from moonpool.state.valkey_trouble import LinkError
from moonpool.transports.base import Transport
from moonpool.transports.dial import look_up
from moonpool.transports.http import HttpTransport
from moonpool.transports.llama import Embedded, LlamaTransport
from moonpool.transports.weights_gguf import read_facts
from moonpool.watchdog import LOOK_S, Watchdog
from moonpool.web import ops, payments
from moonpool.web.addresses import guarded
from moonpool.web.admin.door import Door
from moonpool.web.alarms import Alarms
from moonpool.web.data import DataPlane
from moonpool.web.forwarded import Proxies
from moonpool.web.listener import Server
from moonpool.web.protocol import Limits
from moonpool.words import Arrival

if TYPE_CHECKING:
    from moonpool.state.postgres import PostgresStore

    AnyStore = SqliteStore | PostgresStore

VAULT_KEY_LENGTH: Final = 32


def weights_of(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """The file the embedded model runs on, and what a GGUF of the operator's own says of itself: `model`, `thinks`.

    Raises ConfigError when that file cannot be read.
    """
    wanted = settings.embedded.model
    rows = weights_rows()
    row = next((row for row in rows if row.name == (wanted or rows[0].name)), None)
    if row is not None:
        return settings.weights_path() / row.file, {}
    path = Path(wanted).expanduser()
    try:
        facts = read_facts(path)
    except (OSError, ValueError) as error:
        raise ConfigError(settings.file, "embedded.model", f"{error}.") from None
    return path, {"model": facts.name, "thinks": facts.thinks}


def store_address(settings: Settings, environ: Mapping[str, str]) -> str:
    """The database's file, or the URL of a PostgreSQL database. Raises ConfigError for one that cannot be used."""
    if not settings_store.is_shared(settings.store):
        return str(settings.store_path())
    return address_of(settings, environ, "store")


def open_store(settings: Settings, environ: Mapping[str, str] | None = None, *, accept_loss: bool = False) -> AnyStore:
    """The store the settings name, not yet started. Raises ConfigError for an address that cannot be one."""
    address = store_address(settings, os.environ if environ is None else environ)
    if not settings_store.is_shared(settings.store):
        return SqliteStore(address, accept_loss=accept_loss)
    # Imported here because its driver is there only where it is wanted (the extra `many`).
    from moonpool.state.postgres import PostgresStore

    return PostgresStore(address)


def dialects() -> Mapping[str, Dialect]:
    """How hosts speak, for commands that ask them while no server runs."""
    return DIALECTS


class App:
    """A whole Moonpool. `start`, then `stop`; between them `platform` and `port` are there.

    `first_key` is the secret of the key made at the very first start, shown once; None at later ones.
    """

    def __init__(self, settings: Settings, environ: dict[str, str] | None = None, worker: int = 0) -> None:
        self.settings = settings
        self.worker = worker
        self.environ = dict(os.environ if environ is None else environ)
        self.first_key: str | None = None
        self.port = 0
        self.started_at = time.time()
        self.platform: Platform
        self.embedded: LlamaTransport | None = None
        self.store = open_store(settings, self.environ)
        self._told = False
        self._turning: asyncio.TimerHandle | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._sweep: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open everything and listen. Raises ConfigError, Problem("platform.storage") or OSError (the port)."""
        settings = self.settings
        self.channels = payments.secrets(settings, self.environ)
        make_home(settings)
        journal = Journal(requests=settings.log.requests)
        journal.start()
        note = journal.note
        limiter, self.watchdog = self._limiter(note), Watchdog(note)
        weights, facts = weights_of(settings)
        offer = Offer(settings, self.environ, facts)
        self.transports = self._transports(weights)
        seal(settings, self.store, self.environ)
        await asyncio.gather(*(transport.start() for transport in self.transports.values()))
        await self._open(journal)
        catalogue = offer.open(self.store.kept_rows, self.store.overrides)
        soon = asyncio.get_running_loop().call_soon
        assert self.store.once is not None
        self.platform = Platform(
            settings=settings,
            catalogue=catalogue,
            offer=offer,
            dialects=DIALECTS,
            client=CLIENT,
            transports=self.transports,
            books=self.store.books,
            keys=self.store.keys,
            reports=self.store.reports,
            overrides=self.store.overrides,
            tariffs=tariffs_of(catalogue, self.store.overrides, note),
            people=self.store.people,
            office=self.store.office,
            vault=self.store.vault,
            limiter=limiter,
            key_brake=Brake("key", settings.edge.wrong_keys_per_minute, note),
            token_brake=Brake("token", settings.edge.wrong_keys_per_minute, note),
            fleet=Fleet(settings.routing, time.monotonic, note),
            meters=Meters(),
            journal=journal,
            clock=time.time,
            monotonic=time.monotonic,
            new_id=request_ids(),
            active=set(),
            tapes=Tapes(settings.streams, time.monotonic, soon, render_event),
            answers=Answers(self.store.once, settings.idempotency, time.monotonic, soon, render_event),
            switches=switches_of(settings),
            beat_s=settings.streams.keepalive_s,
            parts=self.parts,
        )
        follow(self.platform, note)
        self.revocations = Revocations(self.platform)
        await self.platform.limiter.start(time.monotonic())
        await self.store.books.recover(time.time())
        await self._declare(journal)
        self.outside = HttpTransport(resolve=look_up if settings.alerts.private else guarded(look_up))
        self.alarms = Alarms(
            settings.alerts,
            self.store.books,
            self.store.keys,
            self.store.office,
            self.outside,
            time.time,
            note,
            journal.fault,
        )
        await self._listen()
        self._pulse = asyncio.create_task(self._beat())
        self._watch()
        self._tell_of_vault()
        note("started", port=self.port, home=str(settings.home))

    def _limiter(self, note: Callable[..., object]) -> Limiter:
        settings = self.settings
        address = address_of(settings, self.environ, "limits")
        try:
            return open_limiter(address, settings.limits_call_s, lambda lost: lose(self.platform, lost), note)
        except LinkError as error:
            raise ConfigError(settings.file, "limits", f"{error}.") from None

    async def _open(self, journal: Journal) -> None:
        await self.store.start()
        if self.store.notice:
            journal.note("database", why=self.store.notice)

    async def _declare(self, journal: Journal) -> None:
        """One of several workers does."""
        if self.worker == 0:
            keys, audit = self.store.keys, self.store.office.audit
            await declare_accounts(self.settings, keys, audit, self.environ, journal.note)
            self.first_key = await first_key(keys, audit)

    async def stop(self) -> None:
        """Drain: refuse new requests, let running ones end for `edge.drain_s`, then end them with an error event,
        settle everything and close."""
        self.server.drain()
        self.admin_server.drain()
        self.platform.tapes.drain()
        active = self.platform.active
        deadline = time.monotonic() + self.settings.edge.drain_s
        while active and time.monotonic() < deadline:  # noqa: ASYNC110 - once per process, and `active` is a plain set
            await asyncio.sleep(0.05)
        for reply in list(active):
            if reply.source is not None:
                reply.source.stop(Problem("platform.stopping"))
        self.watchdog.stop()
        if self._turning is not None:
            self._turning.cancel()
        for task in (self._pulse, self._sweep):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self.server.drained(1.0)
        await self.server.stop()
        await self.admin_server.stop()
        await self.alarms.stop()
        await asyncio.gather(*(transport.stop() for transport in (*self.transports.values(), self.outside)))
        await self.platform.limiter.stop()
        await self.store.stop()
        self.platform.journal.note("stopped")
        self.platform.journal.stop()

    def _transports(self, weights: Path) -> dict[str, Transport]:
        upstream, settings = self.settings.upstream, self.settings
        http = HttpTransport(
            proxies=self.environ,
            connections_max=upstream.connections_max,
            idle_s=upstream.idle_s,
            head_bytes_max=upstream.head_bytes_max,
            body_bytes_max=upstream.body_bytes_max,
        )
        transports: dict[str, Transport] = {"http": http}
        if settings.embedded.enabled:
            own = settings.embedded
            self.embedded = LlamaTransport(
                http,
                Embedded(
                    weights=weights,
                    log=settings.home_path() / "embedded.log",
                    context=own.context,
                    parallel=own.parallel,
                    threads=own.threads,
                    start_s=own.start_s,
                ),
            )
            transports["llama"] = self.embedded
        return transports

    async def _listen(self) -> None:
        settings, platform = self.settings, self.platform
        data = DataPlane(platform)
        door = Door(platform, self.channels)
        proxies = Proxies(settings.edge.trusted_proxies) if settings.edge.trusted_proxies else None

        def handle(arrival: Arrival, writer: Writer) -> None:
            if proxies is not None:
                proxies.see(arrival)
            if not (data.take(arrival, writer) or door.take(arrival, writer)):
                page = ops.handle(platform, arrival.path) if arrival.method in {"GET", "HEAD"} else None
                if page is None:
                    refuse(writer, Problem("caller.not_found"), platform.client)
                else:
                    writer.whole(page[0], page[1], [], page[2])

        def fault(error: BaseException, request_id: str) -> None:
            platform.journal.fault(f"request {request_id}", error)

        edge = settings.edge
        limits = Limits(
            head_s=edge.head_s,
            body_s=edge.body_s,
            body_bytes_max=edge.body_bytes_max,
            idle_s=edge.idle_s,
            stall_s=edge.stall_s,
            high_water=edge.high_water_bytes,
            connections_max=edge.connections_max,
        )
        self.server = Server(handle, self._render, fault, limits=limits, new_id=platform.new_id)
        self.admin_server = Server(door.at_socket, self._render, fault, limits=limits, new_id=platform.new_id)
        self.port = await self.server.start(settings.host, settings.port, reuse_port=settings.workers > 1)
        if self.worker == 0:
            await self.admin_server.start(path=settings.socket_path())

    def parts(self) -> dict[str, Any]:
        """See relay.platform.Platform.parts."""
        counters = self.server.counters
        return {
            "store": self.store.trouble() or "ok",
            "limits": self.platform.limiter.trouble() or "ok",
            "loop": {
                "trouble": self.watchdog.trouble(time.monotonic()),
                "stalls": self.watchdog.stalls,
                "stalled_s": self.watchdog.stalled_s,
            },
            "embedded": self.embedded.status() if self.embedded is not None else None,
            "vault": self.store.vault.status() if self.store.vault is not None else None,
            "ledger": self.store.books.sums(),
            "fleet": self.platform.fleet.describe(),
            "connections": {
                "open": len(self.server.connections),
                "accepted": counters.accepted,
                "refused": counters.refused,
                "requests": counters.requests,
                "cut": counters.cut,
            },
        }

    def _watch(self) -> None:
        self.watchdog.start()
        self._turn()

    def _turn(self) -> None:
        self.watchdog.beat(time.monotonic())
        self._turning = asyncio.get_running_loop().call_later(LOOK_S, self._turn)

    def _tell_of_vault(self) -> None:
        """Once, if what was remembered cannot be read."""
        trouble = self.store.vault.trouble if self.store.vault is not None else None
        if trouble is not None and not self._told:
            self._told = True
            self.platform.journal.note("vault", why=trouble)

    def _render(self, problem: Problem) -> bytes:
        return self.platform.client.render_problem(problem, in_stream=False)

    async def _beat(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(pulse.PULSE_S)
            turn += 1
            self.revocations.beat()
            await pulse.beat(self.platform, turn)
            self.alarms.beat()
            if turn % pulse.SWEEP_EVERY == 0 and (self._sweep is None or self._sweep.done()):
                self._sweep = asyncio.create_task(pulse.sweep(self.platform, turn))
            if turn % pulse.EXPIRE_EVERY == 0:
                self._tell_of_vault()


def render_event(problem: Problem) -> bytes:
    return CLIENT.render_problem(problem, in_stream=True)


def seal(settings: Settings, store: AnyStore, environ: Mapping[str, str]) -> None:
    """Give the store what it seals: its vault, the answers that are kept for who asks again, the secrets of alerts.
    Raises ConfigError."""
    own, kept = settings.vault, settings.idempotency
    key = vault_key(settings, environ)
    if own.enabled:
        bounds = VaultBounds(own.ttl_s, own.memory_bytes_max, own.bytes_max, own.rows_max, own.account_bytes_max)
        store.seal_with(key, bounds)
    store.remember_with(key, OnceBounds(kept.ttl_s, kept.bytes_max, kept.account_bytes_max))
    store.office.alerts.seal_with(lambda: key)


def vault_key(settings: Settings, environ: Mapping[str, str]) -> str:
    """The operator's key, or that of home, which is made if it is not there. Raises ConfigError."""
    text = settings.vault.key
    if not text:
        path = settings.vault_key_path().resolve()
        try:
            key_file(path)
        except OSError as error:
            raise ConfigError(settings.file, "vault.key", f"{path} cannot be made ({error.strerror}).") from None
        text = f"file:{path}"
    key = secret(text, environ, "vault.key")
    if len(key) < VAULT_KEY_LENGTH:
        raise ConfigError(settings.file, "vault.key", f"has less than {VAULT_KEY_LENGTH} characters.")
    return key
