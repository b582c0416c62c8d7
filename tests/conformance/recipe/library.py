"""The provider's own library as an oracle: it converts requests, renders prompts and writes answers (PROVIDERS 1.0).

It is no dependency of ours: 22 MB of native code. Where it cannot be imported, tests that ask it skip by name;
`make recipe` installs it and runs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

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


class Usage(Struct, frozen=True):
    prompt: int = 20
    hit: int = 8


def chunks(body: Any, said: Iterable[str], finish: str, answer_id: str, usage: Usage) -> list[Any]:
    """The library's chunks for what a model says, piece by piece, each of one token."""
    request = convert(body)
    generator = recipe.ChatCompletionRequest.chunk_generator(request, answer_id, body["model"])
    processor = recipe.StreamProcessor(generator, request.parsing_options)
    chunk = recipe.InferenceChunk
    began = recipe.PromptUsage(prompt_tokens=usage.prompt, prompt_cache_hit_tokens=usage.hit)
    found = list(processor.push(chunk.ready(prompt_usage=began, system_fingerprint="fp_recipe")))
    for piece in said:
        found += processor.push(chunk.text(piece, 1))
    found += processor.push(chunk.finish(getattr(recipe.InferenceFinishReason, finish)))
    return found + list(processor.finish())


def whole(found: Iterable[Any], model: str, answer_id: str, created: int, usage: Usage) -> dict[str, Any]:
    """The library's whole answer of its chunks, which it uses up."""
    response = recipe.ChatCompletionResponse(answer_id, model, created, usage.prompt, usage.hit)
    for chunk in found:
        response.accumulate(chunk)
    answer: dict[str, Any] = json.loads(response.to_json())
    return answer
