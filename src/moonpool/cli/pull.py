"""Fetching the embedded model's weights, with something to look at meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from moonpool import catalog
from moonpool.cli import show
from moonpool.cli.desk import Refused
from moonpool.settings import ConfigError, Settings, make_home
from moonpool.transports import weights

PLAIN_EVERY_S: Final = 5.0


class Place(Struct, frozen=True):
    """Which weights settings mean, and where: `wanted` is None for a file of the operator's own; `elsewhere` are
    other folders where they may be already."""

    path: Path
    wanted: weights.Weights | None
    elsewhere: tuple[Path, ...] = ()

    def found(self) -> bool:
        """Is it there, and what it should be?"""
        if self.wanted is None:
            return self.path.is_file()
        return weights.find(self.wanted, [self.path.parent]) is not None


def place(settings: Settings, name: str = "", folder: Path | None = None) -> Place:
    """`name` is a row of the catalogue's weights or a path; empty for what the settings say. Raises ConfigError."""
    name = name or settings.embedded.model
    rows = catalog.weights_rows()
    row = next((row for row in rows if row.name == name or not name), None)
    if row is not None:
        own = settings.weights_path()
        return Place((folder or own) / row.file, row, (own, shared_folder(os.environ)))
    if "/" in name or name.endswith(".gguf"):
        return Place(Path(name).expanduser(), None)
    known = ", ".join(row.name for row in rows)
    raise ConfigError(settings.file, "embedded.model", f"there are no weights {name!r}; there are: {known}.")


def shared_folder(environ: Mapping[str, str]) -> Path:
    """Where weights are kept beyond one home: for tests, and for the next home."""
    return Path(environ.get("MOONPOOL_WEIGHTS") or "~/.cache/moonpool/weights").expanduser()


def ready(settings: Settings) -> Path:
    """Where the weights that the settings mean are, which are fetched if they are not there. Raises Refused, OSError,
    ConfigError."""
    make_home(settings)
    try:
        return fetch(place(settings), os.environ)
    except weights.PullError as error:
        raise Refused(str(error)) from None


def fetch(at: Place, environ: Mapping[str, str]) -> Path:
    """See that the file is there: linked from elsewhere on this machine, or fetched. Raises PullError, OSError."""
    wanted = at.wanted
    if wanted is None or at.found():
        return at.path
    folder = at.path.parent
    known = weights.find(wanted, at.elsewhere)
    if known is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _link(known, at.path)
        return at.path
    show.note(f"fetching {wanted.file} ({wanted.bytes >> 20} MiB) into {folder}")
    with _progress(wanted) as progress:
        return weights.pull(wanted, folder, progress, environ)


def _link(source: Path, path: Path) -> None:
    """The same file at another place; a copy where the place is on another disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(wanted: weights.Weights) -> Iterator[weights.Progress]:
    if not sys.stderr.isatty():
        yield _plain()
        return
    columns: tuple[Any, ...] = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=wanted.bytes)

        def update(done: int, total: int, doing: str) -> None:
            bar.update(task, completed=min(done, total), total=total, description=doing)

        yield update


def _plain() -> weights.Progress:
    """For logs: a line now and then instead of a bar."""
    said_at = 0.0

    def update(done: int, total: int, doing: str) -> None:
        nonlocal said_at
        now = time.monotonic()
        if now - said_at >= PLAIN_EVERY_S:
            said_at = now
            show.note(f"{doing}: {done >> 20} of {total >> 20} MiB")

    return update
