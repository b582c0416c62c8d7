"""Requests, good and bad, that the provider's own library and we are asked about: by name, body by body.

They walk through every rule of PROVIDERS 1.3, 1.7, 1.10 and 1.11. A body is what a program sends, whole; bytes are what
it sends where it is no JSON.
"""

from __future__ import annotations

from typing import Any, Final

FLASH: Final = "deepseek-flash"
PRO: Final = "deepseek-v4-pro"

Body = dict[str, Any]
Message = dict[str, Any]


def user(text: Any = "Hi") -> Message:
    return {"role": "user", "content": text}


def assistant(text: Any = "Hello", **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def caller(*ids: str, arguments: Any = '{"a": 1}', **more: Any) -> Message:
    """An assistant's message that calls `f` once for each id."""
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": arguments}} for each in ids]
    return {"role": "assistant", "content": "", "tool_calls": calls, **more}


def result(call: str, text: Any = "42") -> Message:
    return {"role": "tool", "tool_call_id": call, "content": text}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}


def chat(*messages: Any, **more: Any) -> Body:
    return {"model": FLASH, "messages": list(messages) or [user()], **more}


def parts(*content: Any) -> Body:
    return chat(user(list(content)))


OFF: Final = {"type": "disabled"}
TOOLS: Final = [tool()]
NAMED: Final = {"type": "function", "function": {"name": "f"}}
PIXEL: Final = "data:image/png;base64,iVBORw0KGgo="
_SCHEMA: Final = {"name": "s", "schema": {"type": "object", "properties": {}}}
_JSON: Final = {"type": "json_object"}
_THOUGHT: Final = {"reasoning_content": "Thought."}


def _image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


