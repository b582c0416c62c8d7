"""Statements that go to a real PostgreSQL in one write: what is bound arrives, and what goes wrong is where it should
be."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from moonpool.state import pgbatch, pgtext
from moonpool.state.pglink import Link, connect
from postgres import server

NASTY = ("", "plain", '"', "\\", "{a,b}", "%s $1 NULL", "NULL", "'; --", "é", "😀", "a\x00b", "a\ud800b", "\n\t ")
HELD = "SELECT id, account, amount_pico, created_at FROM holds ORDER BY seq"


@pytest.fixture
def link() -> Iterator[Link]:
    with connect(server().fresh(), "a batch", once=True) as made:
        yield made


def _hold(seq: int, name: str) -> tuple[object, ...]:
    return seq, f"{seq}{name}", name, "k", "m", "h", 10**18 + seq, "CNY", 1_700_000_000.125 + seq, 2e9, 1


def _kept(text: str) -> str:
    return text.replace("\x00", "\ufffd").replace("\ud800", "?")


def _status(link: Link) -> TransactionStatus:
    return link.info.transaction_status


def test_few_rows_and_many_say_the_same(link: Link) -> None:
    """Any text, number and truth arrives, bound by itself where rows are few and in arrays where they are many; what
    PostgreSQL cannot keep is replaced alike."""
    by_hand = []
    for seq, name in enumerate(NASTY):
        pgbatch.run(link, [pgtext.HOLDS.statement(_hold(seq, name)), pgbatch.COMMIT])
        by_hand.append((f"{seq}{_kept(name)}", _kept(name), 10**18 + seq, 1_700_000_000.125 + seq))
    assert link.execute(HELD).fetchall() == by_hand
    link.execute("DELETE FROM holds")
    together = [value for seq, name in enumerate(NASTY) for value in _hold(seq, name)]
    pgbatch.run(link, [pgtext.HOLDS.statement(together), pgbatch.COMMIT])
    assert link.execute(HELD).fetchall() == by_hand
    resolved = [
        (seq, "posted", 1, 2, 3, 4, seq % 2 == 0, 5, 6, "h", "", True, 1.5e9, 0, "") for seq in range(len(NASTY))
    ]
    for rows in (resolved[:1], resolved[1:3], resolved[3:]):
        pgbatch.run(link, [pgtext.RESOLUTIONS.statement([value for row in rows for value in row])])
    found = link.execute("SELECT estimated, attempts FROM resolutions ORDER BY hold_seq").fetchall()
    assert found == [(seq % 2 == 0, 1) for seq in range(len(NASTY))]


def test_rows_are_those_of_their_statement(link: Link) -> None:
    """Each statement's rows are in its place, none where it gives none, also when it is asked again and twice at
    once."""
    pair = "SELECT %s::int8, %s::text"
    for _ in range(3):
        said = pgbatch.run(
            link, [(pair, (7, "x")), ("SET LOCAL lock_timeout = 1", ()), (pair, (8, "y")), ("SELECT", ())]
        )
        assert said == [[(7, "x")], [], [(8, "y")], [()]]
        assert _status(link) == TransactionStatus.INTRANS
        assert pgbatch.run(link, [pgbatch.COMMIT]) == [[]]
        assert _status(link) == TransactionStatus.IDLE


def test_more_than_a_socket_holds(link: Link) -> None:
    """Neither side waits for the other to read what is larger than all buffers between them."""
    long = "x" * 1_000_000
    said = pgbatch.run(link, [("SELECT %s::text", (f"{at}{long}",)) for at in range(30)])
    assert [rows[0][0] for rows in said] == [f"{at}{long}" for at in range(30)]


def test_a_statement_that_is_refused(link: Link) -> None:
    """Its fault is raised, nothing after it is done and nothing before it stays; then all goes on, with what was
    prepared before, after and not at all."""
    first, later = pgtext.HOLDS.statement(_hold(1, "first")), ("SELECT 1 + %s", (1,))
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            pgbatch.run(link, [first, ("SELECT 1 / %s", (0,)), later, pgbatch.COMMIT])
        assert _status(link) == TransactionStatus.INERROR
        link.rollback()
        assert link.execute(HELD).fetchall() == []
        link.rollback()
    assert pgbatch.run(link, [later, first, pgbatch.COMMIT]) == [[(2,)], [], []]
    with pytest.raises(psycopg.errors.UniqueViolation):
        pgbatch.run(link, [first, pgbatch.COMMIT])
    link.rollback()
    with pytest.raises(UnicodeEncodeError):
        pgbatch.run(link, [("SELECT %s::text", ("\ud800",))])
    assert pgbatch.run(link, [later]) == [[(2,)]], "nothing had been sent"


def test_a_connection_that_is_lost(link: Link) -> None:
    """It is closed, so that whoever asked finds out what became of it."""
    with psycopg.connect(link.info.dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (link.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        pgbatch.run(link, [("SELECT 1", ()), pgbatch.COMMIT])
    assert link.closed
