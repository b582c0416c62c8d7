"""Which answers must end because somebody lost the right to them? Those of deleted and expired keys and of disabled
accounts.

They end in the very call that deletes the key, with an error event, and are charged for what was delivered. A request
that has no reply yet (its reasoning is looked up) is found by looking again, once a second for a while. In a second in
which nobody lost anything nothing is looked at.
"""

from __future__ import annotations

from typing import Final

from moonpool.errors import Problem
from moonpool.relay.platform import Platform
from moonpool.state.base import Revoked

BEATS: Final = 60
"""For so many seconds a request may be on its way that was let in before. All that it waits for until it has a reply
has shorter deadlines."""


class Revocations:
    """Hears of lost rights, and ends replies."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._beats: dict[Revoked, int] = {}
        platform.keys.listen(self.tell)

    def tell(self, revoked: Revoked) -> None:
        self._beats[revoked] = BEATS
        self._end([revoked])

    def beat(self) -> None:
        """Once a second."""
        if not self._beats:
            return
        self._end(list(self._beats))
        self._beats = {revoked: left - 1 for revoked, left in self._beats.items() if left > 1}

    def _end(self, lost: list[Revoked]) -> None:
        """What was given back meanwhile (an account is enabled again) is no longer lost."""
        platform = self._platform
        by_key = {each.key: each for each in lost if each.key}
        by_account = {each.account: each for each in lost if each.account}
        for reply in list(platform.active):
            trip = reply.trip
            if trip is None or reply.doomed is not None:
                continue
            revoked = by_key.get(trip.key) or by_account.get(trip.account)
            if revoked is not None and not platform.keys.stands(trip.key):
                try:
                    reply.stop(Problem("account.revoked", revoked.why))
                except Exception as error:  # one answer's fault must not keep the others running
                    platform.journal.fault("a revoked answer", error)
