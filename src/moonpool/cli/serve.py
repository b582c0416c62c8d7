"""`moonpool serve`: fetch what is missing, start, say where it is and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moonpool.cli import show
from moonpool.cli.desk import gathering
from moonpool.cli.options import read

if TYPE_CHECKING:
    from moonpool.app import App


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", show_default="8787")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve.", show_default="1")] = None,
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file of your own for the embedded model.", exists=True, dir_okay=False)
    ] = None,
    fetch: Annotated[bool, typer.Option("--pull/--no-pull", help="Fetch missing weights first.")] = True,
    home: show.Home = None,
    config: show.Config = None,
) -> None:
    """Start the server; it runs until it is interrupted or terminated, and then finishes what is under way."""
    overrides = {"host": host, "port": port, "workers": workers, "embedded.model": model and str(model.absolute())}
    settings = read(home, config, **overrides)
    if fetch and settings.embedded.enabled:
        from moonpool.cli import pull

        pull.ready(settings)
    with gathering():
        from moonpool import workers as running

    raise typer.Exit(running.serve(settings, announce))


def announce(app: App) -> None:
    """What the operator reads when the server listens: addresses, and at the very first start the key."""
    host = app.settings.host
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    base = f"http://{f'[{host}]' if ':' in host else host}:{app.port}"
    models = [row.name for row in app.platform.catalogue.models()]
    show.say("", "Moonpool is running.", "", f"  Base URL   {base}/v1")
    if app.first_key is None:
        show.say("  API key    one you have; a new one: moonpool keys create", "")
        return
    show.say(f"  API key    {app.first_key}", f"  {'':<10} shown this once; more: moonpool keys create", "")
    show.say(*snippets(base, app.first_key, models[0] if models else "MODEL"))


def snippets(base: str, key: str, model: str) -> list[str]:
    """Lines to paste: curl in a shell, and a Python program."""
    return [
        "Try it with curl:",
        "",
        f"curl {base}/v1/chat/completions \\",
        f"  -H 'Authorization: Bearer {key}' \\",
        "  -H 'Content-Type: application/json' \\",
        f"""  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'""",
        "",
        "or with Python (pip install openai):",
        "",
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{base}/v1", api_key="{key}")',
        "stream = client.chat.completions.create(",
        f'    model="{model}", messages=[{{"role": "user", "content": "Hello!"}}], stream=True',
        ")",
        "for chunk in stream:",
        '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
        "print()",
        "",
    ]
