"""`moonpool twin` as a person uses it: the command, the official SDK against it, a script, and the record."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from embedded import weights_path
from journeys.server import MOONPOOL

FLASH = "deepseek-flash"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contextmanager
def twin(*words: str) -> Iterator[openai.OpenAI]:
    """A running one, and the SDK as the command says to make it; interrupted at the end, which is no failure."""
    process = subprocess.Popen(
        [str(MOONPOOL), "twin", *words, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = ""
    while 'api_key = "' not in said:
        line = process.stdout.readline()
        assert line, (said, process.communicate())
        said += line
    found = re.search(r'OpenAI\(base_url="(.*?)", api_key="(.*?)"\)', said)
    assert found is not None
    try:
        with openai.OpenAI(base_url=found[1], api_key=found[2], timeout=60, max_retries=0) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "would have cost" in errors


def test_a_program_of_the_provider_runs_unchanged(tmp_path: Path) -> None:
    """Chat, streams with thinking, models, a middle: the SDK against a strict provider, and a line for each request."""
    log = tmp_path / "twin.jsonl"
    with twin("deepseek", "--log", str(log)) as client:
        whole = client.chat.completions.create(model=FLASH, messages=[{"role": "user", "content": "Hi"}])
        stream = client.chat.completions.create(model=FLASH, messages=[{"role": "user", "content": "Hi"}], stream=True)
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content
        thinking = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
        assert thinking == whole.choices[0].message.reasoning_content  # type: ignore[attr-defined]
        assert chunks[-1].usage is not None
        assert [model.id for model in client.models.list()] == [FLASH, "deepseek-v4-pro"]
        beta = client.with_options(base_url=f"{str(client.base_url).rstrip('/')}/beta")
        assert beta.completions.create(model=FLASH, prompt="def fib(n):", suffix="\n").choices[0].text
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("kind") for line in lines] == ["chat", "chat", "models", "completion", None]
    assert all(line["billed"] for line in lines[:2])
    assert lines[-1]["summary"]["requests"] == 4


def test_a_loop_with_tools_must_bring_its_reasoning_back() -> None:
    """Without it the provider refuses the second turn; with it the answer has what the tool said."""
    with twin("deepseek") as client:
        messages: list[Any] = [{"role": "user", "content": "Weather in Hamburg?"}]
        first = client.chat.completions.create(model=FLASH, messages=messages, tools=[WEATHER]).choices[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.tool_calls is not None
        call = first.message.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": "It rains."}
        turn = first.message.to_dict()
        forgotten = {name: value for name, value in turn.items() if name != "reasoning_content"}
        with pytest.raises(openai.BadRequestError, match="must be passed back to the API"):
            client.chat.completions.create(model=FLASH, messages=[*messages, forgotten, result], tools=[WEATHER])  # type: ignore[list-item]
        second = client.chat.completions.create(model=FLASH, messages=[*messages, turn, result], tools=[WEATHER])  # type: ignore[list-item]
        assert "It rains." in (second.choices[0].message.content or "")


def test_errors_are_the_sdks_errors() -> None:
    """Each status raises the class that a program catches."""
    with twin("deepseek", "--concurrency", "1") as client:
        ask: Any = {"model": FLASH, "messages": [{"role": "user", "content": "Hi"}]}
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="sk-wrong-one").chat.completions.create(**ask)
        with pytest.raises(openai.APIStatusError, match="Insufficient Balance") as broke:
            client.with_options(api_key="sk-broke-one").chat.completions.create(**ask)
        assert broke.value.status_code == 402
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model=FLASH, prompt="x")
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{**ask, "model": "gpt-4"})


def test_a_script_of_faults(tmp_path: Path) -> None:
    """The SDK tries again after a 503 and a reset; a stream that is cut raises; the record says which was which."""
    script = tmp_path / "faults.toml"
    script.write_text(
        '[[fault]]\nrequest = 1\nrefuse = "busy"\n'
        '[[fault]]\nrequest = 2\nrefuse = "reset"\n'
        "[[fault]]\nrequest = 4\ncut_after = 3\n"
    )
    with twin("deepseek", "--faults", str(script), "--seed", "1") as client:
        ask: Any = {"model": FLASH, "messages": [{"role": "user", "content": "Hi"}]}
        assert client.with_options(max_retries=2).chat.completions.create(**ask).choices[0].message.content
        with pytest.raises(openai.APIConnectionError) as cut:
            list(client.chat.completions.create(**ask, stream=True))
        assert "peer closed connection" in str(cut.value.__cause__)
        root = str(client.base_url).rstrip("/")
        with urllib.request.urlopen(f"{root}/twin/log", timeout=10) as page:
            log = json.load(page)
    assert [row["ended"] for row in log["served"]] == ["refused", "reset", "whole", "cut"]


def test_wrong_words_are_wrong_usage(tmp_path: Path) -> None:
    """An unknown provider, key or day: exit code 2 with the nearest name."""
    script = tmp_path / "faults.toml"
    script.write_text("[[fault]]\ncut_afer = 1\n")
    for words, part in (
        (["deepsek"], "did you mean deepseek?"),
        (["deepseek", "--faults", str(script)], "did you mean cut_after?"),
        (["deepseek", "--at", "yesterday"], "YYYY-MM-DD"),
        (["deepseek", "--model", "magic"], "embedded"),
    ):
        done = subprocess.run(
            [str(MOONPOOL), "twin", *words, "--port", "0"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr


@pytest.mark.model
def test_the_embedded_model_plays_along(tmp_path: Path) -> None:
    """Real words in the provider's shape: thinking, then an answer, usage on the last chunk."""
    assert weights_path().is_file()
    with twin("deepseek", "--model", "embedded", "--home", str(tmp_path)) as client:
        stream = client.chat.completions.create(
            model=FLASH,
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=24,
            stream=True,
            extra_body={"thinking": {"type": "disabled"}},
        )
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].usage is not None
    assert chunks[-1].model == FLASH
