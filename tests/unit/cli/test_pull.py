"""Fetching weights: found where they are, linked from where they are kept, never half there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moonpool.cli import pull
from moonpool.settings import ConfigError, Settings
from moonpool.settings_hosts import Embedded
from moonpool.transports.weights import PullError

CONTENT = b"GGUF" + bytes(1000)


class Row(msgspec.Struct):
    """A row of weights that no source has."""

    name: str = "tiny"
    file: str = "tiny.gguf"
    bytes: int = len(CONTENT)
    sha256: str = hashlib.sha256(CONTENT).hexdigest()
    sources: list[Any] = []


def _shared(tmp_path: Path, content: bytes = CONTENT) -> tuple[Path, ...]:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(content)
    return (folder,)


def test_weights_of_the_shared_folder_are_linked(tmp_path: Path) -> None:
    """What this machine has elsewhere, verified, is not fetched again."""
    elsewhere = _shared(tmp_path)
    at = pull.Place(tmp_path / "home" / "weights" / "tiny.gguf", Row(), elsewhere)
    assert not at.found()
    assert pull.fetch(at, {}) == at.path
    assert at.found()
    assert at.path.read_bytes() == CONTENT
    assert not list(at.path.parent.glob("*.part"))


def test_wrong_weights_of_the_shared_folder_are_not_used(tmp_path: Path) -> None:
    """A file of the right name and size but with other content is no weights."""
    elsewhere = _shared(tmp_path, CONTENT[:-1] + b"x")
    at = pull.Place(tmp_path / "home" / "tiny.gguf", Row(), elsewhere)
    with pytest.raises(PullError):
        pull.fetch(at, {})
    assert not at.path.exists()


def test_weights_that_are_there_are_left_alone(tmp_path: Path) -> None:
    """With the verified file in place nothing is fetched, linked or said."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    before = path.stat().st_ino
    assert pull.fetch(pull.Place(path, Row()), {}) == path
    assert path.stat().st_ino == before


def test_a_file_of_ones_own_is_only_looked_at(tmp_path: Path) -> None:
    """An operator's GGUF is used where it is; it is never fetched."""
    own = tmp_path / "own.gguf"
    at = pull.place(Settings(home=str(tmp_path), embedded=Embedded(model=str(own))))
    assert at.wanted is None
    assert not at.found()
    assert pull.fetch(at, {}) == own
    own.write_bytes(CONTENT)
    assert at.found()


def test_unknown_weights_are_a_wrong_setting(tmp_path: Path) -> None:
    """A name that is neither a row nor a path is refused with the names there are."""
    with pytest.raises(ConfigError, match="there are: "):
        pull.place(Settings(home=str(tmp_path), embedded=Embedded(model="no-such")))


def test_the_first_row_is_the_default(tmp_path: Path) -> None:
    """Without a name, the catalogue's first weights are meant, in the home's folder."""
    at = pull.place(Settings(home=str(tmp_path)))
    assert at.wanted is not None
    assert at.path == tmp_path / "weights" / at.wanted.file
