"""An auditor of a ledger: plain SQL over plain drivers, no code of the product. It says what does not add up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

# What came to a place of money less what left it. Sums are made once and joined: one that is made anew for each row
# takes as long as the whole test.
_MOVED = """(
            SELECT place, currency, sum(amount) AS amount FROM (
                SELECT credit AS place, currency, amount_pico AS amount FROM transfers WHERE credit LIKE 'client:%'
                UNION ALL SELECT debit, currency, -amount_pico FROM transfers WHERE debit LIKE 'client:%') m
            GROUP BY place, currency)"""
QUESTIONS = {
    "a resolution without its hold": """
        SELECT hold_seq FROM resolutions WHERE hold_seq NOT IN (SELECT seq FROM holds)""",
    "a transfer of nothing": """
        SELECT seq FROM transfers WHERE amount_pico <= 0 OR debit = credit""",
    "a transfer without what it belongs to": """
        SELECT seq FROM transfers
        WHERE seq NOT IN (SELECT hold_seq FROM resolutions) AND seq NOT IN (SELECT seq FROM deposits)
        AND seq NOT IN (SELECT seq FROM packs) AND seq NOT IN (SELECT seq FROM settlements)""",
    "what a client owes is not what was moved to revenue": """
        SELECT r.hold_seq FROM resolutions r
        LEFT JOIN transfers t ON t.seq = r.hold_seq AND t.credit IN ('revenue', 'fees')
        GROUP BY r.hold_seq, r.owed_pico HAVING r.owed_pico <> coalesce(sum(t.amount_pico), 0)""",
    "what we owe a host is not what was moved to it": """
        SELECT r.hold_seq FROM resolutions r
        LEFT JOIN transfers t ON t.seq = r.hold_seq AND t.debit = 'cost' AND t.credit = 'host:' || r.host
            AND t.leg = 2
        GROUP BY r.hold_seq, r.cost_pico HAVING r.cost_pico <> coalesce(sum(t.amount_pico), 0)""",
    "what we owe for an earlier dispatch does not go to a host": """
        SELECT seq FROM transfers WHERE leg BETWEEN 3 AND 999 AND (debit <> 'cost' OR credit NOT LIKE 'host:_%')""",
    "money was taken from another client than the one who held": """
        SELECT t.seq FROM transfers t JOIN holds h ON h.seq = t.seq
        WHERE t.debit LIKE 'client:%'
        AND (t.debit NOT LIKE 'client:' || h.account || ':%' OR t.currency <> h.currency)""",
    "only what was posted may be owed": """
        SELECT hold_seq FROM resolutions WHERE owed_pico <> 0 AND kind NOT IN ('posted', 'recovered')""",
    "a deposit that did not move its amount": """
        SELECT d.seq FROM deposits d LEFT JOIN transfers t
        ON t.seq = d.seq AND t.credit = 'client:' || d.account || ':' || d.fund AND t.currency = d.currency
        GROUP BY d.seq, d.amount_pico HAVING d.amount_pico <> coalesce(sum(t.amount_pico), 0)""",
    "a balance is not the sum of its transfers": f"""
        SELECT b.account, b.currency FROM balances b
        LEFT JOIN {_MOVED} g ON g.place = 'client:' || b.account || ':granted' AND g.currency = b.currency
        LEFT JOIN {_MOVED} u ON u.place = 'client:' || b.account || ':topped_up' AND u.currency = b.currency
        LEFT JOIN {_MOVED} p ON p.place = 'client:' || b.account || ':post_paid' AND p.currency = b.currency
        WHERE b.granted_pico <> coalesce(g.amount, 0) OR b.topped_up_pico <> coalesce(u.amount, 0)
        OR b.post_paid_pico <> coalesce(p.amount, 0)""",
    "more is owed on credit than nothing": """
        SELECT account FROM balances WHERE post_paid_pico > 0""",
    "what is held is not the sum of the open holds": """
        SELECT b.account, b.currency FROM balances b LEFT JOIN (
            SELECT account, currency, sum(amount_pico) AS amount FROM holds
            WHERE seq NOT IN (SELECT hold_seq FROM resolutions) GROUP BY account, currency
        ) h ON h.account = b.account AND h.currency = b.currency
        WHERE b.held_pico <> coalesce(h.amount, 0)""",
    "money moved or is held, and there is no balance of it": """
        SELECT account FROM holds h WHERE amount_pico > 0
        AND NOT EXISTS (SELECT 1 FROM balances b WHERE b.account = h.account AND b.currency = h.currency)""",
    "an open hold outside the range where it is looked for": """
        SELECT h.seq FROM holds h JOIN totals t ON t.id = h.node
        WHERE h.seq NOT IN (SELECT hold_seq FROM resolutions) AND h.seq < t.first_open""",
    "a number beyond the last one given out": """
        SELECT h.seq FROM holds h JOIN totals t ON t.id = h.node WHERE h.seq > t.last_seq""",
    "a hold of nobody": """
        SELECT seq FROM holds WHERE node NOT IN (SELECT id FROM totals)""",
    "a pack does not hold what was used of it": """
        SELECT p.id FROM packs p LEFT JOIN pack_balances b ON b.pack = p.id LEFT JOIN (
            SELECT debit, currency, sum(amount_pico) AS units FROM transfers WHERE credit = 'used'
            GROUP BY debit, currency
        ) t ON t.debit = 'pack:' || p.id AND t.currency = p.unit LEFT JOIN (
            SELECT what, sum(units) AS units FROM reservations
            WHERE seq NOT IN (SELECT hold_seq FROM resolutions) GROUP BY what
        ) r ON r.what = 'pack:' || p.id
        WHERE b.pack IS NULL OR b.used <> coalesce(t.units, 0) OR b.held <> coalesce(r.units, 0)
        OR b.used < 0 OR b.held < 0 OR b.used + b.held > p.units""",
    "a pack that did not get its units": """
        SELECT p.id FROM packs p LEFT JOIN transfers t
        ON t.seq = p.seq AND t.debit = 'packs' AND t.credit = 'pack:' || p.id AND t.currency = p.unit
        GROUP BY p.id, p.units HAVING p.units <> coalesce(sum(t.amount_pico), 0)""",
    "a balance of a pack that there is not": """
        SELECT pack FROM pack_balances WHERE pack NOT IN (SELECT id FROM packs)""",
    "units of a pack went to another account, or more than were set aside": """
        SELECT t.seq FROM transfers t JOIN holds h ON h.seq = t.seq
        LEFT JOIN packs p ON t.debit = 'pack:' || p.id
        LEFT JOIN reservations r ON r.seq = t.seq AND r.what = t.debit
        WHERE t.debit LIKE 'pack:%'
        AND (p.account IS NULL OR p.account <> h.account OR r.units IS NULL OR r.units < t.amount_pico)""",
    "a settlement that did not move its amount": """
        SELECT s.seq FROM settlements s LEFT JOIN transfers t ON t.seq = s.seq AND t.currency = s.currency
        AND t.debit = 'client:' || s.account || ':topped_up' AND t.credit = 'client:' || s.account || ':post_paid'
        GROUP BY s.seq, s.amount_pico HAVING s.amount_pico <> coalesce(sum(t.amount_pico), 0) OR s.amount_pico <= 0""",
    "an hour was settled twice": """
        SELECT account FROM settlements GROUP BY account, currency, hour HAVING count(*) > 1""",
    "what a key spent is not what was taken": """
        SELECT s.key_id FROM spent s LEFT JOIN (
            SELECT h.key_id, h.currency, v.what, sum(coalesce(r.owed_pico, 0)) AS owed,
                sum(CASE WHEN r.hold_seq IS NULL THEN v.units ELSE 0 END) AS held
            FROM reservations v JOIN holds h ON h.seq = v.seq LEFT JOIN resolutions r ON r.hold_seq = h.seq
            GROUP BY h.key_id, h.currency, v.what
        ) m ON m.key_id = s.key_id AND m.currency = s.currency AND m.what = s.span || ':' || s.start
        WHERE s.spent_pico <> coalesce(m.owed, 0) OR s.held_pico <> coalesce(m.held, 0)""",
    "the sums of usage are not those of the resolutions": """
        SELECT u.span FROM (
            SELECT span, sum(requests) AS requests, sum(posted) AS posted, sum(estimated) AS estimated,
                sum(prompt_miss) AS miss, sum(prompt_hit) AS hit, sum(completion) AS completion,
                sum(reasoning) AS reasoning, sum(searches) AS searches, sum(owed_pico) AS owed, sum(cost_pico) AS cost,
                sum(pack_units) AS units, sum(granted_pico) AS granted, sum(topped_up_pico) AS topped_up
            FROM usage GROUP BY span) u
        WHERE u.requests <> (SELECT count(*) FROM resolutions)
        OR u.posted <> (SELECT count(*) FROM resolutions WHERE kind = 'posted')
        OR u.estimated <> (SELECT count(*) FROM resolutions WHERE estimated)
        OR u.miss <> (SELECT sum(prompt_miss) FROM resolutions)
        OR u.hit <> (SELECT sum(prompt_hit) FROM resolutions)
        OR u.completion <> (SELECT sum(completion) FROM resolutions)
        OR u.reasoning <> (SELECT sum(reasoning) FROM resolutions)
        OR u.searches <> (SELECT sum(searches) FROM resolutions)
        OR u.owed <> (SELECT sum(owed_pico) FROM resolutions)
        OR u.cost <> (SELECT coalesce(sum(amount_pico), 0) FROM transfers WHERE debit = 'cost')
        OR u.granted <> (SELECT coalesce(sum(amount_pico), 0) FROM transfers
            WHERE credit IN ('revenue', 'fees') AND debit LIKE 'client:%:granted')
        OR u.topped_up <> (SELECT coalesce(sum(amount_pico), 0) FROM transfers
            WHERE credit IN ('revenue', 'fees') AND debit LIKE 'client:%:topped_up')
        OR u.units <> (SELECT coalesce(sum(amount_pico), 0) FROM transfers WHERE credit = 'used')""",
    "usage of a key and hour is not that of its resolutions": """
        SELECT u.account, u.key_id, u.start FROM usage u LEFT JOIN (
            SELECT h.seq, h.account, h.key_id, h.model, h.currency, r.host, r.resolved_at
            FROM resolutions r JOIN holds h ON h.seq = r.hold_seq
        ) x ON x.account = u.account AND x.key_id = u.key_id AND x.model = u.model AND x.currency = u.currency
            AND x.host = u.host AND x.resolved_at >= u.start AND x.resolved_at < u.start + 3600
            AND (u.cost_currency = x.currency OR EXISTS (
                SELECT 1 FROM transfers t WHERE t.seq = x.seq AND t.leg = 2 AND t.currency = u.cost_currency))
        WHERE u.span = 'hour' AND u.requests > 0
        GROUP BY u.account, u.key_id, u.model, u.currency, u.cost_currency, u.host, u.start, u.requests
        HAVING u.requests <> count(x.seq)""",
    "the progress of what is over": """
        SELECT hold_seq FROM progress WHERE hold_seq IN (SELECT hold_seq FROM resolutions)""",
    "the totals are not the sums": """
        SELECT t.holds FROM (
            SELECT sum(holds) AS holds, sum(posted) AS posted, sum(voided) AS voided, sum(expired) AS expired,
                sum(recovered) AS recovered, sum(prompt_miss) AS prompt_miss, sum(prompt_hit) AS prompt_hit,
                sum(completion) AS completion, sum(reasoning) AS reasoning, sum(searches) AS searches
            FROM totals) t
        WHERE t.holds <> (SELECT count(*) FROM holds)
        OR t.posted <> (SELECT count(*) FROM resolutions WHERE kind = 'posted')
        OR t.voided <> (SELECT count(*) FROM resolutions WHERE kind = 'voided')
        OR t.expired <> (SELECT count(*) FROM resolutions WHERE kind = 'expired')
        OR t.recovered <> (SELECT count(*) FROM resolutions WHERE kind = 'recovered')
        OR t.prompt_miss <> (SELECT coalesce(sum(prompt_miss), 0) FROM resolutions)
        OR t.prompt_hit <> (SELECT coalesce(sum(prompt_hit), 0) FROM resolutions)
        OR t.completion <> (SELECT coalesce(sum(completion), 0) FROM resolutions)
        OR t.reasoning <> (SELECT coalesce(sum(reasoning), 0) FROM resolutions)
        OR t.searches <> (SELECT coalesce(sum(searches), 0) FROM resolutions)""",
}


def differences(execute: Callable[[str], Any]) -> list[str]:
    """What is wrong with the ledger that `execute(query).fetchall()` reads, of whatever database."""
    return [f"{what}: {rows[:5]}" for what, query in QUESTIONS.items() if (rows := execute(query).fetchall())]


def look(path: Path) -> sqlite3.Connection:
    """A connection that leaves the files as a crash left them: one that may write empties the log when it is closed."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def audit(path: Path) -> list[str]:
    """What is wrong with the ledger in this file; [] for a sound one. Another process may have it open."""
    connection = look(path)
    try:
        faults = differences(connection.execute)
        found = connection.execute("PRAGMA integrity_check").fetchall()
        return faults + [f"integrity: {row}" for row in found if row != ("ok",)]
    finally:
        connection.close()


def audit_at(address: str) -> list[str]:
    """As `audit`, of a PostgreSQL database."""
    with psycopg.connect(address) as connection:
        return differences(connection.execute)


def written_at(address: str) -> tuple[set[str], dict[str, str]]:
    """As `written`, of a PostgreSQL database."""
    with psycopg.connect(address) as connection:
        held = {row[0] for row in connection.execute("SELECT id FROM holds")}
        ended = connection.execute("SELECT h.id, r.kind FROM holds h JOIN resolutions r ON r.hold_seq = h.seq")
        return held, dict(ended.fetchall())


def written(path: Path) -> tuple[set[str], dict[str, str]]:
    """(ids of all holds, id -> kind of those that are resolved)."""
    connection = look(path)
    try:
        held = {row[0] for row in connection.execute("SELECT id FROM holds")}
        resolved = dict(
            connection.execute("SELECT h.id, r.kind FROM holds h JOIN resolutions r ON r.hold_seq = h.seq").fetchall()
        )
        return held, resolved
    finally:
        connection.close()
