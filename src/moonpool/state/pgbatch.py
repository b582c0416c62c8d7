"""Statements that go to PostgreSQL in one write, and their answers, which come back in one read.

psycopg's own pipeline writes, and looks for answers, after each statement: as many system calls, hand-overs of the
interpreter's lock and wake-ups of the server as there are statements, a dozen for a transaction of the books. It also
looks up anew each time how to prepare, convert and read them, where these are always the same few. So the books speak
to what is below it, libpq as psycopg has it; connecting, waiting, faults and the reading of rows stay psycopg's.

Rules:
- A batch begins a transaction where none is open; to end it, its last statement is COMMIT.
- What PostgreSQL says against a statement is raised; those after it were not done, and the transaction is still open.
  After whatever else goes wrong the connection is closed, because nobody knows how far it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from moonpool.state.pglink import Link

Statement = tuple[str, Sequence[Any]]
"""SQL with `%s` for each value, and the values: texts and whole numbers. The SQL is prepared and kept for as long as
the connection lives, so there must be few, and nothing else may end what is prepared there (pglink.connect, `once`)."""
Rows = list[tuple[Any, ...]]

COMMIT: Final[Statement] = ("COMMIT", ())
_BEGIN: Final[Statement] = ("BEGIN", ())


def run(link: Link, statements: Sequence[Statement]) -> list[Rows]:
    """The rows that each gives; [] where it gives none. Raises psycopg.Error."""
    pgconn = link.pgconn
    begins = pgconn.transaction_status == TransactionStatus.IDLE
    encoding = link.info.encoding
    # Before anything is sent: what cannot be encoded does no harm then.
    bound = [
        (text, [str(value).encode(encoding) for value in values])
        for text, values in ((_BEGIN, *statements) if begins else statements)
    ]
    try:
        pgconn.enter_pipeline_mode()
        made = _send(pgconn, link.prepared, bound)
        results = link.wait(_results(pgconn))
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()
        raise
    read: Any = None
    found: list[Rows] = []
    for prepares, result in zip(made, results, strict=True):
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding=encoding)
        if prepares is not None:
            link.prepared[prepares[0]] = prepares[1]
        elif result.status == ExecStatus.TUPLES_OK:
            if read is None:
                read = Transformer(link)
            read.set_pgresult(result)
            found.append(read.load_rows(0, result.ntuples, tuple))
        else:
            found.append([])
    return found[1:] if begins else found


def _send(
    pgconn: PGconn, known: dict[str, bytes], bound: Sequence[tuple[str, list[bytes]]]
) -> list[tuple[str, bytes] | None]:
    """Send them, each prepared first if it is not known yet. For each answer that will come: what it prepares."""
    made: list[tuple[str, bytes] | None] = []
    fresh: dict[str, bytes] = {}
    for text, values in bound:
        name = known.get(text) or fresh.get(text)
        if name is None:
            # Its first word, for who reads what goes over the wire.
            name = fresh[text] = f"{text.partition(' ')[0]} {len(known) + len(fresh)}".encode()
            pgconn.send_prepare(name, _numbered(text).encode())
            made.append((text, name))
        pgconn.send_query_prepared(name, values)
        made.append(None)
    pgconn.pipeline_sync()
    return made


def _results(pgconn: PGconn) -> PQGen[list[PGresult]]:
    """All answers until the end of what was sent."""
    while pgconn.flush():
        # It may have to be read from first, so that neither side waits for the other.
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results: list[PGresult] = []
    ended = False
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if ended:  # not between two answers
                raise psycopg.OperationalError(f"the connection is lost: {pgconn.get_error_message()}")
            ended = True
            continue
        ended = False
        if result.status == ExecStatus.PIPELINE_SYNC:
            return results
        results.append(result)


def _numbered(text: str) -> str:
    """As libpq wants it: `$1`, `$2`, ... for `%s`."""
    first, *rest = text.split("%s")
    return first + "".join(f"${at}{part}" for at, part in enumerate(rest, 1))
