"""The AI gateway that stands in front of other hosts: its own errors. (Where the effort goes: hosts.toml.)

Its errors have no `type`; `source` tells its own (GATEWAY_ codes) from those of the host behind it, which are handed on
in that host's codes. A 502 means that every host it knows was tried (`retry_history`), so another host of ours is next.

Sources: PROVIDERS 3.2. Codes beyond the two of keys were not published: they are read by their status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from moonpool.dialects.problems import Row
from moonpool.dialects.tokenhub import TokenHub

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row(401, "", "GATEWAY_INVALID_VIRTUAL_KEY", "[G2] {message:the virtual key is invalid}", "account.invalid_key"),
    Row(0, "", "GATEWAY_INVALID_VIRTUAL_KEY", "", "account.invalid_key"),
    Row(0, "", "GATEWAY_MISSING_VIRTUAL_KEY", "", "account.invalid_key"),
)
# fmt: on


class AIGateway(TokenHub):
    """Options: those of OpenAI."""

    name = "aigateway"
    rows: ClassVar[tuple[Row, ...]] = (*_ROWS, *TokenHub.rows)

    def _error(self, row: Row, message: str) -> Mapping[str, Any]:
        own = str(row.code).startswith("GATEWAY_")
        return {
            "code": row.code,
            "message": message,
            "source": "gateway" if own else "upstream",
            "retry_history": [] if row.status == 502 else None,
        }
