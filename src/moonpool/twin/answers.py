"""What is answered? A fixed text for each conversation, chosen by what the request asks for; the same every time.

A row of an answers file says for what it is (`chat`, `tools`, `result`, `json`, `fim`), perhaps for which models and
for questions that contain what; of those that fit equally well, the conversation decides. Rows of the user's own go
before the shipped ones. A last message with `prefix` is no part of the conversation: where it is a beginning of the
answer, the rest of the answer is given, so that an answer that was cut and continued is the text of the uncut one.

The text comes in small pieces, and a piece is a token: what is counted is what was sent.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from moonpool.dialects.base import Dialect
from moonpool.errors import Problem
from moonpool.settings import ConfigError, nearest
from moonpool.transports.replay import read_recording
from moonpool.twin.example import example
from moonpool.words import CHAT, Call, Reasoning, Target, Text, ToolCall

Kind = Literal["chat", "tools", "result", "json", "fim"]
_PIECES: Final = re.compile(r"\s*(?:[!-~]{1,12}|[^\s!-~]{1,2})|\s+")
_THOUGHT: Final = "Let me think about this for a moment."


class Row(Struct, frozen=True, forbid_unknown_fields=True, rename={"kinds": "for"}):
    """`[[answer]]`. `contains` is looked for in the last question, whatever its case; `models` may have a *. A call
    without `name` is of the first function of the request (or the one that is demanded), without `arguments` they are
    made from its schema. `recording` is a response as it came over the wire (`curl -i`), beside the file: then what
    was said there is the answer."""

    kinds: tuple[Kind, ...] = ("chat",)
    contains: str = ""
    models: list[str] = []
    reasoning: str = ""
    text: str = ""
    calls: list[dict[str, str]] = []
    recording: str = ""
    finish: str = ""


class Answer(Struct, frozen=True):
    """What will be said: all of it, before length and stop."""

    reasoning: str = ""
    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"


class Answers:
    """Rows at hand. `own` go first."""

    def __init__(self, own: Sequence[Row] = (), seed: int = 0) -> None:
        self._own = tuple(own)
        self._shipped = shipped()
        self._seed = seed

    def choose(self, call: Call) -> Answer:
        fields = call.fields
        messages = list(fields.get("messages") or ())
        prefix = messages.pop() if "prefix" in call.needs else {}
        kind = _kind(call, messages)
        digest = hashlib.blake2s(msgspec.json.encode([self._seed, messages, fields.get("prompt"), kind]))
        row = self._row(kind, call.model, _question(messages, fields), int.from_bytes(digest.digest()[:8]))
        answer = Answer(
            (row.reasoning or _THOUGHT) if call.thinking else "",
            row.text.replace("{result}", _result(messages)) if kind == "result" else row.text,
            _calls(row, fields) if kind == "tools" else (),
            row.finish or "stop",
        )
        form = fields.get("response_format") or {}
        if kind == "json" and form.get("type") == "json_schema" and "schema" in form.get("json_schema", {}):
            text = msgspec.json.encode(example(form["json_schema"]["schema"])).decode()
            answer = msgspec.structs.replace(answer, text=text)
        return _rest(answer, prefix) if prefix else answer

    def _row(self, kind: Kind, model: str, question: str, draw: int) -> Row:
        """Own rows before shipped ones; of either, those that look into the question before those that do not."""
        lower = question.lower()
        for rows in (self._own, self._shipped):
            fitting = [row for row in rows if kind in row.kinds and _for_model(row, model)]
            told = [row for row in fitting if row.contains and row.contains.lower() in lower]
            found = told or [row for row in fitting if not row.contains]
            if found:
                return found[draw % len(found)]
        raise Problem("platform.fault", detail=f"no answer for {kind}")


def _for_model(row: Row, model: str) -> bool:
    return not row.models or any(fnmatch.fnmatchcase(model, pattern) for pattern in row.models)


def _kind(call: Call, messages: Sequence[Mapping[str, Any]]) -> Kind:
    if call.operation != CHAT:
        return "fim"
    if messages and messages[-1].get("role") == "tool":
        return "result"
    if "tools" in call.needs:
        return "tools"
    return "json" if "json_object" in call.needs else "chat"


def _question(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> str:
    """The last thing a person said."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text(message.get("content"))
    return str(fields.get("prompt") or "")


def _result(messages: Sequence[Mapping[str, Any]]) -> str:
    return _text(messages[-1].get("content"))


def _text(content: Any) -> str:
    if type(content) is str:
        return content
    return "".join(part.get("text", "") for part in content or () if part.get("type") == "text")


