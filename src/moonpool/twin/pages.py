"""What do the provider's other addresses say? Its models, its balance, its billing. Shapes: PROVIDERS 1.2, 4.2, 4.3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from moonpool.errors import Problem
from moonpool.ledger.money import UNIT_PICO, decimal
from moonpool.twin.accounts import FUNDS_PICO, Accounts, account_of
from moonpool.twin.providers import Part, Provider

QUOTA_UNIT: Final = 500_000
"""Raw quota of one unit of the currency (PROVIDERS 4.3)."""


class Asked(Struct, frozen=True):
    """A page that is asked for: of which provider, by whom. `tail` is what the path ends with where the page takes a
    name."""

    provider: Provider
    parts: Mapping[str, Part]
    accounts: Accounts
    key: str
    tail: str = ""


def models(asked: Asked) -> dict[str, Any]:
    rows = [_row(part, asked.provider) for part in asked.parts.values() if part.listed]
    return {**asked.provider.model_list, "object": "list", "data": rows}


def model(asked: Asked) -> dict[str, Any]:
    """One of them. Raises caller.not_found."""
    part = asked.parts.get(asked.tail)
    if part is None or not part.listed:
        sentence = f"The model '{asked.tail[:128]}' does not exist"
        raise Problem("caller.not_found", sentence, param="model")
    return _row(part, asked.provider)


def model_in_a_200(asked: Asked) -> dict[str, Any]:
    """As `model`, but one that does not exist is an error with the status 200."""
    try:
        return model(asked)
    except Problem as problem:
        error = {
            "message": problem.message,
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
        return {"error": error}


def _row(part: Part, provider: Provider) -> dict[str, Any]:
    facts = {"{window}": part.model.window, "{created}": part.model.created, "{name}": part.model.name}
    extra = {
        name: facts.get(value, value) if type(value) is str else value for name, value in provider.model_row.items()
    }
    return {"id": part.model.name, "object": "model", **extra}


def balance(asked: Asked) -> dict[str, Any]:
    left = asked.accounts.left_pico(asked.key)
    info = {
        "currency": asked.provider.funds,
        "total_balance": decimal(left),
        "granted_balance": decimal(0),
        "topped_up_balance": decimal(left),
    }
    return {"is_available": left > 0, "balance_infos": [info]}


def subscription(asked: Asked) -> dict[str, Any]:
    """What was granted: remaining and used."""
    granted = (asked.accounts.left_pico(asked.key) + _spent(asked)) / UNIT_PICO
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": granted,
        "hard_limit_usd": granted,
        "system_hard_limit_usd": granted,
        "access_until": 0,
    }


def billing_usage(asked: Asked) -> dict[str, Any]:
    """In hundredths."""
    return {"object": "list", "total_usage": _spent(asked) * 100 / UNIT_PICO}


def token_usage(asked: Asked) -> dict[str, Any]:
    used = _spent(asked) * QUOTA_UNIT // UNIT_PICO
    available = asked.accounts.left_pico(asked.key) * QUOTA_UNIT // UNIT_PICO
    data = {
        "object": "token_usage",
        "name": account_of(asked.key),
        "total_granted": used + available,
        "total_used": used,
        "total_available": available,
        "unlimited_quota": False,
        "model_limits": {},
        "model_limits_enabled": False,
        "expires_at": 0,
    }
    return {"code": True, "message": "ok", "data": data}


def health(asked: Asked) -> dict[str, Any]:
    """For servers whose probe reads the status only."""
    return {}


def _spent(asked: Asked) -> int:
    return asked.accounts.spent_pico.get(account_of(asked.key), 0)


PAGES: Final[Mapping[str, Callable[[Asked], dict[str, Any]]]] = {
    page.__name__: page
    for page in (models, model, model_in_a_200, balance, subscription, billing_usage, token_usage, health)
}
OPEN: Final = frozenset(("health",))
"""Pages that ask for no key."""

__all__ = ["FUNDS_PICO", "OPEN", "PAGES", "Asked"]
