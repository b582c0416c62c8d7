"""relay/turns.py: what counts as the same turn, what is put back, and what is moved where."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.dialects import messages as conversation
from moonpool.relay import turns
from moonpool.relay.turns import Asked, Lost, PutBack

_ASKED = Asked("", "Hello")


def _turn(text: str, *calls: tuple[str, str, str], asked: Asked = _ASKED) -> bytes:
    return turns.marks_of(asked, text, calls).turn


def _call(call_id: str, arguments: str = "{}", name: str = "f") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _user(content: Any = "Hello") -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: Any = None, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def _tool(call_id: str, content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.mark.parametrize("one, other", [
    ('{"a":1,"b":[2.0]}', '{ "b": [2], "a": 1.0 }'),
    ('{"city":"杭州"}', '{"city":"\\u676d\\u5dde"}'),
    ("", "{}"),
    ("not json ", "not json"),
    ('{"a": -0.0}', '{"a": 0}'),
])  # fmt: skip
def test_arguments_are_compared_by_value(one: str, other: str) -> None:
    """Two spellings of the same arguments are the same call and the same turn."""
    first, second = (turns.marks_of(_ASKED, "x", [("id", "f", text)]) for text in (one, other))
    assert first == second


@pytest.mark.parametrize("other", [
    ("Hell", ("id", "f", "{}")),
    ("", ("id", "f", "{}")),
    ("Hello", ("id", "g", "{}")),
    ("Hello", ("id", "f", '{"a":1}')),
    ("Hello", ("id", "f", "{}"), ("id2", "f", "{}")),
    ("Hello",),
    ('Hello", [["f", "{}"]]',),
])  # fmt: skip
def test_other_turns_are_other_turns(other: tuple[Any, ...]) -> None:
    """Another text, another function, other arguments or another number of calls is another turn."""
    assert _turn(*other) != _turn("Hello", ("id", "f", "{}"))


def test_ids_belong_to_calls_only() -> None:
    """A turn is the same under other ids; a call is not, nor with other arguments; without an id it has no mark."""
    one, other = (turns.marks_of(_ASKED, "x", [(call_id, "f", "{}")]) for call_id in ("a", "b"))
    assert one.turn == other.turn
    assert one.calls != other.calls
    assert one.calls != turns.marks_of(_ASKED, "x", [("a", "f", '{"a":1}')]).calls
    assert turns.marks_of(_ASKED, "x", [("", "f", "{}")]).calls == ()


def test_what_was_asked_and_by_whom() -> None:
    """The same answer to another question, or to another end user, has another mark; a call goes by the user alone."""
    call = ("id", "f", "{}")
    same = turns.marks_of(_ASKED, "x", [call])
    question = turns.marks_of(Asked("", "Hello?"), "x", [call])
    user = turns.marks_of(Asked("alice", "Hello"), "x", [call])
    assert len({same.turn, question.turn, user.turn}) == 3
    assert same.calls == question.calls != user.calls


@pytest.mark.parametrize("content", [
    "Hello",
    " Hello\n",
    [{"type": "text", "text": "Hello"}],
    [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
])  # fmt: skip
def test_contents_are_compared_by_text(content: Any) -> None:
    """A content is its text, whether a string or parts, on both sides; null is the empty one."""
    assert turns.asked([_user(content)], "") == _ASKED
    (lost,) = turns.find_lost([_user(content), _assistant(content, _call("a"))], "")
    assert lost.marks == turns.marks_of(_ASKED, "Hello", [("a", "f", "{}")])
    marks = [turns.find_lost([_user(), _assistant(nothing, _call("a"))], "")[0].marks for nothing in (None, "", [])]
    assert marks[0] == marks[1] == marks[2] == turns.marks_of(_ASKED, "", [("a", "f", "{}")])


def test_an_image_is_part_of_what_was_asked() -> None:
    """Two questions that differ in their picture are two."""
    pictures = [[{"type": "image_url", "image_url": {"url": f"data:{name}"}}] for name in "ab"]
    assert turns.asked([_user(pictures[0])], "") != turns.asked([_user(pictures[1])], "")


def test_what_counts_as_lost() -> None:
    """Missing, null and blank; not what the client has, not a prefix to go on with, and nothing before `since`."""
    messages = [
        _user(),
        _assistant("1"),
        _assistant("2", reasoning_content=None),
        _assistant("3", reasoning_content=" "),
        _assistant("4", reasoning_content="mine"),
        _user("Next"),
        _assistant("6"),
        _assistant("7", prefix=True),
    ]
    assert [lost.at for lost in turns.find_lost(messages, "")] == [1, 2, 3, 6]
    assert turns.since_user(messages) == 6
    (last,) = turns.find_lost(messages, "", 6)
    assert last == Lost(6, turns.marks_of(Asked("", "Next"), "6", []))
    assert turns.since_user([_assistant("x")]) == 0
    assert turns.find_lost([_user()], "", 1) == []


def test_put_back() -> None:
    """A call's mark goes before the turn's; the input is not changed; what is unknown stays as it is."""
    messages = [
        _user(),
        _assistant("a", _call("1")),
        _tool("1"),
        _assistant("b"),
        _assistant("c", reasoning_content=""),
    ]
    before = copy.deepcopy(messages)
    lost = turns.find_lost(messages, "")
    found = {lost[0].marks.calls[0]: "月", lost[0].marks.turn: "other", lost[2].marks.turn: ""}
    back = turns.put_back(messages, lost, found)
    assert messages == before
    assert [message.get("reasoning_content") for message in back.messages] == [None, "月", None, None, ""]
    assert back.receipts == ("messages[1].reasoning_content:restored",)
    assert (back.count, back.bytes) == (1, 3)
    assert turns.put_back(messages, lost, {}) == PutBack(messages, (), 0, 0)


def test_much_is_put_back_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound, the newest goes first; many receipts become one."""
    messages: list[Any] = [_user()] + [_assistant(str(number)) for number in range(12)]
    lost = turns.find_lost(messages, "")
    found = {each.marks.turn: "x" * 10 for each in lost}
    back = turns.put_back(messages, lost, found)
    assert back.receipts == ("messages.reasoning_content:restored (12)",)
    assert (back.count, back.bytes) == (12, 120)
    monkeypatch.setattr(turns, "CHARS_MAX", 25)
    back = turns.put_back(messages, lost, found)
    assert back.receipts == tuple(f"messages[{at}].reasoning_content:restored" for at in (11, 12))
    assert "reasoning_content" not in back.messages[10]


