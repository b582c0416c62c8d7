"""What may be typed of a key's limits, and what becomes of them: the `limits` of the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from moonpool.cli.options import moment

ANY: Final = "any"
NONE: Final = "none"

Expires = Annotated[
    str | None, typer.Option(help="When it ends: 30d, 2027-01-31 (that day's end), '2027-01-31 18:00', or never.")
]
Models = Annotated[list[str] | None, typer.Option("--model", help="A model it may use, or any. May be given again.")]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--address", help="An address or network it works from, like 10.0.0.0/8, or any. May be given again."),
]
Requests = Annotated[
    int | None, typer.Option("--requests", min=0, help="Requests in a minute; 0: no limit of its own.")
]
Tokens = Annotated[int | None, typer.Option("--tokens", min=0, help="Tokens in a minute; 0: no limit of its own.")]
Concurrency = Annotated[int | None, typer.Option(min=0, help="Requests at once; 0: no limit of its own.")]
PerDay = Annotated[str | None, typer.Option(help="Money in a day of Beijing, like 12.50, or none: no limit.")]
PerMonth = Annotated[str | None, typer.Option(help="Money in a month of Beijing, like 12.50, or none: no limit.")]


class Typed(Struct):
    """What was typed; None is what was not."""

    expires: str | None
    models: list[str] | None
    addresses: list[str] | None
    requests: int | None
    tokens: int | None
    concurrency: int | None
    per_day: str | None
    per_month: str | None

    def over(self, limits: Mapping[str, Any] | None, now: float) -> dict[str, Any] | None:
        """The limits of a key as the admin API has them, with what was typed instead; None: none at all. Raises
        typer.BadParameter."""
        merged = dict(limits or {})
        if self.expires is not None:
            merged["expires_at"] = moment(self.expires, now)
        for name, values in (("models", self.models), ("addresses", self.addresses)):
            if values is not None:
                merged[name] = [] if ANY in values else values
        rates = {
            "requests_per_minute": self.requests,
            "tokens_per_minute": self.tokens,
            "concurrency": self.concurrency,
        }
        merged |= {name: value for name, value in rates.items() if value is not None}
        for name, amount in (("day", self.per_day), ("month", self.per_month)):
            if amount is not None:
                merged[name] = None if amount == NONE else amount
        return merged if any(value not in (None, 0, []) for value in merged.values()) else None


def spoken(limits: Mapping[str, Any] | None, when: Any) -> str:
    """For people, in a line; `when` writes a moment."""
    if not limits:
        return ""
    parts = {
        "until": None if limits.get("expires_at") is None else when(limits["expires_at"]),
        "models": ",".join(limits.get("models") or ()),
        "from": ",".join(limits.get("addresses") or ()),
        "requests/min": limits.get("requests_per_minute"),
        "tokens/min": limits.get("tokens_per_minute"),
        "at once": limits.get("concurrency"),
        "a day": limits.get("day"),
        "a month": limits.get("month"),
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items() if value)
