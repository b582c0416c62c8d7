"""DeepSeek's own flavour: the beta path, the texts of its errors, the tools it runs itself.

Sources: PROVIDERS 1.2 and 1.11 (paths), 1.3 (server tools), 1.6 (errors: no codes, so texts are matched; transcripts
`error-*` pin them).
"""

from __future__ import annotations

from typing import Any, ClassVar

from moonpool.dialects.openai import OpenAI, option
from moonpool.dialects.request import Grammar
from moonpool.words import CHAT, Call, Target


class DeepSeek(OpenAI):
    """Options: those of OpenAI, and `beta_path` (default "/beta"): what stands before the path of what is in beta."""

    name = "deepseek"
    grammar: ClassVar[Grammar] = Grammar(server_tools=("deepseek_web_search", "deepseek_read_url"))
    texts: ClassVar[tuple[tuple[str, str], ...]] = (
        ("content exists risk", "upstream.content_risk"),
        ("maximum context length", "caller.too_long"),
        ("insufficient balance", "upstream.unpaid"),
    )

    def _path(self, call: Call, target: Target) -> str:
        if call.operation != CHAT:
            return f"{option(target, 'beta_path', '/beta')}/completions"
        if "prefix" in call.needs or _is_strict(call.fields.get("tools")):
            return f"{option(target, 'beta_path', '/beta')}/chat/completions"
        return "/chat/completions"


def _is_strict(tools: Any) -> bool:
    return any(tool["type"] == "function" and tool["function"].get("strict") for tool in tools or ())
