"""The strict side of a provider's twin, over a socket: what is sent wrongly comes back in the provider's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from faults.twins import FLASH, KEY, USER, ask, chat, opened, play, thought
from moonpool.twin import Twin

DESERIALIZE = "Failed to deserialize the JSON body into the target type: "
MADE = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALLED = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": [MADE]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
PASS_BACK = "The `reasoning_content` in the thinking mode must be passed back to the API."
OFF = {"thinking": {"type": "disabled"}}
FOLLOW = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'"


def _messages(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": FLASH, "messages": list(messages), **more}


# What is sent, and what the provider says: PROVIDERS 1.3, 1.7, 1.10, 1.11, row by row.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("model", chat(model="gpt-4"),
     "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed gpt-4."),
    ("a removed name", chat(model="deepseek-chat"),
     "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed deepseek-chat."),
    ("messages", _messages(), "Empty input messages"),
    ("role", _messages({"role": "developer", "content": "x"}, USER),
     f"{DESERIALIZE}messages[0].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, "
     "`tool`, `latest_reminder`"),
    ("content", _messages({"role": "user", "content": 1}), "content should be a string or a list"),
    ("no content", _messages(USER, {"role": "assistant", "content": None}, USER),
     "Invalid assistant message: content or tool_calls must be set"),
    ("part", _messages({"role": "user", "content": [{"type": "input_audio"}]}),
     "unknown variant `input_audio`, expected one of `text`, `image_url`, `file`"),
    ("image", _messages(USER, {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}),
     "Image in assistant message is not supported"),
    ("image url", _messages({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}),
     "Unsupported image_url format"),
    ("no calls", _messages(USER, {"role": "assistant", "content": "x", "tool_calls": []}),
     "Invalid 'messages[1].tool_calls': empty array. Expected an array with minimum length 1, but got an empty array "
     "instead."),
    ("no results", _messages(USER, CALLED), f"{FOLLOW}. (insufficient tool messages following tool_calls message)"),
    ("a result missing", _messages(USER, {**CALLED, "tool_calls": [MADE, {**MADE, "id": "zz"}]}, RESULT),
     f"{FOLLOW}. (insufficient tool messages following tool_calls message)"),
    ("a result of another call", _messages(USER, CALLED, {**RESULT, "tool_call_id": "zz"}),
     f"{FOLLOW}, The following tool_call_ids did not have response messages: zz"),
    ("a result of nothing", _messages(RESULT),
     "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"),
    ("effort", chat(reasoning_effort="foo"),
     "unknown variant `foo`, expected one of `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `ultra`, `max`"),
    ("disabled and effort", chat(**OFF, reasoning_effort="high"),
     "thinking options type cannot be disabled when reasoning_effort is set"),
    ("max_tokens", chat(max_tokens=393217), "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
    ("max_tokens 0", chat(max_tokens=0), "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
    ("temperature", chat(temperature=2.1), "Invalid temperature value, the valid range of temperature is [0, 2]"),
    ("top_p", chat(top_p=0), "Invalid top_p value, the valid range of top_p is (0, 1.0]"),
    ("frequency_penalty", chat(frequency_penalty=3),
     "Invalid frequency_penalty value, the valid range of frequency_penalty is [-2, 2]"),
    ("presence_penalty", chat(presence_penalty=-3),
     "Invalid presence_penalty value, the valid range of presence_penalty is [-2, 2]"),
    ("n", chat(n=2), "Invalid n value (currently only n = 1 is supported)"),
    ("stops", chat(stop=["x"] * 17), "Stop string array too long: 17"),
    ("an empty stop", chat(stop=""),
     "Invalid 'stop': empty string. Expected a string with minimum length 1, but got an empty string instead."),
    ("top_logprobs alone", chat(top_logprobs=2),
     "Invalid top_logprobs and logprobs value, logprobs must be set to true if top_logprobs is used."),
    ("top_logprobs", chat(logprobs=True, top_logprobs=21),
     "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20]."),
    ("stream_options", chat(stream_options={"include_usage": True}),
     "stream_options should be set along with stream = true"),
    ("json_schema", chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}),
     "This response_format type is unavailable now"),
    ("json", chat(response_format={"type": "json_object"}),
     "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."),
    ("names", chat(tools=[TOOL, TOOL]), "Tool names must be unique."),
    ("a name", chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
     "Invalid 'tools[0].function.name': string does not match pattern. Expected a string that matches the pattern "
     "'^[a-zA-Z0-9_-]+$'."),
    ("a tool", chat(tools=[{"type": "web_search"}]), "unknown variant `web_search`, expected `function`"),
    ("required and thinking", chat(tools=[TOOL], tool_choice="required"),
     "Thinking mode does not support this tool_choice"),
    ("named and thinking", chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
     "Thinking mode does not support this tool_choice"),
    ("a name that is none", chat(**OFF, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
     "Invalid value for 'tool_call': no function named 'g' was specified in the 'tools' parameter."),
    ("reasoning missing", _messages(USER, {**CALLED, "reasoning_content": None}, RESULT, tools=[TOOL]), PASS_BACK),
    ("reasoning elsewhere",
     _messages(USER, {"role": "assistant", "content": "", "tool_calls": [MADE], "reasoning": "x"}, RESULT), PASS_BACK),
    ("reasoning of a plain turn", _messages(USER, {"role": "assistant", "content": "x"}, tools=[TOOL]), PASS_BACK),
]  # fmt: skip

# The same turned a little, so that it is right.
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("unknown fields", chat(parallel_tool_calls=False, logit_bias={}, user="u", metadata={}, mine=1)),
    ("an empty reasoning", _messages(USER, CALLED, RESULT, tools=[TOOL])),
    ("an earlier turn", _messages(USER, {**CALLED, "reasoning_content": None}, RESULT, USER, tools=[TOOL])),
    ("no tools", _messages(USER, {"role": "assistant", "content": "x"}, USER)),
    ("without thinking", _messages(USER, {**CALLED, "reasoning_content": None}, RESULT, tools=[TOOL], **OFF)),
    ("required without thinking", chat(tools=[TOOL], tool_choice="required", **OFF)),
    ("bad arguments", _messages(USER, {**CALLED, "tool_calls": [{**MADE, "function": {"name": "f", "arguments": "{"}}]},
                                RESULT, tools=[TOOL])),
    ("a name of the message", _messages({**USER, "name": "me"})),
    ("a routed name", chat(model="deepseek-v4-flash")),
    ("sixteen stops", chat(stop=["x"] * 16)),
    ("an effort", chat(reasoning_effort="minimal")),
    ("adaptive", chat(thinking={"type": "adaptive", "budget_tokens": 5})),
    ("json", _messages({"role": "user", "content": "JSON!"}, response_format={"type": "json_object"})),
]  # fmt: skip


def test_what_is_wrong_comes_back_in_the_providers_words() -> None:
    """Each rule that has a recorded sentence: a 400 that is called octet-stream, with type and code, billed nothing."""

    async def act(twin: Twin) -> None:
        for what, body, sentence in REFUSED:
            got = await ask(twin, body)
            assert got.status == 400, (what, got)
            assert got.fields["content-type"] == "application/octet-stream", what
            error = got.error
            assert error["message"].endswith(sentence), (what, error["message"])
            assert error["message"].removesuffix(sentence) in ("", DESERIALIZE) or error["message"].startswith(
                DESERIALIZE
            ), (what, error["message"])
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request_error"), what
        assert [served.billed_pico for served in twin.served] == [0] * len(REFUSED)

    play(act)


def test_what_is_right_is_taken() -> None:
    """Strict is no stricter than the provider."""

    async def act(twin: Twin) -> None:
        for what, body in TAKEN:
            got = await ask(twin, body)
            assert got.status == 200, (what, got)
            assert got.json["model"] == FLASH, what

    play(act)


def test_beta_is_where_beta_is() -> None:
    """FIM and prefix under /beta and nowhere else; prefix not with tools or JSON, and only on the last message."""
    prefix = _messages(USER, {"role": "assistant", "content": "Hel", "prefix": True})
    fim = {"model": FLASH, "prompt": "def f():", "suffix": "\n"}

    async def act(twin: Twin) -> None:
        assert (await ask(twin, prefix, "/beta/chat/completions")).status == 200
        assert (await ask(twin, prefix)).status == 400
        assert (await ask(twin, fim, "/beta/completions")).status == 200
        assert (await ask(twin, fim, "/completions")).status == 404
        assert (await ask(twin, fim, "/v1/completions")).status == 404
        with_tools = await ask(twin, {**prefix, "tools": [TOOL]}, "/beta/chat/completions")
        assert with_tools.error["message"] == "Function call should not be used with prefix"
        with_json = await ask(twin, {**prefix, "response_format": {"type": "json_object"}}, "/beta/chat/completions")
        assert with_json.error["message"] == "response_format json_object should not be used with prefix"
        early = _messages({"role": "assistant", "content": "Hel", "prefix": True}, USER)
        assert (await ask(twin, early, "/beta/chat/completions")).error["message"] == (
            "Invalid completion message: prefix set true with message which is not final message or message role is "
            "not assistant"
        )
        strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}  # type: ignore[dict-item]
        assert (await ask(twin, chat(tools=[strict]))).status == 400
        assert (await ask(twin, chat(tools=[strict]), "/beta/chat/completions")).status == 200
        begun = {"role": "assistant", "content": "I", "prefix": True}
        after_a_call = await ask(twin, _messages(USER, CALLED, RESULT, USER, begun), "/beta/chat/completions")
        assert after_a_call.error["message"] == "Function call should not be used with prefix"
        mixed = await ask(twin, chat(tools=[strict, {**TOOL, "function": {"name": "g"}}]), "/beta/chat/completions")
        assert mixed.error["message"] == "Cannot use strict tool with non-strict tool in the same request"

    play(act)


def test_doors() -> None:
    """An unknown key, none, one without money: the provider's statuses, types and sentences."""

    async def act(twin: Twin) -> None:
        wrong = await ask(twin, chat(), key="sk-wrong-abcd")
        assert (wrong.status, wrong.fields["content-type"]) == (401, "application/json")
        assert wrong.error == {
            "message": "Authentication Fails, Your api key: ****abcd is invalid",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_request_error",
        }
        assert [(await ask(twin, chat(), key=key)).status for key in ("", "nokey", "sk-")] == [401, 401, 401]
        assert (await ask(twin, None, "/models", key="sk-wrong")).status == 401
        broke = await ask(twin, chat(), key="sk-broke.1")
        assert (broke.status, broke.error["message"]) == (402, "Insufficient Balance")
        assert broke.error["type"] == "unknown_error"
        poor = await ask(twin, None, "/user/balance", key="sk-broke.1")
        assert poor.json["is_available"] is False
        assert poor.json["balance_infos"][0]["total_balance"] == "0.00"

    play(act)


