"""`moonpool doctor`: is everything here that a server needs, and what to do where it is not.

Each check is one function of `CHECKS` that answers a Finding; none changes anything but a probe file it removes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import typer
from msgspec import Struct

from moonpool.cli import desk, show
from moonpool.cli.ledger import POSTGRES
from moonpool.cli.options import read
from moonpool.settings import ConfigError, Settings, address_of

# Logs, receipts and expiry dates are wrong long before this, but nothing of ours is older.
_OLDEST_AT: Final = 1_735_689_600.0
_SPARE_BYTES: Final = 1 << 30
_NEWEST_PYTHON: Final = (3, 13)


class Finding(Struct, frozen=True):
    """`says` what is, `do` what to do about it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    says: str
    do: str = ""


def python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] > _NEWEST_PYTHON:
        return Finding("python", "warn", f"Python {version} was not tested", "use 3.13 if anything is odd")
    return Finding("python", "ok", f"Python {version}")


def home(settings: Settings) -> Finding:
    folder = settings.home_path()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("home", "fail", f"{folder}: {error.strerror}", "choose another with --home or MOONPOOL_HOME")
    free = shutil.disk_usage(folder).free
    if free < _SPARE_BYTES:
        return Finding(
            "home", "warn", f"{folder} has {free >> 20} MiB free", "make room: the ledger stops when it is full"
        )
    return Finding("home", "ok", f"{folder} can be written, {free >> 30} GiB free")


def server(settings: Settings) -> Finding:
    if not desk.server_runs(settings):
        return Finding("server", "ok", "none runs in this home")
    status = desk.ask(settings, "GET", "/status")
    if status["reasons"]:
        says = "; ".join(f"{part}: {reason}" for part, reason in status["reasons"].items())
        return Finding("server", "warn", f"runs, is not ready: {says}", "wait, or see its log")
    if status["warnings"]:
        says = "; ".join(f"{part}: {reason}" for part, reason in status["warnings"].items())
        return Finding("server", "warn", f"runs, but: {says}", "see its log, and the line about it here")
    return Finding("server", "ok", f"runs and is ready, process {status['pid']}")


def store(settings: Settings) -> Finding:
    try:
        totals = desk.ask(settings, "GET", "/totals")
    except desk.Refused as refusal:
        return Finding("store", "fail", str(refusal), "another server may hold it: stop that one, or use its home")
    return Finding("store", "ok", f"opens; {totals.get('holds', 0)} requests are booked")


def limits(settings: Settings) -> Finding:
    """Asked by this command itself, as a server would: with the address as this environment has it."""
    if settings.limits == "memory://":
        return Finding("limits", "ok", "kept in the memory of the server")
    from moonpool.state.limiters import ask_limits

    try:
        trouble = ask_limits(address_of(settings, os.environ, "limits"), settings.limits_call_s)
    except ConfigError as error:
        return Finding("limits", "fail", error.sentence, "set limits in moonpool.toml, or what it names")
    if trouble is not None:
        return Finding(
            "limits", "fail", trouble, "start it, or see docs/guides/many-machines.md: its password, rights and TLS"
        )
    return Finding("limits", "ok", "their store answers, and lets us do all we need")


def file(settings: Settings) -> Finding:
    from moonpool.app import store_address
    from moonpool.state.wholeness import damage

    where = store_address(settings, os.environ)
    path = Path(where)
    if where.startswith(POSTGRES) or not path.exists():
        return Finding("file", "ok", "there is no database file to check")
    try:
        found = damage(path, check="integrity_check")
    except sqlite3.Error as error:
        return Finding("file", "fail", f"{path}: {error}", "who may read it, and is the disk well?")
    if found:
        return Finding("file", "fail", f"{path} is damaged: {found}", "restore the newest backup that is sound")
    return Finding("file", "ok", f"{path} hangs together; moonpool ledger audit checks what it says")


def weights(settings: Settings) -> Finding:
    if not settings.embedded.enabled:
        return Finding("weights", "ok", "the embedded model is switched off")
    from moonpool.cli.pull import place

    at = place(settings)
    if at.found():
        return Finding("weights", "ok", f"{at.path}, {at.path.stat().st_size >> 20} MiB, verified")
    if at.path.exists():
        return Finding("weights", "fail", f"{at.path} is not what it should be", "remove it and: moonpool models pull")
    return Finding("weights", "fail", f"{at.path} is not there", "moonpool models pull (or serve, which does it)")


def llama(settings: Settings) -> Finding:
    if not settings.embedded.enabled:
        return Finding("llama.cpp", "ok", "not needed")
    if importlib.util.find_spec("xllamacpp") is None:
        return Finding("llama.cpp", "fail", "the package xllamacpp is not installed", "make install")
    return Finding("llama.cpp", "ok", "installed")


def port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    if desk.server_runs(settings):
        return Finding("port", "ok", "in use by the server of this home")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding("port", "fail", f"{where}: {error.strerror}", "choose another with --port")
    return Finding("port", "ok", f"{where} is free")


def hosts(settings: Settings) -> Finding:
    rows = desk.ask(settings, "GET", "/hosts")["data"]
    keyless = [row["name"] for row in rows if row["transport"] == "http" and not row["has_key"]]
    if keyless:
        return Finding(
            "hosts", "warn", f"no API key for {', '.join(keyless)}", "set api_key in moonpool.toml, if it wants one"
        )
    names = ", ".join(row["name"] for row in rows) or "none"
    return Finding("hosts", "ok", f"configured: {names}; moonpool hosts check asks them")


def clock(_: Settings) -> Finding:
    now = time.time()
    if now < _OLDEST_AT:
        return Finding(
            "clock", "fail", time.strftime("%Y-%m-%d", time.gmtime(now)), "set the clock: keys and prices have dates"
        )
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def prices(settings: Settings) -> Finding:
    warnings = desk.ask(settings, "GET", "/prices")["warnings"]
    if warnings:
        return Finding("prices", "warn", "; ".join(warnings), "copy the year from the State Council's notice")
    return Finding("prices", "ok", "the holidays that peak hours go by are known")


CHECKS: Final[tuple[Callable[[Settings], Finding], ...]] = (
    python, home, server, store, file, limits, weights, llama, port, hosts, clock, prices,
)  # fmt: skip


def doctor(json: show.Json = False, home: show.Home = None, config: show.Config = None) -> None:
    """Check this machine: each line is ok, warn or fail, with what to do. Exit code 1 when something fails."""
    settings = read(home, config)
    findings = []
    for check in CHECKS:
        try:
            finding = check(settings)
        except desk.Refused as refusal:
            finding = Finding(check.__name__, "fail", str(refusal), "see the line about the store")
        findings.append(finding)
        if not json:
            show.say(f"{finding.state:<5} {finding.name:<10} {finding.says}")
            if finding.do:
                show.say(f"{'':<16} → {finding.do}")
    if json:
        show.json([msgspec.to_builtins(finding) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
