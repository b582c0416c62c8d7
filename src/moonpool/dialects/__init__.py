"""WHAT WAS SAID: bytes to meaning and back, in the words of each family of clients and hosts.

A *dialect* is how a family speaks; a *flavour* is a dialect that overrides what differs at one host. Clients' bytes
become a Call, hosts' bytes become Frames of events, and both go back to bytes; an error becomes a Problem and back.
The room is pure: no I/O, no clock, no database. A host's name stands in its own file only, and here.
"""

from __future__ import annotations

from typing import Final

from moonpool.dialects.aigateway import AIGateway
from moonpool.dialects.base import Dialect
from moonpool.dialects.client import Client
from moonpool.dialects.deepseek import DeepSeek
from moonpool.dialects.lkeap import LKEAP
from moonpool.dialects.llamacpp import LlamaCpp
from moonpool.dialects.newapi import NewAPI
from moonpool.dialects.ollama import Ollama
from moonpool.dialects.openai import OpenAI
from moonpool.dialects.sglang import SgLang
from moonpool.dialects.tokenhub import TokenHub
from moonpool.dialects.vllm import Vllm

DIALECTS: Final[dict[str, Dialect]] = {
    "openai": OpenAI(),
    "deepseek": DeepSeek(),
    "lkeap": LKEAP(),
    "tokenhub": TokenHub(),
    "aigateway": AIGateway(),
    "newapi": NewAPI(),
    "llamacpp": LlamaCpp(),
    "vllm": Vllm(),
    "sglang": SgLang(),
    "ollama": Ollama(),
}

CLIENT: Final[Dialect] = Client()
"""How the clients of this server speak."""
