"""What may be said of how one host is spoken to? The options of a host or of a model at it, typed and explained.

What is true of every host of a dialect stands under `[dialects.NAME]` in hosts.toml; a host's row comes before it, and
what a model's entry says of that host before both. Names that are no option are refused when the catalogue is built.
Who reads them: dialects/host_options.py and the flavours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from moonpool.settings import ConfigError, explained, nearest

_Name = Annotated[str, Meta(min_length=1)]
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max")
_Tokens = Annotated[int, Meta(ge=1)]


def _says(text: str) -> Meta:
    return Meta(description=text)


class OptionsRow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table `options` of a host, or of an entry of a model's `hosts`."""

    drop: Annotated[list[_Name], _says("Fields that are never sent.")] = []
    set: Annotated[dict[_Name, Any], _says("Fields of a chat and their values, whatever the client said.")] = {}
    add: Annotated[dict[_Name, int | float], _says("What is added to numbers of a chat that are there.")] = {}
    rename: Annotated[dict[_Name, _Name], _says("Fields of a chat that the host calls otherwise.")] = {}
    thinking: Annotated[
        Literal["thinking", "nested", "template", "effort", "none"],
        _says(
            "Where the switch of the thinking goes: thinking and reasoning_effort beside each other; nested: the "
            "effort inside thinking; template: chat_template_kwargs; effort: reasoning_effort alone; none: nowhere."
        ),
    ] = "thinking"
    thinking_said: Annotated[
        Literal["asked", "always"],
        _says("Whether the switch is sent only where the client used one, or always: the host's default is another."),
    ] = "asked"
    template: Annotated[
        list[_Name],
        _says("Members of chat_template_kwargs that switch it: true or false; none: thinking and enable_thinking."),
    ] = []
    template_effort: Annotated[str, _says("Its member for the effort; empty: the template knows none.")] = (
        "reasoning_effort"
    )
    efforts: Annotated[
        dict[str, str], _says("The host's own words for efforts; an empty one is not sent, with a receipt.")
    ] = {}
    inline_thinking: Annotated[
        Literal["", "tagged", "opened"],
        _says("The thinking comes in the text: between <think> and </think>, or without the mark that opens it."),
    ] = ""
    reasoning_field: Annotated[
        Literal["reasoning_content", "reasoning"], _says("How the host spells the reasoning of a message.")
    ] = "reasoning_content"
    prefix: Annotated[
        Literal["flag", "continue"],
        _says("How a last message is continued: by its own prefix, or by fields of the request."),
    ] = "flag"
    beta_path: Annotated[str, _says("For deepseek: what stands before the path of what is in beta there.")] = "/beta"
    thinks: Annotated[bool, _says("For llamacpp: the model writes its thinking by itself; else it is led to.")] = False
    budget: Annotated[_Tokens, _says("For llamacpp: tokens of the longest thinking at effort high.")] = 512
    limit_counts_thinking: Annotated[bool, _says("For llamacpp: whether max_tokens includes the thinking.")] = True
    context: Annotated[_Tokens | None, _says("For llamacpp: tokens of one request, where known.")] = None
    sampling: Annotated[
        dict[_Name, int | float], _says("For llamacpp: its own sampling fields, beneath what the call says.")
    ] = {}
    fingerprint: Annotated[str, _says("For llamacpp: who spoke, in system_fingerprint.")] = ""


def checked(table: Mapping[str, Any], key: str, file: str) -> None:
    """Raises ConfigError for what is no option, with the nearest that is one."""
    names = OptionsRow.__struct_fields__
    for name in table:
        if name not in names:
            raise ConfigError(file, f"{key}.{name}", f"is no option{nearest(name, names)}")
    try:
        row = msgspec.convert(table, OptionsRow)
    except msgspec.ValidationError as error:
        raise explained(error, file, key) from None
    for effort in row.efforts:
        if effort not in _EFFORTS:
            raise ConfigError(file, f"{key}.efforts.{effort}", f"is no effort{nearest(effort, _EFFORTS)}")
