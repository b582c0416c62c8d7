"""How does llama.cpp's own server speak? The dialect of the embedded model, as a host.

Rules: pure. It uses the native endpoints (`/apply-template`, `/completion`, `/infill`, `/detokenize`), not those
that imitate another API, because one answer is made of several passes here: see llamacpp_answers.py. A host with this
dialect is any llama.cpp server; its base URL has no `/v1`. Clients do not speak it: what concerns clients is
that of the plain OpenAI dialect.
Source: llama.cpp's server README (PROVIDERS 7) and what it does on the wire.
"""

from __future__ import annotations

from moonpool.dialects.base import Decoder
from moonpool.dialects.llamacpp_decoder import PassDecoder
from moonpool.dialects.llamacpp_plan import plan
from moonpool.dialects.llamacpp_wire import problem_of
from moonpool.dialects.openai import OpenAI
from moonpool.errors import Problem
from moonpool.words import Call, Headers, Outbound, Target


class LlamaCpp(OpenAI):
    """Options of a target or its host: llamacpp_plan.py."""

    name = "llamacpp"
    family = "llamacpp"
    by_name = False

    def render_call(self, call: Call, target: Target) -> Outbound:
        """The first pass. Raises Problem for what no grammar can enforce."""
        return PassDecoder(plan(call, target)).first

    def decoder(self, call: Call, target: Target) -> Decoder:
        return PassDecoder(plan(call, target))

    def parse_problem(self, status: int, headers: Headers, body: bytes) -> Problem:
        return problem_of(status, headers, body)
