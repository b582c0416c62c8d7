"""Models and hosts: what can be asked for, and where it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from moonpool.catalog import prices
from moonpool.catalog.model import Model
from moonpool.errors import Problem
from moonpool.web import host_check
from moonpool.web.admin.routing import Answer, Ask, Desk, Route
from moonpool.web.admin.types import HostRow, ModelRow
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
)