REQUESTS: Final[dict[str, Body | bytes]] = {
    # The body.
    "plain": chat(),
    "plain, the other model": chat() | {"model": PRO},
    "body is no JSON": b"{",
    "body is a list": b"[]",
    "body is empty": b"",
    "body has a member twice": b'{"model": "deepseek-flash", "model": "deepseek-flash", "messages": []}',
    "unknown fields": chat(parallel_tool_calls=True, logit_bias={}, user="u", metadata={}, top_k=4),
    # Model and messages.
    "model is missing": {"messages": [user()]},
    "model is null": chat() | {"model": None},
    "model is a number": chat() | {"model": 4},
    "model is unknown": chat() | {"model": "deepseek-v9"},
    "model of old": chat() | {"model": "deepseek-reasoner"},
    "messages are missing": {"model": FLASH},
    "messages are null": {"model": FLASH, "messages": None},
    "messages are empty": {"model": FLASH, "messages": []},
    "messages are an object": {"model": FLASH, "messages": {}},
    "message is a text": chat("Hi"),
    "only a system message": chat({"role": "system", "content": "Be kind."}),
    "system amid": chat(user(), assistant(), {"role": "system", "content": "Be kind."}, user()),
    "users in a row": chat(user(), user()),
    "latest_reminder": chat(user(), {"role": "latest_reminder", "content": "Be short."}),
    # Roles.
    "role developer": chat({"role": "developer", "content": "x"}, user()),
    "role function": chat({"role": "function", "name": "f", "content": "x"}),
    "role is missing": chat({"content": "x"}),
    "role is a number": chat({"role": 4, "content": "x"}),
    "name": chat({"role": "user", "content": "Hi", "name": "ann"}),
    "name is a number": chat({"role": "user", "content": "Hi", "name": 4}),
    # Content.
    "content is missing": chat({"role": "user"}),
    "content is null": chat(user(None)),
    "content is null for the system": chat({"role": "system", "content": None}, user()),
    "content is a number": chat(user(4)),
    "content is an object": chat(user({})),
    "content is empty": chat(user("")),
    "assistant says nothing": chat(user(), {"role": "assistant", "content": None}, user()),
    "assistant has no members": chat(user(), {"role": "assistant"}, user()),
    "assistant's content null with calls": chat(user(), caller("c") | {"content": None} | _THOUGHT, result("c")),
    "text parts": parts({"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}),
    "text parts for everyone": chat(
        {"role": "system", "content": [{"type": "text", "text": "x"}]},
        user(),
        caller("c", **_THOUGHT) | {"content": [{"type": "text", "text": "x"}]},
        result("c", [{"type": "text", "text": "42"}]),
    ),
    "no parts": parts(),
    "part is a text": parts("Hi"),
    "part has no type": parts({"text": "Hi"}),
    "part has no text": parts({"type": "text"}),
    "part's text is a number": parts({"type": "text", "text": 4}),
    "part of audio": parts({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}),
    # Images.
    "image as data": parts({"type": "text", "text": "What?"}, _image(PIXEL)),
    "image by address": parts(_image("https://example.com/a.png")),
    "image by another address": parts(_image("ftp://example.com/a.png")),
    "image is a text": parts({"type": "image_url", "image_url": "https://example.com/a.png"}),
    "image of the assistant": chat(user(), assistant([_image(PIXEL)]), user()),
    "image detail": parts(_image(PIXEL, detail="low")),
    "image detail is unknown": parts(_image(PIXEL, detail="huge")),
    "image for the other model": parts(_image(PIXEL)) | {"model": PRO},
    # Tool calls and results.
    "call and result": chat(user(), caller("c", **_THOUGHT), result("c"), tools=TOOLS),
    "calls empty": chat(user(), assistant(tool_calls=[]), user()),
    "calls null": chat(user(), assistant(tool_calls=None), user()),
    "call's arguments are an object": chat(user(), caller("c", arguments={}, **_THOUGHT), result("c")),
    "call's arguments are no JSON": chat(user(), caller("c", arguments="{", **_THOUGHT), result("c")),
    "call has no id": chat(
        user(), assistant(tool_calls=[{"type": "function", "function": {"name": "f", "arguments": ""}}]), user()
    ),
    "call has no arguments": chat(
        user(), assistant(tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}]), user()
    ),
    "call of another type": chat(
        user(), assistant("", tool_calls=[{"id": "c", "type": "custom", "custom": {}}], **_THOUGHT), result("c")
    ),
    "call without type": chat(
        user(),
        assistant("", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": ""}}], **_THOUGHT),
        result("c"),
    ),
    "results in another order": chat(user(), caller("c", "d", **_THOUGHT), result("d"), result("c")),
    "result is missing": chat(user(), caller("c", **_THOUGHT), user()),
    "result is missing at the end": chat(user(), caller("c", **_THOUGHT)),
    "one of two results is missing": chat(user(), caller("c", "d", **_THOUGHT), result("c")),
    "one of two results is missing, then the user": chat(user(), caller("c", "d", **_THOUGHT), result("c"), user()),
    "result for another call": chat(user(), caller("c", **_THOUGHT), result("z")),
    "result for another call, then the right one": chat(user(), caller("c", **_THOUGHT), result("z"), result("c")),
    "one result too many": chat(user(), caller("c", **_THOUGHT), result("c"), result("z")),
    "one result of two twice": chat(user(), caller("c", "d", **_THOUGHT), result("c"), result("c")),
    "ids begin anew in each turn": chat(
        user(), caller("c", **_THOUGHT), result("c"), caller("c", **_THOUGHT), result("c"), tools=TOOLS
    ),
    "result twice": chat(user(), caller("c", **_THOUGHT), result("c"), result("c")),
    "result without a call": chat(user(), result("c")),
    "result has no id": chat(user(), caller("c", **_THOUGHT), {"role": "tool", "content": "42"}),
    "two calls of one id": chat(user(), caller("c", "c", **_THOUGHT), result("c")),
    # Thinking.
    "thinking enabled": chat(thinking={"type": "enabled"}),
    "thinking disabled": chat(thinking=OFF),
    "thinking adaptive": chat(thinking={"type": "adaptive"}),
    "thinking with a budget": chat(thinking={"type": "enabled", "budget_tokens": 100}),
    "thinking with a nested effort": chat(thinking={"type": "enabled", "reasoning_effort": "foo"}),
    "thinking null": chat(thinking=None),
    "thinking is a boolean": chat(thinking=True),
    "thinking has no type": chat(thinking={}),
    "thinking of another type": chat(thinking={"type": "auto"}),
    **{f"effort {effort}": chat(reasoning_effort=effort) for effort in ("none", "minimal", "xhigh", "ultra", "max")},
    "effort null": chat(reasoning_effort=None),
    "effort is unknown": chat(reasoning_effort="foo"),
    "effort is a number": chat(reasoning_effort=4),
    "thinking disabled with an effort": chat(thinking=OFF, reasoning_effort="high"),
    # Length.
    "max_tokens 1": chat(max_tokens=1),
    "max_tokens at its most": chat(max_tokens=393_216),
    "max_tokens 0": chat(max_tokens=0),
    "max_tokens above": chat(max_tokens=393_217),
    "max_tokens negative": chat(max_tokens=-1),
    "max_tokens is a fraction": chat(max_tokens=1.5),
    "max_tokens is a text": chat(max_tokens="10"),
    "max_completion_tokens above": chat(max_completion_tokens=393_217),
    # Sampling.
    "temperature 2": chat(temperature=2),
    "temperature above": chat(temperature=2.1),
    "temperature negative": chat(temperature=-0.1),
    "temperature is a text": chat(temperature="1"),
    "top_p 1": chat(top_p=1),
    "top_p 0": chat(top_p=0),
    "top_p above": chat(top_p=1.1),
    "frequency_penalty above": chat(frequency_penalty=2.1),
    "presence_penalty above": chat(presence_penalty=-2.1),
    "penalties": chat(frequency_penalty=1, presence_penalty=-2),
    "n 1": chat(n=1),
    "n 2": chat(n=2),
    "n 0": chat(n=0),
    "n 2, the other model": chat(n=2) | {"model": PRO},
    "seed": chat(seed=7),
    "seed negative": chat(seed=-7),
    "seed is a text": chat(seed="7"),
    # Stop.
    "stop": chat(stop="."),
    "stop list": chat(stop=[".", "!"]),
    "stop empty": chat(stop=""),
    "stop list empty": chat(stop=[]),
    "stop list with an empty one": chat(stop=[".", ""]),
    "stop list of 16": chat(stop=[str(each) for each in range(16)]),
    "stop list of 17": chat(stop=[str(each) for each in range(17)]),
    "stop is a number": chat(stop=4),
    "stop list of numbers": chat(stop=[4]),
    # Log probabilities.
    "logprobs": chat(logprobs=True),
    "top_logprobs": chat(logprobs=True, top_logprobs=20),
    "top_logprobs alone": chat(top_logprobs=2),
    "top_logprobs 0 alone": chat(top_logprobs=0),
    "top_logprobs above": chat(logprobs=True, top_logprobs=21),
    "logprobs is a number": chat(logprobs=1),
    # Stream.
    "stream": chat(stream=True, stream_options={"include_usage": True}),
    "stream_options alone": chat(stream_options={"include_usage": True}),
    "stream_options null": chat(stream_options=None),
    "stream is a text": chat(stream="yes"),
    "include_usage is a text": chat(stream=True, stream_options={"include_usage": "yes"}),
    # Form.
    "form text": chat(response_format={"type": "text"}),
    "form json_object": chat(user("Answer in JSON."), response_format=_JSON),
    "form json_object without the word": chat(response_format=_JSON),
    "form json_object, the word in the system": chat(
        {"role": "system", "content": "Json, please."}, user(), response_format=_JSON
    ),
    "form json_object, the word in a part": chat(user([{"type": "text", "text": "json"}]), response_format=_JSON),
    "form json_object, the word in the assistant": chat(user(), assistant("json"), user(), response_format=_JSON),
    "form json_schema": chat(response_format={"type": "json_schema", "json_schema": _SCHEMA}),
    "form json_schema without one": chat(response_format={"type": "json_schema"}),
    "form regex": chat(response_format={"type": "regex", "regex": "a+"}),
    "form is unknown": chat(response_format={"type": "xml"}),
    "form has no type": chat(response_format={}),
    "form is a text": chat(response_format="json_object"),
    # Tools.
    "tools": chat(tools=TOOLS),
    "tools empty": chat(tools=[]),
    "tools are an object": chat(tools={}),
    "tools of one name": chat(tools=[tool(), tool()]),
    "tool's name with a blank": chat(tools=[tool("a b")]),
    "tool's name empty": chat(tools=[tool("")]),
    "tool's name of 128": chat(tools=[tool("f" * 128)]),
    "tool's name of 129": chat(tools=[tool("f" * 129)]),
    "tool's name is missing": chat(tools=[{"type": "function", "function": {}}]),
    "tool has no function": chat(tools=[{"type": "function"}]),
    "tool has no type": chat(tools=[{"function": {"name": "f"}}]),
    "tool of another type": chat(tools=[{"type": "web_search"}]),
    "tool of the service": chat(tools=[{"type": "deepseek_web_search"}]),
    "tool has no parameters": chat(tools=[{"type": "function", "function": {"name": "f"}}]),
    "tool's parameters are a text": chat(tools=[tool(parameters="x")]),
    "tool strict": chat(tools=[tool(strict=True)]),
    "tool strict beside one that is not": chat(tools=[tool(strict=True), tool("g")]),
    "129 tools": chat(tools=[tool(f"f{each}") for each in range(129)]),
    # The choice between tools.
    "choice none": chat(tools=TOOLS, tool_choice="none"),
    "choice auto": chat(tools=TOOLS, tool_choice="auto"),
    "choice required": chat(tools=TOOLS, tool_choice="required", thinking=OFF),
    "choice required in thinking": chat(tools=TOOLS, tool_choice="required"),
    "choice named": chat(tools=TOOLS, tool_choice=NAMED, thinking=OFF),
    "choice named in thinking": chat(tools=TOOLS, tool_choice=NAMED),
    "choice named that is not there": chat(
        tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}}, thinking=OFF
    ),
    "choice required without tools": chat(tool_choice="required", thinking=OFF),
    "choice auto without tools": chat(tool_choice="auto"),
    "choice is unknown": chat(tools=TOOLS, tool_choice="any", thinking=OFF),
    "choice of another type": chat(tools=TOOLS, tool_choice={"type": "tool", "name": "f"}, thinking=OFF),
    # Reasoning that comes back.
    "reasoning in a loop": chat(user(), caller("c", **_THOUGHT), result("c"), tools=TOOLS),
    "reasoning empty in a loop": chat(user(), caller("c", reasoning_content=""), result("c"), tools=TOOLS),
    "reasoning missing in a loop": chat(user(), caller("c"), result("c"), tools=TOOLS),
    "reasoning missing in a loop, no tools": chat(user(), caller("c"), result("c")),
    "reasoning null in a loop": chat(user(), caller("c", reasoning_content=None), result("c"), tools=TOOLS),
    "reasoning under another name": chat(user(), caller("c", reasoning="Thought."), result("c"), tools=TOOLS),
    "reasoning missing without thinking": chat(user(), caller("c"), result("c"), tools=TOOLS, thinking=OFF),
    "reasoning missing in an old loop": chat(user(), caller("c"), result("c"), assistant(), user(), tools=TOOLS),
    "reasoning missing behind the user, with tools": chat(user(), assistant(), tools=TOOLS),
    "reasoning missing behind the user, no tools": chat(user(), assistant()),
    "reasoning missing in the second call": chat(
        user(), caller("c", **_THOUGHT), result("c"), caller("d"), result("d"), tools=TOOLS
    ),
    "reasoning is a number": chat(user(), assistant(reasoning_content=4), user()),
    "reasoning of the user": chat(user() | _THOUGHT),
    # Beginnings that are to be continued.
    "prefix": chat(user(), assistant("He", prefix=True)),
    "prefix in thinking": chat(user(), assistant("", prefix=True, **_THOUGHT)),
    "prefix false": chat(user(), assistant(prefix=False)),
    "prefix not at the end": chat(user(), assistant(prefix=True), user()),
    "prefix of the user": chat(user() | {"prefix": True}),
    "prefix with tools": chat(user(), assistant("He", prefix=True, **_THOUGHT), tools=TOOLS),
    "prefix with a call": chat(user(), caller("c", prefix=True, **_THOUGHT)),
    "prefix where a tool was called before": chat(
        user(), caller("c", **_THOUGHT), result("c"), user(), assistant("He", prefix=True)
    ),
    "prefix with a form": chat(user("json"), assistant("{", prefix=True), response_format=_JSON),
    "prefix is a text": chat(user(), assistant("He", prefix="yes")),
    # Who asks.
    "user_id": chat(user_id="ann-1"),
    "user_id with a blank": chat(user_id="ann 1"),
    "user_id of 513": chat(user_id="a" * 513),
}
