"""What is an answer called? By the name that was asked for, whatever its host calls the model.

Where a host's own bytes are handed on, its name in them is replaced, once in each frame: found by the very bytes that
the first frame has it in, and a frame that writes it otherwise is built from its events. The id, the time and the
fingerprint of handed on bytes are the host's. A name that ends in SEARCHED says that the answer was searched for:
then so does ours (contract 4).
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from moonpool.dialects.base import Identity
from moonpool.dialects.sse import dumps
from moonpool.words import Started

SEARCHED: Final = "-aisearch"


class Names(Struct, frozen=True, gc=False):
    """What every chunk of an answer says of it."""

    id: str
    created: int
    model: str
    fingerprint: str | None


def name_of(started: Started | None) -> str | None:
    """The host's name for the model, where it says one."""
    return None if started is None else started.model


def asked_for(identity: Identity, started: Started | None) -> str:
    theirs, ours = name_of(started), identity.model
    if theirs is not None and theirs.endswith(SEARCHED) and not ours.endswith(SEARCHED):
        return ours + SEARCHED
    return ours


def settle(identity: Identity, started: Started | None, verbatim: bool) -> Names:
    """`verbatim`: the host's own bytes are handed on, so that what we add must go by its names."""
    model = asked_for(identity, started)
    if started is None:
        return Names(identity.id, identity.created, model, identity.fingerprint)
    if not verbatim:
        fingerprint = identity.fingerprint if identity.fingerprint is not None else started.fingerprint
        return Names(identity.id, identity.created, model, fingerprint)
    return Names(
        started.id or identity.id,
        started.created if started.created is not None else identity.created,
        model,
        started.fingerprint if started.fingerprint is not None else identity.fingerprint,
    )


def swap(raw: bytes, theirs: str | None, ours: str) -> tuple[bytes, bytes]:
    """The bytes to replace in every frame like `raw`, and by what; both empty where nothing is to be replaced."""
    if theirs is None or theirs == ours:
        return b"", b""
    old, new = dumps(theirs), dumps(ours)
    member = b'"model": ' if b'"model": ' + old in raw else b'"model":'
    return member + old, member + new
