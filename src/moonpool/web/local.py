"""How do commands on this machine reach the server? Through a Unix socket in its home, by the paths of the admin API.

Imports nothing of the server: commands that it answers would wait for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ADMIN: Final = "/admin/v1"
BACKLOG: Final = 2048
# The address of a Unix socket holds 107 bytes on Linux and 103 elsewhere.
_ADDRESS_BYTES_MAX: Final = 100


def listen_at(path: Path) -> socket.socket:
    """A Unix socket for our own user. One that a killed process left is replaced, a living one never."""
    with short_address(path) as address:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(address)
                except ConnectionRefusedError:
                    path.unlink()
                else:
                    raise OSError(errno.EADDRINUSE, f"somebody listens at {path}")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o177)
            try:
                sock.bind(address)
            finally:
                os.umask(before)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for `path` that the system takes: a long one goes through the descriptor of its folder."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
