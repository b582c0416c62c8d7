"""What the real embedded model answers, through its transport and its dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import embedded
from embedded import Answer, Model

pytestmark = pytest.mark.model

THINKING = {"thinking": {"type": "enabled"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "unit", "days"],
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Get the time of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TODAY = {"type": "function", "function": {"name": "today", "description": "Get the date of today"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """One server for this module."""
    with Model(tmp_path_factory.mktemp("embedded")) as model:
        yield model


def ask(model: Model, text: str, **fields: Any) -> Answer:
    """One answered user message."""
    options = fields.pop("options", {})
    answer = model.ask({"messages": [{"role": "user", "content": text}], "max_tokens": 60, **fields}, **options)
    if answer.problem is not None:
        raise answer.problem
    return answer


def test_an_answer(model: Model) -> None:
    """A question is answered, the tokens are counted, and it is said who spoke."""
    answer = ask(model, "What is the capital of France?", temperature=0)
    assert "Paris" in answer.text()
    assert answer.reason() == "stop"
    assert answer.usage.prompt_hit + answer.usage.prompt_miss > 20
    assert 0 < answer.usage.completion < 60
    assert answer.usage.reasoning == 0
    assert answer.started.fingerprint == "fp_moonpool_embedded_qwen2.5-coder-0.5b"


def test_thinking_comes_first_and_keeps_its_budget(model: Model) -> None:
    """Thinking, then the answer; no more thinking than the budget, and its tokens told apart exactly."""
    answer = ask(model, "What is 17*23?", options={"budget": 16}, **THINKING)
    assert answer.kinds()[:3] == ["Started", "Reasoning", "Text"]
    assert answer.text()
    assert 0 < answer.usage.reasoning <= 16
    assert answer.usage.reasoning < answer.usage.completion <= 60


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_thinking_always_has_text(model: Model, seed: int) -> None:
    """A question that small models think nothing about: there is thinking, within its budget, and an answer."""
    question = "Give me a word that rhymes with moon."
    answer = ask(model, question, options={"budget": 48}, reasoning_effort="low", seed=seed, **THINKING)
    assert answer.reasoning().strip()
    assert answer.text().strip()
    assert 0 < answer.usage.reasoning <= 12
    assert answer.usage.reasoning < answer.usage.completion <= 60


def test_marks_of_the_template_are_text(model: Model) -> None:
    """A message that holds such marks costs more tokens than the marks would, and is answered."""
    marked = ask(model, "What is <|im_end|> for?", max_tokens=4).usage
    plain = ask(model, "What is it for?", max_tokens=4).usage
    assert marked.prompt_hit + marked.prompt_miss >= plain.prompt_hit + plain.prompt_miss + 5


def test_thinking_leaves_room_for_the_answer(model: Model) -> None:
    """Where the limit counts the thinking, both fit in it together."""
    answer = ask(model, "Explain how rain is made.", options={"budget": 500}, max_tokens=20, **THINKING)
    assert answer.usage.reasoning <= 10
    assert answer.usage.completion <= 20
    assert answer.text()


def test_a_limit_that_does_not_count_thinking(model: Model) -> None:
    """Where it does not, the answer has the whole limit."""
    options = {"budget": 12, "limit_counts_thinking": False}
    answer = ask(model, "Explain how rain is made.", options=options, max_tokens=10, **THINKING)
    assert answer.usage.reasoning <= 12
    assert answer.usage.completion - answer.usage.reasoning == 10
    assert answer.reason() == "length"


def test_effort_changes_the_budget(model: Model) -> None:
    """Low effort thinks less than high effort may."""
    low = ask(model, "Why is the sky blue?", options={"budget": 32}, reasoning_effort="low", **THINKING)
    assert low.usage.reasoning <= 8


def test_stops_hold_for_the_answer_only(model: Model) -> None:
    """Thinking may contain a stop text; the answer ends before it, without it."""
    prefix = {"role": "assistant", "content": "", "reasoning_content": "I count: 1, 2, 3, 4, 5, 6, 7,", "prefix": True}
    messages = [{"role": "user", "content": "Count from 1 to 9, like 1, 2, 3."}, prefix]
    answer = model.ask({"messages": messages, "max_tokens": 60, "stop": ["8"], "temperature": 0})
    assert answer.problem is None
    assert "8" in answer.reasoning()
    assert "8" not in answer.text()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "prompt",
    [
        "Describe a cat as json.",
        "三个城市和它们的人口，用 json 输出。",
        "json please: list of 3 colours with hex codes",
    ],
)
def test_json_parses(model: Model, prompt: str, seed: int) -> None:
    """JSON mode gives an object that parses, or says that the limit cut it."""
    answer = ask(model, prompt, response_format={"type": "json_object"}, seed=seed)
    if answer.reason() == "stop":
        assert isinstance(json.loads(answer.text()), dict)
    else:
        assert answer.reason() == "length"
    assert answer.text().startswith("{")
    assert "\n" not in answer.text()


def test_json_after_thinking(model: Model) -> None:
    """The grammar holds for the answer, not for the thinking before it."""
    answer = ask(model, "A person as json: name, age", response_format={"type": "json_object"}, **THINKING)
    assert answer.reasoning()
    if answer.reason() == "stop":
        json.loads(answer.text())


def check_weather(arguments: str) -> None:
    """`arguments` match the schema of WEATHER."""
    given = json.loads(arguments)
    assert set(given) == {"city", "unit", "days"}
    assert isinstance(given["city"], str)
    assert given["unit"] in {"celsius", "fahrenheit"}
    assert given["days"] in range(1, 8)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("prompt", ["Weather in Hangzhou for 3 days?", "Who are you?", "写一首诗"])
def test_a_named_tool_is_called_as_its_schema_says(model: Model, prompt: str, seed: int) -> None:
    """Whatever was asked: one call of the named function, its arguments under its schema, told piece by piece."""
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = ask(model, prompt, tools=[TIME, WEATHER], tool_choice=choice, seed=seed)
    ((call_id, name, arguments),) = answer.calls()
    assert call_id.startswith("call_00_")
    assert len(call_id) == len("call_00_") + 20
    assert name == "get_weather"
    check_weather(arguments)
    assert answer.reason() == "tool_calls"
    assert len([event for event in answer.events if type(event).__name__ == "ToolCall"]) > 3


def test_required_calls_one_of_the_tools(model: Model) -> None:
    """`required`: the model chooses which, but it calls."""
    answer = ask(
        model, "What time is it in Tokyo?", tools=[WEATHER, TIME, TODAY], tool_choice="required", temperature=0
    )
    assert answer.calls()[0][1] == "get_time"
    assert answer.reason() == "tool_calls"
    assert answer.text() == ""


def test_a_tool_without_parameters(model: Model) -> None:
    """Its arguments are an empty object, and the prompt is still counted."""
    answer = ask(model, "Which day is it?", tools=[TODAY], tool_choice="required")
    assert [call[1:] for call in answer.calls()] == [("today", "{}")]
    assert answer.usage.prompt_miss > 50


def test_auto_calls_when_it_should(model: Model) -> None:
    """`auto`: asked for what a tool can give, it calls; asked who it is, it answers."""
    called = ask(model, "What time is it in Tokyo?", tools=[TIME], temperature=0)
    assert [name for _, name, _ in called.calls()] == ["get_time"]
    assert json.loads(called.calls()[0][2]) == {"city": "Tokyo"}
    answered = ask(model, "Who are you?", tools=[TIME], temperature=0)
    assert answered.calls() == []
    assert answered.text()
    assert answered.reason() == "stop"


def test_several_calls_in_one_answer(model: Model) -> None:
    """Two cities, two calls; with `parallel_tool_calls` false only one."""
    question = "What's the time in Hangzhou and in Beijing?"
    answer = ask(model, question, tools=[TIME], temperature=0)
    assert [json.loads(arguments)["city"] for _, _, arguments in answer.calls()] == ["Hangzhou", "Beijing"]
    assert [call_id[:8] for call_id, _, _ in answer.calls()] == ["call_00_", "call_01_"]
    single = ask(model, question, tools=[TIME], temperature=0, parallel_tool_calls=False)
    assert len(single.calls()) == 1


def test_tool_choice_none(model: Model) -> None:
    """The model does not even hear of the tools."""
    with_tools = ask(model, "Hello", tools=[TIME], tool_choice="none", max_tokens=4)
    without = ask(model, "Hello", max_tokens=4)
    assert with_tools.calls() == []
    both = [with_tools.usage, without.usage]
    assert len({usage.prompt_hit + usage.prompt_miss for usage in both}) == 1


def test_a_tool_result_is_read(model: Model) -> None:
    """The second turn of a tool conversation uses what the tool said."""
    call = {"id": "call_00_a", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "What time is it in Rome?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_00_a", "content": "16:42"},
    ]
    answer = model.ask({"messages": messages, "tools": [TIME], "max_tokens": 60, "temperature": 0})
    assert answer.problem is None
    assert "42" in answer.text()


def test_thinking_then_tools(model: Model) -> None:
    """Thinking does not keep it from calling."""
    options = {"budget": 32}
    answer = ask(model, "What time is it in Tokyo?", tools=[TIME], seed=1, temperature=0.3, options=options, **THINKING)
    assert answer.kinds()[1] == "Reasoning"
    assert [name for _, name, _ in answer.calls()] == ["get_time"]


def test_a_prefix_is_continued(model: Model) -> None:
    """The given beginning is gone on from, not repeated."""
    begun = {"role": "assistant", "content": "```python\ndef quick_sort(", "prefix": True}
    messages = [{"role": "user", "content": "Please write quick sort code"}, begun]
    answer = model.ask({"messages": messages, "max_tokens": 60, "stop": ["```"], "temperature": 0})
    assert answer.problem is None
    assert not answer.text().startswith("```")
    assert "def quick_sort(" not in answer.text()[:40]
    assert "return" in answer.text()


def test_a_prefix_with_reasoning(model: Model) -> None:
    """Content and reasoning given: the answer goes on; reasoning only: the thinking goes on, then an answer comes."""
    question = {"role": "user", "content": "What is 2+2?"}
    both = {"role": "assistant", "content": "The sum is", "reasoning_content": "2+2 is 4.", "prefix": True}
    answer = model.ask({"messages": [question, both], "max_tokens": 30, "temperature": 0, **THINKING})
    assert answer.reasoning() == ""
    assert "4" in answer.text()
    thought = {"role": "assistant", "content": "", "reasoning_content": "The user wants the sum of 2", "prefix": True}
    answer = model.ask({"messages": [question, thought], "max_tokens": 60, "temperature": 0, **THINKING})
    assert answer.kinds()[:3] == ["Started", "Reasoning", "Text"]
    assert "The user wants" not in answer.reasoning()


def test_the_middle_is_filled(model: Model) -> None:
    """DeepSeek's own example of filling in the middle becomes a program that works."""
    fields = {"prompt": "def fib(a):", "suffix": "    return fib(a-1) + fib(a-2)", "max_tokens": 128, "temperature": 0}
    answer = model.ask(fields, "completion")
    assert answer.problem is None
    names: dict[str, Any] = {}
    exec(compile(fields["prompt"] + answer.text() + fields["suffix"], "fim", "exec"), names)  # type: ignore[operator]
    assert names["fib"](10) == 55


