"""A call's fields while rules change them: copied at the first change, each change with its receipt.

Two kinds of changes: one that says the same in other words (`receipt`), and one after which something that the client
said is no longer so (`adapt`). A key whose switch `conflicts` is `refuse` gets an error instead of the second kind.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from moonpool.errors import conflict


class Draft(Struct, gc=False):
    """`own`: `fields` is a copy."""

    fields: dict[str, Any]
    adjusted: tuple[str, ...]
    refuse: bool
    own: bool = False

    def set(self, name: str, value: Any) -> None:
        if not self.own:
            self.fields = dict(self.fields)
            self.own = True
        self.fields[name] = value

    def drop(self, name: str) -> None:
        if not self.own:
            self.fields = dict(self.fields)
            self.own = True
        del self.fields[name]

    def receipt(self, text: str) -> None:
        """The same in other words."""
        self.adjusted += (text,)

    def adapt(self, receipt: str, param: str, message: str | None = None) -> None:
        """What `param` said is no longer so. Raises Problem("caller.unsupported") where the key refuses that; `message`
        is the sentence of hosts that refuse it too."""
        if self.refuse:
            raise conflict(receipt, param, message)
        self.adjusted += (receipt,)
