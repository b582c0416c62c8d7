"""Models and hosts: what can be asked for, where it is answered, and the rows that say so at run time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from moonpool.catalog import prices
from moonpool.catalog.model import Model
from moonpool.catalog.overlay import may_be_kept
from moonpool.errors import Problem
from moonpool.settings import ConfigError
from moonpool.state.base_catalogue import KeptRow
from moonpool.web import host_check
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import CatalogueRow, HostRow, ModelRow, NewRow
from moonpool.words import Host


def _model_row(model: Model) -> ModelRow:
    return ModelRow(
        name=model.name,
        hosts=[target.host.name for target in model.targets],
        window=model.window,
        output_max=model.output_max,
        thinking=model.thinking,
        can=sorted(model.can),
        owned_by=model.owned_by,
        created=model.created,
    )


async def list_models(desk: Desk, _: Ask) -> Answer:
    """Every model that can be asked for."""
    return 200, {"data": [_model_row(model) for model in desk.catalogue.models()]}


async def show_model(desk: Desk, ask: Ask) -> Answer:
    """All that holds for one model, and what it costs now. Raises caller.unknown_model."""
    model = desk.catalogue.find(ask.names["name"])
    now = prices.now_table(model.prices, desk.clock())
    return 200, {"name": model.name, "now": now, **desk.catalogue.effective()["models"][model.name]}


def _host_row(host: Host) -> HostRow:
    return HostRow(
        name=host.name,
        dialect=host.dialect,
        transport=host.transport,
        base_url=host.base_url,
        has_key=bool(host.api_key),
        account=host.account,
        concurrency=host.concurrency,
        concurrency_by_model=dict(host.concurrency_by_model),
    )


async def list_hosts(desk: Desk, _: Ask) -> Answer:
    """The hosts in use, their keys not shown; why the other known ones are not in use; and, from a running server, how
    each is doing with the models it was asked for (`places`) and what each account's cache saved (`caches`)."""
    catalogue = desk.catalogue
    rows = [_host_row(host) for host in catalogue.hosts()]
    return 200, {"data": rows, "absent": dict(catalogue.absent), **desk.parts().get("fleet", {})}


async def check_hosts(desk: Desk, ask: Ask) -> Answer:
    """Ask each host, or the one named, what it serves and what is left there, and say what to do. A host that fails is
    an answer, no Problem."""
    hosts: Sequence[Host] = desk.catalogue.hosts()
    if "host" in ask.query:
        name = ask.query["host"]
        hosts = [host for host in hosts if host.name == name]
        if not hosts:
            raise Problem("caller.invalid_value", f"There is no host {name!r}.", param="host")
    return 200, {"data": await asyncio.gather(*(host_check.check(desk, host) for host in hosts))}


def _kept_row(row: KeptRow, trouble: str = "") -> CatalogueRow:
    return CatalogueRow(row.section, row.name, dict(row.row), int(row.created_at), trouble)


async def list_rows(desk: Desk, _: Ask) -> Answer:
    """Every row that was said at run time, by section and name."""
    offer = desk.offer
    return 200, {"data": [_kept_row(row, offer.trouble.get(row.key, "")) for row in offer.rows.list()]}


async def set_row(desk: Desk, ask: Ask) -> Answer:
    """Lay a row over what the file says of that name: on every server within a second, for requests that arrive from
    then on. Raises caller.invalid_value, with the field in `param`, for what could not be used: then nothing changed;
    caller.conflict."""
    new: NewRow = ask.body
    section, name = ask.names["section"], ask.names["name"]
    await desk.offer.rows.refresh()  # what was said at another node a moment ago
    row, seen = KeptRow(section, name, new.row, desk.clock()), desk.offer.rows.revision
    try:
        may_be_kept(desk.settings, section, name, new.row)
        desk.offer.tried(row)
    except ConfigError as error:
        raise _unusable(error) from None
    await ask.log(desk, f"{section}.{name}", row=new.row)
    if not await desk.offer.rows.set(row, seen):
        raise _at_once()
    return 200, _kept_row(row, desk.offer.trouble.get(row.key, ""))


async def unset_row(desk: Desk, ask: Ask) -> Answer:
    """Forget a row: what the file says holds again. Raises caller.not_found, caller.invalid_value where others need it,
    caller.conflict."""
    section, name = ask.names["section"], ask.names["name"]
    rows = desk.offer.rows
    await rows.refresh()
    seen = rows.revision
    if not any(row.key == (section, name) for row in rows.list()):
        raise Problem("caller.not_found", f"No row {section}.{name} is kept.", param="name")
    try:
        desk.offer.tried_without(section, name)
    except ConfigError as error:
        raise _unusable(error) from None
    await ask.log(desk, f"{section}.{name}")
    if not await rows.delete(section, name, seen):
        raise _at_once()
    return 200, {"section": section, "name": name, "deleted": 1}


def _unusable(error: ConfigError) -> Problem:
    return Problem("caller.invalid_value", f"{error.key}: {error.sentence}", param=error.key)


def _at_once() -> Problem:
    return Problem("caller.conflict", "Somebody else changed the catalogue at the same moment; look, and say it again.")


ROUTES: Final = (
    Route("GET", "/models", list_models, "List the models of the catalogue.", ModelRow, many=True),
    Route("GET", "/models/{name}", show_model, "Show all that holds for one model.", None),
    Route("GET", "/hosts", list_hosts, "List the hosts in use.", HostRow, many=True),
    Route(
        "POST",
        "/hosts/check",
        check_hosts,
        "Ask hosts for their models and balance.",
        None,
        query=("host",),
        changes=False,
    ),
    Route("GET", "/catalogue", list_rows, "List the rows that were said at run time.", CatalogueRow, many=True),
    Route(
        "PUT", "/catalogue/{section}/{name}", set_row, "Lay a row over the catalogue.", CatalogueRow, body=NewRow,
    ),
    Route("DELETE", "/catalogue/{section}/{name}", unset_row, "Forget such a row.", None),
)  # fmt: skip
