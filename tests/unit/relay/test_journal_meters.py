"""relay/journal.py and relay/meters.py: what a request leaves behind."""

from __future__ import annotations

import io
import json

from moonpool.relay.journal import LINES_MAX, Journal, Line
from moonpool.relay.meters import BUCKETS_S, COUNTS_MAX, OTHER, Histogram, Meters
from moonpool.words import Usage


def test_each_line_is_one_json_object() -> None:
    """Whatever text is in a field, a record stays one line of JSON."""
    out = io.BytesIO()
    journal = Journal(out, clock=lambda: 12.0)
    journal.write(Line(1.0, "request", "id", detail="a\r\nb\x1b[31m\u2028"))
    journal.note("started", port=1)
    journal.stop()
    lines = out.getvalue().split(b"\n")
    assert [json.loads(line)["event"] for line in lines if line] == ["request", "started"]
    assert len(lines) == 3
    assert b"\x1b" not in out.getvalue()


def test_a_blocked_output_loses_lines_not_memory() -> None:
    """Beyond LINES_MAX waiting lines the rest is dropped and counted."""
    journal = Journal(io.BytesIO())
    for _ in range(LINES_MAX + 7):
        journal.note("x")
    assert journal.lost == 7


def test_request_lines_can_be_turned_off_but_not_the_rest() -> None:
    """`log.requests = false` silences requests only."""
    out = io.BytesIO()
    journal = Journal(out, requests=False)
    journal.write(Line(1.0, "request", "id"))
    journal.fault("here", ValueError("secret-free"))
    journal.stop()
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["fault"]


def test_histogram_bounds_are_inclusive() -> None:
    """A span equal to a bound counts under it; above the last bound it counts as infinite."""
    histogram = Histogram()
    histogram.add(BUCKETS_S[0])
    histogram.add(BUCKETS_S[-1] + 1)
    assert histogram.counts[0] == 1
    assert histogram.counts[-1] == 1


def test_tokens_and_requests_add_up() -> None:
    """Counts are sums by label, zero classes make no label."""
    meters = Meters()
    for cause in ("stop", "length"):
        meters.count("m", "h", 200, cause, 0.1, 0.2, Usage(3, 0, 5, 0))
    meters.count("m", "", 402, "account.no_quota", None, 0.1, Usage())
    assert meters.requests == {("m", "h", 200): 2, ("m", "", 402): 1}
    assert meters.causes == {"stop": 1, "length": 1, "account.no_quota": 1}
    assert meters.tokens == {("m", "prompt_miss"): 6, ("m", "completion"): 10}
    assert (sum(meters.first_byte.counts), sum(meters.total.counts)) == (2, 3)


def test_what_hosts_say_fills_no_memory() -> None:
    """Reasons that nobody documents are told apart up to a bound, then counted as one (case 174)."""
    meters = Meters()
    for number in range(COUNTS_MAX + 100):
        meters.count("m", "h", 200, f"reason {number}", None, 0.1, Usage())
    assert len(meters.causes) <= COUNTS_MAX + 1
    assert meters.causes[OTHER] == 100
    assert meters.requests == {("m", "h", 200): COUNTS_MAX + 100}
