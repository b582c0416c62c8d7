"""What is sent to a host, and what errors become on either side."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import CLIENT, DIALECTS
from moonpool.dialects.problems import retry_after
from moonpool.errors import ERRORS, Problem
from moonpool.words import Call, Host, Target

DEEPSEEK, OPENAI = DIALECTS["deepseek"], DIALECTS["openai"]
HELLO = [{"role": "user", "content": "Hello"}]


def call(operation: Any = "chat", **fields: Any) -> Call:
    start = {"model": "asked-for", "messages": HELLO} if operation == "chat" else {"model": "asked-for", "prompt": "p"}
    return DEEPSEEK.parse_call(operation, json.dumps({**start, **fields}).encode(), "id-1")


def target(**options: Any) -> Target:
    return Target(Host("h", "deepseek"), "the-hosts-name", options=options)


def test_fields_go_on_under_the_hosts_name() -> None:
    """All fields, unknown ones too, with the host's own name for the model; the call itself is not touched."""
    asked = call(temperature=0.5, x_new={"a": [1]})
    outbound = DEEPSEEK.render_call(asked, target())
    assert json.loads(outbound.body) == {
        "model": "the-hosts-name", "messages": HELLO, "temperature": 0.5, "x_new": {"a": [1]},
    }  # fmt: skip
    assert (outbound.path, outbound.stream, outbound.method) == ("/chat/completions", False, "POST")
    assert asked.fields["model"] == "asked-for"


def test_a_stream_always_asks_for_usage() -> None:
    """The books need it, whatever the client asked; other stream options stay."""
    asked = call(stream=True, stream_options={"include_usage": False, "x": 1})
    assert json.loads(DEEPSEEK.render_call(asked, target()).body)["stream_options"] == {"include_usage": True, "x": 1}
    assert asked.fields["stream_options"]["include_usage"] is False
    assert json.loads(DEEPSEEK.render_call(call(stream=True), target()).body)["stream_options"] == {
        "include_usage": True
    }
    assert DEEPSEEK.render_call(call(stream=True), target()).stream


def test_paths() -> None:
    """Prefix, strict tools and FIM are in beta at DeepSeek; a plain host knows no beta; options say otherwise."""
    prefix = call(messages=[*HELLO, {"role": "assistant", "content": "x", "prefix": True}])
    strict = call(tools=[{"type": "function", "function": {"name": "f", "strict": True}}])
    fim = call("completion")
    for asked in (prefix, strict):
        assert DEEPSEEK.render_call(asked, target()).path == "/beta/chat/completions"
        assert DEEPSEEK.render_call(asked, target(beta_path="")).path == "/chat/completions"
        assert OPENAI.render_call(asked, target()).path == "/chat/completions"
    assert DEEPSEEK.render_call(fim, target()).path == "/beta/completions"
    assert OPENAI.render_call(fim, target()).path == "/completions"
    at_host = Target(Host("h", "deepseek", options={"beta_path": "/b"}), "m")
    assert DEEPSEEK.render_call(fim, at_host).path == "/b/completions"


def test_dropped_fields() -> None:
    """What a host must not be sent is named by an option."""
    body = json.loads(DEEPSEEK.render_call(call(stream=True, seed=1), target(drop=["stream_options", "seed"])).body)
    assert not {"stream_options", "seed"} & set(body)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_every_error_has_the_one_shape(code: str) -> None:
    """CONTRACT 5: message, type, param, code; whole as a body, in a stream as one event with nothing behind it."""
    problem = Problem(code, "line one\n\ndata: [DONE]\u2028", param="messages[0].role")
    body = CLIENT.render_problem(problem, in_stream=False)
    row = ERRORS[code]
    assert json.loads(body) == {
        "error": {
            "message": problem.message, "type": row.type, "param": "messages[0].role", "code": row.wire_code,
        }
    }  # fmt: skip
    raw = CLIENT.render_problem(problem, in_stream=True)
    assert raw.startswith(b'data: {"error":')
    assert raw.endswith(b"}\n\n")
    assert len(raw.decode().rstrip("\n").splitlines()) == 1
    assert json.loads(raw[6:]) == json.loads(body)


