"""The books: what was held, how it ended, what moved, and what is derived from that.

Rules: rows of `holds`, `reservations`, `resolutions`, `transfers`, `deposits`, `packs` and `settlements` are written
once and never changed. `balances`, `pack_balances`, `spent`, `usage` and `totals` are derived from them, written in
the same transaction, and can be computed anew from them at any time.

A hold has a number, `seq`, besides its id: resolutions and transfers then hang on an integer, which is the cheapest
key SQLite has, and all that may still be open lies in one range of it (`totals.first_open`).

Amounts are pico-units (10^-12) of the row's currency, times Unix seconds. The "currency" of a transfer out of a pack is
the pack's unit, and its amount counts whole units.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Boolean, Column, Index, Integer, Table, UniqueConstraint

from moonpool.state.columns import key_number, key_text, metadata, moment, number, text_column

holds: Final = Table(
    "holds",
    metadata,
    key_number("seq"),
    text_column("id", unique=True),
    text_column("account"),
    text_column("key_id"),
    text_column("model"),
    text_column("host"),
    number("amount_pico"),
    text_column("currency"),
    moment("created_at"),
    moment("expires_at"),
    number("node", server_default="1"),
)
"""`amount_pico` is what of money is set aside; `node` the row of `totals` of the process that holds."""

reservations: Final = Table(
    "reservations", metadata, key_number("seq"), key_text("what"), number("units"), sqlite_with_rowid=False
)
"""What a hold sets aside besides money: units of `pack:ID`, and pico-units of the limits of its key, `day:START` and
`month:START`."""

resolutions: Final = Table(
    "resolutions",
    metadata,
    key_number("hold_seq"),
    text_column("kind"),
    number("prompt_miss"),
    number("prompt_hit"),
    number("completion"),
    number("reasoning"),
    Column("estimated", Boolean, nullable=False),
    number("owed_pico"),
    number("cost_pico"),
    text_column("host"),
    text_column("cause"),
    Column("attempts", Integer, nullable=False),
    moment("resolved_at"),
    number("searches", server_default="0"),
    text_column("price", server_default=""),
)
"""`price` names the version of the price that the client pays."""

transfers: Final = Table(
    "transfers",
    metadata,
    key_number("seq"),
    Column("leg", Integer, primary_key=True, autoincrement=False),
    text_column("debit"),
    text_column("credit"),
    number("amount_pico"),
    text_column("currency"),
    sqlite_with_rowid=False,
)
"""`seq` is that of the hold, deposit, pack or settlement whose transfer it is."""

deposits: Final = Table(
    "deposits",
    metadata,
    key_number("seq"),
    text_column("id", unique=True),
    text_column("account"),
    text_column("fund"),
    number("amount_pico"),
    text_column("currency"),
    text_column("note"),
    moment("created_at"),
)

packs: Final = Table(
    "packs",
    metadata,
    key_number("seq"),
    text_column("id", unique=True),
    text_column("account"),
    text_column("kind"),
    text_column("product"),
    text_column("unit"),
    number("units"),
    text_column("note"),
    moment("bought_at"),
    moment("expires_at"),
)
"""`kind` is `trial` or `paid`; `unit` is `tokens` or `calls`."""

settlements: Final = Table(
    "settlements",
    metadata,
    key_number("seq"),
    text_column("account"),
    text_column("currency"),
    number("hour"),
    number("amount_pico"),
    moment("created_at"),
    UniqueConstraint("account", "currency", "hour"),
)
"""What was post-paid until the end of an `hour` (hours since 1970) and was then taken from what was topped up."""

balances: Final = Table(
    "balances",
    metadata,
    key_text("account"),
    key_text("currency"),
    number("granted_pico"),
    number("topped_up_pico"),
    number("held_pico"),
    number("post_paid_pico", server_default="0"),
    sqlite_with_rowid=False,
)

pack_balances: Final = Table(
    "pack_balances", metadata, key_text("pack"), number("used"), number("held"), sqlite_with_rowid=False
)

spent: Final = Table(
    "spent",
    metadata,
    key_text("key_id"),
    key_text("currency"),
    key_text("span"),
    key_number("start"),
    number("spent_pico"),
    number("held_pico"),
    sqlite_with_rowid=False,
)
"""What a key with a limit of money has spent and holds in a `span` (`day`, `month`); only of keys that have one."""

usage: Final = Table(
    "usage",
    metadata,
    key_text("span"),
    key_number("start"),
    key_text("account"),
    key_text("key_id"),
    key_text("model"),
    key_text("host"),
    key_text("currency"),
    key_text("cost_currency"),
    number("requests"),
    number("posted"),
    number("estimated"),
    number("prompt_miss"),
    number("prompt_hit"),
    number("completion"),
    number("reasoning"),
    number("searches"),
    number("pack_units"),
    number("owed_pico"),
    number("granted_pico"),
    number("topped_up_pico"),
    number("cost_pico"),
    Index("usage_of_account", "account", "span", "start"),
    sqlite_with_rowid=False,
)
"""Sums of resolutions by when they were made: `span` is `hour` or `day`, `start` its first moment in Unix seconds (days
are those of Beijing). `requests` counts every kind, `posted` those that were charged; of `owed_pico`, `granted_pico`
and `topped_up_pico` came from there and the rest went on credit; `cost_pico` is what we owe the host of this row,
earlier dispatches of a request in rows of their own hosts."""

progress: Final = Table(
    "progress",
    metadata,
    key_number("hold_seq"),
    text_column("host"),
    number("prompt_miss"),
    number("prompt_hit"),
    number("completion"),
    number("reasoning"),
    number("owed_pico"),
    number("cost_pico"),
    text_column("cost_currency"),
    Column("price", JSON, nullable=False),
    moment("at"),
)
"""How far a running stream had come when it was last looked at: what a process that is killed leaves to be charged."""

totals: Final = Table(
    "totals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    number("commits"),
    number("last_seq"),
    number("first_open"),
    number("holds"),
    number("posted"),
    number("voided"),
    number("expired"),
    number("recovered"),
    number("prompt_miss"),
    number("prompt_hit"),
    number("completion"),
    number("reasoning"),
    number("searches", server_default="0"),
    text_column("name", server_default=""),
    moment("seen_at", server_default="0"),
)
"""One row for each process that writes; SQLite has one, id 1. `commits` counts transactions of its books; every hold of
its that is open has a seq from `first_open` on, and no seq beyond `last_seq` was given out by it. `seen_at` is when it
last said that it lives."""
