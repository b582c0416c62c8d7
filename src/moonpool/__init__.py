"""Moonpool: a self-hosted, OpenAI-compatible API platform for DeepSeek models."""

__version__ = "0.1.0"
