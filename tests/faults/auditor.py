"""An auditor of a ledger's file: plain SQL over plain sqlite3, no code of the product. It says what does not add up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_BROKEN = {
    "a resolution without its hold": """
        SELECT hold_seq FROM resolutions WHERE hold_seq NOT IN (SELECT seq FROM holds)""",
    "a transfer of nothing": """
        SELECT seq FROM transfers WHERE amount_pico <= 0 OR debit = credit""",
    "a transfer without a resolution or a deposit": """
        SELECT seq FROM transfers
        WHERE seq NOT IN (SELECT hold_seq FROM resolutions) AND seq NOT IN (SELECT seq FROM deposits)""",
    "what a client owes is not what was moved to revenue": """
        SELECT r.hold_seq FROM resolutions r LEFT JOIN transfers t ON t.seq = r.hold_seq AND t.credit = 'revenue'
        GROUP BY r.hold_seq HAVING r.owed_pico <> coalesce(sum(t.amount_pico), 0)""",
    "what we owe a host is not what was moved to it": """
        SELECT r.hold_seq FROM resolutions r
        LEFT JOIN transfers t ON t.seq = r.hold_seq AND t.debit = 'cost' AND t.credit = 'host:' || r.host
            AND t.leg = 2
        GROUP BY r.hold_seq HAVING r.cost_pico <> coalesce(sum(t.amount_pico), 0)""",
    "what we owe for an earlier dispatch does not go to a host": """
        SELECT seq FROM transfers WHERE leg > 2 AND (debit <> 'cost' OR credit NOT LIKE 'host:_%')""",
    "money was taken from another client than the one who held": """
        SELECT t.seq FROM transfers t JOIN holds h ON h.seq = t.seq
        WHERE t.debit LIKE 'client:%'
        AND (t.debit NOT LIKE 'client:' || h.account || ':%' OR t.currency <> h.currency)""",
    "only what was posted may be owed": """
        SELECT hold_seq FROM resolutions WHERE owed_pico <> 0 AND kind <> 'posted'""",
    "a deposit that did not move its amount": """
        SELECT d.seq FROM deposits d LEFT JOIN transfers t
        ON t.seq = d.seq AND t.credit = 'client:' || d.account || ':' || d.fund AND t.currency = d.currency
        GROUP BY d.seq HAVING d.amount_pico <> coalesce(sum(t.amount_pico), 0)""",
    "the legs of a currency do not sum to zero": """
        SELECT currency FROM (
            SELECT currency, amount_pico AS amount FROM transfers
            UNION ALL SELECT currency, -amount_pico FROM transfers)
        GROUP BY currency HAVING sum(amount) <> 0""",
    "a balance is not the sum of its transfers": """
        SELECT b.account, b.currency FROM balances b
        WHERE b.granted_pico <> (
            SELECT coalesce(sum(CASE WHEN t.credit = 'client:' || b.account || ':granted'
                                     THEN t.amount_pico ELSE -t.amount_pico END), 0)
            FROM transfers t WHERE t.currency = b.currency
            AND 'client:' || b.account || ':granted' IN (t.debit, t.credit))
        OR b.topped_up_pico <> (
            SELECT coalesce(sum(CASE WHEN t.credit = 'client:' || b.account || ':topped_up'
                                     THEN t.amount_pico ELSE -t.amount_pico END), 0)
            FROM transfers t WHERE t.currency = b.currency
            AND 'client:' || b.account || ':topped_up' IN (t.debit, t.credit))""",
    "what is held is not the sum of the open holds": """
        SELECT b.account, b.currency FROM balances b
        WHERE b.held_pico <> (
            SELECT coalesce(sum(h.amount_pico), 0) FROM holds h
            WHERE h.account = b.account AND h.currency = b.currency
            AND h.seq NOT IN (SELECT hold_seq FROM resolutions))""",
    "money moved or is held, and there is no balance of it": """
        SELECT account FROM holds h WHERE amount_pico > 0
        AND NOT EXISTS (SELECT 1 FROM balances b WHERE b.account = h.account AND b.currency = h.currency)""",
    "an open hold outside the range where it is looked for": """
        SELECT h.seq FROM holds h, totals t
        WHERE h.seq NOT IN (SELECT hold_seq FROM resolutions) AND h.seq < t.first_open""",
    "a number beyond the last one given out": """
        SELECT h.seq FROM holds h, totals t WHERE h.seq > t.last_seq""",
    "the totals are not the sums": """
        SELECT t.* FROM totals t
        WHERE t.holds <> (SELECT count(*) FROM holds)
        OR t.posted <> (SELECT count(*) FROM resolutions WHERE kind = 'posted')
        OR t.voided <> (SELECT count(*) FROM resolutions WHERE kind = 'voided')
        OR t.expired <> (SELECT count(*) FROM resolutions WHERE kind = 'expired')
        OR t.recovered <> (SELECT count(*) FROM resolutions WHERE kind = 'recovered')
        OR t.prompt_miss <> (SELECT coalesce(sum(prompt_miss), 0) FROM resolutions)
        OR t.prompt_hit <> (SELECT coalesce(sum(prompt_hit), 0) FROM resolutions)
        OR t.completion <> (SELECT coalesce(sum(completion), 0) FROM resolutions)
        OR t.reasoning <> (SELECT coalesce(sum(reasoning), 0) FROM resolutions)""",
}


def audit(path: Path) -> list[str]:
    """What is wrong with the ledger in this file; [] for a sound one. Another process may have it open."""
    connection = sqlite3.connect(path)
    try:
        faults = [
            f"{what}: {rows[:5]}" for what, query in _BROKEN.items() if (rows := connection.execute(query).fetchall())
        ]
        found = connection.execute("PRAGMA integrity_check").fetchall()
        return faults + [f"integrity: {row}" for row in found if row != ("ok",)]
    finally:
        connection.close()


def written(path: Path) -> tuple[set[str], dict[str, str]]:
    """(ids of all holds, id -> kind of those that are resolved)."""
    connection = sqlite3.connect(path)
    try:
        held = {row[0] for row in connection.execute("SELECT id FROM holds")}
        resolved = dict(
            connection.execute("SELECT h.id, r.kind FROM holds h JOIN resolutions r ON r.hold_seq = h.seq").fetchall()
        )
        return held, resolved
    finally:
        connection.close()
