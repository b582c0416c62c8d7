"""How is a model at a host doing, as far as our own requests tell? Pure: every moment is an argument.

Five things can be wrong, and each ends in its own way (`trouble`):
- `open`: it failed FAILURES_MAX times in a row. After a pause one request probes it, once a second at most; a probe
  that begins to answer closes it again. The pause doubles while probes fail and another host serves meanwhile.
- `ejected`: too many of its answers failed, though not all. It rests a minute, longer each time, so as not to flap.
- `cooling`: it asked for a pause (Retry-After) and gets it.
- `parked`: it refuses our key, or our bill is not paid. Somebody has to do something; now and then one request looks.
- nothing, but `room`: it came back, or said it was busy: what runs there at once grows with each answer that begins.

Sources: RELIABILITY 1.1 (Envoy's ejection and slow start), 1.10, cases 28 to 33; PROVIDERS 1.6 and 1.8.
"""

from __future__ import annotations

from typing import Final, Literal

from moonpool.errors import Problem

Trouble = Literal["", "open", "ejected", "cooling", "parked"]

FAILURES_MAX: Final = 5
PROBE_S: Final = 1.0
PAUSE_MAX_S: Final = 30.0
WINDOW_S: Final = 15.0
"""Failures are counted in the window that runs and the one before it."""
EJECT_SHARE: Final = 0.25
EJECT_ANSWERS_MIN: Final = 20
EJECT_S: Final = 60.0
EJECT_MAX_S: Final = 300.0
PARK_S: Final = 60.0
PARK_MAX_S: Final = 600.0
COOL_MAX_S: Final = 120.0
ROOM_FIRST: Final = 2
ROOM_FULL: Final = 64
"""Who has room for so many again is limited no more."""

_PARKS: Final = frozenset(("upstream.credentials", "upstream.unpaid", "upstream.forbidden"))
_FAILS: Final = frozenset(
    (
        "upstream.failed",
        "upstream.unreachable",
        "upstream.timeout",
        "upstream.cut",
        "upstream.nonsense",
        "upstream.too_large",
        "platform.model_failed",
    )
)

_REFUSALS: Final = frozenset(("caller.too_long", "caller.invalid_value", "caller.unsupported"))

READY: Final = 2
PROBE: Final = 1
OUT: Final = 0


