"""What SQLite asks of its files, seen call by call, in the very library that Python's own sqlite3 uses.

While `watched(folder)` runs, each write, sync and truncation of a file in `folder` is a line of its log, and `fail`
may turn any call into an I/O error. No copy of SQLite with hooks is needed: the table of functions that the library
itself calls through (`sqlite3_vfs`, `sqlite3_io_methods`) is public, and ctypes may put others into it.

`Log.killed(at)` are the files as a process leaves them that is killed after so many calls: the system has all it was
given. `Log.cut(at, chance)` are those after a power cut: what was synced is there, of what was not each sector of 512
bytes may be there or not, so that later writes may have arrived before earlier ones. The shared-memory file is of the
living only; a directory's entries count as durable.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import random
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from msgspec import Struct

IOERR_READ, IOERR_WRITE, IOERR_FSYNC, FULL = 266, 778, 1034, 13
SECTOR = 512

_Read = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
# Names as addresses: SQLite keeps the one it gave, so the very same must be passed on.
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)


class _Methods(Structure):
    """sqlite3_io_methods, version 3 or older."""

    _fields_ = [
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", c_void_p), ("truncate", c_void_p),
        ("sync", c_void_p), *((f"other{at}", c_void_p) for at in range(13)),
    ]  # fmt: skip


class _File(Structure):
    _fields_ = [("methods", POINTER(_Methods))]


class _Vfs(Structure):
    """sqlite3_vfs, as far as we need it."""

    _fields_ = [
        ("version", c_int), ("size", c_int), ("path_max", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", c_void_p), ("delete", c_void_p),
    ]  # fmt: skip


class Call(Struct):
    """`kind` is write, truncate, sync or delete; a deletion's `offset` says whether the folder was synced."""

    kind: str
    file: str
    offset: int = 0
    data: bytes = b""


class Log:
    """`fail(kind, file)`: 0, or the code a call is answered with; asked of reads as well. `begun` are the files as they
    were before the first call."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[Call] = []
        self.fail: Callable[[str, str], int] = lambda kind, file: 0
        self.begun = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}

    def killed(self, at: int) -> dict[str, bytes]:
        return self._files(self.calls[:at], lambda index, call: True, None)

    def cut(self, at: int, chance: random.Random) -> dict[str, bytes]:
        calls = self.calls[:at]
        synced = {call.file: index for index, call in enumerate(calls) if call.kind == "sync"}
        return self._files(calls, lambda index, call: index < synced.get(call.file, -1), chance)

    def _files(
        self, calls: list[Call], sure: Callable[[int, Call], bool], chance: random.Random | None
    ) -> dict[str, bytes]:
        files = {name: bytearray(data) for name, data in self.begun.items()}
        for index, call in enumerate(calls):
            data = files.setdefault(call.file, bytearray())
            certain = chance is None or sure(index, call)
            if call.kind == "delete" and (certain or call.offset or chance.random() < 0.5):  # type: ignore[union-attr]
                del files[call.file]
            if call.kind == "truncate" and (certain or chance.random() < 0.5):  # type: ignore[union-attr]
                del data[call.offset :]
            elif call.kind == "write":
                for start in range(0, len(call.data), SECTOR):
                    if certain or chance.random() < 0.5:  # type: ignore[union-attr]
                        piece = call.data[start : start + SECTOR]
                        begin = call.offset + start
                        data.extend(bytes(max(0, begin - len(data))))
                        data[begin : begin + len(piece)] = piece
        return {name: bytes(data) for name, data in files.items()}


def lay(files: dict[str, bytes], folder: Path) -> Path:
    """These files in a new folder; the database among them."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / "m.db"


_KEPT: list[Any] = []
"""SQLite calls these for as long as a file is open: they may never be collected."""


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Log]:
    """Files in `folder` that are opened within are watched until they are closed."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None).contents
    genuine, genuine_delete = vfs.open, vfs.delete
    real, real_delete = _Open(genuine), _Delete(genuine_delete)
    log = Log(folder)

    def opened(vfs_pointer: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = int(real(vfs_pointer, name, file, flags, out))
        path = Path(ctypes.string_at(name).decode()) if name else None
        if result == 0 and path is not None and path.parent == folder and not path.name.endswith("-shm"):
            handle = ctypes.cast(file, POINTER(_File)).contents
            methods = _methods(handle.methods.contents, path.name, log)
            _KEPT.append(methods)
            handle.methods = ctypes.pointer(methods)
        return result

    def deleted(vfs_pointer: int, name: int, synced: int) -> int:
        path = Path(ctypes.string_at(name).decode())
        if path.parent == folder and path.exists() and not path.name.endswith("-shm"):
            log.calls.append(Call("delete", path.name, synced))
        return int(real_delete(vfs_pointer, name, synced))

    hooks = _Open(opened), _Delete(deleted)
    _KEPT.extend(hooks)
    vfs.open, vfs.delete = (ctypes.cast(hook, c_void_p).value for hook in hooks)
    try:
        yield log
    finally:
        vfs.open, vfs.delete = genuine, genuine_delete


def _methods(real: _Methods, name: str, log: Log) -> _Methods:
    """A table like `real` that tells the log first."""
    read, write, truncate = _Read(real.read), _Read(real.write), _Truncate(real.truncate)

    def on_read(file: int, data: int, count: int, offset: int) -> int:
        return log.fail("read", name) or int(read(file, data, count, offset))

    def on_write(file: int, data: int, count: int, offset: int) -> int:
        failed = log.fail("write", name)
        if failed:
            return failed
        log.calls.append(Call("write", name, offset, ctypes.string_at(data, count)))
        return int(write(file, data, count, offset))

    def on_truncate(file: int, size: int) -> int:
        failed = log.fail("truncate", name)
        if failed:
            return failed
        log.calls.append(Call("truncate", name, size))
        return int(truncate(file, size))

    def on_sync(file: int, flags: int) -> int:
        failed = log.fail("sync", name)
        if failed:
            return failed
        # Not carried out: what a sync is for is played, and the test's disk is spared.
        log.calls.append(Call("sync", name))
        return 0

    ours = _Methods.from_buffer_copy(real)
    for field, hook in (
        ("read", _Read(on_read)),
        ("write", _Read(on_write)),
        ("truncate", _Truncate(on_truncate)),
        ("sync", _Sync(on_sync)),
    ):
        _KEPT.append(hook)
        setattr(ours, field, ctypes.cast(hook, c_void_p))
    return ours
