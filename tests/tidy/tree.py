"""What tidy tests look at: the files of this repository, and what its Python says."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "moonpool"

# Where there is no git (a tarball), these are what it would have ignored.
_MADE = {".venv", ".git", "__pycache__", "node_modules", ".ruff_cache", ".mypy_cache", ".hypothesis", "build", "dist"}


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or could be added now, as absolute paths."""
    # The tree may belong to another user than the one who tests (root in a container).
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not _MADE & set(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in set(paths) if path.is_file()))


def python(under: Path) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.is_relative_to(under)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text(path: Path) -> str | None:
    """The file as text, or None for what is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def docstrings(path: Path) -> set[int]:
    """The ids of the nodes that are strings standing alone: docstrings, and texts under a field."""
    return {
        id(node.value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
