"""The provider's own library as an oracle: it converts requests, renders prompts and writes answers (PROVIDERS 1.0).

It is no dependency of ours: 22 MB of native code. Where it cannot be imported, tests that ask it skip by name;
`make recipe` installs it and runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import pytest
from msgspec import Struct

from conformance.recipe.requests import FLASH, PRO

recipe: Any = pytest.importorskip(
    "deepseek_recipe",
    reason="deepseek-recipe, the provider's own library, is not installed here: `make recipe` does that",
    exc_type=ImportError,
)

_SYNTAX: Final = "invalid JSON request: "
_TYPING: Final = "invalid request body: "


class Refused(Exception):
    """What the library says of a request, as the service writes it: `error` is the member of the body."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error


def convert(body: Any, *, reject: bool = True) -> Any:
    """A request as the library takes it. `reject`: reasoning that must come back and does not is refused, as the
    service does; otherwise it is taken as empty. Raises Refused."""
    behaviour = recipe.ReasoningContentBehavior
    options = recipe.ConversionOptions(
        reasoning_content_behavior=behaviour.Reject if reject else behaviour.FillEmpty
    ).with_model_versions_by_name({FLASH: recipe.ModelVersion.DeepseekV41Flash, PRO: recipe.ModelVersion.DeepseekV4Pro})
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return recipe.ChatCompletionRequest(raw).convert(options)
    except recipe.ConversionError as error:
        raise Refused(error.status_code, json.loads(error.body)["error"]) from None
    except ValueError as error:
        # The service puts other words before the same sentence (PROVIDERS 1.0).
        text = str(error).replace(_TYPING, "Failed to deserialize the JSON body into the target type: ", 1)
        text = text.replace(_SYNTAX, "Failed to parse the request body as JSON: ", 1)
        kind = "invalid_request_error"
        raise Refused(400, {"message": text, "type": kind, "param": None, "code": kind}) from None


def prompt(body: Any, *, reject: bool = True) -> str:
    """The text that the model reads. Raises Refused."""
    request = convert(body, reject=reject)
    pro = request.model_version == recipe.ModelVersion.DeepseekV4Pro
    encoding = recipe.DeepseekV4Encoding() if pro else recipe.DeepseekV41Encoding()
    return str(encoding.render_conversation(request.conversation).prompt)


def settings(body: Any, *, reject: bool = True) -> dict[str, str]:
    """How the model is asked, and how its text would be read, by name. Raises Refused."""
    request = convert(body, reject=reject)
    found = {"thinking": str(request.conversation.thinking_mode), "stream": str(request.stream)}
    for options in (request.inference_options, request.parsing_options):
        names = [name for name in dir(options) if not name.startswith("_") and name != "special_tokens"]
        found |= {name: repr(getattr(options, name)) for name in names}
    constraint = request.inference_options.output_constraint
    return found | {"output_constraint": "" if constraint is None else f"{constraint.kind} {constraint.schema}"}


def too_long(body: Any, prompt_tokens: int, window: int) -> dict[str, Any]:
    """The error of a request whose prompt is this long."""
    request = convert(body)
    with pytest.raises(recipe.ConversionError) as raised:
        request.resolve_max_tokens(prompt_tokens, window)
    error: dict[str, Any] = json.loads(raised.value.body)["error"]
    return error


class Usage(Struct, frozen=True):
    prompt: int = 20
    hit: int = 8


Fed = Literal["texts", "tokens", "scores"]


def chunks(body: Any, said: Sequence[str], finish: str, answer_id: str, usage: Usage, fed: Fed = "texts") -> list[Any]:
    """The library's chunks for what a model says: as texts, each counted as one token; as tokens of a vocabulary; or as
    tokens with log probabilities."""
    request = convert(body)
    generator = recipe.ChatCompletionRequest.chunk_generator(request, answer_id, body["model"])
    chunk = recipe.InferenceChunk
    if fed == "texts":
        tokenizer, pieces = None, [chunk.text(text, 1) for text in said]
    else:
        tokenizer, pieces = _tokens("".join(said), scored=fed == "scores")
    processor = recipe.StreamProcessor(generator, request.parsing_options, tokenizer)
    began = recipe.PromptUsage(prompt_tokens=usage.prompt, prompt_cache_hit_tokens=usage.hit)
    found = list(processor.push(chunk.ready(prompt_usage=began, system_fingerprint="fp_recipe")))
    for piece in (*pieces, chunk.finish(getattr(recipe.InferenceFinishReason, finish))):
        if not processor.finished:  # by a stop
            found += processor.push(piece)
    return found + list(processor.finish())


_MARKS: Final = ("</think>", "\uff5cDSML\uff5c")


def _tokens(text: str, scored: bool) -> tuple[Any, list[Any]]:
    """A vocabulary that has the words of this text, and the text in its tokens."""
    marked = "|".join(_MARKS)
    words = re.findall(f"{marked}|(?:(?!{marked}).){{1,6}}", text, re.DOTALL)
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys(("(none)", *_MARKS, *words)))}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    marks = [{"id": vocabulary[mark], "content": mark, **plain} for mark in _MARKS]
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor")
    said = dict.fromkeys(parts) | {"version": "1.0", "added_tokens": marks, "decoder": {"type": "Fuse"}}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "(none)"}
    ids = [vocabulary[word] for word in words]
    scores = [[(-0.25, [(each, -0.25), (0, -9999.0)])] if scored else None for each in ids]
    found = [recipe.InferenceChunk.tokens([each], score) for each, score in zip(ids, scores, strict=True)]
    return recipe.Tokenizer.from_str(json.dumps(said | {"model": model})), found


def whole(found: Iterable[Any], model: str, answer_id: str, created: int, usage: Usage) -> dict[str, Any]:
    """The library's whole answer of its chunks, which it uses up."""
    response = recipe.ChatCompletionResponse(answer_id, model, created, usage.prompt, usage.hit)
    for chunk in found:
        response.accumulate(chunk)
    answer: dict[str, Any] = json.loads(response.to_json())
    return answer
