"""Users, limits of keys, packs, post-paid settlement, usage by hour, and what is kept beside the books."""

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
)

revision = "0003"
down_revision = "0002"

_INTEGER = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    _widen()
    _people()
    _records()
    _derived()
    _kept()
    # Only SQLite files have a past; there a cast cuts off what is behind the point.
    if op.get_bind().dialect.name == "sqlite":
        _sum_up()
    if op.get_bind().dialect.name == "postgresql":
        _many()


def _many() -> None:
    """What several processes over one database need: numbers of rows in blocks, and word of changes."""
    op.execute("CREATE SEQUENCE blocks")
    op.create_index("packs_of_account", "packs", ["account"])
    op.execute(
        "CREATE FUNCTION tell_of_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_notify('moonpool_changes', NEW.what); RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE ON changes FOR EACH ROW EXECUTE FUNCTION tell_of_change()"
    )


def _widen() -> None:
    """Columns that tables of before get."""
    op.add_column("accounts", Column("credit_pico", _INTEGER))
    op.add_column("accounts", Column("disabled", Boolean, nullable=False, server_default=false()))
    op.add_column("accounts", Column("requests_per_minute", _INTEGER, nullable=False, server_default="0"))
    op.add_column("accounts", Column("tokens_per_minute", _INTEGER, nullable=False, server_default="0"))
    op.add_column("keys", Column("limits", JSON))
    op.add_column("keys", Column("old_digest", LargeBinary))
    op.add_column("keys", Column("old_until", Float))
    op.add_column("holds", Column("node", _INTEGER, nullable=False, server_default="1"))
    op.add_column("resolutions", Column("searches", _INTEGER, nullable=False, server_default="0"))
    op.add_column("resolutions", Column("price", Text, nullable=False, server_default=""))
    op.add_column("balances", Column("post_paid_pico", _INTEGER, nullable=False, server_default="0"))
    op.add_column("totals", Column("searches", _INTEGER, nullable=False, server_default="0"))
    op.add_column("totals", Column("name", Text, nullable=False, server_default=""))
    op.add_column("totals", Column("seen_at", Float, nullable=False, server_default="0"))


