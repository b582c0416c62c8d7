"""Which room may import which: one table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tidy.tree import SOURCE, name, python, tree

_BOTTOM = {"words", "errors", "later"}
_BASES = {
    "state.base",
    "state.base_admin",
    "state.base_catalogue",
    "state.base_limits",
    "state.base_prices",
    "state.base_reports",
}
_WEB = _BOTTOM | _BASES | {"settings", "relay", "catalog", "ledger", "dialects.base"}

# A room, or one module of it ("state.base"). What a room holds itself it may always import.
MAY_IMPORT: dict[str, set[str]] = {
    "words": set(),
    "errors": set(),
    "later": set(),
    "settings": {"errors", "settings_edge", "settings_hosts", "settings_money", "settings_store"},
    "settings_hosts": set(),
    "settings_edge": set(),
    "settings_money": set(),
    "settings_store": set(),
    "settings_page": {"settings"},
    "dialects": _BOTTOM,
    # Prices become amounts where they are loaded.
    "catalog": _BOTTOM | {"settings", "ledger"},
    "transports": _BOTTOM,
    "ledger": {"words", "errors"},
    "state": _BOTTOM | {"ledger"},
    "relay": _BOTTOM | _BASES | {"settings", "dialects", "catalog", "ledger", "transports.base"},
    "web": _WEB,
    "app": _WEB | {"settings_store", "dialects", "state", "transports", "web", "declared", "watchdog"},
    "watchdog": set(),
    # What is there before anybody can ask.
    "declared": _BOTTOM | _BASES | {"settings", "ledger"},
    # It plays a provider with the parts that talk to one.
    "twin": _WEB | {"dialects", "transports", "web"},
    "workers": {"app", "settings"},
    # Without a server a command is an app of its own: it checks hosts, fetches weights and reads a ledger itself.
    "cli": _WEB
    | {"web", "app", "workers", "twin", "transports.http", "transports.weights"}
    | {"state.limiters", "state.recount", "state.wholeness"},
    "__main__": {"cli"},
}

_SETTINGS = {"settings_edge", "settings_hosts", "settings_money"}
"""Parts of `settings`: who may import that may import these."""
for _may in MAY_IMPORT.values():
    _may |= _SETTINGS if "settings" in _may else set()


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def _imports(path: Path) -> list[tuple[int, str]]:
    """(line, name below `moonpool`) of everything of ours that a module imports."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are written in full"
            # `from moonpool import x` may name a room; `from moonpool.x import y` a module of it.
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return [(line, module.removeprefix("moonpool.")) for line, module in found if module.startswith("moonpool.")]


def _allowed(room: str, module: str) -> bool:
    own = {room, "__version__"}
    return any(module == may or module.startswith(may + ".") for may in MAY_IMPORT[room] | own)


@pytest.mark.parametrize("path", [path for path in python(SOURCE) if path != SOURCE / "__init__.py"], ids=name)
def test_arrows(path: Path) -> None:
    """A module imports only what its room may."""
    room = _room(path)
    assert room in MAY_IMPORT, f"the room {room} has no row in MAY_IMPORT: what may it import?"
    wrong = [
        f"{name(path)}:{line}: {room} may not import {module}"
        for line, module in _imports(path)
        if not _allowed(room, module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_vague_rooms() -> None:
    """No module is named for nothing in particular."""
    vague = {"utils", "util", "common", "helpers", "core", "models", "services", "manager", "misc"}
    # A file of cli/ is called as the command is: `moonpool models`.
    named = [path for path in python(SOURCE) if path.parent.name != "cli"]
    assert not [name(path) for path in named if path.stem in vague or path.parent.name in vague]
