"""From whatever schema a database has to the one this program reads and writes: Alembic's steps, run from code.

A database without tables gets all steps. One that a newer program wrote is refused, because what it means is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, select, text

from moonpool.errors import Problem
from moonpool.state.tables import REVISION

# A number nobody else locks: the first eight letters of our name.
_LOCK: Final = int.from_bytes(b"moonpool") & (2**63 - 1)


def migrate(connection: Connection) -> None:
    """Bring the schema to REVISION. Raises Problem("platform.storage") for a schema that is newer.

    Where several processes may do that at once (PostgreSQL), one does, and the others wait; for a lock of the session,
    which ends with the process that has it."""
    if _present(connection) == REVISION:
        return
    if connection.dialect.name != "postgresql":
        _upgrade(connection)
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
    connection.commit()
    try:
        if _present(connection) != REVISION:
            _upgrade(connection)
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
        connection.commit()


def _present(connection: Connection) -> str | None:
    found = revision(connection)
    connection.rollback()
    return found


def _upgrade(connection: Connection) -> None:
    present = _present(connection)
    # Imported here because Alembic costs as much time as the rest of a start, and most starts need no step.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise Problem(
            "platform.storage",
            f"The database has schema {present}, made by a newer Moonpool; this one knows schemas up to {REVISION}. "
            "Start the newer version, or restore a backup made before it.",
        )
    command.upgrade(config, "head")


def revision(connection: Connection) -> str | None:
    """The schema a database has; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(select(text("version_num")).select_from(text("alembic_version"))).scalar()
    return None if found is None else str(found)
