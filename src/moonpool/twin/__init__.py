"""WHAT WOULD THAT PROVIDER SAY? A provider played strictly on a port of one's own, with faults by script and a witness.

*Strictly*: its paths and only those, its refusals word for word, its rules where the server itself forgives. The twin
speaks through the server's own dialects, catalogue and HTTP: a request is parsed, ruled and answered by the code that
talks to the real provider, only the other way round. What one provider does otherwise is data (providers.toml), never
a branch on its name. *Answers* come from transcripts (answers/, or a folder of the user's own) or from the embedded
model; a *fault* is a row of a script; *served* is what the twin saw, did, and would have billed.
The room keeps no money, knows no accounts but those that keys name, and forgets everything when it stops.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from moonpool.twin.log import Served
    from moonpool.twin.twin import Twin, threaded

__all__ = ["Served", "Twin", "threaded"]
_WHERE: Final = {"Served": "moonpool.twin.log", "Twin": "moonpool.twin.twin", "threaded": "moonpool.twin.twin"}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: commands want the names of providers, and not the server that a twin is."""
    if name not in _WHERE:
        raise AttributeError(name)
    return getattr(import_module(_WHERE[name]), name)
