"""The half of a recount that is about operations: each hold, deposit, pack and settlement with what hangs on its
number, and the balances that follow from all of them. See recount.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, select

from moonpool.ledger import entries
from moonpool.state import tables
from moonpool.state.recount_sums import Hours

Differ = Callable[[str, str], None]
GRACE_S: Final = 3600.0
"""A hold of a living process may outlast its time a little; one that is open an hour later is forgotten."""

_BOOKINGS: Final = {"deposits": "deposit", "packs": "pack", "settlements": "settlement"}
_KINDS: Final = {"posted", "voided", "expired", "recovered"}
_OURS: Final = {
    entries.REVENUE,
    entries.FEES,
    entries.COST,
    entries.CASH,
    entries.GRANTS,
    entries.PACKS,
    entries.USED,
}
_EARLIER: Final = range(3, 1000)
_COST_LEG: Final = 2
_FUNDS: Final = ("granted", "topped_up", "post_paid")
_TOKENS: Final = ("prompt_miss", "prompt_hit", "completion", "reasoning", "searches")


class Operations:
    """Give it each number once, in order; `close` compares what is derived."""

    def __init__(self, connection: Connection, now: float, differ: Differ) -> None:
        self._connection = connection
        self._now = now
        self._differ = differ
        self._hours = Hours(connection, differ)
        self._nodes = {row.id: row for row in connection.execute(select(tables.totals))}
        self._packs = {row.id: row for row in connection.execute(select(tables.packs))}
        self._funds: dict[tuple[str, str], dict[str, int]] = {}
        self._held: dict[tuple[str, str], int] = {}
        self._above: dict[tuple[str, str], int] = {}  # what calls used beyond their holds
        self._units: dict[str, list[int]] = {}  # pack -> units that came, were used, are held
        self._spent: dict[tuple[str, str, str, int], list[int]] = {}  # what a key spent and holds
        self._counts: dict[str, int] = dict.fromkeys(("holds", *sorted(_KINDS), *_TOKENS), 0)
        self._by_node: dict[int, int] = {}

    def check(self, seq: int, rows: dict[str, list[Any]]) -> None:
        """Everything with one number: rows by table."""
        what = [(name, row) for name in ("holds", *_BOOKINGS) for row in rows.get(name, ())]
        transfers = rows.get("transfers", [])
        for transfer in transfers:
            self._moved(seq, transfer)
        if len(what) != 1:
            names = " and ".join(f"a {_BOOKINGS.get(name, 'hold')}" for name, _ in what) or "nothing"
            self._differ(
                "numbers", f"Number {seq} is that of {names}, and of {', '.join(rows)}; it must be one thing's."
            )
            return
        name, row = what[0]
        if name == "holds":
            resolution = next(iter(rows.get("resolutions", ())), None)
            self._counts["holds"] += 1
            node = self._nodes.get(row.node)
            if node is not None and seq > node.last_seq:
                self._differ("numbers", f"Hold {row.id} has the number {seq}, beyond the last one given out.")
            if resolution is None:
                self._open(row, rows.get("reservations", []), transfers, node)
            else:
                self._ended(row, resolution, rows.get("reservations", []), transfers)
                if "progress" in rows:
                    self._differ("left over", f"Hold {row.id} has ended, and its progress is still kept.")
            return
        for other in ("resolutions", "reservations", "progress"):
            if other in rows:
                self._differ("numbers", f"The {_BOOKINGS[name]} {row.seq} has {other}, which only holds have.")
        self._booked(name, row, transfers)

    def close(self) -> None:
        self._hours.close()
        self._compare_balances()
        self._compare_packs()
        self._compare_spent()
        for name, count in self._counts.items():
            said = sum(getattr(node, name) for node in self._nodes.values())
            if said != count:
                self._differ("totals", f"The totals say {said:,} {name}, the entries {count:,}.")

    # One operation

    def _moved(self, seq: int, transfer: Any) -> None:
        """Count a transfer in the balances of both its sides."""
        if transfer.amount_pico <= 0 or transfer.debit == transfer.credit:
            self._differ("transfers", f"Transfer {seq}/{transfer.leg} moves nothing, or from one account to itself.")
        for side, amount in ((transfer.debit, -transfer.amount_pico), (transfer.credit, transfer.amount_pico)):
            kind, _, rest = side.partition(":")
            account, _, fund = rest.rpartition(":")
            if kind == "client" and fund in _FUNDS:
                funds = self._funds.setdefault((account, transfer.currency), dict.fromkeys(_FUNDS, 0))
                funds[fund] += amount
            elif kind == "pack" and rest in self._packs:
                self._units.setdefault(rest, [0, 0, 0])[0 if amount > 0 else 1] += abs(amount)
            elif side not in _OURS and not (kind == "host" and rest):
                self._differ(
                    "transfers", f"Transfer {seq}/{transfer.leg} touches {side!r}, which is no ledger account."
                )

    def _open(self, hold: Any, reserved: list[Any], transfers: list[Any], node: Any) -> None:
        place = (hold.account, hold.currency)
        self._held[place] = self._held.get(place, 0) + hold.amount_pico
        for each in reserved:
            kind, _, rest = each.what.partition(":")
            if kind == "pack":
                self._units.setdefault(rest, [0, 0, 0])[2] += each.units
            else:
                self._spent_of(hold, kind, rest)[1] += each.units
        if transfers:
            self._differ("holds", f"Hold {hold.id} has not ended, and money was moved for it.")
        if node is None or hold.seq < node.first_open:
            self._differ("holds", f"Hold {hold.id} is open where nobody looks for open ones.")
        if hold.expires_at + GRACE_S < self._now:
            self._differ(
                "late", f"Hold {hold.id} is open, and its time ended {self._now - hold.expires_at:,.0f} s ago."
            )

    def _ended(self, hold: Any, end: Any, reserved: list[Any], transfers: list[Any]) -> None:
        if end.kind not in _KINDS:
            self._differ("holds", f"Hold {hold.id} ended as {end.kind!r}, which is no way to end.")
            return
        self._counts[end.kind] += 1
        for name in _TOKENS:
            self._counts[name] += getattr(end, name)
            if getattr(end, name) < 0:
                self._differ("holds", f"Hold {hold.id} used {name} below zero.")
        paid = self._paid(hold, transfers)
        money = sum(paid.values())
        if money != end.owed_pico:
            self._differ("holds", f"Hold {hold.id} owes {end.owed_pico} and paid {money} ({hold.currency}, 10^-12).")
        if end.owed_pico and not entries.charges(end.kind):
            self._differ("holds", f"Hold {hold.id} was {end.kind} and owes something all the same.")
        if money > hold.amount_pico:
            place = (hold.account, hold.currency)
            self._above[place] = self._above.get(place, 0) + money - hold.amount_pico
        units = self._unpacked(hold, reserved, transfers)
        for each in reserved:
            kind, _, rest = each.what.partition(":")
            if kind != "pack":
                self._spent_of(hold, kind, rest)[0] += money
        self._costs(hold, end, transfers)
        counts = (
            1,
            end.kind == "posted",
            int(end.estimated),
            *(getattr(end, name) for name in _TOKENS),
            units,
            end.owed_pico,
            paid["granted"],
            paid["topped_up"],
        )
        of = (hold.account, hold.key_id, hold.model, end.host, hold.currency)
        self._hours.call(end.resolved_at, of, counts)

    def _paid(self, hold: Any, transfers: list[Any]) -> dict[str, int]:
        """Money of the client by fund. Only of the one who held, in the currency that was held."""
        paid = dict.fromkeys(_FUNDS, 0)
        for each in transfers:
            kind, _, rest = each.debit.partition(":")
            if kind != "client":
                continue
            account, _, fund = rest.rpartition(":")
            if account != hold.account or each.currency != hold.currency or fund not in paid:
                self._differ(
                    "holds", f"Hold {hold.id} of {hold.account} was paid from {each.debit} in {each.currency}."
                )
            elif each.credit not in {entries.REVENUE, entries.FEES}:
                self._differ("holds", f"Hold {hold.id} paid {each.credit}, which is neither revenue nor a fee.")
            else:
                paid[fund] += each.amount_pico
        return paid

    def _unpacked(self, hold: Any, reserved: list[Any], transfers: list[Any]) -> int:
        """Units of packs that were used: of packs of the client, and no more than were set aside."""
        aside = {each.what.partition(":")[2]: each.units for each in reserved if each.what.startswith("pack:")}
        units = 0
        for each in transfers:
            kind, _, pack_id = each.debit.partition(":")
            if kind != "pack":
                continue
            pack = self._packs.get(pack_id)
            units += each.amount_pico
            if (
                pack is None
                or pack.account != hold.account
                or each.currency != pack.unit
                or each.credit != entries.USED
            ):
                self._differ("packs", f"Hold {hold.id} of {hold.account} used {each.currency} of {each.debit}.")
            elif each.amount_pico > aside.get(pack_id, 0):
                self._differ("packs", f"Hold {hold.id} used more of pack {pack_id} than it had set aside.")
        return units

    def _costs(self, hold: Any, end: Any, transfers: list[Any]) -> None:
        """What we owe hosts: for the last dispatch, and for those before it."""
        last = 0
        for each in transfers:
            if each.debit != entries.COST:
                continue
            host = each.credit.partition(":")[2]
            if each.leg == _COST_LEG and host == end.host:
                last += each.amount_pico
            elif each.leg not in _EARLIER:
                self._differ("costs", f"Hold {hold.id} owes {each.credit} something in leg {each.leg}.")
            place = (hold.account, hold.key_id, hold.model, host, hold.currency, each.currency)
            self._hours.cost(end.resolved_at, place, each.amount_pico)
        if last != end.cost_pico:
            self._differ("costs", f"Hold {hold.id} cost us {end.cost_pico} at {end.host}, and {last} is owed to it.")

    def _booked(self, name: str, row: Any, transfers: list[Any]) -> None:
        """A deposit, pack or settlement moves what it says, once."""
        if name == "deposits":
            wanted = entries.deposited(row.account, row.fund, row.amount_pico, row.currency)
        elif name == "packs":
            wanted = entries.packed(row.id, row.units, row.unit)
        else:
            wanted = entries.settled(row.account, row.amount_pico, row.currency)
        moved = [(each.debit, each.credit, each.amount_pico, each.currency) for each in transfers]
        if moved != [(wanted.debit, wanted.credit, wanted.amount_pico, wanted.currency)]:
            told = "; ".join(f"{amount} {unit} from {a} to {b}" for a, b, amount, unit in moved) or "nothing"
            self._differ("bookings", f"The {_BOOKINGS[name]} with the number {row.seq} moved {told}.")

    def _spent_of(self, hold: Any, span: str, start: str) -> list[int]:
        return self._spent.setdefault((hold.key_id, hold.currency, span, int(start)), [0, 0])

    # What is derived

    def _compare_balances(self) -> None:
        credit = {row.id for row in self._connection.execute(select(tables.accounts)) if row.post_paid}
        seen = set()
        for row in self._connection.execute(select(tables.balances)):
            place = (row.account, row.currency)
            seen.add(place)
            funds = self._funds.get(place, dict.fromkeys(_FUNDS, 0))
            said = {**{fund: getattr(row, f"{fund}_pico") for fund in _FUNDS}, "held": row.held_pico}
            for name, amount in {**funds, "held": self._held.get(place, 0)}.items():
                if said[name] != amount:
                    where = f"{row.account} in {row.currency}"
                    self._differ("balances", f"The balance of {where} says {name} {said[name]}, its entries {amount}.")
            self._bounded(row, place, funds, place[0] in credit)
        for place in (self._funds.keys() | self._held.keys()) - seen:
            if any(self._funds.get(place, {}).values()) or self._held.get(place):
                self._differ("balances", f"{place[0]} has entries in {place[1]} and no balance.")

    def _bounded(self, row: Any, place: tuple[str, str], funds: dict[str, int], credit: bool) -> None:
        """I5: who has no credit, and never used any, owes at most what calls used beyond their holds."""
        if funds["granted"] < 0 or funds["post_paid"] > 0:
            self._differ("balances", f"{row.account} in {row.currency}: granted below zero, or credit above.")
        if not credit and not funds["post_paid"] and funds["topped_up"] + funds["granted"] < -self._above.get(place, 0):
            # An account that had credit before and settled it has its settlements.
            table = tables.settlements.c
            settled = select(table.seq).where(table.account == row.account, table.currency == row.currency).limit(1)
            if self._connection.execute(settled).first() is None:
                self._differ(
                    "debts", f"{row.account} owes {row.currency} without credit, beyond what its calls explain."
                )

    def _compare_packs(self) -> None:
        said = {row.pack: (row.used, row.held) for row in self._connection.execute(select(tables.pack_balances))}
        for pack_id in sorted(said.keys() | self._units.keys() | self._packs.keys()):
            came, used, held = self._units.get(pack_id, (0, 0, 0))
            if said.get(pack_id) != (used, held):
                told = said.get(pack_id, ("nothing", "nothing"))
                self._differ(
                    "packs", f"Pack {pack_id} says {told[0]} used and {told[1]} held, its entries {used} and {held}."
                )
            if used + held > came:
                self._differ("packs", f"Pack {pack_id} had {came} units, and {used + held} are used or held.")

    def _compare_spent(self) -> None:
        for row in self._connection.execute(select(tables.spent)):
            spent, held = self._spent.pop((row.key_id, row.currency, row.span, row.start), (0, 0))
            if (row.spent_pico, row.held_pico) != (spent, held):
                where = f"Key {row.key_id} in the {row.span} of {row.start}"
                self._differ(
                    "spent",
                    f"{where} says {row.spent_pico} spent and {row.held_pico} held in {row.currency}, "
                    f"its entries {spent} and {held}.",
                )
        for (key, currency, span, start), (spent, held) in self._spent.items():
            if spent or held:
                self._differ("spent", f"Key {key} spent {spent} {currency} in the {span} of {start}; no row says so.")
