"""Requests, good and bad: what does the provider's own library say of them, what the twin, what the server?

Each must answer all of them alike, but for what differences.toml lists with its reason; a row that no longer differs so
must go. The twin is asked over its port where what is in beta works; the server's part is its parser and its rules.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from conformance.recipe import differences, library, server
from conformance.recipe.differences import TAKEN, Said, as_row
from conformance.recipe.requests import REQUESTS
from moonpool.errors import Problem
from moonpool.twin import Twin, threaded

LISTED: Final = differences.read()
ROWS: Final = {row.name: row for row in LISTED.request}
# `messages[0].role: `, as production writes it and the library does not, or `.messages[0]: `, as only the library does.
_PLACE: Final = re.compile(r"(?<=type: )[a-z_]+(?:[.\[][\w.\[\]]*)?: (?=\D)|^\.messages\[\d+\]: |field `\w+`: ")


@pytest.fixture(scope="module")
def twin() -> Iterator[Twin]:
    with threaded(Twin("deepseek", at=server.AT)) as found:
        yield found


def _ask_library(body: Any) -> tuple[str, dict[str, Any]]:
    try:
        library.convert(body)
    except library.Refused as refused:
        return str(refused), {"status": refused.status, **refused.error}
    return TAKEN, {}


def _ask_twin(twin: Twin, raw: bytes) -> tuple[str, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", twin.port, timeout=10)
    try:
        connection.request("POST", "/beta/chat/completions", raw, {"Authorization": "Bearer sk-ci.1"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status == 200:
        return TAKEN, {}
    error = json.loads(body)["error"]
    return error["message"], {"status": answer.status, **error}


def _ask_server(body: Any) -> str:
    try:
        receipts = server.call(body).adjusted
    except Problem as problem:
        return problem.message if problem.code.startswith("caller.") else problem.code
    return ": ".join((TAKEN, ", ".join(receipts))) if receipts else TAKEN


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_alike(name: str, twin: Twin) -> None:
    """The library, the twin and the server take it or refuse it in the same words; what is listed differs just so."""
    body = REQUESTS[name]
    theirs, error = _ask_library(body)
    twins, twins_error = _ask_twin(twin, server.raw(body))
    found = Said(theirs, twins, _ask_server(body))
    if name not in ROWS:
        assert found.agree, f"a difference that differences.toml does not list:\n\n{as_row(name, found)}"
    else:
        assert not found.agree, f"differences.toml lists {name!r}, but nobody differs any more"
        listed = ROWS[name].said
        assert as_row(name, found) == as_row(name, listed), f"it differs otherwise now:\n\n{as_row(name, found)}"
    if error and twins_error:
        # Whatever the words: status and body are of one shape.
        assert list(twins_error) == list(error)
        assert twins_error | {"message": ""} == error | {"message": ""}


def test_the_list_speaks_of_requests_and_reasons_that_are_there() -> None:
    """Each row is of a request of the table, its reason is told, and each reason is of use."""
    assert [row.name for row in LISTED.request if row.name not in REQUESTS] == []
    assert len(ROWS) == len(LISTED.request)
    used = {row.why for row in LISTED.request} | set(LISTED.answer.values())
    assert used == set(LISTED.why)


def test_what_is_a_matter_of_the_place_is_nothing_else() -> None:
    """Rows whose reason is that somebody names the place say the same without it."""
    rows = [row.said for row in LISTED.request if row.why == "place"]
    for said in rows:
        assert _PLACE.sub("", said.library) == _PLACE.sub("", said.twin), said
        assert said.server.startswith(TAKEN) or _PLACE.sub("", said.library) == _PLACE.sub("", said.server), said
