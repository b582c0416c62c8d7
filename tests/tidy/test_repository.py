"""What may not stand in the repository: secrets, addresses of registries, places of one machine; and what must."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tidy.tree import ROOT, files, name, text

# A key that could be real: long enough, and not of the same few letters. What tests and pages show says what it is.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|AKID[A-Za-z0-9]{28,}|gh[pousr]_[A-Za-z0-9]{30,}|hf_[A-Za-z0-9]{30,})"
)
_PLAIN = re.compile(r"example|test|dummy|fake|wrong|your|0000|xxxx|1234|abcdef|aaaa", re.IGNORECASE)
_PRIVATE = re.compile("-----BEGIN [A-Z ]*PRIVATE " + "KEY-----")

# Put together here, so that this file does not hold what it forbids.
_REGISTRIES = tuple(
    "".join(parts)
    for parts in (
        ("pypi", ".org"),
        ("files.python", "hosted.org"),
        ("registry.", "npmjs.org"),
        ("registry.", "npmmirror.com"),
        ("mirrors.", "tencent"),
        ("mirrors.", "aliyun"),
        ("tuna.", "tsinghua"),
        ("--index", "-url "),
        ("--extra-index", "-url"),
        ("--find", "-links "),
    )
)
_MACHINE = tuple(
    "".join(parts) for parts in (("/work", "/main"), ("/work", "/shared"), ("/root", "/.pyenv"), ("/opt", "/wheels"))
)

_TEXTS = [path for path in files() if text(path) is not None]


def _entropic(key: str) -> bool:
    return len(set(key)) >= 14 and not _PLAIN.search(key)


@pytest.mark.parametrize("path", _TEXTS, ids=name)
def test_no_secret(path: Path) -> None:
    """No file holds what looks like a real key."""
    content = text(path) or ""
    assert not [key[:10] + "…" for key in _KEY.findall(content) if _entropic(key)]
    assert not _PRIVATE.search(content)


def test_the_search_for_secrets_finds_one() -> None:
    """The shape of our own keys and of the providers' would be found."""
    for key in ("sk-" + "mp-Zk3vQ9xLw2Rt7YbNc5PdGh8JmSf4", "AKID" + "z8krbsJ5yKBZQpn74WFkmLPx3gnPhESA"):
        assert _KEY.fullmatch(key)
        assert _entropic(key)


@pytest.mark.parametrize("path", _TEXTS, ids=name)
def test_no_address_of_this_world(path: Path) -> None:
    """No registry's address and no path of one machine: any mirror and any machine must serve."""
    content = text(path) or ""
    assert not [mark for mark in (*_REGISTRIES, *_MACHINE) if mark in content]


def _names(lines: list[str]) -> set[str]:
    return {line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))}


def test_requirements_mirror_the_project() -> None:
    """requirements/*.in list what pyproject.toml does, and the build backend besides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = _names((ROOT / "requirements/run.in").read_text().splitlines())
    test = _names((ROOT / "requirements/test.in").read_text().splitlines())
    assert run == set(project["project"]["dependencies"]) | set(project["build-system"]["requires"])
    assert test == set(project["project"]["optional-dependencies"]["test"])


def _pins(lock: str) -> dict[str, int]:
    """name==version (and marker) -> how many hashes it has."""
    pins: dict[str, int] = {}
    last = ""
    for line in (ROOT / lock).read_text().splitlines():
        if line.startswith("    --hash="):
            pins[last] += 1
        elif line and not line.startswith((" ", "#")):
            last = line.rstrip("\\ ")
            pins[last] = 0
    return pins


def test_locks_are_whole() -> None:
    """Every pinned package has hashes and no address; what runs is what is tested."""
    run, test = _pins("requirements/run.txt"), _pins("requirements/test.txt")
    assert run
    assert all(run.values())
    assert all(test.values())
    assert set(run) <= set(test)
    assert "://" not in (ROOT / "requirements/run.txt").read_text() + (ROOT / "requirements/test.txt").read_text()


def test_the_npm_lock_has_no_address() -> None:
    """npm's lock pins by integrity, not by where a package came from."""
    lock = json.loads((ROOT / "tests/journeys/node/package-lock.json").read_text())
    for place, package in lock["packages"].items():
        assert "resolved" not in package
        assert not place or package["integrity"].startswith("sha512-")


_FRAGMENT = re.compile(r"^[a-z0-9][a-z0-9-]*\.(added|changed|fixed|removed|security)\.md$")


def test_changelog_fragments() -> None:
    """A fragment is changelog.d/<what>.<added, changed, fixed, removed or security>.md: sentences for users."""
    folder = ROOT / "changelog.d"
    for path in files():
        if path.parent == folder and path.name not in {".gitkeep", "README.md"}:
            assert _FRAGMENT.match(path.name), f"{path.name}: <what>.<added|changed|fixed|removed|security>.md"
            content = (text(path) or "").strip()
            assert content.endswith((".", "!", "`")), f"{path.name} ends in the middle of a sentence"
            assert not content.startswith("#"), f"{path.name} has a heading; the kind is in its name"
