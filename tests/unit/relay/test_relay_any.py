"""The real path of a request, from a socket to the ledger, asked anything and answered with anything.

The App and its store are real; only the way to the host is transports/replay.py, so that an answer can be cut at any
byte. After all examples the ledger is read: what each example promised must stand there, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import force_setattr

from faults.stage import MODEL, USAGE, Answer, Record, Stage, records, stage, whole_body
from moonpool.relay.fleet import Fleet
from moonpool.transports.replay import Recording, ReplayTransport
from moonpool.words import Host, Outbound
from strategies import json_data, json_objects
from transcripts.loader import Transcript, transcripts

BOUNDED = settings(
    max_examples=500,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
STREAM = b"".join(
    b"data: " + json.dumps(value).encode() + b"\n\n"
    for value in (
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
         "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}]},
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "usage": USAGE,
         "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]},
    )
) + b"data: [DONE]\n\n"  # fmt: skip


class Theatre:
    """A stage kept open over many examples; `recording` is what the host says next."""

    def __init__(self, here: Stage, runner: asyncio.Runner) -> None:
        self.here, self.runner = here, runner
        self.recording = Recording()
        self.asked: list[Outbound] = []
        self.expected: list[Callable[[Record], bool]] = []

    def answers(self, host: Host, outbound: Outbound) -> Recording:
        self.asked.append(outbound)
        return self.recording

    def ask(self, body: bytes, path: str = "/v1/chat/completions") -> Answer:
        """Ask once, and look that nothing is left running. Each time the hosts have no past."""
        platform = self.here.app.platform

        async def run() -> Answer:
            force_setattr(platform, "fleet", Fleet(platform.settings.routing, time.monotonic, platform.journal.note))
            got = await self.here.ask(body, path=path)
            await self.here.quiet(2.0)
            return got

        return self.runner.run(run())


@contextlib.contextmanager
def theatre(home: Path, dialect: str = "deepseek") -> Iterator[Theatre]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        opened = stage(home, host={"dialect": dialect}, dead=1)
        here = runner.run(opened.__aenter__())
        shown = Theatre(here, runner)
        transport = ReplayTransport(shown.answers)
        here.app.transports["http"] = transport
        force_setattr(here.app.platform, "transports", {"http": transport})
        failed = True
        try:
            yield shown
            failed = False
        finally:
            here.clients.clear()
            if failed:
                with contextlib.suppress(BaseException):
                    runner.run(opened.__aexit__(None, None, None))
            else:
                runner.run(opened.__aexit__(None, None, None))
    found = records(here.path)
    assert len(found) == len(shown.expected), "holds and dispatches"
    for at, (record, as_promised) in enumerate(zip(found, shown.expected, strict=True)):
        assert as_promised(record), f"{at}: {record}"


def well_formed(got: Answer, *, stream: bool) -> None:
    """An answer or an error in its shape, whole, with one end."""
    assert got.complete
    if got.status != 200:
        assert got.error["message"]
        assert got.fields["content-type"] == "application/json"
    elif stream:
        assert got.events, "200 and nothing"
        assert got.events[-1] == "[DONE]" or "error" in got.events[-1]
    else:
        assert got.json["choices"]


def asks_for_stream(body: bytes) -> bool:
    return json.loads(body).get("stream") is True


def ask_anything(shown: Theatre, body: bytes, path: str) -> None:
    before = len(shown.asked)
    shown.recording = Recording(200, {}, STREAM if b'"stream"' in body and b"true" in body else whole_body())
    got = shown.ask(body, path)
    assert got.status == 200 or 400 <= got.status < 500, got.body
    assert (got.status == 200) == (len(shown.asked) > before)
    if got.status == 200:
        shown.expected.append(lambda record: (record.kind, record.completion) == ("posted", 7))
        well_formed(got, stream=asks_for_stream(body))
    else:
        well_formed(got, stream=False)


PATHS = st.sampled_from(["/v1/chat/completions", "/beta/completions"])


def test_any_bytes_are_a_4xx_or_answered(tmp_path: Path) -> None:
    """Cases 155 to 159: whatever the body is, never a 5xx, and no hold without an answer."""
    with theatre(tmp_path) as shown:

        @BOUNDED
        @given(st.binary(max_size=200) | json_objects.map(str.encode), PATHS)
        def check(body: bytes, path: str) -> None:
            ask_anything(shown, body, path)

        check()


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "?"]) | json_data,
            "content": st.text(max_size=5) | json_data,
            "name": st.text(max_size=3) | json_data,
            "prefix": st.booleans() | json_data,
            "reasoning_content": st.text(max_size=3) | json_data,
            "tool_call_id": st.text(max_size=3) | json_data,
            "tool_calls": json_data,
        },
    )
    | st.just({"role": "user", "content": "json"})
    | json_data,
    max_size=3,
)
NUMBERS = st.integers(-2, 2**70) | st.floats(allow_nan=True, allow_infinity=True) | json_data
TOOLS = st.just([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]) | json_data
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans() | json_data,
    "stream_options": st.just({"include_usage": True}) | json_data,
    "temperature": st.floats(0, 2) | NUMBERS,
    "top_p": st.floats(0.1, 1) | NUMBERS,
    "max_tokens": st.integers(1, 100) | NUMBERS,
    "max_completion_tokens": st.integers(1, 100) | NUMBERS,
    "n": NUMBERS,
    "stop": st.text(max_size=3) | json_data,
    "seed": NUMBERS,
    "logprobs": st.booleans() | json_data,
    "top_logprobs": st.integers(0, 30) | json_data,
    "response_format": st.sampled_from([{"type": "json_object"}, {"type": "text"}, {"type": "x"}]) | json_data,
    "tools": TOOLS,
    "tool_choice": st.sampled_from(["auto", "none", "required", "x"]) | json_data,
    "parallel_tool_calls": json_data,
    "thinking": st.sampled_from([{"type": "enabled"}, {"type": "disabled"}, {"type": 1}]) | json_data,
    "reasoning_effort": st.sampled_from(["low", "max", "none", "xhigh"]) | json_data,
    "presence_penalty": NUMBERS,
    "frequency_penalty": NUMBERS,
    "enable_search": st.booleans() | json_data,
    "user": json_data,
    "suffix": st.text(max_size=3) | json_data,
    "echo": json_data,
    "unknown": json_data,
}


def test_any_document_is_a_4xx_or_answered(tmp_path: Path) -> None:
    """Cases 156 to 160: fields that exist with values that do and do not, and NaN, Infinity, surrogates as Python
    writes them."""
    with theatre(tmp_path) as shown:
        asked = st.fixed_dictionaries(
            {
                "model": st.just(MODEL) | st.just("deepseek-reasoner"),
                "messages": MESSAGES | st.just([{"role": "user", "content": "x"}]),
            },
            optional={**FIELDS, "prompt": st.text(max_size=4) | json_data},
        )

        @BOUNDED
        @given(asked, PATHS, st.booleans())
        def check(document: dict[str, Any], path: str, ascii_only: bool) -> None:
            try:
                body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
            except RecursionError:
                return
            ask_anything(shown, body, path)

        check()


CUT = [each for each in transcripts() if each.dialect in {"deepseek", "openai"}]


def settled(recorded: Transcript, got: Answer, stream: bool, whole: bool) -> Callable[[Record], bool]:
    """What must stand in the ledger: the host's own count where it was read, else an estimate of what was read."""
    good = got.status == 200 and (not stream or got.failure is None)

    def as_promised(record: Record) -> bool:
        if whole and good and recorded.usage is not None:
            counted = recorded.usage["prompt_hit"] + recorded.usage["prompt_miss"], recorded.usage["completion"]
            return (record.kind, record.estimated, record.prompt, record.completion) == ("posted", False, *counted)
        if good:
            return record.kind == "posted"
        if record.kind == "posted":
            return record.prompt > 0 and (not record.estimated or (stream and got.status == 200))
        return record.kind == "voided" and record.owed_pico == 0 and not (stream and got.status == 200 and got.text)

    return as_promised


