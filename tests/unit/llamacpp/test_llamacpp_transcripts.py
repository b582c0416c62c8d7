"""Recorded answers of the embedded model, pass by pass: what is asked, and what the bytes mean however they are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moonpool.dialects.base import Decoder
from moonpool.dialects.llamacpp import LlamaCpp
from moonpool.errors import Problem
from moonpool.words import Call, Event, Failed, Finished, Host, Metered, Reasoning, Target, Text

HERE = Path(__file__).resolve().parents[2] / "transcripts" / "llamacpp"
SCENARIOS = sorted(path.parent.name for path in HERE.glob("*/call.json"))
DIALECT = LlamaCpp()
HOST = Host(name="embedded", dialect="llamacpp", transport="llama")


def read(scenario: str, name: str) -> Any:
    return msgspec.json.decode((HERE / scenario / name).read_bytes())


def asked(scenario: str) -> tuple[Call, Target]:
    """The call and the target of a scenario, as record.py had them."""
    about = read(scenario, "call.json")
    fields = about["fields"]
    thinking = "thinking" in fields
    limit = fields.get("max_tokens")
    call = Call("recorded", about["operation"], "m", True, fields, b"", output_max=limit, thinking=thinking)
    options = {"budget": 48, "context": 1024, **about["options"]}
    return call, Target(HOST, "qwen2.5-coder-0.5b", options=options)


def responses(scenario: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while (path := HERE / scenario / f"{number}.response").exists():
        status, _, body = path.read_bytes().partition(b"\n")
        yield int(status), body
        number += 1


def plain(event: Event) -> list[Any]:
    about = {"code": event.problem.code} if isinstance(event, Failed) else msgspec.to_builtins(event)
    if isinstance(event, Metered) and not event.usage.searches:
        del about["usage"]["searches"]
    return [type(event).__name__, about]


def replay(scenario: str, cut: Any) -> tuple[list[Event], list[Any]]:
    """Events and requests of a scenario, its bodies cut by `cut`."""
    call, target = asked(scenario)
    decoder = DIALECT.decoder(call, target)
    outbound = DIALECT.render_call(call, target)
    events: list[Event] = []
    requests = []
    for status, body in responses(scenario):
        assert outbound is not None
        requests.append({"path": outbound.path, "stream": outbound.stream, "body": msgspec.json.decode(outbound.body)})
        decoder.start(status, {})
        for chunk in cut(body):
            for frame in decoder.feed(chunk):
                events += frame.events
        for frame in decoder.finish():
            events += frame.events
        outbound = decoder.next
    assert outbound is None
    return events, requests


def whole(body: bytes) -> list[bytes]:
    return [body]


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("cut", [whole, bytewise], ids=["whole", "bytewise"])
def test_events_are_those_recorded(scenario: str, cut: Any) -> None:
    """The bytes of a scenario mean its events, and each pass asks what was asked then."""
    events, requests = replay(scenario, cut)
    assert [plain(event) for event in events] == read(scenario, "events.json")
    assert requests == [read(scenario, f"{number}.request.json") for number in range(len(requests))]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_cut_means_the_same(scenario: str) -> None:
    """Ten random slicings give the same events."""
    chance = random.Random(scenario)

    def cut(body: bytes) -> list[bytes]:
        places = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(1, 40)))
        return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]

    for _ in range(10):
        assert [plain(event) for event in replay(scenario, cut)[0]] == read(scenario, "events.json")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "too-long"])
def test_a_pass_that_broke_off_is_no_answer(scenario: str) -> None:
    """Whatever pass ends before its last event: the answer is not taken for whole."""
    *before, (status, body) = responses(scenario)
    call, target = asked(scenario)
    decoder = DIALECT.decoder(call, target)
    for good_status, good in before:
        decoder.start(good_status, {})
        decoder.feed(good)
        decoder.finish()
    decoder.start(status, {})
    decoder.feed(body[: len(body) * 2 // 3])
    assert ending(decoder) in {"upstream.cut", "upstream.nonsense"}


def ending(decoder: Decoder) -> str | None:
    """The code of the problem that a decoder ends with."""
    try:
        frames = decoder.finish()
    except Problem as problem:
        return problem.code
    failed = [event.problem.code for frame in frames for event in frame.events if isinstance(event, Failed)]
    return failed[0] if failed else None


def joined(scenario: str, kind: type[Text] | type[Reasoning], index: int = 0) -> str:
    events, _ = replay(scenario, whole)
    return "".join(event.text for event in events if type(event) is kind and event.index == index)


def test_the_middle_fits_between_prompt_and_suffix() -> None:
    """What fills the middle of DeepSeek's own example makes a program that compiles and counts."""
    fields = read("fim", "call.json")["fields"]
    program = fields["prompt"] + joined("fim", Text) + fields["suffix"]
    names: dict[str, Any] = {}
    exec(compile(program, "fim", "exec"), names)
    assert names["fib"](10) == 55


