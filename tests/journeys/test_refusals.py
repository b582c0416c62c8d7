"""What a program with the official SDK sees when something is wrong: the SDK's own exceptions, and no retries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from journeys.server import Server

pytestmark = pytest.mark.model

HELLO: list = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def counted(server: Server) -> Iterator[tuple[openai.OpenAI, list[str]]]:
    """An SDK with its usual retries, and the requests it made."""
    made: list[str] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: made.append(str(request.url))]})
    with server.client(http_client=http) as client:
        assert client.max_retries == 2
        yield client, made


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "too hot": ({"temperature": 2.5}, "temperature"),
    "an impossible top_p": ({"top_p": 0}, "top_p"),
    "an answer too long": ({"max_tokens": 10_000_000}, "max_tokens"),
    "not a number": ({"max_tokens": "many"}, "max_tokens"),
    "stream_options without stream": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "JSON that nobody mentioned": ({"response_format": {"type": "json_object"}}, "response_format"),
    "a role nobody has": ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
    "logprobs on the reasoner": ({"model": "deepseek-reasoner", "logprobs": True}, "logprobs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_request(counted: tuple[openai.OpenAI, list[str]], name: str) -> None:
    """A 400 that names the field, in CONTRACT's shape, and the SDK does not try again."""
    client, made = counted
    fields, param = REFUSED[name]
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)) as refused:
        client.chat.completions.create(**{"model": "deepseek-chat", "messages": HELLO, "max_tokens": 4, **fields})
    error = refused.value
    assert error.type == "invalid_request_error"
    assert isinstance(error.code, str)
    assert (error.param or "").startswith(param) or param in error.message
    assert set(error.body) == {"message", "type", "param", "code"}
    assert len(made) == 1


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_field_that_is_missing(counted: tuple[openai.OpenAI, list[str]], field: str) -> None:
    """What is required and not there is named."""
    client, made = counted
    body = {name: value for name, value in {"model": "deepseek-chat", "messages": HELLO}.items() if name != field}
    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.status_code in {400, 422}
    assert field in refused.value.message
    assert len(made) == 1


def test_an_unknown_model(counted: tuple[openai.OpenAI, list[str]]) -> None:
    """A 400 that repeats the name, and for the models page a 404."""
    client, made = counted
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="deepseek-r9", messages=HELLO)
    assert "deepseek-r9" in refused.value.message
    assert len(made) == 1
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("deepseek-r9")


def test_the_longest_answer_is_named(client: openai.OpenAI) -> None:
    """A limit beyond the model's is refused with the range that is valid: 16K on R1 (S0)."""
    with pytest.raises(openai.BadRequestError, match="16384"):
        client.chat.completions.create(model="deepseek-r1", messages=HELLO, max_tokens=16_385)


def test_an_input_beyond_the_context(counted: tuple[openai.OpenAI, list[str]]) -> None:
    """S0's code 20059, though the small model's context is the one that is full."""
    client, made = counted
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="deepseek-v3", messages=[{"role": "user", "content": "moon " * 20_000}])
    error = refused.value
    assert (error.code, error.type, error.body["message"]) == ("20059", "runtime_error", "input content too long")
    assert len(made) == 1


@pytest.mark.parametrize("key", ["sk-wrong", "", "sk-mp-000000000000" + "0" * 40], ids=["wrong", "empty", "forged"])
def test_a_wrong_key(server: Server, key: str) -> None:
    """401, invalid_api_key, in whole and in streamed calls; the wrong key is not repeated in full."""
    with server.client(key=key or "none", default_headers={} if key else {"Authorization": ""}) as client:
        for stream in (False, True):
            with pytest.raises(openai.AuthenticationError) as refused:
                client.chat.completions.create(model="deepseek-chat", messages=HELLO, stream=stream)
            assert refused.value.code == "invalid_api_key"
            assert refused.value.type == "authentication_error"
            assert len(key) < 12 or key not in str(refused.value)


def test_a_deleted_key(server: Server) -> None:
    """A key works until it is deleted, and never again."""
    secret = server.new_key()
    with server.client(key=secret) as client:
        assert list(client.models.list())
        (row,) = [row for row in server.list_keys() if row["id"] in secret]
        server.moonpool("keys", "delete", row["id"])
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_a_refusal_in_a_stream_is_no_stream(counted: tuple[openai.OpenAI, list[str]]) -> None:
    """What is wrong with a request is said with a status, before any event."""
    client, made = counted
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="deepseek-chat", messages=HELLO, stream=True, temperature=-1)
    assert len(made) == 1
