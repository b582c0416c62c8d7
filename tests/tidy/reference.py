"""Writes docs/reference from the code: `make docs`. A page that differs from what this makes fails `make check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """Page -> its text."""
    return {
        "settings.md": settings(),
        "errors.md": errors(),
        "cli.md": cli(),
        "metrics.md": metrics(),
        "catalogue.md": catalogue(),
        "twin.md": twin(),
        "admin.md": admin(),
    }


def _head(title: str, source: str, *sentences: str) -> str:
    return (
        f"<!-- Made from {source} by `make docs`; change it there. -->\n\n# {title}\n\n" + "\n\n".join(sentences) + "\n"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def settings() -> str:
    from moonpool.settings_page import describe

    rows = [
        (f"`{row.path}`", row.type, f"`{row.default}`" if row.default else "", row.bounds, row.help)
        for row in describe()
    ]
    return _head(
        "Settings",
        "`src/moonpool/settings.py`",
        "`moonpool.toml` is read from the working folder or from home, or from where `--config` says. Options of the "
        "command line come before the file. A key that is no setting is refused. `moonpool config show` prints what "
        "holds, `moonpool config check` says what is wrong.",
        "A secret is a literal, `env:NAME` or `file:/path`.",
    ) + _table(("setting", "type", "default", "bounds", "what it is"), rows)


def errors() -> str:
    from moonpool.errors import ERRORS

    families = {
        "caller": ("The caller's own request", "Nothing that waiting would change, unless it says so."),
        "account": ("The caller's key or account", "What the operator gave, or did not give."),
        "upstream": ("A host behind us", "Another host is tried where `retry` says so, before the first byte is sent."),
        "platform": ("Moonpool itself", "The log says more."),
    }
    page = _head(
        "Errors",
        "`src/moonpool/errors.py`",
        'Every refusal is JSON of the form `{"error": {"message", "type", "param", "code"}}`; `code` is the wire code '
        "below. In a stream that has begun the same object comes as an event. The log names our own code.",
        "*retry*: `never`, on `other_target` (we do it, before the first byte), or `later` (the caller may). "
        "*charge*: `none`, or `metered` (what was used until then).",
    )
    for family, (title, sentence) in families.items():
        rows = [
            (
                f"`{row.code}`",
                row.status,
                f"`{row.type}`",
                f"`{row.wire_code}`",
                row.retry,
                row.charge,
                row.sentence,
                row.operator,
            )
            for row in ERRORS.values()
            if row.code.startswith(family + ".")
        ]
        heads = (
            "our code",
            "status",
            "type",
            "wire code",
            "retry",
            "charge",
            "the caller reads",
            "the operator looks at",
        )
        page += f"\n## {title}\n\n{sentence}\n" + _table(heads, rows)
    return page


def twin() -> str:
    from moonpool.catalog.rows import describe
    from moonpool.dialects import DIALECTS
    from moonpool.twin.faults import WHEN, Fault
    from moonpool.twin.providers import dialect_of, parts, providers

    page = _head(
        "The twin",
        "`src/moonpool/twin/`",
        "How each provider is played, and what a script of faults may say. How to use it: "
        "[Test your app against every provider](../guides/twin.md).",
    )
    says = dict(describe(Fault))
    for title, sentence, wanted in (
        ("When a row of a script takes a request", "All that is given must be so.", True),
        ("What happens then", "A row may name several.", False),
    ):
        rows = [(f"`{name}`", text) for name, text in says.items() if (name in WHEN) == wanted]
        page += f"\n## {title}\n\n{sentence}\n" + _table(("key", "what it means"), rows)
    for name, provider in providers().items():
        played = parts(name, TWIN_DAY)
        dialect = DIALECTS[dialect_of(next(iter(played.values())))]
        sentences = {**getattr(dialect, "sentences", {}), **provider.says}
        page += f"\n## {name}\n\n{provider.title}. Models: {', '.join(f'`{model}`' for model in played)}.\n"
        page += _table(("address", "what is there"), [(f"`{path}`", what) for path, what in provider.paths.items()])
        refused = dict.fromkeys(rule for part in played.values() for rule in part.strict)
        if refused:
            page += "\nRefused there, though Moonpool itself would adapt it:\n"
            page += _table(("rule", "the sentence"), [(f"`{rule}`", sentences[rule]) for rule in refused])
    return page


TWIN_DAY = 1_793_500_000.0  # 2026-11-01: what is played depends on the day


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command below `command`, in the order of the help."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for part, child in below.items():
        yield from commands(child, f"{name} {part}")


def options(command: Any) -> Iterator[tuple[str, str]]:
    """(how it is typed, what it does) of every argument and option of a command."""
    for param in command.params:
        if param.name in {"help", "install_completion", "show_completion"}:
            continue
        if param.param_type_name == "argument":
            yield param.metavar or param.name.upper(), param.help or ""
            continue
        typed = ", ".join([*param.opts, *param.secondary_opts])
        if not param.is_flag:
            typed += f" {param.metavar or param.opts[0].lstrip('-').upper()}"
        extra = []
        shown = getattr(param, "show_default", None)
        if isinstance(shown, str):
            extra.append(f"default: {shown}")
        elif param.default not in (None, False, "", [], ()) and not callable(param.default):
            extra.append(f"default: {param.default}")
        if param.envvar:
            extra.append(f"environment: {param.envvar}")
        yield typed, (param.help or "") + (f" ({'; '.join(extra)})" if extra else "")


def cli() -> str:
    from moonpool.cli.main import command_tree

    page = _head(
        "The command line",
        "`src/moonpool/cli/`",
        "Commands work whether or not a server runs: they ask the running one through the socket in its home, and open "
        "the store themselves otherwise. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. With `--json`, "
        "standard output holds one JSON document and nothing else.",
    )
    for name, command in commands(command_tree(), "moonpool"):
        rows = [(f"`{typed}`", says) for typed, says in options(command)]
        page += f"\n## {name}\n\n{' '.join((command.help or '').split())}\n" + (_table(("", ""), rows) if rows else "")
    return page


def catalogue() -> str:
    from moonpool.catalog import rows, weights_rows
    from moonpool.catalog.catalog import build
    from moonpool.settings import Settings

    page = _head(
        "The catalogue",
        "`src/moonpool/catalog/`",
        "What can be asked for is data: rows of `models.toml`, `hosts.toml`, `calendars.toml` and `weights.toml` in "
        "the package. `[models.NAME]`, `[hosts.NAME]` and `[calendars.NAME]` of `moonpool.toml` are laid over them "
        "field by field, or add rows; `[holidays.NAME.YEAR]` replaces or adds a year. "
        "`moonpool models show NAME` prints what holds.",
    )
    page += "\n## Models\n\nWith no provider's key all of them are served by the embedded model.\n"
    shipped = build(Settings(), {"DEEPSEEK_API_KEY": "k", "LKEAP_API_KEY": "k", "TOKENHUB_API_KEY": "k"})
    found = [
        (
            f"`{model.name}`",
            ", ".join(target.host.name for target in model.targets),
            model.window,
            model.output_max,
            model.thinking,
            ", ".join(sorted(model.can)),
        )
        for model in shipped.models()
    ]
    page += _table(("model", "hosts, by preference", "window", "longest answer", "thinks", "can"), found)
    page += "\n## Weights of the embedded model\n"
    kept = [(f"`{row.name}`", f"`{row.file}`", row.bytes, row.licence) for row in weights_rows()]
    page += _table(("name", "file", "bytes", "licence"), kept)
    for kind, title in _records():
        fields = [(f"`{field}`", says) for field, says in rows.describe(kind)]
        page += f"\n## {title}\n\n{' '.join((kind.__doc__ or '').split())}\n" + _table(("field", "what it is"), fields)
    return page


def admin() -> str:
    import json

    from moonpool.web import openapi
    from moonpool.web.admin import BASE, ROUTES

    page = _head(
        "The admin API",
        "`src/moonpool/web/admin/`",
        f"Addresses stand below `{BASE}`. How to use it: [The admin API](../guides/admin-api.md). The same as OpenAPI "
        "3.1, with the data plane: `GET /openapi.json` of a running server.",
        "*for*: who may call it. Owners may do what members may, operators everything; `member` and `owner` are roles "
        "in the account that the request is about.",
    )
    rows = [
        (
            f"`{route.method} {route.path}`" + (f" ?{', '.join(route.query)}" if route.query else ""),
            route.who,
            route.says,
            f"[{route.body.__name__}](#{route.body.__name__.lower()})" if route.body else "",
            _answer(route),
        )
        for route in ROUTES
    ]
    page += _table(("address", "for", "what it does", "body", "answer"), rows)
    schemas = json.loads(openapi.document())["components"]["schemas"]
    named = {kind.__name__ for route in ROUTES for kind in (route.body, route.answer) if kind is not None}
    named |= {name for name in schemas if any(f'/{name}"' in json.dumps(schemas[known]) for known in named)}
    for name in sorted(named):
        schema = schemas[name]
        needed = schema.get("required", [])
        fields = [
            (
                f"`{field}`",
                _kind(part),
                f"`{json.dumps(part['default'])}`" if "default" in part else _absent(field, needed),
            )
            for field, part in schema["properties"].items()
        ]
        says = " ".join(schema.get("description", "").split())
        page += f"\n## {name}\n" + (f"\n{says}\n" if says else "")
        page += _table(("field", "kind", "default"), fields)
    return page


def _absent(field: str, needed: Sequence[str]) -> str:
    return "" if field in needed else "may be left out"


def _answer(route: Any) -> str:
    if route.answer is None:
        return "object"
    link = f"[{route.answer.__name__}](#{route.answer.__name__.lower()})"
    return f"list of {link}" if route.many else link


def _kind(schema: Any) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join("null" if value is None else f"`{value}`" for value in schema["enum"])
    said = str(schema.get("type", "anything"))
    if said == "array":
        return f"list of {_kind(schema['items'])}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return " ".join(
        filter(None, (words.get(said, said), f"({schema['description']})" if "description" in schema else ""))
    )


def _records() -> list[tuple[Any, str]]:
    from moonpool.catalog import options, rows

    return [
        (rows.ModelRow, "Fields of a model"),
        (rows.Served, "Fields of an entry of its hosts"),
        (rows.PriceRow, "Fields of a price"),
        (rows.PeakRow, "Fields of its peak"),
        (rows.CalendarRow, "Fields of a calendar"),
        (rows.YearRow, "Fields of a year of public holidays"),
        (rows.AgreedRow, "Fields of a price that was agreed with an account"),
        (rows.HostRow, "Fields of a host"),
        (options.OptionsRow, "Options of a host, or of an entry of a model's hosts"),
        (rows.DialectRow, "Fields of a dialect"),
    ]


def metrics() -> str:
    from moonpool.web.ops import METERS

    rows = [
        (f"`{meter.name}`", meter.kind, ", ".join(f"`{label}`" for label in meter.labels), meter.says)
        for meter in METERS
    ]
    return _head(
        "Metrics",
        "`src/moonpool/web/ops.py`",
        "`GET /metrics` answers in the text format of Prometheus. Labels are bounded: models and hosts are rows of the "
        "catalogue, a name that is no row counts as an empty label; nothing names an account or a key. Beside these "
        "stand the usual `process_*` metrics (memory, CPU, open files).",
    ) + _table(("name", "kind", "labels", "what it says"), rows)


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for page, text in pages().items():
        (FOLDER / page).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
