"""One table of errors for both sides: what a host said is found in it, and so are the words to say it again."""

from __future__ import annotations

import json

import pytest

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.openai import OpenAI
from moonpool.dialects.problems import Row, find_row, heard, read_problem, sentence
from moonpool.errors import ERRORS, Problem

DEEPSEEK = DIALECTS["deepseek"]
FLAVOURS = {name: dialect for name, dialect in DIALECTS.items() if isinstance(dialect, OpenAI)}

ROWS = (
    Row(429, "runtime_error", 20034, "concurrency exceeded", "account.concurrency"),
    Row(402, "runtime_error", "20031", "not enough quota", "account.no_quota"),
    Row(400, "e", "e", "at most {message:7} of them", "caller.too_long"),
    Row(400, "e", "e", "{message}", "caller.invalid_value"),
    Row(0, "odd_error", None, "", "platform.fault"),
    Row(0, "", None, "No Money", "account.no_quota"),
)


def error(status: int, **members: object) -> Problem:
    return read_problem(status, {"retry-after": "7"}, json.dumps({"error": members}).encode(), ROWS)


@pytest.mark.parametrize("code", [20034, "20034"])
def test_numbers_and_strings_are_one_code(code: object) -> None:
    """Codes are integers at some hosts and strings at others; with the status of the row, or inside an answer."""
    for status in (429, 200):
        problem = error(status, message="Concurrency exceeded", code=code)
        assert (problem.code, problem.retry_after_s) == ("upstream.busy", 7)


def test_status_code_and_text_must_fit() -> None:
    """A row that fits in part is not the row: what is left is read by its status."""
    assert error(402, message="not enough quota", code="20031").code == "upstream.unpaid"
    assert error(429, message="another", code="20034").code == "upstream.busy"
    assert error(500, message="not enough quota", code="20031").code == "upstream.failed"
    assert error(400, message="there are AT MOST 9 of them here", code="e").code == "caller.too_long"
    assert error(400, message="anything", code="e", param="stop").param == "stop"


def test_rows_for_reading_only() -> None:
    """Without a status a row fits any below 500; its type must fit where it has one, inside an answer too."""
    assert error(418, message="x", type="odd_error").code == "upstream.failed"
    assert error(200, message="x", type="odd_error").code == "upstream.failed"
    assert error(400, message="no money left").code == "upstream.unpaid"
    assert error(500, message="no money left").code == "upstream.failed"
    assert find_row(Problem("platform.fault"), ROWS) is None


def test_sentences() -> None:
    """What is said goes into the blank, what is in the provider's words already stands, and silence has a default."""
    row = ROWS[2]
    assert sentence(row, Problem("caller.too_long")) == "at most 7 of them"
    assert sentence(row, Problem("caller.too_long", "9")) == "at most 9 of them"
    assert (
        sentence(row, Problem("caller.too_long", "At most 9 of them, and no more")) == "At most 9 of them, and no more"
    )
    assert sentence(ROWS[3], Problem("caller.invalid_value")) == ERRORS["caller.invalid_value"].sentence


def test_what_no_row_says_is_said_as_to_our_clients() -> None:
    """A provider that is played can fail in ways that its table does not know."""
    problem = Problem("caller.too_slow")
    assert DEEPSEEK.render_problem(problem, in_stream=False) == CLIENT.render_problem(problem, in_stream=False)
    assert DEEPSEEK.status_of(problem) == 408
    assert CLIENT.status_of(problem) == 408


DEEPSEEK_SAYS = [
    (Problem("account.no_quota"), 402, "Insufficient Balance", "unknown_error", "invalid_request_error"),
    (Problem("account.invalid_key", "abcd"), 401, "Authentication Fails, Your api key: ****abcd is invalid",
     "authentication_error", "invalid_request_error"),
    (Problem("upstream.content_risk"), 400, "Content Exists Risk", "invalid_request_error", "invalid_request_error"),
    (Problem("caller.invalid_value", "Empty input messages"), 400, "Empty input messages", "invalid_request_error",
     "invalid_request_error"),
    (Problem("platform.overloaded"), 503, "Service is too busy. We advise users to temporarily switch to alternative "
     "LLM API service providers.", "service_unavailable_error", "service_unavailable_error"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "status", "message", "kind", "code"), DEEPSEEK_SAYS, ids=lambda value: str(value)[:40]
)
def test_deepseek_is_played_in_its_own_words(problem: Problem, status: int, message: str, kind: str, code: str) -> None:
    """PROVIDERS 1.6, to the letter; and our own clients read CONTRACT 5 all the same."""
    assert DEEPSEEK.status_of(problem) == status
    said = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    assert DEEPSEEK.render_problem(problem, in_stream=False) == json.dumps(said, separators=(",", ":")).encode()
    ours = json.loads(CLIENT.render_problem(problem, in_stream=False))["error"]
    assert (ours["type"], ours["code"]) == (problem.row.type, problem.row.wire_code)


@pytest.mark.parametrize("name", sorted(FLAVOURS))
def test_every_row_is_read_as_it_is_written(name: str) -> None:
    """Played by one table and read by the same: the meaning that went in is heard, as a body and inside a stream."""
    dialect = FLAVOURS[name]
    for meaning in {row.meaning for row in dialect.rows if row.status}:
        problem = Problem(meaning)
        row = find_row(problem, dialect.rows)
        assert row is not None
        alike = (row.status, row.code, row.text)  # a host may say several things in the same words
        meant = {heard(other.meaning) for other in dialect.rows if (other.status, other.code, other.text) == alike}
        status, body = dialect.status_of(problem), dialect.render_problem(problem, in_stream=False)
        assert dialect.parse_problem(status, {}, body).code in meant
        event = dialect.render_problem(problem, in_stream=True)
        assert dialect.parse_problem(200, {}, event.removeprefix(b"data: ")).code in meant