def body(message: Any, **members: Any) -> bytes:
    return json.dumps({"error": {"message": message, "param": None, **members}}).encode()


READ: list[tuple[int, bytes, str]] = [
    (400, body("Empty input messages", type="invalid_request_error"), "upstream.refused"),
    (400, body("Content Exists Risk"), "upstream.content_risk"),
    (400, body("This model's maximum context length is 65536 tokens. However, …"), "caller.too_long"),
    (400, body("too big", code="context_length_exceeded"), "caller.too_long"),
    (400, body("the request exceeds the available context size", type="exceed_context_size_error"), "caller.too_long"),
    (400, body("Insufficient Balance"), "upstream.unpaid"),
    (400, body("filtered", code="content_filter"), "upstream.content_risk"),
    (422, b"max_tokens: expected u32", "upstream.refused"),
    (401, body("Authentication Fails (no such user)"), "upstream.credentials"),
    (402, body("Insufficient Balance"), "upstream.unpaid"),
    (403, b"", "upstream.forbidden"),
    (404, b"<html>", "upstream.failed"),
    (302, b"", "upstream.failed"),
    (204, b"", "upstream.nonsense"),
    (206, b"part", "upstream.nonsense"),
    (429, body("Your current concurrency is 40, which exceeds your concurrency limit of 39"), "upstream.busy"),
    (429, body("You exceeded your current quota", code="insufficient_quota"), "upstream.unpaid"),
    (500, body("maximum context length"), "upstream.failed"),
    (502, b"<html>", "upstream.failed"),
    (503, b"", "upstream.busy"),
    (504, b"", "upstream.failed"),
    (200, body("x", code=400, type="BadRequestError"), "upstream.refused"),
    (200, body("x", code=500), "upstream.failed"),
    (200, body("x", type="rate_limit_error"), "upstream.busy"),
    (200, body("x", type="authentication_error"), "upstream.credentials"),
    (200, body("x"), "upstream.failed"),
]


@pytest.mark.parametrize(("status", "raw", "code"), READ, ids=[f"{row[0]}-{at}" for at, row in enumerate(READ)])
def test_refusals(status: int, raw: bytes, code: str) -> None:
    """Read by code, then text, then status (PROVIDERS 1.6, 8 rule 5); our key and balance are never the client's."""
    problem = DEEPSEEK.parse_problem(status, {"content-type": "application/octet-stream"}, raw)
    assert problem.code == code
    assert problem.status != 401
    assert problem.status != 402


def test_the_hosts_words_go_on_without_keys() -> None:
    """A refusal is told in the host's words, cut to a bearable length, and without anything shaped like a key."""
    problem = DEEPSEEK.parse_problem(400, {}, body("bad key sk-abcdefgh12345678 " + "x" * 5000, param="stop"))
    assert problem.param == "stop"
    assert "sk-abcdefgh" not in problem.message + problem.detail
    assert len(problem.message) < 2100
    assert DEEPSEEK.parse_problem(400, {}, b"").message == ERRORS["upstream.refused"].sentence


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("86400", 120),
        ("-1", 0),
        ("7", 7),
        ("1.5", 1.5),
        ("abc", None),
        ("nan", None),
        ("inf", 120),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Clamped between 0 and 120 s; what is no number is no advice (RELIABILITY case 29)."""
    assert retry_after({"retry-after": text}) == seconds
    assert DEEPSEEK.parse_problem(429, {"retry-after": text}, b"").retry_after_s == seconds


@given(st.integers(200, 599), st.binary(max_size=200))
def test_any_error_body(status: int, raw: bytes) -> None:
    """Whatever a host says with an error status becomes a Problem."""
    for dialect in (DEEPSEEK, OPENAI):
        assert isinstance(dialect.parse_problem(status, {}, raw), Problem)
