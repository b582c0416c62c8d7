"""`moonpool`: every command, and how they end.

A refusal is one sentence on standard error and exit code 1; wrong usage or configuration is exit code 2.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from moonpool import __version__
from moonpool.cli import (
    accounts,
    audit,
    catalogue,
    config,
    doctor,
    hosts,
    keys,
    ledger,
    models,
    money,
    prices,
    serve,
    show,
    tokens,
    twin,
    usage,
    users,
)
from moonpool.cli.desk import Refused
from moonpool.errors import Problem
from moonpool.settings import ConfigError

app = typer.Typer(
    name="moonpool",
    help="A self-hosted, OpenAI-compatible API platform. Start with: moonpool serve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(accounts.app, name="accounts")
app.add_typer(money.packs, name="packs")
app.add_typer(money.codes, name="codes")
app.add_typer(money.alerts, name="alerts")
app.add_typer(audit.app, name="audit")
app.add_typer(users.app, name="users")
app.add_typer(tokens.app, name="tokens")
app.add_typer(models.app, name="models")
app.add_typer(prices.app, name="prices")
app.add_typer(hosts.app, name="hosts")
app.add_typer(catalogue.app, name="catalogue")
app.command()(usage.usage)
app.add_typer(ledger.app, name="ledger")
app.add_typer(config.app, name="config")
app.command()(doctor.doctor)
app.command()(twin.twin)


def _version(wanted: bool) -> None:
    if wanted:
        show.say(f"moonpool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """See `help` above: typer wants a function to hang options on."""


def command_tree() -> Any:
    """The commands as the parser sees them, for docs/reference/cli.md."""
    return typer.main.get_command(app)


def main() -> None:
    try:
        app()
    except ConfigError as error:
        _end(2, str(error))
    except Refused as refusal:
        _end(1, str(refusal))
    except Problem as problem:
        _end(1, " ".join(filter(None, (problem.message, problem.detail))))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read us has gone (`| head`): say nothing more, also not while Python shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        _end(1, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        sys.exit(130)


def _end(code: int, sentence: str) -> None:
    show.note(f"moonpool: {sentence}")
    sys.exit(code)