def test_text_lost_to_a_stop_that_never_came_is_brought_back() -> None:
    """A limit within what might have become a stop text loses nothing of the answer."""
    assert joined("limit-within-stop-text", Text) == "Hello! How can"


def test_thinking_keeps_its_marks_to_itself() -> None:
    """Neither `<think>` nor the blanks around it reach the client."""
    reasoning = joined("thinking", Reasoning)
    assert reasoning
    assert reasoning == reasoning.strip()
    assert "think>" not in reasoning + joined("thinking", Text)


def test_thinking_that_closes_at_once_is_run_again() -> None:
    """Thinking that was asked for has text; the tokens of the pass that had none are counted too."""
    events, requests = replay("thinking-closed-at-once", whole)
    first, again, _ = (request["body"] for request in requests[1:])
    assert "grammar" not in first
    assert again["prompt"] == first["prompt"]
    assert "grammar" in again
    assert joined("thinking-closed-at-once", Reasoning).strip()
    (metered,) = [event for event in events if isinstance(event, Metered)]
    predicted = [last_of(body)["tokens_predicted"] for _, body in list(responses("thinking-closed-at-once"))[1:]]
    assert metered.usage.completion == sum(predicted)
    assert metered.usage.reasoning == predicted[0] + predicted[1]
    assert again["n_predict"] == 12 - predicted[0]


def last_of(body: bytes) -> Any:
    return msgspec.json.decode(body.strip().rpartition(b"data: ")[2])


def test_marks_in_a_message_are_plain_text() -> None:
    """What looks like a mark of the chat template is told to the model as text: its `<` is a token of its own."""
    _, requests = replay("marks-in-messages", whole)
    (said,) = requests[0]["body"]["messages"]
    assert "<|" not in said["content"]
    before, *rest = requests[2]["body"]["prompt"]
    assert before.endswith("What is ")
    assert rest[1].startswith("|im_end|>\n")
    assert rest[5].startswith("｜User｜> for?<|im_end|>\n<|im_start|>assistant")
    assert rest[0] == rest[2] == rest[4]
    assert isinstance(rest[0], int)


def passes(call: Call, target: Target, *bodies: bytes) -> tuple[list[Event], list[Any]]:
    """Events and asked bodies of an answer that is made of `bodies`, one for each pass."""
    decoder = DIALECT.decoder(call, target)
    outbound = DIALECT.render_call(call, target)
    events: list[Event] = []
    requests = []
    for body in bodies:
        assert outbound is not None
        requests.append(msgspec.json.decode(outbound.body))
        decoder.start(200, {})
        for frame in [*decoder.feed(body), *decoder.finish()]:
            events += frame.events
        outbound = decoder.next
    assert outbound is None
    return events, requests


def generated(text: str, kind: str, word: str = "") -> bytes:
    """A pass of three tokens that says `text` and ends as `kind`, in the shape of the recorded ones."""
    last = {"stop": True, "tokens_predicted": 3, "tokens_evaluated": 9, "stop_type": kind, "stopping_word": word}
    events = [{"content": text, "tokens": [1, 2, 3], "stop": False}, {"content": "", "tokens": [], **last}]
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


PROMPT = b'{"prompt": "Hi\\n"}'
EMPTY = generated("", "eos")


def answered(*bodies: bytes, **fields: Any) -> tuple[str, str, int, list[Any]]:
    """Text, finish reason, completion tokens and requests of an answer without thinking."""
    fields = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    call = Call("x", "chat", "m", True, fields, b"", output_max=fields.get("max_tokens"), thinking=False)
    events, requests = passes(call, Target(HOST, "m", options={"context": 1024}), PROMPT, *bodies)
    text = "".join(event.text for event in events if isinstance(event, Text))
    (reason,) = [event.reason for event in events if isinstance(event, Finished)]
    (usage,) = [event.usage for event in events if isinstance(event, Metered)]
    return text, str(reason), usage.completion, requests


def test_an_answer_of_nothing_is_run_again() -> None:
    """A model that ends before its first word is asked once more, and may then not begin with its end; both count."""
    text, reason, completion, requests = answered(EMPTY, generated("Hello", "eos"), max_tokens=20)
    assert (text, reason, completion) == ("Hello", "stop", 6)
    assert requests[2]["n_predict"] == 17
    assert "grammar" in requests[2]


def test_an_answer_is_run_again_once_only() -> None:
    """The second time it may be empty: an answer ends."""
    assert answered(EMPTY, EMPTY)[:3] == ("", "stop", 6)


def test_an_answer_of_nothing_that_was_asked_for() -> None:
    """A stop text that came first, or a limit, leaves an empty answer as it is."""
    assert answered(generated("", "word", "a"), stop=["a"])[:3] == ("", "stop", 3)
    assert answered(generated("", "limit"), max_tokens=3)[:3] == ("", "length", 3)
    assert answered(EMPTY, max_tokens=3)[:2] == ("", "stop")