def test_too_much_at_once_for_an_account() -> None:
    """Its keys share the limit, another account has its own, and the sentence has the numbers."""

    async def act(twin: Twin) -> None:
        async with opened(twin, chat(stream=True)) as first, opened(twin, chat(stream=True), key="sk-team.2"):
            await first.head()
            await twin.until(lambda: sum(not served.ended for served in twin.served) == 2)
            third = await ask(twin, chat(), key="sk-team.3")
            assert third.status == 429
            assert third.error["message"] == (
                "Your current concurrency is 3, which exceeds your concurrency limit of 2 based on your remaining "
                "balance. Please top up your balance to restore your concurrency."
            )
            assert (await ask(twin, chat(), key="sk-other")).status == 200
        await twin.until(lambda: all(served.ended for served in twin.served))
        assert (await ask(twin, chat())).status == 200
        assert twin.summary()["at_once_max"]["sk-team"] == 2

    play(act, concurrency=2, faults=[{"stall_after": 2, "request": [1, 2]}])


def test_the_context_is_counted() -> None:
    """What is asked and what may be answered must fit; the sentence says how much it was."""

    async def act(twin: Twin) -> None:
        got = await ask(twin, _messages({"role": "user", "content": "word " * 700_000}, max_tokens=1000))
        assert got.status == 400
        message = got.error["message"]
        assert message.startswith("This model's maximum context length is 1048576 tokens. However, you requested ")
        assert message.endswith("1000 in the completion). Please reduce the length of the messages or completion.")

    play(act)


