"""How do several passes against llama.cpp's server make one answer?

Order of a chat: template → thinking (led by `<think>`, stopped by `</think>` or its budget) → answer, which is free
text, JSON under a grammar, or tool calls; a call's arguments are a pass of their own under the function's schema, so
that they always match it. Small models sometimes end a thinking or an answer before its first word: such a pass is run
once more, and may then not begin with its end. How a generator of passes is read: llamacpp_passes.py.
Shapes: PROVIDERS 1.4, 1.5, 1.10, 1.11.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Final

import msgspec

from moonpool.dialects.llamacpp_passes import Candidate, Done, Events, Flow, Meter, Voice, silent
from moonpool.dialects.llamacpp_plan import CALLS_MAX, Plan, canonical
from moonpool.dialects.llamacpp_schema import one_of
from moonpool.dialects.llamacpp_text import (
    BLANKS,
    CALL_DRESS,
    Guard,
    before_suffix,
    first_line,
    holds_stand_in,
    pieces,
)
from moonpool.dialects.llamacpp_wire import Probability
from moonpool.dialects.think import CLOSE, OPEN
from moonpool.errors import Problem
from moonpool.words import Event, Finished, Metered, Outbound, Reasoning, Text, ToolCall

_TOOL_OPEN: Final = "<tool_call>"
_FENCE: Final = "```"
_CALLS_OPEN: Final = f"{_FENCE}json\n"
_NAME_FORMS: Final = ('"name": "%s"', '"name":"%s"', '{name: "%s"')
_MORE_TOKENS: Final = 24
# Grammars of a text that has a beginning; a thinking also cannot write the mark that ends it.
_SOME_TEXT: Final = r"root ::= [^ \t\r\n] [^\x00]*"
_SOME_THINKING: Final = r"root ::= [^ \t\r\n<] [^<]*"
_PARAGRAPH: Final = "\n\n"


def chat(plan: Plan) -> Flow:
    """The whole answer to a chat: candidates one after another, over one prompt."""
    answer = yield plan.template()
    prompt = _prompt_of(answer)
    opening: list[int] = []
    if holds_stand_in(prompt + plan.prefix + plan.prefix_reasoning):
        answer = yield plan.ask("/tokenize", {"content": OPEN[0]})
        opening = answer.get("tokens", [])
    meter = Meter()
    for index in range(plan.n):
        reason = yield from _candidate(Candidate(plan, index, meter, opening), prompt)
        if not meter.begun:
            # A forced call of a function without arguments: nothing was generated, but the prompt was asked.
            text = pieces(prompt, opening)
            answer = yield plan.ask("/tokenize", {"content": text, "parse_special": True})
            meter.miss, meter.begun = len(answer.get("tokens", [])), True
        yield _finished(plan, index, reason, meter)


def _prompt_of(answer: dict[str, Any]) -> str:
    prompt = answer.get("prompt")
    if not isinstance(prompt, str):
        raise Problem("upstream.nonsense", detail="llama.cpp's server rendered no prompt")
    return prompt


def _finished(plan: Plan, index: int, reason: str, meter: Meter) -> Events:
    ended = Finished(reason, index)
    return (ended, Metered(meter.usage())) if index == plan.n - 1 else (ended,)


def _candidate(one: Candidate, prompt: str) -> Generator[Outbound | Events, Any, str]:
    """Thinking, then the answer. Gives the finish reason."""
    plan = one.plan
    opened = prompt.rstrip().endswith(OPEN)
    lead = prompt if opened else f"{prompt}{OPEN}\n"
    if plan.prefix:
        if plan.prefix_reasoning:
            prompt = f"{lead}{plan.prefix_reasoning}\n{CLOSE}\n\n"
        elif opened or plan.thinks:
            prompt = f"{lead}\n{CLOSE}\n\n"
        return (yield from _answer(one, prompt + plan.prefix, strip=False))
    if plan.thinking or plan.prefix_reasoning:
        lead += plan.prefix_reasoning
        done = yield from _thinking(one, lead)
        if one.spent(done):
            return "length"
        prompt = f"{lead}{done.text.rstrip()}\n{CLOSE}\n\n"
    elif opened or plan.thinks:
        prompt = f"{lead}\n{CLOSE}\n\n"
    return (yield from _answer(one, prompt, strip=True))


def _thinking(one: Candidate, lead: str) -> Generator[Outbound | Events, Any, Done]:
    """A thinking that has text, as long as the budget has room for one. Its tokens are spent."""
    plan = one.plan
    voice = Voice(one, Reasoning, strip=not plan.prefix_reasoning)
    # The blanks before the mark that ends the thinking belong to the mark.
    done = yield from one.run(lead, voice, limit=plan.budget, guard=Guard(BLANKS), reasoning=True, stops=[CLOSE])
    if plan.limit_counts_thinking:
        one.spend(done)
    budget = plan.budget - done.predicted
    if plan.prefix_reasoning or done.text.strip() or budget <= 0 or one.spent(done):
        return done
    asked = {"stops": [_PARAGRAPH], "form": _SOME_THINKING}
    done = yield from one.run(lead, voice, limit=budget, guard=Guard(BLANKS), reasoning=True, **asked)
    if plan.limit_counts_thinking:
        one.spend(done)
    return done


def _said_nothing(one: Candidate, done: Done) -> bool:
    """Whether the model ended a free text before its first word, though it was not asked to."""
    return not (done.text.strip() or done.word or done.cut or one.plan.schema or one.spent(done))


def _answer(one: Candidate, prompt: str, *, strip: bool) -> Generator[Outbound | Events, Any, str]:
    plan = one.plan
    if plan.forced is not None:
        return (yield from _calls(one, prompt, plan.forced, None)) or "tool_calls"
    voice = Voice(one, Text, strip=strip)
    guard = Guard(CALL_DRESS) if plan.tools else None
    words = _name_words(plan.tools)
    stops = plan.stops + list(words) + ([_TOOL_OPEN] if plan.tools else [])
    done = yield from one.run(prompt, voice, limit=one.left, guard=guard, stops=stops, schema=plan.schema)
    one.spend(done)
    if strip and _said_nothing(one, done):
        guard = Guard(CALL_DRESS) if plan.tools else None
        done = yield from one.run(prompt, voice, limit=one.left, guard=guard, stops=stops, form=_SOME_TEXT)
        one.spend(done)
    if done.word not in plan.stops and (done.word in words or (plan.tools and done.word == _TOOL_OPEN)):
        if one.spent(done):
            return "length"
        said = done.text.removesuffix(done.held)
        text = f"{prompt}{said}\n" if said else prompt
        reason = yield from _calls(one, text, list(plan.tools), words.get(done.word))
        return reason or (yield from _answer_from_results(one, voice))
    if done.held:
        yield voice(done.held, [])
    yield voice.rest()
    if plan.schema is not None and not done.cut and not plan.stops and not _parses(done.text):
        raise Problem("upstream.nonsense", detail="the grammar of an answer in JSON had no effect")
    return "length" if done.cut else "stop"


def _answer_from_results(one: Candidate, voice: Voice) -> Generator[Outbound | Events, Any, str]:
    """The model asked for what it has been told already, as small models do for ever: it answers without tools."""
    plan = one.plan
    answer = yield plan.template(with_tools=False)
    prompt = _prompt_of(answer)
    if plan.thinks:
        prompt += f"{OPEN}\n\n{CLOSE}\n\n"
    done = yield from one.run(prompt, voice, limit=one.left, stops=plan.stops, schema=plan.schema)
    one.spend(done)
    if _said_nothing(one, done):
        done = yield from one.run(prompt, voice, limit=one.left, stops=plan.stops, form=_SOME_TEXT)
        one.spend(done)
    yield voice.rest()
    return "length" if done.cut else "stop"


def _name_words(names: Iterable[str]) -> dict[str, str]:
    """The texts that tell that a tool is being called, however the model dresses its call, and which tool."""
    return {form % name: name for name in names for form in _NAME_FORMS}


def _parses(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return False
    return True


def _calls(
    one: Candidate, text: str, names: list[str], name: str | None
) -> Generator[Outbound | Events, Any, str | None]:
    """Tool calls until the model wants no more. `text` ends where the first begins; `name` is known if it was said.
    Gives the finish reason, or None when the first call is one whose result the messages hold already.

    However the model began, its calls are written down as lines of JSON in a fence: after such a line, most likely
    next is what small models judge best: another line where another call is due, else the end of the fence.
    """
    plan = one.plan
    made = 0
    known = list(plan.answered) if plan.forced is None else []
    text += _CALLS_OPEN
    while True:
        if name is None and len(names) == 1:
            name = names[0]
        if name is None:
            done = yield from one.run(f'{text}{{"name":', silent, limit=one.left, grammar=one_of(names))
            one.spend(done)
            if done.cut or one.spent(done):
                return "length"
            name = _chosen(done.text, names)
        text += f'{{"name": "{name}", "arguments": '
        arguments, cut = yield from _arguments(one, text, name, made, known)
        if cut:
            return "length"
        if (name, canonical(arguments)) in known:
            return "tool_calls" if made else None
        made += 1
        known.append((name, canonical(arguments)))
        text += arguments + "}\n"
        if not plan.parallel or len(plan.forced or ()) == 1 or made == CALLS_MAX:
            return "tool_calls"
        name = yield from _next_name(one, text, names)
        if name is None:
            return "tool_calls"


def _next_name(one: Candidate, text: str, names: list[str]) -> Generator[Outbound | Events, Any, str | None]:
    """Whom the model calls next, or None if it is done."""
    words = _name_words(names)
    limit = _MORE_TOKENS if one.left is None else min(_MORE_TOKENS, one.left)
    if limit <= 0:
        return None
    done = yield from one.run(text, silent, limit=limit, stops=[_FENCE, *words], greedy=True)
    one.spend(done)
    return None if one.spent(done) else words.get(done.word)


def _chosen(text: str, names: list[str]) -> str:
    name = msgspec.json.decode(text.strip()) if _parses(text) else None
    if name not in names:
        raise Problem("upstream.nonsense", detail="the grammar of a tool's name had no effect")
    return str(name)


def _arguments(
    one: Candidate, text: str, name: str, slot: int, known: list[tuple[str, str]]
) -> Generator[Outbound | Events, Any, tuple[str, bool]]:
    """The arguments of one call, told while they are made; where another call is `known`, they wait for their end, as
    small models like to repeat themselves, and a repeated call is dropped. Gives them, and whether the limit cut them.
    """
    plan = one.plan
    opening = ToolCall(slot, plan.call_id(one.index, slot), name, "", one.index)
    schema = plan.tools[name]
    if schema is None:
        if (name, "{}") not in known:
            yield opening, ToolCall(slot, arguments="{}", index=one.index)
        return "{}", False
    waiting: list[Event] = [opening]

    def say(part: str, _: list[Probability]) -> Events:
        waiting.append(ToolCall(slot, arguments=part, index=one.index))
        if known:
            return ()
        told = tuple(waiting)
        waiting.clear()
        return told

    if one.left is not None and one.left <= 0:
        return "", True
    done = yield from one.run(text, say, limit=one.left, schema=schema)
    one.spend(done)
    if not done.cut and not _parses(done.text):
        raise Problem("upstream.nonsense", detail="the grammar of a tool's arguments had no effect")
    if waiting and (name, canonical(done.text)) not in known:
        yield tuple(waiting)
    return done.text, done.cut


def completion(plan: Plan) -> Flow:
    """A completion, or the middle between a prompt and its suffix. The middle ends where the model begins to repeat
    the suffix: small models rarely stop by themselves."""
    fields = plan.call.fields
    prompt = fields.get("prompt") or ""
    if isinstance(prompt, list):
        prompt = prompt[0] if len(prompt) == 1 else ""
    if not isinstance(prompt, str):
        raise Problem("caller.unsupported", "The prompt must be one text.", param="prompt")
    suffix = fields.get("suffix") or None
    border = first_line(suffix) if suffix else None
    meter = Meter()
    for index in range(plan.n):
        one = Candidate(plan, index, meter)
        voice = Voice(one, Text, strip=False)
        guard = Guard(BLANKS) if border else None
        stops = plan.stops + ([border] if border else [])
        run = one.run(prompt, voice, limit=one.left, guard=guard, stops=stops, suffix=suffix)
        if fields.get("echo"):
            one.offset = len(prompt)
            run = _echoed(run, prompt, index)
        done = yield from run
        held = done.held
        if border and suffix and done.word == border and border not in plan.stops:
            held = before_suffix(held, suffix)
        if held:
            yield voice(held, [])
        yield _finished(plan, index, "length" if done.cut else "stop", meter)


def _echoed(
    run: Generator[Outbound | Events, Any, Done], prompt: str, index: int
) -> Generator[Outbound | Events, Any, Done]:
    """`run` with the prompt said before its first events."""
    piece = yield next(run)
    said = False
    while True:
        try:
            step = run.send(piece)
        except StopIteration as ended:
            if not said:
                yield (Text(prompt, index),)
            return ended.value  # type: ignore[no-any-return]
        if not said and not isinstance(step, Outbound):
            said = True
            step = (Text(prompt, index), *step)
        piece = yield step
