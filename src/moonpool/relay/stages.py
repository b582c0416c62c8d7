"""The stages of a request as a table: what each asks, what may go wrong there and what that means.

`path.py` walks them in this order and a trip remembers where it is, so a log line says in which stage a request
ended; the error page and the picture in ARCHITECTURE.md are drawn from the same rows.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

Ledger = Literal["none", "hold", "open", "resolved"]


class Stage(Struct, frozen=True):
    """`fails`: prefixes of error codes that can arise here; `elsewhere`: another target may be tried;
    `ledger`: what the books hold for this request once the stage is over."""

    name: str
    question: str
    fails: tuple[str, ...]
    elsewhere: bool
    ledger: Ledger


STAGES: Final = (
    Stage("read", "Is it whole, in time and not too large?", ("caller.",), False, "none"),
    Stage("authenticate", "Whose key is it?", ("account.", "platform."), False, "none"),
    Stage("parse", "What is asked?", ("caller.",), False, "none"),
    Stage("resolve", "Which model, by which rules, at which hosts?", ("caller.", "account."), False, "none"),
    Stage("admit", "May this account run one more?", ("account.", "platform."), False, "none"),
    Stage("hold", "Is the money set aside, durably?", ("account.", "platform."), False, "hold"),
    Stage("open", "Which host begins to answer?", ("upstream.", "platform.", "caller.", "account."), True, "open"),
    Stage(
        "pump", "Does the answer reach the client?", ("upstream.", "platform.", "caller.", "account."), False, "open"
    ),
    Stage("settle", "What was used, and what does it cost?", (), False, "resolved"),
)

READ, AUTHENTICATE, PARSE, RESOLVE, ADMIT, HOLD, OPEN, PUMP, SETTLE = (stage.name for stage in STAGES)
