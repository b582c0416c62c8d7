"""Which target next, given what failed: pure.

A failure may be answered by another target only before the first meaningful frame was sent, which the caller
knows, and only when its row in the error table says so. No target is tried twice for one request.
"""

from __future__ import annotations

from collections.abc import Sequence

from moonpool.errors import Problem
from moonpool.words import Target


def next_target(targets: Sequence[Target], failures: Sequence[Problem]) -> Target | Problem:
    """The target to try after `failures` (one for each target tried so far, in order), or what to tell the client.

    When every target failed the client hears of the failure that says most: one that is final comes first, then
    the last one.
    """
    if failures and failures[-1].row.retry != "other_target":
        return failures[-1]
    tried = len(failures)
    if tried < len(targets):
        return targets[tried]
    if failures:
        return failures[-1]
    return Problem("platform.model_failed", detail="no host serves this model")
