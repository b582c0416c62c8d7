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
from conformance.recipe.requests import REQUESTS, chat
from moonpool.dialects import DIALECTS
from moonpool.dialects.deepseek import SENTENCES
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


def test_what_the_provider_refuses_is_heard() -> None:
    """Every refusal of the library's, as a host would send it, is the client's to read, word for word; what speaks of
    our name for a model is our own fault, and what is too long says so."""
    for body in REQUESTS.values():
        said, error = _ask_library(body)
        if said == TAKEN:
            continue
        problem = DIALECTS[server.HOST].parse_problem(400, {}, json.dumps({"error": error}).encode())
        if "API model names" in said:
            assert problem.code == "upstream.failed"
        elif "must be passed back" in said:
            assert problem.code == "upstream.reasoning_wanted"
        else:
            assert (problem.code, problem.message) == ("upstream.refused", said)


def test_a_context_that_is_too_long_is_told_alike() -> None:
    """The twin's sentence, filled in, is the library's, and we understand it."""
    dialect = DIALECTS[server.HOST]
    error = library.too_long(chat(max_tokens=100), 1_048_500, 1_048_576)
    sentence = SENTENCES["context"]
    facts = {"window": 1_048_576, "total": 1_048_600, "prompt": 1_048_500, "completion": 100}
    assert error["message"] == sentence.format(**facts)
    assert dialect.parse_problem(400, {}, json.dumps({"error": error}).encode()).code == "caller.too_long"


@pytest.mark.parametrize("name", ["thinking disabled", "thinking enabled", "effort minimal", "effort max"])
def test_the_longest_answer_of_one_who_names_none(name: str) -> None:
    """What is held for such an answer is what the library lets it have."""
    body = REQUESTS[name]
    assert server.call(body).output_max == library.convert(body).resolve_max_tokens(100, 1_048_576)