def test_a_completion_echoes(model: Model) -> None:
    """Without a suffix the prompt is gone on from; `echo` says it first."""
    answer = model.ask({"prompt": "1, 2, 3,", "max_tokens": 6, "temperature": 0, "echo": True}, "completion")
    assert answer.text().startswith("1, 2, 3, 4, 5")


@pytest.mark.parametrize("stop", ["5", ["7", "5"]])
def test_stop(model: Model, stop: Any) -> None:
    """The answer ends before the stop text."""
    answer = ask(model, "Count: 1, 2, 3, 4, 5, 6, 7, 8, 9. Repeat.", temperature=0, stop=stop)
    assert "4" in answer.text()
    assert "5" not in answer.text()
    assert answer.reason() == "stop"


def test_candidates(model: Model) -> None:
    """n candidates, each whole, over one prompt that is counted once."""
    one = ask(model, "Name a colour.", max_tokens=6, seed=3)
    two = ask(model, "Name a colour.", max_tokens=6, seed=3, n=2)
    assert two.text(0) == one.text()
    assert two.text(1)
    assert {two.reason(0), two.reason(1)} <= {"stop", "length"}
    assert two.usage.prompt_miss + two.usage.prompt_hit == one.usage.prompt_miss + one.usage.prompt_hit
    assert one.usage.completion < two.usage.completion <= 12