def _people() -> None:
    op.create_table(
        "users",
        Column("id", Text, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("operator", Boolean, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("deleted_at", Float),
    )
    op.create_table(
        "members",
        Column("user", Text, ForeignKey("users.id"), primary_key=True),
        Column("account", Text, ForeignKey("accounts.id"), primary_key=True),
        Column("role", Text, nullable=False),
    )
    op.create_table(
        "tokens",
        Column("id", Text, primary_key=True),
        Column("digest", LargeBinary, nullable=False, unique=True),
        Column("user", Text, ForeignKey("users.id"), nullable=False),
        Column("name", Text, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float),
        Column("last_used_at", Float),
        Column("deleted_at", Float),
    )
    op.create_table(
        "product_switches",
        Column("account", Text, primary_key=True),
        Column("product", Text, primary_key=True),
        Column("on", Boolean, nullable=False),
        Column("changed_at", Float, nullable=False),
    )
    op.create_table(
        "overrides",
        Column("account", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("valid_from", Text, primary_key=True),
        Column("price", JSON, nullable=False),
        Column("created_at", Float, nullable=False),
    )
    op.create_table(
        "changes",
        Column("what", Text, primary_key=True),
        Column("revision", _INTEGER, nullable=False),
    )


def _records() -> None:
    op.create_table(
        "reservations",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("what", Text, primary_key=True),
        Column("units", _INTEGER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "packs",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("id", Text, nullable=False, unique=True),
        Column("account", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("product", Text, nullable=False),
        Column("unit", Text, nullable=False),
        Column("units", _INTEGER, nullable=False),
        Column("note", Text, nullable=False),
        Column("bought_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    op.create_table(
        "settlements",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("account", Text, nullable=False),
        Column("currency", Text, nullable=False),
        Column("hour", _INTEGER, nullable=False),
        Column("amount_pico", _INTEGER, nullable=False),
        Column("created_at", Float, nullable=False),
        UniqueConstraint("account", "currency", "hour"),
    )
    op.create_table(
        "progress",
        Column("hold_seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("host", Text, nullable=False),
        Column("prompt_miss", _INTEGER, nullable=False),
        Column("prompt_hit", _INTEGER, nullable=False),
        Column("completion", _INTEGER, nullable=False),
        Column("reasoning", _INTEGER, nullable=False),
        Column("owed_pico", _INTEGER, nullable=False),
        Column("cost_pico", _INTEGER, nullable=False),
        Column("cost_currency", Text, nullable=False),
        Column("price", JSON, nullable=False),
        Column("at", Float, nullable=False),
    )


def _derived() -> None:
    op.create_table(
        "pack_balances",
        Column("pack", Text, primary_key=True),
        Column("used", _INTEGER, nullable=False),
        Column("held", _INTEGER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spent",
        Column("key_id", Text, primary_key=True),
        Column("currency", Text, primary_key=True),
        Column("span", Text, primary_key=True),
        Column("start", _INTEGER, primary_key=True, autoincrement=False),
        Column("spent_pico", _INTEGER, nullable=False),
        Column("held_pico", _INTEGER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage",
        Column("span", Text, primary_key=True),
        Column("start", _INTEGER, primary_key=True, autoincrement=False),
        Column("account", Text, primary_key=True),
        Column("key_id", Text, primary_key=True),
        Column("model", Text, primary_key=True),
        Column("host", Text, primary_key=True),
        Column("currency", Text, primary_key=True),
        Column("cost_currency", Text, primary_key=True),
        Column("requests", _INTEGER, nullable=False),
        Column("posted", _INTEGER, nullable=False),
        Column("estimated", _INTEGER, nullable=False),
        Column("prompt_miss", _INTEGER, nullable=False),
        Column("prompt_hit", _INTEGER, nullable=False),
        Column("completion", _INTEGER, nullable=False),
        Column("reasoning", _INTEGER, nullable=False),
        Column("searches", _INTEGER, nullable=False),
        Column("pack_units", _INTEGER, nullable=False),
        Column("owed_pico", _INTEGER, nullable=False),
        Column("granted_pico", _INTEGER, nullable=False),
        Column("topped_up_pico", _INTEGER, nullable=False),
        Column("cost_pico", _INTEGER, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_of_account", "usage", ["account", "span", "start"])


def _kept() -> None:
    op.create_table(
        "once",
        Column("account", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("asked", LargeBinary, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("status", Integer),
        Column("headers", JSON),
        Column("body", LargeBinary),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    op.create_index("once_by_end", "once", ["expires_at"])
    op.create_table(
        "codes",
        Column("id", Text, primary_key=True),
        Column("digest", LargeBinary, nullable=False, unique=True),
        Column("gift", JSON, nullable=False),
        Column("note", Text, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("expires_at", Float),
    )
    op.create_table(
        "alerts",
        Column("id", Text, primary_key=True),
        Column("account", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("threshold_pico", _INTEGER, nullable=False),
        Column("currency", Text, nullable=False),
        Column("url", Text, nullable=False),
        Column("sealed", LargeBinary, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("fired_for", Text, nullable=False),
    )
    op.create_table(
        "deliveries",
        Column("id", Text, primary_key=True),
        Column("alert", Text, nullable=False),
        Column("body", JSON, nullable=False),
        Column("tries", Integer, nullable=False),
        Column("next_at", Float, nullable=False),
        Column("done_at", Float),
        Column("trouble", Text, nullable=False),
        Column("created_at", Float, nullable=False),
    )
    op.create_table(
        "audit",
        Column("seq", _INTEGER, primary_key=True, autoincrement=False),
        Column("at", Float, nullable=False),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("target", Text, nullable=False),
        Column("detail", JSON, nullable=False),
        Column("before", LargeBinary, nullable=False),
        Column("hash", LargeBinary, nullable=False),
    )


def _sum_up() -> None:
    """Hours and days of the calls that were booked before there were sums."""
    places = "account, key_id, model, host, currency, cost_currency"
    sums = (
        "requests, posted, estimated, prompt_miss, prompt_hit, completion, reasoning, searches, pack_units, "
        "owed_pico, granted_pico, topped_up_pico, cost_pico"
    )
    added = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in sums.split(", "))
    hour = "CAST(r.resolved_at AS INTEGER) / 3600 * 3600"
    of_call = "FROM resolutions r JOIN holds h ON h.seq = r.hold_seq"
    op.execute(
        f"INSERT INTO usage (span, start, {places}, {sums}) "
        f"SELECT 'hour', {hour}, h.account, h.key_id, h.model, r.host, h.currency, coalesce(c.currency, h.currency), "
        "count(*), sum(r.kind = 'posted'), sum(r.estimated), sum(r.prompt_miss), sum(r.prompt_hit), sum(r.completion), "
        "sum(r.reasoning), 0, 0, sum(r.owed_pico), sum(coalesce(g.amount_pico, 0)), sum(coalesce(t.amount_pico, 0)), "
        f"sum(r.cost_pico) {of_call} LEFT JOIN transfers g ON g.seq = h.seq AND g.leg = 0 "
        "LEFT JOIN transfers t ON t.seq = h.seq AND t.leg = 1 LEFT JOIN transfers c ON c.seq = h.seq AND c.leg = 2 "
        "GROUP BY 2, 3, 4, 5, 6, 7, 8"
    )
    op.execute(
        f"INSERT INTO usage (span, start, {places}, {sums}) "
        f"SELECT 'hour', {hour}, h.account, h.key_id, h.model, substr(e.credit, 6), h.currency, e.currency, "
        f"0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sum(e.amount_pico) {of_call} "
        "JOIN transfers e ON e.seq = h.seq AND e.leg > 2 "
        f"GROUP BY 2, 3, 4, 5, 6, 7, 8 ON CONFLICT (span, start, {places}) DO UPDATE SET {added}"
    )
    op.execute(
        f"INSERT INTO usage (span, start, {places}, {sums}) "
        f"SELECT 'day', (start + 28800) / 86400 * 86400 - 28800, {places}, "
        f"{', '.join(f'sum({name})' for name in sums.split(', '))} FROM usage GROUP BY 2, 3, 4, 5, 6, 7, 8"
    )
