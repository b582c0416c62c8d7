"""What the twin says: the same for the same question, the rest of it for a prefix, the rows somebody brought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import CLIENT
from moonpool.settings import ConfigError
from moonpool.twin.answers import Answers, Spoken, load, pieces, speak
from moonpool.twin.example import example
from moonpool.words import Call, Host, Reasoning, Target, Text, ToolCall

TARGET = Target(Host("h", "deepseek"), "m")


def _call(operation: Any = "chat", thinking: bool = False, **fields: Any) -> Call:
    raw = json.dumps({"model": "m", **fields}).encode()
    call = CLIENT.parse_call(operation, raw, "id")
    return Call(**{name: getattr(call, name) for name in call.__struct_fields__} | {"thinking": thinking})


def _asked(question: str, *more: dict[str, Any], **fields: Any) -> Call:
    return _call(messages=[{"role": "user", "content": question}, *more], **fields)


def _said(spoken: Spoken, kind: type) -> str:
    return "".join(event.text for event in spoken.events if isinstance(event, kind))  # type: ignore[attr-defined]


def test_a_question_has_one_answer() -> None:
    """The same conversation gets the same text, with thinking or without; others get others."""
    answers = Answers()
    found = {question: answers.choose(_asked(question)) for question in map(str, range(30))}
    assert all(Answers().choose(_asked(question)) == answer for question, answer in found.items())
    assert len({answer.text for answer in found.values()}) > 1
    thought = answers.choose(_asked("1", thinking=True))
    assert thought.text == found["1"].text
    assert thought.reasoning
    assert found["1"].reasoning == ""


@given(st.text(max_size=300))
def test_pieces_are_the_text(text: str) -> None:
    """Nothing is lost between pieces, none is empty, none is long."""
    found = pieces(text)
    assert "".join(found) == text
    assert all(found)


@pytest.mark.parametrize("question", ["Hi", "Guten Tag", "讲个故事", "code, please"])
def test_a_prefix_is_continued_at_every_place(question: str) -> None:
    """Cut the answer anywhere and give the beginning back: what comes is exactly the rest."""
    answers = Answers()
    whole = answers.choose(_asked(question))
    for cut in range(1, len(whole.text) + 1):
        given_back = {"role": "assistant", "content": whole.text[:cut], "prefix": True}
        rest = answers.choose(_asked(question, given_back, thinking=True))
        assert (rest.reasoning, whole.text[:cut] + rest.text) == ("", whole.text)


def test_a_thinking_is_continued_at_every_place() -> None:
    """With no content the thinking goes on where it was cut, and the answer follows whole."""
    answers = Answers()
    whole = answers.choose(_asked("Hi", thinking=True))
    for cut in range(1, len(whole.reasoning) + 1):
        given_back = {
            "role": "assistant", "content": "", "reasoning_content": whole.reasoning[:cut], "prefix": True,
        }  # fmt: skip
        rest = answers.choose(_asked("Hi", given_back, thinking=True))
        assert whole.reasoning[:cut] + rest.reasoning == whole.reasoning
        assert rest.text == whole.text


def test_a_prefix_of_something_else_is_no_beginning() -> None:
    """Then the answer is given whole."""
    given_back = {"role": "assistant", "content": "Something else", "prefix": True}
    assert Answers().choose(_asked("Hi", given_back)).text == Answers().choose(_asked("Hi")).text


def test_length_and_stop_are_kept_to() -> None:
    """max_tokens counts pieces, thinking included; a stop ends the answer and not the thinking."""
    call = _asked("Hi", thinking=True)
    whole = speak(Answers().choose(call), call)
    short = speak(Answers().choose(call), Call(**_fields(call) | {"output_max": 3}))
    assert (len(short.events), short.finish, short.reasoning) == (3, "length", 3)
    word = _said(whole, Text)[4:8]
    stopped = speak(Answers().choose(call), Call(**_fields(call) | {"fields": {**call.fields, "stop": [word]}}))
    assert _said(stopped, Text) == _said(whole, Text).partition(word)[0]
    assert _said(stopped, Reasoning) == _said(whole, Reasoning)
    assert stopped.finish == "stop"


def _fields(call: Call) -> dict[str, Any]:
    return {name: getattr(call, name) for name in call.__struct_fields__}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {}}}


def test_a_tool_is_called_with_arguments_of_its_schema_and_its_result_is_passed_on() -> None:
    """First the call, of the function that is wanted; when its result is there, an answer that has it."""
    call = _asked("Rain?", tools=[WEATHER, TIME])
    spoken = speak(Answers().choose(call), call)
    opened = [event for event in spoken.events if isinstance(event, ToolCall)]
    assert (opened[0].name, spoken.finish) == ("weather", "tool_calls")
    assert json.loads("".join(event.arguments for event in opened)) == {"city": "example", "days": 2}
    forced = _asked("Rain?", tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "time"}})
    assert Answers().choose(forced).calls == (("time", "{}"),)
    made = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    after = _asked(
        "Rain?",
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "It is dry."},
        tools=[WEATHER],
    )
    assert "It is dry." in Answers().choose(after).text


def test_json_is_json() -> None:
    """JSON mode gives an object."""
    call = _asked("json, please", response_format={"type": "json_object"})
    assert isinstance(json.loads(Answers().choose(call).text), dict)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({"type": "string", "enum": ["b", "a"]}, "b"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "string", "minLength": 9}, "examplexx"),
        ({"anyOf": [{"type": "number", "minimum": 0.5}, {"type": "string"}]}, 0.5),
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"const": 3}}}, {"a": 3}),
        ({"$ref": "#"}, None),
    ],
)
def test_an_example_fits_its_schema(schema: Any, value: Any) -> None:
    """Required members, constants, bounds; a schema that goes round in circles ends."""
    assert example(schema) == value


def test_own_answers_go_first(tmp_path: Path) -> None:
    """Rows of a folder: by what the question contains, by model; a recording is heard in the provider's dialect."""
    (tmp_path / "a.toml").write_text(
        '[[answer]]\ncontains = "weather"\ntext = "Sunny."\n'
        '[[answer]]\nmodels = ["other-*"]\ntext = "Not for m."\n'
        '[[answer]]\ncontains = "recorded"\nrecording = "b.http"\n'
    )
    body = {"choices": [{"index": 0, "message": {"content": "As it was."}, "finish_reason": "stop"}]}
    (tmp_path / "b.http").write_text(f"HTTP/1.1 200 OK\ncontent-type: application/json\n\n{json.dumps(body)}")
    answers = Answers(load(tmp_path, CLIENT, TARGET))
    assert answers.choose(_asked("How is the Weather?")).text == "Sunny."
    assert answers.choose(_asked("Something recorded")).text == "As it was."
    assert answers.choose(_asked("Hi")).text == Answers().choose(_asked("Hi")).text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[answer]]\ntxt = "x"\n', "did you mean text?"),
        ('[[answers]]\ntext = "x"\n', "did you mean answer?"),
        ('[[answer]]\nrecording = "none.http"\n', "cannot be used"),
        ('[[answer]]\nfor = ["song"]\n', "song"),
        ("", "has no [[answer]]"),
    ],
)
def test_own_answers_that_cannot_be_read_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """With file and key, before the twin starts."""
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CLIENT, TARGET)
    assert sentence in str(caught.value)
