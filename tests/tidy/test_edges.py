"""Everything may be caught only where our program meets something that may do anything: at named edges."""

from __future__ import annotations

import ast

from tidy.tree import SOURCE, name, python, tree

# file -> (how many broad `except`, what is on the other side). A row that says too many fails.
EDGES: dict[str, tuple[int, str]] = {
    "src/moonpool/later.py": (1, "a driven coroutine: its fault goes to `lost`, never into the event loop"),
    "src/moonpool/relay/path.py": (1, "the parts a request touches: their fault ends that request, and is logged"),
    "src/moonpool/relay/pulse.py": (1, "an answer's pulse"),
    "src/moonpool/relay/revoked.py": (1, "ending one answer: its fault must not keep the others running"),
    "src/moonpool/relay/pump.py": (3, "decoder and encoder, for head, data and end: their fault ends the attempt"),
    "src/moonpool/relay/limits.py": (1, "an answer that is told to end: its fault must not cost others the news"),
    "src/moonpool/state/valkey_link.py": (1, "a library that speaks to a store: whatever it raises, somebody waits"),
    "src/moonpool/state/pgwrite.py": (1, "one of many that are written together: its fault must not keep the others"),
    "src/moonpool/state/thread.py": (1, "a job of the store's thread: its fault goes to who asked for it"),
    "src/moonpool/transports/connection.py": (1, "the sink: its fault must not cost the connection's bookkeeping"),
    "src/moonpool/transports/exchange.py": (1, "the sink: its fault must not reach the event loop"),
    "src/moonpool/transports/llama_child.py": (1, "llama.cpp in the child: whatever it is, the parent reads it"),
    "src/moonpool/web/admin/door.py": (1, "an admin route: its fault becomes an answer and a line in the log"),
    "src/moonpool/web/protocol.py": (2, "the handler of a request, and a connection's tick"),
}


def _broad(handler: ast.ExceptHandler) -> bool:
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False  # it tidies up and lets everything through
    caught = handler.type
    parts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        part is None or (isinstance(part, ast.Name) and part.id in {"Exception", "BaseException"}) for part in parts
    )


def test_broad_excepts_are_listed() -> None:
    """`except Exception` stands at the listed edges, as often as the list says and nowhere else."""
    found: dict[str, int] = {}
    for path in python(SOURCE):
        count = sum(isinstance(node, ast.ExceptHandler) and _broad(node) for node in ast.walk(tree(path)))
        if count:
            found[name(path)] = count
    assert found == {path: count for path, (count, _) in EDGES.items()}
