"""`moonpool twin`: play a provider, say where, and write down what came."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moonpool.cli import show
from moonpool.cli.options import read
from moonpool.settings import ConfigError
from moonpool.twin.providers import providers

if TYPE_CHECKING:
    from moonpool.twin.twin import Twin

_KEY = "sk-twin.1"


def twin(
    provider: Annotated[str, typer.Argument(help=f"Who is played: {', '.join(providers())}.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8788,
    faults: Annotated[Path | None, typer.Option(help="A script of faults (TOML).", exists=True, dir_okay=False)] = None,
    name: Annotated[list[str] | None, typer.Option(help="One more name of its first model; may be repeated.")] = None,
    model: Annotated[
        str, typer.Option(help="Who answers: transcripts, transcripts:FOLDER with answers of your own, or embedded.")
    ] = "transcripts",
    seed: Annotated[int | None, typer.Option(help="What is drawn, is drawn from this.", show_default="0")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests at once of an account for a model, instead of the provider's.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Play another day (YYYY-MM-DD): its models, rules and prices.", metavar="DAY")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Append a line of JSON for each request.", dir_okay=False)] = None,
    log_content: Annotated[bool, typer.Option("--log-content", help="Write what was asked into the log.")] = False,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Play a provider strictly, with faults by script, for tests; it runs until it is interrupted or terminated."""
    from moonpool.twin.twin import EMBEDDED, Twin, run
    from moonpool.workers import raise_descriptor_limit

    weights: Path | None = None
    settings = None
    if model == EMBEDDED:
        from moonpool.cli import pull

        settings = read(home, config)
        weights = pull.ready(settings)
    out = log.open("ab") if log is not None else None
    played = Twin(
        provider,
        host=host,
        port=port,
        names=name or (),
        faults=faults,
        model=model,
        seed=seed,
        concurrency=concurrency,
        at=_moment(at),
        log=out,
        log_content=log_content,
        weights=weights,
        home=settings.home_path() if settings is not None else None,
        settings=settings,
    )
    raise_descriptor_limit()
    try:
        code = run(played, announce)
    finally:
        if out is not None:
            out.close()
    summary = played.summary()
    show.note(f"{summary['requests']} requests; would have cost {_money(summary['billed'])}.")
    raise typer.Exit(code)


def announce(played: Twin) -> None:
    """What somebody reads when it listens: the address, how to use it, what it knows."""
    from moonpool.twin.twin import LOG_PATH

    said = played.provider
    show.say(
        "",
        f"A twin of {said.title} is running.",
        "",
        f"  Base URL   {played.base_url}",
        f"  API key    {_KEY}  (any of that shape; sk-wrong… is unknown, sk-broke… has no money)",
        f"  Models     {', '.join(played.models)}",
        f"  Log        {played.address}{LOG_PATH}",
        "",
        "Point a program at it (pip install openai):",
        "",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{played.base_url}", api_key="{_KEY}")',
        "",
        "or Moonpool, in moonpool.toml:",
        "",
        f"[hosts.{played.provider.host or played.name}]",
        f'base_url = "{played.base_url}"',
        f'api_key = "{_KEY}"',
        "",
    )


def _moment(day: str | None) -> float | None:
    """Noon of that day, UTC. Raises ConfigError."""
    if day is None:
        return None
    try:
        found = datetime.date.fromisoformat(day)
    except ValueError:
        raise ConfigError("", "--at", f"{day!r} is no day; write YYYY-MM-DD.") from None
    return datetime.datetime(found.year, found.month, found.day, 12, tzinfo=datetime.UTC).timestamp()


def _money(billed: dict[str, str]) -> str:
    return ", ".join(f"{amount} {currency}" for currency, amount in billed.items()) or "nothing"