def test_another_day_has_other_rules() -> None:
    """R1's: turns alternate, the last is a user's, no reasoning comes back, no JSON, no tools; V3.2's own sentence."""
    reasoner = "deepseek-reasoner"
    back = {"role": "assistant", "content": "x", "reasoning_content": "y"}
    told: list[str] = []

    async def r1(twin: Twin) -> None:
        for body in (
            _messages(USER, USER, model=reasoner),
            _messages(USER, {"role": "assistant", "content": "x"}, model=reasoner),
            _messages(USER, back, USER, model=reasoner),
            chat(model=reasoner, tools=[TOOL], tool_choice="auto"),
            chat(model=reasoner, logprobs=True),
        ):
            got = await ask(twin, body)
            assert got.status == 400
            told.append(got.error["message"])
        assert (await ask(twin, chat(model=reasoner, temperature=5.0))).status == 200
        assert (await ask(twin, chat())).status == 400

    async def v3_2(twin: Twin) -> None:
        got = await ask(
            twin, _messages(USER, {**CALLED, "reasoning_content": None}, RESULT, model=reasoner, tools=[TOOL])
        )
        assert got.error["message"].startswith("Missing `reasoning_content` field in the assistant message at message")
        assert "message index 1." in got.error["message"]
        assert (await ask(twin, _messages(USER, CALLED, RESULT, model=reasoner, tools=[TOOL]))).status == 200

    play(r1, at=1_740_000_000.0)
    assert told[0].startswith(
        "deepseek-reasoner does not support successive user or assistant messages (messages[0] and messages[1] in "
        "your input)."
    )
    assert told[1].startswith("The last message of deepseek-reasoner must be a user message")
    play(v3_2, at=1_767_000_000.0)


