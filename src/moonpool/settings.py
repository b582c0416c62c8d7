"""What an operator can set: one frozen record, read once at start from `moonpool.toml`, the environment and the
command line. Each field carries its own help, bound and default; docs/reference/settings.md is generated from here.

A key that is no setting is refused with the file, the key and the nearest name there is. `[hosts.*]` and
`[models.*]` are handed to the catalogue as they stand. Sources: DESIGN 8 (names other people's scripts rely on),
RELIABILITY 3.4, 3.6 and 3.10 (limits, deadlines, what to refuse at start).
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
import typing
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from moonpool import settings_store
from moonpool.settings_edge import Edge, wrong_with_proxies
from moonpool.settings_hosts import Embedded, Routing, Upstream
from moonpool.settings_money import AlertSettings, Channel

CONFIG_NAME: Final = "moonpool.toml"


class ConfigError(ValueError):
    """The configuration cannot be used. `file` may be "" (environment, command line), `key` is dotted."""

    def __init__(self, file: str, key: str, sentence: str) -> None:
        self.file = file
        self.key = key
        self.sentence = sentence
        super().__init__(": ".join(part for part in (file, key, sentence) if part))


class Secret(str):
    """A text whose `repr` is masked, and with it every dump of a record that holds it. It is itself wherever it is
    formatted or sent; what prints records for people uses `masked`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked(self)) if self else "''"


def _of(help_text: str, **bounds: Any) -> Any:
    return Meta(description=help_text, **bounds)


class Streams(Struct, frozen=True, forbid_unknown_fields=True):
    """How streamed answers behave where a key says nothing else."""

    keepalive_s: Annotated[
        int, _of("Seconds of silence after which a client gets a comment, or a blank line; 0 for never.", ge=0)
    ] = 10
    usage: Annotated[
        Literal["finish", "chunk"],
        _of("Where a stream says its usage: on the chunk that finishes, or on a chunk of its own after it."),
    ] = "finish"
    drain_s: Annotated[
        int,
        _of("Seconds a host is read on when a stream's client left, for its exact usage; 0: it is cut at once.", ge=0),
    ] = 0
    continuation: Annotated[
        Literal["same", "on", "off"],
        _of("Whether a stream that breaks off goes on at a host with prefix completion: the same model, any, never."),
    ] = "same"
    resume_s: Annotated[float, _of("Seconds a resumable stream outlives its client; 0: not at all.", ge=0)] = 120.0
    resume_keep_s: Annotated[float, _of("Seconds a resumable stream can be fetched after its end.", ge=0)] = 300.0
    resume_bytes_max: Annotated[int, _of("Bytes kept of one of them; with no reader it ends there.", ge=65536)] = (
        8 << 20
    )
    resume_total_bytes_max: Annotated[int, _of("Bytes kept of all; the oldest ended go first.", ge=65536)] = 256 << 20


class Vault(Struct, frozen=True, forbid_unknown_fields=True):
    """The reasoning of answers, kept for clients that lose it, sealed with a key that is not in the database."""

    enabled: Annotated[bool, _of("Whether reasoning is remembered and put back where a client dropped it.")] = True
    key: Annotated[
        str, _of("What it is sealed with: env:NAME or file:/path; empty for the file vault.key in home, made at start.")
    ] = ""
    remember: Annotated[
        Literal["tools", "always"], _of("Of which answers: those to requests with tools, or of all that were thought.")
    ] = "tools"
    ttl_s: Annotated[float, _of("Seconds it is kept.", gt=0)] = 604_800.0
    memory_bytes_max: Annotated[int, _of("Bytes of it in memory; the rest is looked up.", ge=0)] = 64 * 1024 * 1024
    bytes_max: Annotated[int, _of("Bytes of it in the database; the oldest goes first.", ge=0)] = 512 * 1024 * 1024
    rows_max: Annotated[int, _of("Answers whose reasoning is in the database.", ge=0)] = 200_000
    account_bytes_max: Annotated[int, _of("Bytes of it for one account.", ge=0)] = 64 * 1024 * 1024
    user_text: Annotated[
        Literal["tagged", "all", "off"],
        _of(
            "Which text in the user's name between tool results and the answer goes into the last result: what is all "
            "tags, as programs write it; whatever it is; none."
        ),
    ] = "tagged"


class Idempotency(Struct, frozen=True, forbid_unknown_fields=True):
    """Answers to requests that carry an `Idempotency-Key`, kept for who asks again; sealed as reasoning is."""

    ttl_s: Annotated[float, _of("Seconds an answer is kept.", ge=60)] = 86_400.0
    finish_s: Annotated[float, _of("Seconds such an answer goes on without its client; 0: not at all.", ge=0)] = 120.0
    answer_bytes_max: Annotated[int, _of("Bytes of one answer; of a longer one only the end is known.", ge=1024)] = (
        8 << 20
    )
    memory_bytes_max: Annotated[int, _of("Bytes of all such answers that are being written.", ge=0)] = 256 << 20
    account_bytes_max: Annotated[int, _of("Bytes kept of one account; the oldest go first.", ge=0)] = 64 << 20
    bytes_max: Annotated[int, _of("Bytes kept of all accounts; the oldest go first.", ge=0)] = 1 << 30


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    requests: Annotated[bool, _of("Whether each request leaves a line.")] = True


