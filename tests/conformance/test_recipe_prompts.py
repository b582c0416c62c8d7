"""What does the model read in the end? Prompts as the provider's own library renders them.

First whose reasoning they hold, because what we remember and put back rests on that rule (PROVIDERS 1.7); then that a
request on its way through the server means what it meant: the same prompt, asked in the same way.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from conformance.recipe import differences, library, server
from conformance.recipe.differences import TAKEN
from conformance.recipe.requests import FLASH, OFF, PRO, REQUESTS, TOOLS, Body, assistant, caller, chat, result, user
from moonpool.errors import Problem
from moonpool.relay import turns
from moonpool.twin.strict import CHECKS, Seen

PASS_BACK: Final = "The `reasoning_content` in the thinking mode must be passed back to the API."
MISSING: Final = "(missing)"

# An assistant's turn says "Thought N.", N its place among the assistant's turns; which of them, and how, is `told`.
_NEXT: Final = user("And then?")
SHAPES: Final = {
    "a talk": (user(), assistant(), _NEXT),
    "a loop": (user(), caller("a"), result("a")),
    "two loops": (user(), caller("a"), result("a"), assistant(), _NEXT, caller("b"), result("b")),
    "a long loop": (user(), caller("a", "b"), result("a"), result("b"), caller("c"), result("c")),
    "an answer behind the user": (user(), assistant(), _NEXT, assistant()),
    "the user within a loop": (user(), caller("a"), result("a"), user("<note>Be quick.</note>")),
    "a beginning": (user(), assistant(), _NEXT, assistant("He", prefix=True)),
    "a beginning of thoughts": (user(), assistant(), _NEXT, assistant("", prefix=True)),
}
TOLD: Final = {
    "all": lambda turn, last: f"Thought {turn}.",
    "none": lambda turn, last: MISSING,
    "null": lambda turn, last: None,
    "empty": lambda turn, last: "",
    "all but the last": lambda turn, last: MISSING if last else f"Thought {turn}.",
    "only the last": lambda turn, last: f"Thought {turn}." if last else MISSING,
}
CONVERSATIONS: Final = [
    each
    for each in itertools.product((FLASH, PRO), SHAPES, TOLD, (True, False), (True, False))
    if not (each[3] and "beginning" in each[1])  # nothing is continued where there are tools
]
conversations: Final = pytest.mark.parametrize(
    ("model", "shape", "told", "tools", "thinks"),
    CONVERSATIONS,
    ids=[
        f"{model}, {shape}, {told}, {'tools' if tools else 'no tools'}, {'thinking' if thinks else 'no thinking'}"
        for model, shape, told, tools, thinks in CONVERSATIONS
    ],
)


def conversation(model: str, shape: str, told: str, tools: bool, thinks: bool) -> Body:
    messages = []
    turns = sum(message["role"] == "assistant" for message in SHAPES[shape])
    turn = 0
    for message in SHAPES[shape]:
        said = MISSING
        if message["role"] == "assistant":
            turn += 1
            said = TOLD[told](turn, turn == turns)
        messages.append(message if said == MISSING else {**message, "reasoning_content": said})
    more: Body = ({"tools": TOOLS} if tools else {}) | ({} if thinks else {"thinking": OFF})
    return chat(*messages, **more) | {"model": model}


def refusal(body: Any) -> str:
    try:
        library.convert(body)
    except library.Refused as refused:
        return str(refused)
    return ""


@conversations
def test_whose_reasoning_the_model_reads(model: str, shape: str, told: str, tools: bool, thinks: bool) -> None:
    """All of it with tools in the request; without them only that of a beginning which is to be continued; none without
    thinking."""
    body = conversation(model, shape, told, tools, thinks)
    prompt = library.prompt(body, reject=False)
    for message in body["messages"]:
        said = message.get("reasoning_content")
        if said:
            assert (said in prompt) == (thinks and (tools or message.get("prefix") is True)), said


@conversations
def test_the_twin_wants_it_back_when_the_provider_does(
    model: str, shape: str, told: str, tools: bool, thinks: bool
) -> None:
    """The twin's rule, over every conversation, is the library's."""
    body = conversation(model, shape, told, tools, thinks)
    seen = Seen(body, server.call(body), server.models()[model], beta=True)
    theirs = refusal(body)
    assert theirs in ("", PASS_BACK)
    assert (CHECKS["reasoning_content"](seen) is not None) == bool(theirs)


@conversations
def test_reasoning_passes_through_whole(model: str, shape: str, told: str, tools: bool, thinks: bool) -> None:
    """What a client did send back reaches the provider byte for byte, and nothing else of its messages changes."""
    body = conversation(model, shape, told, tools, thinks)
    for theirs, ours in zip(body["messages"], server.sent(body)["messages"], strict=True):
        lost = theirs.get("reasoning_content") is None
        unsaid = {"reasoning_content": None} if lost else {}
        assert ours | unsaid == theirs | unsaid
        assert not (lost and ours.get("reasoning_content"))


@conversations
def test_what_is_filled_in_is_taken(model: str, shape: str, told: str, tools: bool, thinks: bool) -> None:
    """Where a client lost it and so did we, what the provider is sent is taken, and the model reads what the library's
    own repair makes."""
    body = conversation(model, shape, told, tools, thinks)
    sent = server.sent(body)
    assert refusal(sent) == ""
    assert library.prompt(sent) == library.prompt(body, reject=False)


@conversations
def test_what_is_put_back_reads_as_it_was(model: str, shape: str, told: str, tools: bool, thinks: bool) -> None:
    """Where a client lost it and we did not, the model reads what it would have read of a client that kept it."""
    kept = conversation(model, shape, "all", tools, thinks)
    body = conversation(model, shape, told, tools, thinks)
    messages = body["messages"]
    lost = turns.find_lost(messages, "", 0 if tools else turns.since_user(messages))
    known = {each.marks.turn: kept["messages"][each.at]["reasoning_content"] for each in lost}
    back = body | {"messages": turns.put_back(messages, lost, known).messages}
    assert refusal(back) == ""
    if "beginning" not in shape:  # what is to be continued is the client's own
        assert library.prompt(back) == library.prompt(kept)


@pytest.mark.parametrize("model", [FLASH, PRO])
def test_what_is_put_in_order_reads_the_same(model: str) -> None:
    """Results in the order of their calls, or not: the prompt is one, so sorting them costs no cache."""
    calls = caller("a", "b", reasoning_content="Thought.")
    body = chat(user(), calls, result("b", "2"), result("a", "1"), tools=TOOLS) | {"model": model}
    messages, receipts = turns.repair(body["messages"], "tagged")
    assert receipts
    assert library.prompt(body | {"messages": messages}) == library.prompt(body)


def _taken(body: Any) -> bool:
    try:
        library.convert(body, reject=False)
        server.call(body)
    except (library.Refused, Problem):
        return False
    return True


BOTH_TAKE: Final = [name for name, body in REQUESTS.items() if _taken(body)]


@pytest.mark.parametrize("name", BOTH_TAKE)
def test_a_request_means_the_same_behind_the_server(name: str) -> None:
    """What everybody takes leads to the same prompt, asked and read in the same way, whatever the rules changed."""
    body = REQUESTS[name]
    sent = server.sent(body)
    assert library.prompt(sent, reject=False) == library.prompt(body, reject=False)
    assert library.settings(sent, reject=False) == library.settings(body, reject=False)


ADAPTED: Final = [
    row.name
    for row in differences.read().request
    if row.said.server.startswith(TAKEN) and not row.said.library.startswith(TAKEN)
]
LEFT_TO_THE_HOST: Final = {"hosts", "live"}


@pytest.mark.parametrize("name", ADAPTED)
def test_what_is_adapted_is_taken(name: str) -> None:
    """A request that only the server takes is one that the provider takes when it comes from us, unless its row says
    that the provider has the last word."""
    row = next(row for row in differences.read().request if row.name == name)
    said = refusal(server.sent(REQUESTS[name]))
    assert bool(said) == (row.why in LEFT_TO_THE_HOST), said