def test_a_stream_has_the_providers_shape() -> None:
    """Role first, thinking before the answer, usage on the finish chunk whether asked or not, then the end mark."""

    async def act(twin: Twin) -> None:
        plain = await ask(twin, chat(stream=True))
        assert plain.fields["content-type"] == "text/event-stream; charset=utf-8"
        assert plain.complete
        first, *middle, last, end = plain.events
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": None, "reasoning_content": ""}
        assert end == "[DONE]"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["choices"][0]["delta"] == {"content": "", "reasoning_content": None}
        usage = last["usage"]
        assert usage["prompt_tokens"] == usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"]
        assert usage["completion_tokens"] == len(middle)
        assert all("usage" not in event for event in [first, *middle])
        asked = await ask(twin, chat(stream=True, stream_options={"include_usage": True}))
        assert all(event["usage"] is None for event in asked.events[:-2])
        assert asked.events[-2]["usage"]["prompt_cache_hit_tokens"] == usage["prompt_tokens"]  # it was said before
        cold = await ask(twin, chat(stream=True, **OFF))
        assert cold.events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert cold.text == plain.text
        whole = await ask(twin, chat())
        assert whole.json["choices"][0]["message"]["content"] == plain.text

    play(act)


def test_tools_are_called_in_the_providers_shape() -> None:
    """Ids count up, the opening has no content, the arguments follow; a turn of tools has an empty content."""

    async def act(twin: Twin) -> None:
        whole = (await ask(twin, chat(tools=[TOOL]))).json["choices"][0]
        assert whole["finish_reason"] == "tool_calls"
        assert whole["message"]["content"] == ""
        (made,) = whole["message"]["tool_calls"]
        assert made["index"] == 0
        assert made["id"].startswith("call_00_")
        assert len(made["id"]) == 28
        assert json.loads(made["function"]["arguments"]) == {}

    play(act)


def test_models_and_balance() -> None:
    """The list without `created`; amounts as strings, less what was used."""

    async def act(twin: Twin) -> None:
        listed = (await ask(twin, None, "/models")).json
        assert listed == {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "owned_by": "deepseek"}
                for name in ("deepseek-flash", "deepseek-v4-pro")
            ],
        }
        await ask(twin, _messages({"role": "user", "content": "word " * 20_000}))
        (info,) = (await ask(twin, None, "/user/balance")).json["balance_infos"]
        assert info["currency"] == "CNY"
        assert float(info["total_balance"]) < 1000

    play(act)


def test_the_twin_bills_by_the_catalogue() -> None:
    """Tokens and money of a request, at the price of its day, are in the log; so is nothing that was said."""

    async def act(twin: Twin) -> None:
        usage = (await ask(twin, chat())).json["usage"]
        (served,) = twin.served
        assert (served.usage.prompt_miss, served.usage.completion) == (9, usage["completion_tokens"])
        assert served.billed_pico == 9 * 1_000_000 + usage["completion_tokens"] * 4_000_000
        log = await ask(twin, None, "/twin/log", key="")
        assert log.json["billed"] == {"CNY": f"{served.billed_pico / 1e12:.6f}"}
        assert b"Hi" not in log.body

    play(act, at=1_793_500_000.0)


def test_the_prefix_goes_on_where_it_was() -> None:
    """An answer cut anywhere, in its thinking or in its text, and given back as a prefix, is the uncut one."""

    async def act(twin: Twin) -> None:
        whole = await ask(twin, chat(stream=True))
        thinking, text = thought(whole), whole.text
        for cut in range(0, len(text), 7):
            last = {"role": "assistant", "content": text[:cut], "reasoning_content": thinking, "prefix": True}
            rest = await ask(twin, _messages(USER, last, stream=True), "/beta/chat/completions", key=KEY)
            assert text[:cut] + rest.text == text
            assert thought(rest) == ""
        for cut in range(1, len(thinking), 7):
            last = {"role": "assistant", "content": "", "reasoning_content": thinking[:cut], "prefix": True}
            rest = await ask(twin, _messages(USER, last, stream=True), "/beta/chat/completions")
            assert (thinking[:cut] + thought(rest), rest.text) == (thinking, text)

    play(act)


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"model": "m"', b"\xff"])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    """As a 400 of the provider's, whatever it is."""

    async def act(twin: Twin) -> None:
        got = await ask(twin, raw)
        assert (got.status, got.error["type"]) == (400, "invalid_request_error")

    play(act)
