"""Can a host be used, and if not, what is to be done? One short conversation with it, in sentences for an operator.

Asked are its list of models, which is compared with what the catalogue would send there, and its balance where the row
names where that is told. A list that is missing is no fault: not every host has one. Nobody waits longer than CHECK_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from moonpool.catalog.catalog import Catalogue
from moonpool.errors import Problem
from moonpool.words import Headers, Host, Outbound

CHECK_S: Final = 15.0
_BODY_BYTES_MAX: Final = 1 << 20


class Desk(Protocol):
    """What of admin.Desk is needed here."""

    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def transports(self) -> Mapping[str, Any]: ...
    @property
    def dialects(self) -> Mapping[str, Any]: ...
    @property
    def parts(self) -> Any: ...


class _Found(Struct):
    """`says` is what happened, `do` what to do about it ("" for nothing); `models` None: not told."""

    ok: bool
    says: str
    do: str = ""
    models: list[str] | None = None


async def check(desk: Desk, host: Host) -> dict[str, object]:
    """A row for a person or a program."""
    clock = asyncio.get_running_loop().time
    began = clock()
    balance = None
    missing: list[str] = []
    if host.transport != "http":
        found = _inside(desk)
    elif host.transport not in desk.transports:
        found = _Found(False, f"there is no transport {host.transport!r}")
    else:
        # A check that an operator waits for: no longer than CHECK_S, whatever the host is allowed for answers.
        host = msgspec.structs.replace(host, first_s=min(host.first_s, CHECK_S), total_s=CHECK_S)
        found, left = await asyncio.gather(_ask_for_models(desk, host), _ask_for_balance(desk, host))
        missing = _missing(desk, host, found.models)
        if missing and not found.do:
            found.do = (
                f"requests for {', '.join(missing)} would fail there: correct the name in the `hosts` of that model in "
                "moonpool.toml, or leave this host out of them"
            )
        if found.ok and left is not None:
            balance, spent = left
            if spent:
                found.do = "top up the account there: requests will be refused"
    return {
        "name": host.name,
        "dialect": host.dialect,
        "ok": found.ok,
        "says": found.says,
        "do": found.do,
        "models": None if found.models is None else len(found.models),
        "missing": missing,
        "balance": balance,
        "took_s": round(clock() - began, 3),
    }


def _inside(desk: Desk) -> _Found:
    embedded = desk.parts().get("embedded")
    if embedded is None:
        return _Found(True, "runs inside the server")
    ok = embedded["state"] == "ready"
    return _Found(ok, f"is {embedded['state']}", "" if ok else "see `moonpool doctor` and the last lines of the log")


def _missing(desk: Desk, host: Host, listed: list[str] | None) -> list[str]:
    """Names under which the catalogue would ask for models there, and which are not in its list."""
    if listed is None or not desk.dialects[host.dialect].by_name:
        return []
    wanted = (
        target.model for model in desk.catalogue.models() for target in model.targets if target.host.name == host.name
    )
    return sorted(set(wanted) - set(listed))


async def _ask_for_models(desk: Desk, host: Host) -> _Found:
    key = f"hosts.{host.name}.api_key"
    got = await _get(desk, host, "/models")
    if got.problem is not None:
        says = " ".join(filter(None, (got.problem.message, got.problem.detail)))
        return _Found(False, says, f"see that it runs and that hosts.{host.name}.base_url and any proxy are right")
    if got.status in {401, 403} and host.api_key:
        return _Found(
            False, f"refuses the API key (status {got.status})", f"give {key}, or the variable it names, a valid key"
        )
    if got.status in {401, 403}:
        return _Found(False, f"wants an API key (status {got.status})", f"set {key}")
    if got.status == 402:
        return _Found(False, "says that nothing is left (status 402)", "top up the account there")
    if got.status in {404, 405, 501}:
        return _Found(True, f"answers, but has no list of models (status {got.status})")
    if got.status == 429:
        return _Found(True, "answers, but is too busy to list its models (status 429)", "check again later")
    if got.status != 200:
        return _Found(False, f"answers with status {got.status}", "check again later; if it stays so, ask its operator")
    try:
        models = [model.id for model in msgspec.json.decode(bytes(got.body), type=_Listing).data]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Found(
            False,
            "answers with something that is no list of models: is the base URL right?",
            f"hosts.{host.name}.base_url is what stands before /chat/completions, a /v1 included",
        )
    return _Found(True, f"serves {len(models)} model{'' if len(models) == 1 else 's'}", models=models)


async def _ask_for_balance(desk: Desk, host: Host) -> tuple[str, bool] | None:
    """What is left there and whether that is too little to go on; None where that is not told."""
    root = msgspec.structs.replace(host, base_url=host.base_url.removesuffix("/v1"))
    got = await asyncio.gather(*(_get(desk, root, path) for path in host.balance))
    told = {}
    for path, answer in zip(host.balance, got, strict=True):
        if answer.problem is None and answer.status == 200:
            try:
                told[path] = msgspec.json.decode(bytes(answer.body))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    left: tuple[str, bool] | None = desk.dialects[host.dialect].read_balance(told) if told else None
    return left


class _Got:
    """A Sink that keeps a short answer whole."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.problem: Problem | None = None
        # A future and no Later: its end may come from within another task, which cannot step into ours.
        self.over: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Headers) -> None:
        self.status = status

    def data(self, chunk: bytes) -> None:
        if len(self.body) < _BODY_BYTES_MAX:
            self.body += chunk

    def alive(self) -> None: ...

    def end(self, problem: Problem | None) -> None:
        self.over.set_result(problem)


async def _get(desk: Desk, host: Host, path: str) -> _Got:
    sink = _Got()
    desk.transports[host.transport].send(host, Outbound(path, method="GET"), sink)
    sink.problem = await sink.over
    return sink


class _Model(Struct):
    id: str


class _Listing(Struct):
    data: list[_Model]
