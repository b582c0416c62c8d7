"""What do the requests to one twin share? A provider at work: its parts, its accounts, its script, what it says."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from moonpool.dialects.base import Dialect, Identity
from moonpool.errors import Problem
from moonpool.twin.accounts import Accounts
from moonpool.twin.backend import Backend
from moonpool.twin.faults import Faults
from moonpool.twin.log import Served, Totals
from moonpool.twin.providers import Part, Provider

SERVED_MAX: Final = 100_000
"""Records that are kept; then the older half goes. Totals go on."""


class Service:
    """A provider at work: everything that its requests share."""

    def __init__(
        self,
        provider: Provider,
        dialect: Dialect,
        parts: Mapping[str, Part],
        accounts: Accounts,
        faults: Faults,
        backend: Backend,
        *,
        clock: Callable[[], float],
        over: Callable[[Served], None],
        seed: int,
        content: bool,
    ) -> None:
        self.provider = provider
        self.dialect = dialect
        self.parts = parts
        self.accounts = accounts
        self.faults = faults
        self.backend = backend
        self.clock = clock
        self.over = over
        self.seed = seed
        self.content = content
        self.says = {**getattr(dialect, "sentences", {}), **provider.says}
        self.forbids = dialect.status_of(Problem("upstream.forbidden")) == 403
        self.served: list[Served] = []
        self.totals = Totals()

    def begin(self, served: Served) -> None:
        """A request has come."""
        self.served.append(served)
        if len(self.served) > SERVED_MAX:
            del self.served[: SERVED_MAX // 2]

    def identity(self, number: int, model: str) -> Identity:
        chance = random.Random(f"{self.seed} {number}")
        name = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        return Identity(name, int(self.clock()), model, f"fp_{chance.getrandbits(40):010x}_twin")