def test_another_spelling_is_the_clients_own() -> None:
    """`reasoning` becomes `reasoning_content` where that is missing; what is no text, or not needed, stays."""
    messages = [
        _user(),
        _assistant("1", reasoning="mine"),
        _assistant("2", reasoning="x", reasoning_content="y"),
        _assistant("3", reasoning={"effort": "low"}),
    ]
    out, receipts = turns.rename(messages)
    assert out[1] == _assistant("1", reasoning_content="mine")
    assert out[2:] == messages[2:]
    assert receipts == ("messages[1].reasoning->reasoning_content",)
    assert turns.rename(out) == (out, ())


def test_results_in_the_order_of_their_calls() -> None:
    """Sorted, with one receipt for each loop; in order already, nothing happens."""
    messages = [
        _user(),
        _assistant(None, _call("a"), _call("b"), _call("c")),
        _tool("c"),
        _tool("a"),
        _tool("b"),
        _user("x"),
    ]
    out, receipts = turns.repair(messages, "tagged")
    assert [message.get("tool_call_id") for message in out] == [None, None, "a", "b", "c", None]
    assert receipts == ("messages[2].tool_call_id:sorted",)
    again, none = turns.repair(out, "tagged")
    assert again is out
    assert none == ()


_TAGGED = "<details>\nx < y\n</details>"


