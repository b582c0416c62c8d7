"""Format, lint and types, as tests, so that one run says everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tidy.tree import ROOT

TOOLS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "--output-format", "concise", "."],
    "types": ["mypy", "--strict", "--no-error-summary", "src"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_is_content(tool: str) -> None:
    """ruff finds every file formatted and without lint, mypy finds every type of src right."""
    done = subprocess.run(
        [sys.executable, "-m", *TOOLS[tool]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