class Declared(Struct, frozen=True, forbid_unknown_fields=True):
    """An account that the file declares rather than somebody clicks."""

    name: Annotated[str, _of("Name of the account.", min_length=1, max_length=100)]
    keys: Annotated[list[str], _of("Its API keys: literals, env:NAME or file:/path.")] = []
    post_paid: Annotated[bool, _of("Whether it may use more than its funds and pays afterwards.")] = False
    concurrency: Annotated[int, _of("Requests at once, over all of its keys.", ge=1)] = 100

    def secrets(self, environ: Mapping[str, str]) -> list[Secret]:
        """The keys themselves. Raises ConfigError for one that is not there, or that anybody could guess."""
        key = f"accounts.{self.name}.keys"
        found = [secret(text, environ, key) for text in self.keys]
        for text in found:
            if _GUESSED.fullmatch(text):
                raise ConfigError("", key, f"{masked(text)} is a placeholder that anybody could guess; choose a key.")
        return found


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set. `hosts`, `models`, `calendars` and `holidays` overlay the catalogue's rows."""

    home: Annotated[str, _of("Folder that holds all state. MOONPOOL_HOME says so too.")] = ""
    host: Annotated[str, _of("Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _of("Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8787
    workers: Annotated[int, _of("Processes that serve; more than one need PostgreSQL and Valkey.", ge=1)] = 1
    store: Annotated[
        str, _of("Where accounts, keys and the ledger are kept: sqlite:///FILE (relative to home), or postgresql://...")
    ] = "sqlite:///moonpool.db"
    limits: Annotated[
        str,
        _of(
            "Where limits are kept: memory:// of this process, or valkey://HOST:PORT/DB (redis://; valkeys:// and "
            "rediss:// with TLS; unix://). With a password in it: env:NAME or file:/path for the whole address."
        ),
    ] = "memory://"
    limits_call_s: Annotated[
        float, _of("Seconds a call of that store may take; one that takes longer is lost.", gt=0)
    ] = 0.1
    edge: Edge = Edge()
    streams: Streams = Streams()
    routing: Routing = Routing()
    upstream: Upstream = Upstream()
    embedded: Embedded = Embedded()
    vault: Vault = Vault()
    idempotency: Idempotency = Idempotency()
    log: Log = Log()
    alerts: AlertSettings = AlertSettings()
    accounts: list[Declared] = []
    payments: dict[str, Channel] = {}
    hosts: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}
    calendars: dict[str, dict[str, Any]] = {}
    holidays: dict[str, dict[str, dict[str, Any]]] = {}
    file: Annotated[str, _of("The file these settings were read from; set by the loader.")] = ""

    def home_path(self) -> Path:
        return Path(self.home).expanduser()

    def store_path(self) -> Path:
        """The database file. `sqlite:///name` is relative to home, `sqlite:////abs` is absolute."""
        return self.home_path() / self.store.removeprefix("sqlite:///")

    def socket_path(self) -> Path:
        return self.home_path() / "admin.sock"

    def vault_key_path(self) -> Path:
        return self.home_path() / "vault.key"

    def weights_path(self) -> Path:
        return self.home_path() / "weights"


def default_home(environ: Mapping[str, str]) -> str:
    """MOONPOOL_HOME, else the folder the XDG base directory specification gives for data."""
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "share")
    return environ.get("MOONPOOL_HOME") or str(Path(data) / "moonpool")


def make_home(settings: Settings) -> None:
    """State lives there; only its owner may look inside."""
    Path(settings.home).mkdir(parents=True, exist_ok=True, mode=0o700)


