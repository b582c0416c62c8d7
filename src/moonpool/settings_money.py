"""What an operator can set about money that comes in and who is told of it; part of settings.py."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Channel(Struct, frozen=True, forbid_unknown_fields=True):
    """A payment service that may tell us that somebody paid: `[payments.NAME]`."""

    secret: Annotated[
        str, Meta(description="What its messages are signed with: env:NAME or file:/path, 32 characters at least.")
    ] = ""


class AlertSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Messages about money to addresses that accounts give."""

    private: Annotated[
        bool, Meta(description="Whether they may go to loopback and private addresses, and over plain HTTP.")
    ] = False
    every_s: Annotated[float, Meta(description="Seconds between two looks at the thresholds.", gt=0)] = 30.0
    timeout_s: Annotated[float, Meta(description="Seconds one delivery may take.", gt=0)] = 10.0