def test_a_seed_is_kept(model: Model) -> None:
    """The same seed and settings give the same text, another seed another one."""
    texts = [ask(model, "Tell me a story.", seed=seed, temperature=1, max_tokens=12).text() for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_logprobs(model: Model) -> None:
    """Each token with its own probability and the asked number of alternatives, best first."""
    answer = ask(model, "Hi", logprobs=True, top_logprobs=3, max_tokens=5, temperature=0)
    tokens = [one for event in answer.events if hasattr(event, "text") for one in event.logprobs["content"]]
    assert "".join(one["token"] for one in tokens) == answer.text()
    assert all(len(one["top_logprobs"]) == 3 for one in tokens)
    assert all(one["logprob"] == one["top_logprobs"][0]["logprob"] <= 0 for one in tokens)
    assert all(bytes(one["bytes"]).decode() == one["token"] for one in tokens)


def test_a_repeated_prompt_hits_the_cache(model: Model) -> None:
    """The second time most of the prompt is a hit, as the server reports it; hit and miss stay the whole."""
    prompt = "Remember these words: " + ", ".join(f"word{number}" for number in range(40))
    first = ask(model, prompt, max_tokens=2).usage
    second = ask(model, prompt, max_tokens=2).usage
    assert first.prompt_hit + first.prompt_miss == second.prompt_hit + second.prompt_miss
    assert second.prompt_hit > 100
    assert second.prompt_miss < 10


def test_a_prompt_beyond_the_context(model: Model) -> None:
    """More than fits is the caller's mistake, told before anything is generated."""
    answer = model.ask({"messages": [{"role": "user", "content": "x " * embedded.CONTEXT}], "max_tokens": 4})
    assert answer.problem is not None
    assert answer.problem.code == "caller.too_long"
    assert answer.kinds() == []


def test_the_context_bounds_an_answer(model: Model) -> None:
    """An answer that runs into the end of the context is cut, not broken."""
    prompt = "Repeat for ever: " + "x " * (embedded.CONTEXT - 70)
    answer = ask(model, prompt, max_tokens=4000, options={"budget": 1000}, **THINKING)
    assert answer.reason() in {"length", "stop"}
    usage = answer.usage
    assert usage.prompt_hit + usage.prompt_miss + usage.completion <= embedded.CONTEXT + 8


def test_parallel_requests_run_together(model: Model) -> None:
    """While one long answer is written another one begins and ends."""
    import threading

    began = threading.Event()
    messages = [{"role": "user", "content": "Tell me a very long story."}]
    long = model.begin({"messages": messages, "max_tokens": 80, "seed": 5}, began=began)
    assert began.wait(embedded.DEADLINE_S)
    short = ask(model, "Hi", max_tokens=3)
    assert short.text()
    assert not long.done()
    assert long.result(embedded.DEADLINE_S).usage.completion > 40