def load(path: str | Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Read the file (None: `moonpool.toml` in the working folder or in home, if there is one), then `overrides`:
    dotted names to values, None for not given. Raises ConfigError."""
    home = overrides.get("home") or default_home(environ)
    file = _find(path, Path(str(home)))
    table: dict[str, Any] = {}
    if file is not None:
        try:
            table = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(str(file), "", f"cannot be read ({error.strerror}).") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(str(file), "", f"is not TOML: {error}.") from None
    name = str(file or "")
    _known(table, Settings, name, "")
    for key, value in overrides.items():
        if value is not None:
            _put(table, key, value)
    table.setdefault("home", str(home))
    table["file"] = name
    try:
        settings = msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise explained(error, name) from None
    _sound(settings)
    return settings


_GUESSED: Final = re.compile(
    r"change-?me|secret|password|default|test|(sk-)?x*|(sk-)?your[-_ ]?(api[-_ ]?)?key|<.*>", re.IGNORECASE
)


_KINDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
}


def explained(error: msgspec.ValidationError, file: str, above: str = "") -> ConfigError:
    """The same in the words of a TOML file; `above` is the dotted name of the table that was looked at."""
    sentence, _, where = str(error).partition(" - at `$")
    sentence = re.sub(r"`(\w+)(?: \| null)?`", lambda found: _KINDS.get(found[1], found[0]), sentence)
    key = f"{above}{where.removesuffix('`')}".strip(".")
    return ConfigError(file, key, f"{sentence[0].lower()}{sentence[1:]}.")


def secret(text: str, environ: Mapping[str, str], key: str) -> Secret:
    """A secret that is given as itself, as `env:NAME` or as `file:/path`. Raises ConfigError when it is not there,
    is empty, or lies in a file that others may read."""
    kind, _, rest = text.partition(":")
    if kind == "env":
        value = environ.get(rest, "")
        if not value:
            raise ConfigError("", key, f"the environment has no {rest}.")
        return Secret(value)
    if kind == "file" and rest.startswith("/"):
        try:
            if stat.S_IMODE(os.stat(rest).st_mode) & 0o007:
                raise ConfigError("", key, f"{rest} can be read by everybody: chmod 600 it.")
            value = Path(rest).read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError("", key, f"{rest} cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError:
            raise ConfigError("", key, f"{rest} holds no text.") from None
        if not value:
            raise ConfigError("", key, f"{rest} is empty.")
        return Secret(value)
    if not text:
        raise ConfigError("", key, "is empty.")
    return Secret(text)


_WRONG: Final = {"store": settings_store.wrong_with_address, "limits": settings_store.wrong_with_limits}


def address_of(settings: Settings, environ: Mapping[str, str], key: Literal["store", "limits"]) -> str:
    """The address that a setting is, or names (env:, file:). Raises ConfigError for one that cannot be used."""
    address: str = getattr(settings, key)
    if address.startswith(settings_store.ELSEWHERE):
        address = secret(address, environ, key)
        wrong = _WRONG[key](address)
        if wrong is not None:
            raise ConfigError(settings.file, key, wrong)
    return address


def masked(text: str) -> str:
    """How a secret is shown: where it comes from, or its last four characters at most."""
    if text.startswith(("env:", "file:/")):
        return text
    return f"****{text[-4:]}" if len(text) >= 16 else "****"


def _find(path: str | Path | None, home: Path) -> Path | None:
    if path is not None:
        return Path(path)
    for folder in (Path.cwd(), home):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    return None


def _known(table: Mapping[str, Any], record: type[Struct], file: str, prefix: str) -> None:
    """Refuse keys that are no fields, with the nearest that is one."""
    hints = typing.get_type_hints(record)
    names = [name for name in hints if name != "file"]
    for key, value in table.items():
        if key not in names:
            raise ConfigError(file, f"{prefix}{key}", f"is no setting{nearest(key, names, prefix)}")
        hint = hints[key]
        if isinstance(hint, type) and issubclass(hint, Struct) and isinstance(value, Mapping):
            _known(value, hint, file, f"{prefix}{key}.")
        elif key == "payments" and isinstance(value, Mapping):
            for name, row in value.items():
                if isinstance(row, Mapping):
                    _known(row, Channel, file, f"payments.{name}.")
        elif key == "accounts" and isinstance(value, list):
            for number, row in enumerate(value):
                if isinstance(row, Mapping):
                    _known(row, Declared, file, f"accounts[{number}].")


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to add to a sentence about an unknown name: the nearest that there is, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there is: {', '.join(names) or 'none'}."


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split(".")
    for folder in folders:
        table = table.setdefault(folder, {})
        if not isinstance(table, dict):
            return  # what stands there is wrong, and will be refused
    table[last] = value


def _sound(settings: Settings) -> None:
    wrong = settings_store.wrong_with(settings.store)
    if wrong is not None:
        raise ConfigError(settings.file, "store", wrong)
    if settings.vault.key and not settings.vault.key.startswith(("env:", "file:/")):
        raise ConfigError(settings.file, "vault.key", "is written env:NAME or file:/path.")
    wrong = wrong_with_proxies(settings.edge.trusted_proxies)
    if wrong is not None:
        raise ConfigError(settings.file, "edge.trusted_proxies", wrong)
    if settings.limits != "memory://":
        elsewhere = settings.limits.startswith(settings_store.ELSEWHERE)
        wrong = None if elsewhere else settings_store.wrong_with_limits(settings.limits)
        if wrong is not None:
            raise ConfigError(settings.file, "limits", wrong)
        if find_spec("redis") is None:
            raise ConfigError(
                settings.file, "limits", 'needs the package "redis": pip install redis, or moonpool[many].'
            )
    many = settings_store.wrong_with_workers(
        settings.workers, settings.store, settings.limits, settings.embedded.enabled
    )
    if many is not None:
        raise ConfigError(settings.file, *many)
    seen: set[str] = set()
    for account in settings.accounts:
        if account.name in seen:
            raise ConfigError(settings.file, "accounts", f"{account.name} is declared twice.")
        seen.add(account.name)
