"""The server's part of a request, without a socket: what it makes of a body, and what the provider would be sent."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping
from typing import Any, Final

from moonpool.catalog.catalog import build
from moonpool.catalog.model import Model
from moonpool.catalog.rules import apply
from moonpool.dialects import CLIENT, DIALECTS
from moonpool.errors import Problem
from moonpool.settings import Settings
from moonpool.settings_hosts import Embedded
from moonpool.words import CHAT, Call, Target

AT: Final = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC).timestamp()
HOST: Final = "deepseek"


@functools.cache
def models() -> Mapping[str, Model]:
    settings = Settings(embedded=Embedded(enabled=False))
    return build(settings, {"DEEPSEEK_API_KEY": "sk-example"}).by_name


def raw(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def call(body: Any) -> Call:
    """The request as the server takes it. Raises Problem."""
    parsed = CLIENT.parse_call(CHAT, raw(body), "r")
    if parsed.model not in models():
        raise Problem("caller.unknown_model")
    return apply(parsed, models()[parsed.model])


def target(name: str) -> Target:
    """Where the provider serves a model."""
    return next(target for target in models()[name].targets if target.host.name == HOST)


def sent(body: Any) -> dict[str, Any]:
    """What the provider would be sent for it. Raises Problem."""
    ruled = call(body)
    where = target(ruled.model)
    found: dict[str, Any] = json.loads(DIALECTS[where.host.dialect].render_call(ruled, where).body)
    return found
