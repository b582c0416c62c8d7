"""Who pays another price than the list's? What accounts agreed on, ready for a request to find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from moonpool.catalog import prices
from moonpool.catalog.catalog import Catalogue
from moonpool.catalog.model import Model
from moonpool.catalog.rows import AgreedRow
from moonpool.settings import ConfigError
from moonpool.state.base_prices import Override, Overrides
from moonpool.words import Price

_NONE: Final[Mapping[str, prices.Schedule]] = {}

Own = Mapping[str, Mapping[str, prices.Schedule]]


def agreed(catalogue: Catalogue, account: str, model: str, rows: Iterable[Override]) -> prices.Schedule:
    """What `account` pays for `model`: these rows over the list's price. Raises ConfigError for what is no price."""
    key = f"prices.{account}.{model}"
    try:
        parsed = {row.valid_from: msgspec.convert(row.price, AgreedRow) for row in rows}
    except msgspec.ValidationError as error:
        raise ConfigError("", key, f"{error}.") from None
    list_price = catalogue.by_name[model].prices
    return prices.agreed(parsed, list_price, f"own:{account}/{model}", key, catalogue.calendars)


def all_agreed(catalogue: Catalogue, overrides: Iterable[Override]) -> Own:
    """By account (its id) and model. Raises ConfigError for what is no price; one for a model that is not served now
    has no effect."""
    found: dict[str, dict[str, list[Override]]] = {}
    for row in overrides:
        if row.model in catalogue.by_name:
            found.setdefault(row.account, {}).setdefault(row.model, []).append(row)
    return {
        account: {model: agreed(catalogue, account, model, rows) for model, rows in models.items()}
        for account, models in found.items()
    }


def tariffs_of(catalogue: Catalogue, overrides: Overrides, note: Callable[..., None]) -> Tariffs:
    """What is kept there, now and after each change; `note` tells an operator of a row that cannot be used. Raises
    ConfigError for one that is there already."""
    found = Tariffs(catalogue)

    def take() -> None:
        try:
            found.take(overrides.list())
        except ConfigError as error:
            note("agreed prices left as they were", why=str(error))

    found.take(overrides.list())
    overrides.listen(take)
    return found


class Tariffs:
    """`own` is by account (its id) and model; an account that pays list prices for all has no row. Replaced whole when
    anything changes: whoever found a price keeps it."""

    __slots__ = ("_catalogue", "own")

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.own: Own = {}

    def take(self, overrides: Iterable[Override]) -> None:
        """From now on these hold, and no others. Raises ConfigError, and keeps what held, for one that is no price."""
        self.own = all_agreed(self._catalogue, overrides)

    def follow(self, catalogue: Catalogue, overrides: Iterable[Override]) -> None:
        """Another list, and what was agreed over it. Raises ConfigError, and keeps what held."""
        self.own = all_agreed(catalogue, overrides)
        self._catalogue = catalogue

    def price(self, account: str, model: Model, at: float) -> Price:
        """What this account (its id) pays for a model, at a moment in Unix seconds."""
        own = self.own.get(account)
        prices = model.prices if own is None else own.get(model.name, model.prices)
        return prices.price if prices.since <= at < prices.until else prices.find(at)

    def of(self, account: str) -> Mapping[str, prices.Schedule]:
        """By model, what this account does not pay as others do."""
        return self.own.get(account, _NONE)
