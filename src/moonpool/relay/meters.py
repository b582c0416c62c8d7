"""Counters a request leaves behind: plain integers in dictionaries, read when somebody asks for /metrics.

Labels are bounded: models and hosts are the catalogue's own rows, a name that is no row is counted as "".
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from moonpool.words import Usage

CLASSES: Final = ("prompt_miss", "prompt_hit", "completion", "reasoning")
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

    __slots__ = ("_tokens", "causes", "first_byte", "requests", "thoughts", "total")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self._tokens: dict[str, list[int]] = {}
        self.causes: dict[str, int] = {}
        self.thoughts = {"kept": 0, "restored": 0}
        self.first_byte = Histogram()
        self.total = Histogram()

    def count(self, model: str, host: str, status: int, cause: str, first_s: float | None, total_s: float) -> None:
        name = (model, host, status)
        self.requests[name] = self.requests.get(name, 0) + 1
        self.causes[cause] = self.causes.get(cause, 0) + 1
        self.total.add(total_s)
        if first_s is not None:
            self.first_byte.add(first_s)

    def count_tokens(self, model: str, usage: Usage) -> None:
        counts = self._tokens.get(model)
        if counts is None:
            counts = self._tokens[model] = [0, 0, 0, 0]
        counts[0] += usage.prompt_miss
        counts[1] += usage.prompt_hit
        counts[2] += usage.completion
        counts[3] += usage.reasoning

    @property
    def tokens(self) -> dict[tuple[str, str], int]:
        """By model and class; what never came is not there."""
        return {
            (model, kind): count
            for model, counts in self._tokens.items()
            for kind, count in zip(CLASSES, counts, strict=True)
            if count
        }
