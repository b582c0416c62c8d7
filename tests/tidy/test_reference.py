"""The generated pages of docs/reference say what the code says, and say all of it."""

from __future__ import annotations

import pytest

from tidy import reference
from tidy.tree import ROOT

PAGES = reference.pages()


@pytest.mark.parametrize("page", PAGES)
def test_page_is_not_stale(page: str) -> None:
    """A generated page is what `make docs` would write now."""
    path = reference.FOLDER / page
    assert path.is_file(), f"docs/reference/{page} is missing: make docs"
    assert path.read_text(encoding="utf-8") == PAGES[page], f"docs/reference/{page} is stale: make docs"


def test_every_page_is_linked_to_its_source() -> None:
    """The first line of a generated page names the code it was made from, and that exists."""
    for page, text in PAGES.items():
        source = text.splitlines()[0].split("`")[1]
        assert (ROOT / source).exists(), f"{page} names {source}"


def test_every_error_is_documented() -> None:
    """Every row of the error table stands on its page, with a sentence for the caller."""
    from moonpool.errors import ERRORS

    for code, row in ERRORS.items():
        assert f"`{code}`" in PAGES["errors.md"]
        assert row.sentence.strip()
        assert row.operator.strip()


def test_every_setting_is_documented() -> None:
    """Every setting has a row with a sentence that says what it is."""
    from moonpool.settings_page import describe

    for row in describe():
        assert f"| `{row.path}` |" in PAGES["settings.md"]
        assert row.help.strip()


def test_every_field_of_the_catalogue_is_documented() -> None:
    """Every field that a row may have says what it is, and stands on the page."""
    from moonpool.catalog import rows

    for kind, _ in reference._records():
        for field, says in rows.describe(kind):
            assert says.strip(), f"{kind.__name__}.{field}"
            assert f"| `{field}` |" in PAGES["catalogue.md"]


def test_every_command_and_option_is_documented() -> None:
    """Every command says what it does, and so does each of its options."""
    from moonpool.cli.main import command_tree

    found = dict(reference.commands(command_tree(), "moonpool"))
    assert found
    for name, command in found.items():
        assert f"## {name}\n" in PAGES["cli.md"]
        assert (command.help or "").strip(), f"{name} does not say what it does"
        for typed, says in reference.options(command):
            assert says.strip(), f"{name} {typed} does not say what it does"


def test_every_command_that_prints_data_speaks_json() -> None:
    """`--json` is there for every command but those that run until they are stopped."""
    from moonpool.cli.main import command_tree

    for name, command in reference.commands(command_tree(), "moonpool"):
        if name not in ("moonpool serve", "moonpool twin"):
            assert any("--json" in param.opts for param in command.params), f"{name} has no --json"