class Health:
    """`until` is when the trouble may end (monotonic seconds); `why` the code of what began it."""

    __slots__ = (
        "_calm_at", "_failed", "_failed_before", "_ok", "_ok_before", "_window_at", "changes", "failures", "probed_at",
        "probing", "room", "rounds", "trouble", "until", "why",
    )  # fmt: skip

    def __init__(self) -> None:
        self.trouble: Trouble = ""
        self.until = 0.0
        self.why = ""
        self.failures = 0
        self.rounds = 0  # how often in a row the same trouble came back
        self.room = 0  # requests at once that it may have; 0: no limit of ours
        self.probing = False
        self.probed_at = float("-inf")
        self.changes = 0
        self._calm_at = float("-inf")
        self._window_at = float("-inf")
        self._ok = self._failed = self._ok_before = self._failed_before = 0

    def verdict(self, now: float) -> int:
        """READY, PROBE (one request may look) or OUT."""
        if not self.trouble:
            return READY
        if now < self.until:
            return OUT
        if self.trouble in ("cooling", "ejected"):
            if self.trouble == "ejected":
                self._forget_window()
                self.room = ROOM_FIRST
            self._turn("")
            return READY
        return OUT if self.probing else PROBE

    def may_panic(self, now: float) -> bool:
        """Whether it is worth trying when there is nothing else: it answers at times, or it is time to look again."""
        if self.trouble == "ejected":
            return True
        return self.trouble == "open" and not self.probing and now >= self.probed_at + PROBE_S

    def look_again_at(self) -> float:
        """When one who has nobody else may try."""
        return min(self.until, self.probed_at + PROBE_S) if self.trouble == "open" else self.until

    def share_failed(self) -> float:
        failed = self._failed + self._failed_before
        answers = failed + self._ok + self._ok_before
        return failed / answers if answers else 0.0

    def probe(self, now: float) -> None:
        """A request goes there to see."""
        self.probing = True
        self.probed_at = now

    def began(self, now: float, probe: bool = False) -> bool:
        """An answer has begun; `probe`: to the request that looked. True when that ended a trouble."""
        if now - self._window_at >= WINDOW_S:
            self._turn_window(now)
        self._ok += 1
        self.failures = 0
        if probe and self.trouble:
            self.probing = False
            self.rounds = 0
            self.room = ROOM_FIRST
            self._forget_window()
            self._turn("")
            return True
        if self.room:
            self.room = 0 if self.room >= ROOM_FULL else self.room + 1
        return False

    def ended(self, problem: Problem | None, running: int, now: float, probe: bool = False) -> bool:
        """A dispatch is over; `running` others are still there. True when its state has changed."""
        was, code = self.trouble, "" if problem is None else problem.code
        if probe:
            self.probing = False
        if code in _PARKS:
            self._park(code, now)
        elif code == "upstream.busy":
            assert problem is not None
            self._busy(problem.retry_after_s, running, probe, now)
        elif code in _FAILS:
            self._fail(code, probe, now)
        elif code.startswith("upstream.") or code in _REFUSALS:
            self.began(now, probe)  # a refusal of the request is an answer
        return self.trouble != was

    def _fail(self, code: str, probe: bool, now: float) -> None:
        if now - self._window_at >= WINDOW_S:
            self._turn_window(now)
        self._failed += 1
        self.failures += 1
        if self.trouble == "open" or (self.trouble == "parked" and probe):
            self.rounds += probe
            self._rest(now)
        elif self.failures >= FAILURES_MAX:
            self.rounds = 0
            self.why = code
            self.probed_at = now
            self._turn("open")
            self._rest(now)
        elif not self.trouble and self._is_bad():
            self.rounds = self.rounds + 1 if now < self._calm_at else 1
            self.why = code
            self._turn("ejected")
            self.until = now + min(EJECT_S * self.rounds, EJECT_MAX_S)
            self._calm_at = self.until + EJECT_MAX_S

    def _busy(self, retry_after_s: float | None, running: int, probe: bool, now: float) -> None:
        if retry_after_s:
            if self.trouble in ("", "cooling"):
                self.why = "upstream.busy"
                self._turn("cooling")
            self.until = max(self.until, now + min(retry_after_s, COOL_MAX_S))
            return
        self.room = max(1, running // 2)
        self._fail("upstream.busy", probe, now)

    def _park(self, code: str, now: float) -> None:
        self.rounds = self.rounds + 1 if self.trouble == "parked" else 0
        self.why = code
        self._turn("parked")
        self.until = now + min(PARK_S * 2**self.rounds, PARK_MAX_S)

    def _rest(self, now: float) -> None:
        self.until = now + min(PROBE_S * 2 ** min(self.rounds, 10), PAUSE_MAX_S)

    def _turn(self, trouble: Trouble) -> None:
        if trouble != self.trouble:
            self.changes += 1
            self.trouble = trouble
            if not trouble:
                self.why = ""

    def _is_bad(self) -> bool:
        answers = self._ok + self._ok_before + self._failed + self._failed_before
        return answers >= EJECT_ANSWERS_MIN and self.share_failed() >= EJECT_SHARE

    def _turn_window(self, now: float) -> None:
        """What stayed well for two windows has no past."""
        if now - self._window_at < 2 * WINDOW_S:
            self._ok_before, self._failed_before = self._ok, self._failed
        else:
            self._ok_before = self._failed_before = 0
        self._ok = self._failed = 0
        self._window_at = now

    def _forget_window(self) -> None:
        self._ok = self._failed = self._ok_before = self._failed_before = 0
        self.failures = 0
