"""How the clients of this server speak: DeepSeek's API, with errors of this server's own.

A provider's flavour says an error as that provider does, so that it can be played; our clients read CONTRACT 5.
"""

from __future__ import annotations

from moonpool.dialects import problems
from moonpool.dialects.deepseek import DeepSeek
from moonpool.errors import Problem


class Client(DeepSeek):
    """A dialect (dialects.base)."""

    name = "client"

    def render_problem(self, problem: Problem, *, in_stream: bool) -> bytes:
        return problems.render_problem(problem, in_stream=in_stream)

    def status_of(self, problem: Problem) -> int:
        return problem.status
