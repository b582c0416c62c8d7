"""relay/route.py: which target next."""

from __future__ import annotations

import pytest

from moonpool.errors import ERRORS, Problem
from moonpool.relay.route import next_target
from moonpool.words import Host, Target

TARGETS = tuple(Target(Host(name, "openai"), "m") for name in ("a", "b", "c"))


def test_targets_are_tried_in_order_and_never_twice() -> None:
    """Failures that another target may mend walk down the list, then the last of them is told."""
    failures: list[Problem] = []
    for target in TARGETS:
        assert next_target(TARGETS, failures) is target
        failures.append(Problem("upstream.unreachable"))
    assert next_target(TARGETS, failures) is failures[-1]


@pytest.mark.parametrize("code", sorted(code for code, row in ERRORS.items() if row.retry != "other_target"))
def test_what_another_target_cannot_mend_is_final(code: str) -> None:
    """Only rows marked `other_target` lead to another target."""
    problem = Problem(code)
    assert next_target(TARGETS, [problem]) is problem


def test_a_model_without_a_host_is_a_problem_of_ours() -> None:
    """No target at all is no fault of the caller."""
    problem = next_target((), [])
    assert isinstance(problem, Problem)
    assert problem.status == 503
