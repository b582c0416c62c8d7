"""The auditor finds what it looks for: each of its questions is asked of a ledger in which that one thing is wrong."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from faults.auditor import QUESTIONS, audit
from unit.state.furnished import furnish

WRONG = {
    "a resolution without its hold": "DELETE FROM holds WHERE id = 'c1'",
    "a transfer of nothing": "UPDATE transfers SET amount_pico = 0 WHERE leg = 2",
    "a transfer without what it belongs to": "UPDATE transfers SET seq = seq + 1000 WHERE leg = 2",
    "what a client owes is not what was moved to revenue": "UPDATE resolutions SET owed_pico = owed_pico + 1",
    "what we owe a host is not what was moved to it": "UPDATE resolutions SET cost_pico = cost_pico - 1",
    "what we owe for an earlier dispatch does not go to a host": "UPDATE transfers SET credit = 'fees' WHERE leg = 3",
    "money was taken from another client than the one who held": (
        "UPDATE transfers SET debit = 'client:credit:granted' WHERE debit = 'client:acme:topped_up'"
    ),
    "only what was posted may be owed": "UPDATE resolutions SET kind = 'voided'",
    "a deposit that did not move its amount": "UPDATE deposits SET amount_pico = amount_pico + 1 WHERE id = 'd2'",
    "a balance is not the sum of its transfers": "UPDATE balances SET {} = {} + 1 WHERE account = '{}'",
    "more is owed on credit than nothing": "UPDATE balances SET post_paid_pico = 1",
    "what is held is not the sum of the open holds": "UPDATE balances SET held_pico = held_pico + 1",
    "money moved or is held, and there is no balance of it": "DELETE FROM balances WHERE account = 'acme'",
    "an open hold outside the range where it is looked for": "UPDATE totals SET first_open = last_seq + 1",
    "a number beyond the last one given out": "UPDATE totals SET last_seq = 3",
    "a hold of nobody": "UPDATE holds SET node = 99 WHERE id = 'c1'",
    "a pack does not hold what was used of it": "UPDATE pack_balances SET {} = {} {} 1",
    "a pack that did not get its units": "UPDATE packs SET units = units + 1 WHERE id = 'p1'",
    "a balance of a pack that there is not": "DELETE FROM packs WHERE id = 'p2'",
    "units of a pack went to another account, or more than were set aside": "UPDATE packs SET account = 'credit'",
    "a settlement that did not move its amount": "UPDATE settlements SET amount_pico = amount_pico - 1",
    "what a key spent is not what was taken": "UPDATE spent SET {} = {} + 1",
    "the sums of usage are not those of the resolutions": "UPDATE usage SET {} = {} + 1 WHERE span = 'hour'",
    "usage of a key and hour is not that of its resolutions": "UPDATE usage SET {} WHERE span = 'hour'",
    "the progress of what is over": "UPDATE progress SET hold_seq = (SELECT min(hold_seq) FROM resolutions)",
    "the totals are not the sums": "UPDATE totals SET {} = {} + 1",
}
COLUMNS = {
    "a balance is not the sum of its transfers": [
        (fund, fund, account)
        for fund in ("granted_pico", "topped_up_pico", "post_paid_pico")
        for account in ("acme", "credit")
    ],
    "a pack does not hold what was used of it": [("used", "used", "-"), ("used", "used", "+"), ("held", "held", "+")],
    "what a key spent is not what was taken": [("spent_pico", "spent_pico"), ("held_pico", "held_pico")],
    "the sums of usage are not those of the resolutions": [
        (name, name)
        for name in (
            "requests", "posted", "estimated", "prompt_miss", "prompt_hit", "completion", "reasoning", "searches",
            "owed_pico", "cost_pico", "pack_units", "granted_pico", "topped_up_pico",
        )
    ],
    "usage of a key and hour is not that of its resolutions": [
        ("requests = requests + 1",), ("start = start + 3600",), ("host = 'h9'",), ("key_id = 'other'",),
        ("model = 'other'",), ("cost_currency = 'EUR'",),
    ],
    "the totals are not the sums": [
        (name, name)
        for name in (
            "holds", "posted", "voided", "expired", "recovered", "prompt_miss", "prompt_hit", "completion",
            "reasoning", "searches",
        )
    ],
}  # fmt: skip
CASES = [(name, WRONG[name].format(*columns)) for name in WRONG for columns in COLUMNS.get(name, [()])]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("audited") / "m.db")


def test_a_sound_ledger(ledger: Path) -> None:
    """It has open holds, packs in use, limits of keys and two currencies; nothing is wrong with it."""
    assert audit(ledger) == []


def test_every_question_has_a_ledger_that_answers_it() -> None:
    """One that no test answers might ask nothing. An hour that is settled twice cannot be written: it is a key."""
    assert set(WRONG) | {"an hour was settled twice"} == set(QUESTIONS)


@pytest.mark.parametrize(("name", "change"), CASES)
def test_what_is_wrong_is_found(ledger: Path, tmp_path: Path, name: str, change: str) -> None:
    """The one thing that was changed is named."""
    path = tmp_path / "m.db"
    shutil.copy(ledger, path)
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    assert [said for said in audit(path) if said.startswith(name)], audit(path)
