"""Counters a request leaves behind: plain integers in dictionaries, read when somebody asks for /metrics.

Labels are bounded: models and hosts are the catalogue's own rows, a name that is no row is counted as "".
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from moonpool.words import Usage

CLASSES: Final = ("prompt_miss", "prompt_hit", "completion", "reasoning")
COUNTS_MAX: Final = 10_000
OTHER: Final = "other"
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Counts of spans (seconds) by upper bound, with their sum."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, span_s: float) -> None:
        self.counts[bisect_left(BUCKETS_S, span_s)] += 1
        self.sum_s += span_s


class Meters:
    """`requests[(model, host, status)]`, `tokens[(model, class)]`, `causes[cause]`, `thoughts[what]` (reasoning that
    was `kept`, `restored`), and two histograms."""

    __slots__ = ("_counts", "first_byte", "thoughts", "total")

    def __init__(self) -> None:
        # (model, host, status, cause) -> requests, then tokens by CLASSES: one place to find for each request.
        self._counts: dict[tuple[str, str, int, str], list[int]] = {}
        self.thoughts = {"kept": 0, "restored": 0}
        self.first_byte = Histogram()
        self.total = Histogram()

    def count(
        self, model: str, host: str, status: int, cause: str, first_s: float | None, total_s: float, usage: Usage
    ) -> None:
        counts = self._counts.get((model, host, status, cause)) or self._new(model, host, status, cause)
        counts[0] += 1
        if usage.completion or usage.prompt_miss or usage.prompt_hit:
            counts[1] += usage.prompt_miss
            counts[2] += usage.prompt_hit
            counts[3] += usage.completion
            counts[4] += usage.reasoning
        self.total.add(total_s)
        if first_s is not None:
            self.first_byte.add(first_s)

    def _new(self, model: str, host: str, status: int, cause: str) -> list[int]:
        """A place for what was not seen before. Finish reasons are the hosts' words, which may be any number."""
        name = (model, host, status, cause if len(self._counts) < COUNTS_MAX else OTHER)
        return self._counts.setdefault(name, [0, 0, 0, 0, 0])

    @property
    def requests(self) -> dict[tuple[str, str, int], int]:
        """By model, host and status."""
        found: dict[tuple[str, str, int], int] = {}
        for (model, host, status, _), counts in self._counts.items():
            found[model, host, status] = found.get((model, host, status), 0) + counts[0]
        return found

    @property
    def causes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (*_, cause), counts in self._counts.items():
            found[cause] = found.get(cause, 0) + counts[0]
        return found

    @property
    def tokens(self) -> dict[tuple[str, str], int]:
        """By model and class; what never came is not there."""
        found: dict[tuple[str, str], int] = {}
        for (model, *_), counts in self._counts.items():
            for kind, count in zip(CLASSES, counts[1:], strict=True):
                if count:
                    found[model, kind] = found.get((model, kind), 0) + count
        return found
