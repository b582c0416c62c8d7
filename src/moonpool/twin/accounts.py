"""Whose key is this, what runs for it, what has it spent, and which prompts are cached? All in memory, of one twin.

Any key of the provider's shape is good. One that begins with `sk-wrong` is unknown, with `sk-broke` has no money, with
`sk-forbidden` may not use the model. A key is an account of its own; of `sk-team.1` and `sk-team.2` the part before the
dot is the account of both.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from typing import Any, Final

import msgspec

from moonpool.errors import Problem
from moonpool.ledger.estimate import question
from moonpool.ledger.money import UNIT_PICO
from moonpool.twin.providers import Provider
from moonpool.words import Headers, Usage

FUNDS_PICO: Final = 1000 * UNIT_PICO
_CACHED_MAX: Final = 10_000


def key_of(headers: Headers) -> str:
    """The key as it was sent, "" for none."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def account_of(key: str) -> str:
    return key.partition(".")[0]


class Accounts:
    def __init__(self, provider: Provider, limit: int | None) -> None:
        """`limit`: requests at once of an account for a model, whatever the provider's are."""
        self.peaks: dict[str, int] = {}
        self.spent_pico: dict[str, int] = {}
        self._provider = provider
        self._shape = re.compile(provider.key, re.ASCII)
        self._limit = limit
        self._running: dict[tuple[str, str], int] = {}
        self._cached: OrderedDict[bytes, None] = OrderedDict()

    def check(self, key: str) -> None:
        """Raises Problem where the key does not open the door (its message are the facts that the sentence needs)."""
        if self._provider.keyless and not key:
            return
        if not self._shape.fullmatch(key) or key.startswith("sk-wrong"):
            raise Problem("account.invalid_key", key[-4:] if key else None)

    def check_rights(self, key: str, *, forbids: bool) -> None:
        """Raises Problem. `forbids`: the provider has words for a key that may not."""
        if key.startswith("sk-broke"):
            raise Problem("account.no_quota")
        if forbids and key.startswith("sk-forbidden"):
            raise Problem("upstream.forbidden")

    def enter(self, account: str, model: str, limit: int) -> tuple[int, int]:
        """(how many this makes, how many may be). One too many must not `leave`."""
        limit = self._limit or limit
        count = self._running.get((account, model), 0) + 1
        if count > limit:
            return count, limit
        self._running[account, model] = count
        of_account = sum(running for (name, _), running in self._running.items() if name == account)
        self.peaks[account] = max(self.peaks.get(account, 0), of_account)
        return count, limit

    def leave(self, account: str, model: str) -> None:
        count = self._running.pop((account, model), 0) - 1
        if count > 0:
            self._running[account, model] = count

    def bill(self, account: str, amount_pico: int) -> None:
        self.spent_pico[account] = self.spent_pico.get(account, 0) + amount_pico

    def left_pico(self, key: str) -> int:
        return 0 if key.startswith("sk-broke") else FUNDS_PICO - self.spent_pico.get(account_of(key), 0)

    def prompt(self, account: str, model: str, fields: dict[str, Any]) -> Usage:
        """Tokens of the prompt, those that were cached apart: the longest beginning of its messages that this account
        has sent before (for the same model, tools, effort and `user_id`)."""
        whole = fields.get("messages") or [fields.get("prompt", "")]
        digest = hashlib.blake2s(
            msgspec.json.encode(
                [account, model, fields.get("user_id"), fields.get("tools"), fields.get("reasoning_effort")]
            )
        )
        total, hit, fresh = 0, 0, []
        for message in whole:
            raw = msgspec.json.encode(message)
            total += question(raw)
            digest.update(raw)
            unit = digest.digest()
            if unit in self._cached:
                self._cached.move_to_end(unit)
                hit = total
            else:
                fresh.append(unit)
        for unit in fresh:
            self._cached[unit] = None
        while len(self._cached) > _CACHED_MAX:
            self._cached.popitem(last=False)
        return Usage(prompt_miss=total - hit, prompt_hit=hit)
