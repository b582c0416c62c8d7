"""What is offered now? The operator's file with the rows that were kept at run time over it, made anew at each change.

Rules:
- A row is tried, as a part of the whole, before it is kept: what cannot be used is refused and changes nothing.
- Every node makes its own catalogue of the same rows, and swaps it at one moment of its loop. Who found a model, a host
  or a price before keeps it to the end of its request; where it is to be asked anew, what holds then counts (fleet.py).
- A row that was good where it was said and is not here (a file that this node has not) is left as it was here, the
  others count; the journal and `GET /admin/v1/catalogue` say why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import force_setattr

from moonpool.catalog.catalog import Catalogue, build
from moonpool.relay.tariffs import all_agreed
from moonpool.settings import ConfigError, Settings
from moonpool.state.base_catalogue import KeptRow, KeptRows
from moonpool.state.base_prices import Overrides

if TYPE_CHECKING:
    from moonpool.relay.platform import Platform

Rows = Mapping[tuple[str, str], KeptRow]
_NO_ROWS: Final[Rows] = {}
_REMEDY: Final = (
    "`moonpool catalogue list` shows the rows that are kept in the store, `moonpool catalogue unset` forgets one."
)


class Offer:
    """`catalogue` is what holds; `trouble` says, by section and name, why a row does not. `rows` is where they are
    kept, from `open` on."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> None:
        """What the file says. Raises ConfigError. `facts`: see catalog.build."""
        self._settings = settings
        self._environ = environ
        self._facts = facts
        self._used = _NO_ROWS
        self._overrides: Overrides
        self.rows: KeptRows
        self.trouble: Mapping[tuple[str, str], str] = {}
        self.catalogue = build(settings, environ, facts)

    def open(self, rows: KeptRows, overrides: Overrides, *, leave_out: bool = False) -> Catalogue:
        """Lay over it what is kept; gives what holds then. Raises ConfigError for what cannot be used, unless that is
        to be left out."""
        self.rows, self._overrides = rows, overrides
        if leave_out:
            self.look()
            return self.catalogue
        kept = _by_key(rows.list())
        try:
            self.catalogue, self._used = self._tried(kept) if kept else self.catalogue, kept
        except ConfigError as error:
            raise ConfigError("", error.key, f"{error.sentence} {_REMEDY}") from None
        return self.catalogue

    def tried(self, changed: KeptRow) -> None:
        """Could this row be kept? Raises ConfigError."""
        self._tried({**_by_key(self.rows.list()), changed.key: changed})

    def tried_without(self, section: str, name: str) -> None:
        """Could this row be forgotten? Raises ConfigError."""
        kept = _by_key(self.rows.list())
        self._tried({key: row for key, row in kept.items() if key != (section, name)})

    def look(self) -> None:
        """The rows are others now: make `catalogue` of them, as far as they can be used here."""
        wanted = _by_key(self.rows.list())
        try:
            self.catalogue, self._used, self.trouble = self._tried(wanted), wanted, {}
        except ConfigError:
            self._step_by_step(wanted)

    def _step_by_step(self, wanted: Rows) -> None:
        """In the order in which they were said; what was taken back comes last."""
        used = dict(self._used)
        trouble: dict[tuple[str, str], str] = {}
        said = sorted((row for row in wanted.values() if used.get(row.key) != row), key=lambda row: row.created_at)
        gone = [key for key in used if key not in wanted]
        for key in [*(row.key for row in said), *gone]:
            trial = {**used, key: wanted[key]} if key in wanted else {k: row for k, row in used.items() if k != key}
            try:
                self.catalogue, used = self._tried(trial), trial
            except ConfigError as error:
                trouble[key] = f"{error.key}: {error.sentence}"
        self._used, self.trouble = used, trouble

    def _tried(self, rows: Rows) -> Catalogue:
        tables: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in rows.values():
            tables.setdefault(row.section, {})[row.name] = row.row
        catalogue = build(self._settings, self._environ, self._facts, tables)
        all_agreed(catalogue, self._overrides.list())  # what was agreed may go by a calendar that is kept
        return catalogue


def follow(platform: Platform, note: Callable[..., None]) -> None:
    """From now on `platform`, and whatever else holds on to a catalogue, goes by what is kept."""
    offer = platform.offer

    def take() -> None:
        known = offer.trouble
        offer.look()
        for key, why in offer.trouble.items():
            if known.get(key) != why:
                note("row of the catalogue left as it was", row=".".join(key), why=why)
        catalogue = offer.catalogue
        if catalogue is not platform.catalogue:
            platform.tariffs.follow(catalogue, platform.overrides.list())
            force_setattr(platform, "catalogue", catalogue)  # the one field that is ever replaced
            platform.fleet.follow(catalogue)
            note("catalogue", kept=len(offer.rows.list()), models=len(catalogue.by_name), hosts=len(catalogue.present))

    offer.rows.listen(take)


def _by_key(rows: Iterable[KeptRow]) -> Rows:
    return {row.key: row for row in rows}