@pytest.mark.parametrize("text, tagged", [
    (_TAGGED, True),
    (f"\n{_TAGGED}\n<b a='1'>x</b> \n", True),
    ("<br/>a</a>", True),
    ("Stop, do something else.", False),
    ("<details>x</details> and then?", False),
    ("What does <b>x</b>", False),
    ("<b>x", False),
    ("< b>x</b>", False),
    ("1 <2 >3 </a>", False),
    ("", False),
    ("  ", False),
    ([{"type": "text", "text": "<a>"}, {"type": "text", "text": "</a>"}], True),
    ([{"type": "text", "text": "<a></a>"}, {"type": "image_url", "image_url": {"url": "data:"}}], False),
])  # fmt: skip
def test_which_text_goes_into_a_result(text: Any, tagged: bool) -> None:
    """What is wholly made of tags goes in by default; with `all` any without a picture; with `off` none."""
    messages = [_user(), _assistant(None, _call("a")), _tool("a"), _user(text)]
    out, receipts = turns.repair(messages, "tagged")
    assert (len(out) == 3) == tagged
    assert receipts == (("messages[3]->messages[2].content",) if tagged else ())
    assert turns.repair(messages, "off") == (messages, ())
    told = "".join(part.get("text", "") for part in text) if type(text) is list else text
    pictured = type(text) is list and "image_url" in str(text)
    assert len(turns.repair(messages, "all")[0]) == (3 if told.strip() and not pictured else 4)


def test_how_it_goes_in() -> None:
    """Behind the last result, as text or as a part; several one after the other; later turns the same; the input is
    not changed."""
    messages = [
        _user(),
        _assistant(None, _call("a"), _call("b")),
        _tool("b", [{"type": "text", "text": "B"}]),
        _tool("a", "A"),
        _user(_TAGGED),
        _user("<n>2</n>"),
        _assistant(None, _call("c")),
        _tool("c", ""),
        _user("<n>3</n>"),
    ]
    before = copy.deepcopy(messages)
    out, receipts = turns.repair(messages, "tagged")
    assert messages == before
    assert out == [
        _user(),
        _assistant(None, _call("a"), _call("b")),
        _tool("a", "A"),
        _tool("b", [{"type": "text", "text": text} for text in ("B", _TAGGED, "<n>2</n>")]),
        _assistant(None, _call("c")),
        _tool("c", "<n>3</n>"),
    ]
    assert receipts == (
        "messages[2].tool_call_id:sorted",
        "messages[4]->messages[3].content",
        "messages[5]->messages[4].content",
        "messages[8]->messages[7].content",
    )
    assert turns.repair(messages[:6], "tagged")[0] == out[:4]


def test_ordinary_conversations_stay() -> None:
    """Where an assistant's answer stands between, or no tool was called, nothing is moved, whatever the setting."""
    messages = [_user(), _assistant(None, _call("a")), _tool("a"), _assistant("Done."), _user(_TAGGED)]
    assert turns.repair(messages, "all") == (messages, ())
    plain = [_user(), _assistant("Hi"), _user(_TAGGED)]
    assert turns.repair(plain, "all") == (plain, ())


_texts = st.sampled_from(["", "x", _TAGGED, "two words"])


@st.composite
def _conversations(draw: st.DrawFn) -> list[Any]:
    messages: list[Any] = [_user()]
    for at in range(draw(st.integers(0, 4))):
        ids = [f"{at}-{number}" for number in range(draw(st.integers(0, 3)))]
        messages.append(_assistant(draw(_texts), *(_call(each) for each in ids)))
        messages += [_tool(each, draw(_texts)) for each in draw(st.permutations(ids))]
        messages += [_user(draw(_texts)) for _ in range(draw(st.integers(0, 2)))]
    return messages


@given(_conversations(), st.sampled_from(["tagged", "all", "off"]))
def test_what_comes_out_is_a_conversation(messages: list[Any], how: Any) -> None:
    """Repaired messages pass the same check as the client's, hold every text, and are repaired for good."""
    conversation.check(messages)
    before = copy.deepcopy(messages)
    out, _ = turns.repair(messages, how)
    assert messages == before
    conversation.check(out)
    assert turns.repair(out, how) == (out, ())
    assert sorted("".join(str(message["content"] or "") for message in out).replace("\n", "")) == sorted(
        "".join(str(message["content"] or "") for message in messages).replace("\n", "")
    )
    assert [message for message in out if message["role"] == "assistant"] == [
        message for message in messages if message["role"] == "assistant"
    ]
