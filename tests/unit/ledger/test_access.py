"""ledger/access.py: what a key may do, as far as nothing has to be counted."""

from __future__ import annotations

import pytest

from moonpool.errors import Problem
from moonpool.ledger.access import admit, checked, lists
from moonpool.words import Limits


def _refused(limits: Limits, peer: str = "10.1.2.3", at: float = 50.0) -> str | None:
    try:
        admit(limits, peer, at)
    except Problem as problem:
        return problem.code
    return None


def test_the_end_of_a_key_is_exact() -> None:
    """Until its last moment a key is good, from then on it is no key."""
    limits = Limits(expires_at=50.0)
    assert _refused(limits, at=49.999) is None
    assert _refused(limits, at=50.0) == _refused(limits, at=1e12) == "account.invalid_key"


@pytest.mark.parametrize(
    ("peer", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.0", False),
        ("::1", True),
        ("2001:db8::ffff", True),
        ("2001:db9::", False),
        ("fe80::1%eth0", False),
        ("192.168.7.7", True),
        ("192.168.7.8", False),
        ("unix", False),
        ("", False),
        ("10.1.2.3.4", False),
    ],
)
def test_addresses(peer: str, inside: bool) -> None:
    """Only who is in one of the networks may use the key; an old-style address counts as itself in its new clothes."""
    limits = checked(Limits(addresses=("10.1.0.0/16", "::1", "2001:db8::/32", "192.168.7.7")))
    assert limits is not None
    assert _refused(limits, peer) == (None if inside else "account.forbidden")
    assert _refused(Limits(), peer) is None


def test_models() -> None:
    """A key that names models may use those; one that names none, all."""
    assert lists(None, "a")
    assert lists(Limits(), "a")
    assert lists(Limits(models=frozenset({"a", "b"})), "a")
    assert not lists(Limits(models=frozenset({"b"})), "a")


def test_limits_as_they_are_kept() -> None:
    """Networks get one form, and limits that bind nothing are none."""
    assert checked(None) is None
    assert checked(Limits()) is None
    found = checked(Limits(addresses=("10.0.0.1", "::/0", "10.0.0.0/8")))
    assert found == Limits(addresses=("10.0.0.1/32", "::/0", "10.0.0.0/8"))
    most = 2**63 - 1
    for kept in (Limits(day_pico=0), Limits(tokens_per_minute=most), Limits(month_pico=most), Limits(expires_at=0.5)):
        assert checked(kept) == kept


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        (Limits(requests_per_minute=-1), "requests_per_minute"),
        (Limits(tokens_per_minute=2**63), "tokens_per_minute"),
        (Limits(concurrency=-5), "concurrency"),
        (Limits(day_pico=-1), "day"),
        (Limits(month_pico=2**63), "month"),
        (Limits(expires_at=float("nan")), "expires_at"),
        (Limits(expires_at=float("inf")), "expires_at"),
        (Limits(expires_at=-1.0), "expires_at"),
        (Limits(expires_at=0.0), "expires_at"),
        (Limits(models=frozenset({""})), "models"),
        (Limits(addresses=("10.0.0.0/33",)), "addresses"),
        (Limits(addresses=("10.0.0.1/8",)), "addresses"),
        (Limits(addresses=("a.example",)), "addresses"),
        (Limits(addresses=("",)), "addresses"),
    ],
)
def test_what_is_no_limit(limits: Limits, param: str) -> None:
    """What cannot be a limit is refused with the field's name, before anything keeps it."""
    with pytest.raises(Problem) as caught:
        checked(limits)
    assert (caught.value.code, caught.value.param) == ("caller.invalid_value", f"limits.{param}")