def _calls(row: Row, fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    functions = {tool["function"]["name"]: tool["function"] for tool in fields.get("tools") or () if "function" in tool}
    choice = fields.get("tool_choice")
    wanted = choice["function"]["name"] if type(choice) is dict else next(iter(functions), "")
    found = []
    for said in row.calls:
        name = said.get("name") or wanted
        made = msgspec.json.encode(example((functions.get(name) or {}).get("parameters") or {})).decode()
        found.append((name, said.get("arguments") or made))
    return tuple(found)


def _rest(answer: Answer, prefix: Mapping[str, Any]) -> Answer:
    """What is left of an answer whose beginning stands in the last message. One that began otherwise is given whole."""
    content, thought = _text(prefix.get("content")), prefix.get("reasoning_content") or ""
    if not content:
        if thought and answer.reasoning.startswith(thought):
            return msgspec.structs.replace(answer, reasoning=answer.reasoning[len(thought) :])
        return answer
    text = answer.text[len(content) :] if answer.text.startswith(content) else answer.text
    return msgspec.structs.replace(answer, reasoning="", text=text)


def pieces(text: str) -> list[str]:
    """The tokens of a text."""
    return _PIECES.findall(text)


class Spoken(Struct, frozen=True):
    """An answer as it is sent: its pieces, and how it ends. `reasoning` counts those of the thinking."""

    events: tuple[Reasoning | Text | ToolCall, ...]
    finish: str
    reasoning: int


def speak(answer: Answer, call: Call, index: int = 0) -> Spoken:
    """The answer in pieces, with `stop` and the longest length seen to."""
    text, finish = _stopped(answer.text, call.fields.get("stop")), answer.finish
    most = call.output_max or 1 << 30
    if call.fields.get("echo"):
        text = call.fields["prompt"] + text
    top = call.fields.get("top_logprobs") if call.fields.get("logprobs") else None
    scored = call.operation == CHAT and bool(call.fields.get("logprobs"))
    events: list[Reasoning | Text | ToolCall] = [
        Reasoning(piece, index, _scores("reasoning_content", piece, top) if scored else None)
        for piece in pieces(answer.reasoning)
    ]
    reasoning = min(len(events), most)
    events += [Text(piece, index, _scores("content", piece, top) if scored else None) for piece in pieces(text)]
    for slot, (name, arguments) in enumerate(answer.calls):
        events.append(ToolCall(slot, None, name, "", index))
        events += [ToolCall(slot, None, None, piece, index) for piece in pieces(arguments)]
    if answer.calls and finish == "stop":
        finish = "tool_calls"
    if len(events) > most:
        events, finish = events[:most], "length"
    return Spoken(tuple(events), finish, reasoning)


def _stopped(text: str, stop: Any) -> str:
    """The text before the first of the stops; thinking has none."""
    cuts = [text.find(word) for word in ([stop] if type(stop) is str else stop or ())]
    found = [cut for cut in cuts if cut >= 0]
    return text[: min(found)] if found else text


def _scores(part: str, piece: str, top: int | None) -> dict[str, Any]:
    score = {"token": piece, "logprob": -0.125, "bytes": list(piece.encode())}
    return {part: [{**score, "top_logprobs": [score] if top else []}]}


def shipped() -> tuple[Row, ...]:
    text = resources.files("moonpool.twin").joinpath("answers/shipped.toml").read_text("utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["answer"], list[Row]))


def load(folder: Path, dialect: Dialect, target: Target) -> list[Row]:
    """The rows of every .toml of a folder, by name of file, recordings read in. Raises ConfigError."""
    if not folder.is_dir():
        raise ConfigError(str(folder), "", "is no folder of answers.")
    rows: list[Row] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), "", f"is not TOML: {error}.") from None
        for name in table:
            if name != "answer":
                raise ConfigError(str(path), name, f"is not known{nearest(name, ['answer'])}")
        for at, said in enumerate(table.get("answer") or ()):
            rows.append(_read(said, path, f"answer[{at}]", dialect, target))
    if not rows:
        raise ConfigError(str(folder), "", "has no [[answer]] in any .toml.")
    return rows


def _read(said: dict[str, Any], path: Path, key: str, dialect: Dialect, target: Target) -> Row:
    known = ["for", *(name for name in Row.__struct_fields__ if name != "kinds")]
    for name in said:
        if name not in known:
            raise ConfigError(str(path), f"{key}.{name}", f"is not known{nearest(name, known)}")
    try:
        row = msgspec.convert(said, Row)
        return _heard(row, path.parent / row.recording, dialect, target) if row.recording else row
    except msgspec.ValidationError as error:
        raise ConfigError(str(path), key, f"{error}.") from None
    except (OSError, ValueError, Problem) as error:
        raise ConfigError(str(path), f"{key}.recording", f"cannot be used: {error}.") from None


def _heard(row: Row, path: Path, dialect: Dialect, target: Target) -> Row:
    """What a recorded response says, in the provider's own dialect."""
    recorded = read_recording(path.read_bytes())
    if recorded.status != 200:
        raise ValueError(f"it has the status {recorded.status}; a refusal is a fault's `problem`")
    call = Call("recorded", CHAT, target.model, b"data:" in recorded.body, {"messages": []}, b"")
    decoder = dialect.decoder(call, target)
    decoder.start(200, recorded.headers)
    reasoning, text, calls, finish = [], [], dict[int, dict[str, str]](), ""
    for frame in [*decoder.feed(recorded.body), *decoder.finish()]:
        for event in frame.events:
            kind = type(event)
            if kind is Reasoning:
                reasoning.append(event.text)  # type: ignore[union-attr]
            elif kind is Text:
                text.append(event.text)  # type: ignore[union-attr]
            elif kind is ToolCall:
                said = calls.setdefault(event.slot, {"name": "", "arguments": ""})  # type: ignore[union-attr]
                said["name"] = said["name"] or event.name or ""  # type: ignore[union-attr]
                said["arguments"] += event.arguments  # type: ignore[union-attr]
            elif hasattr(event, "reason"):
                finish = event.reason
    return msgspec.structs.replace(
        row, reasoning="".join(reasoning), text="".join(text), calls=list(calls.values()), finish=finish
    )