@pytest.mark.parametrize("dialect", ["deepseek", "openai"])
def test_any_cut_of_any_answer_is_settled(tmp_path: Path, dialect: str) -> None:
    """Cases 18, 24 and 43: every golden transcript, cut at any byte, in any slicing, ended cleanly or broken, read
    whole or streamed: well-formed to the client, one end, settled once."""
    with theatre(tmp_path, dialect) as shown:

        @settings(BOUNDED, max_examples=1500)
        @given(st.data(), st.sampled_from([each for each in CUT if each.dialect == dialect]), st.booleans())
        def check(data: st.DataObject, recorded: Transcript, stream: bool) -> None:
            cut = data.draw(st.integers(0, len(recorded.body)) | st.just(len(recorded.body)))
            broken = data.draw(st.sampled_from(["", "", "upstream.cut", "upstream.timeout"]))
            slices = data.draw(st.sampled_from([0, 1, 3, 7, 4096]))
            shown.recording = Recording(
                recorded.status,
                recorded.headers,
                recorded.body[:cut],
                broken,
                slices,
            )
            request = json.loads(recorded.request)
            request = {**request, "model": MODEL, "stream": stream}
            for name in ("thinking", "reasoning_effort", *(() if stream else ("stream_options",))):
                request.pop(name, None)
            path = "/beta/completions" if recorded.operation == "completion" else "/beta/chat/completions"
            before = len(shown.asked)
            got = shown.ask(json.dumps(request).encode(), path)
            well_formed(got, stream=stream)
            if len(shown.asked) == before:
                assert got.status == 400  # one of them is the recording of a request that we refuse ourselves
                return
            shown.expected.append(settled(recorded, got, stream, cut == len(recorded.body) and not broken))
            if got.status == 200 and stream and got.events[-1] != "[DONE]":
                assert set(got.events[-1]["error"]) == {"message", "type", "param", "code"}

        check()


@pytest.mark.parametrize("recorded", CUT, ids=lambda each: f"{each.dialect}-{each.name}")
def test_each_transcript_is_charged_as_it_says(tmp_path: Path, recorded: Transcript) -> None:
    """A whole recorded answer: the ledger holds the tokens that the transcript says must be counted."""
    with theatre(tmp_path, recorded.dialect) as shown:
        shown.recording = Recording(recorded.status, recorded.headers, recorded.body)
        request = {**json.loads(recorded.request), "model": MODEL}
        request.pop("thinking", None)
        request.pop("reasoning_effort", None)
        path = "/beta/completions" if recorded.operation == "completion" else "/beta/chat/completions"
        got = shown.ask(json.dumps(request).encode(), path)
        well_formed(got, stream=request.get("stream", False))
        if not shown.asked:
            assert (recorded.name, got.status) == ("error-octet-stream", 400)  # we refuse it ourselves
            return
        usage = recorded.usage
        ends_well = got.status == 200 and (not request.get("stream") or got.failure is None)

        def as_promised(record: Record) -> bool:
            if not ends_well:
                return record.kind == "voided" or record.estimated or usage is not None
            if usage is None:
                return record.kind == "posted" and record.estimated
            counted = (usage["prompt_hit"] + usage["prompt_miss"], usage["completion"])
            return (record.prompt, record.completion, record.estimated) == (*counted, False)

        shown.expected.append(as_promised)
