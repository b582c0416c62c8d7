"""Commands start quickly: what only a server needs is not imported for one that asks the server."""

from __future__ import annotations

import subprocess
import sys


def test_a_command_imports_nothing_of_the_server() -> None:
    """A database, dialects and transports take longer to import than all that a command does."""
    heavy = ("sqlalchemy", "uvloop", "httptools", "moonpool.app", "moonpool.dialects", "moonpool.state", "rich.table")
    program = f"import sys, moonpool.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
