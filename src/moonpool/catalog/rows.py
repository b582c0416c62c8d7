"""What may a row of the catalogue say? The tables of hosts.toml, models.toml and moonpool.toml, typed and bounded.

Every field explains itself, so that a reference page can be made from here (`describe`).
"""

from __future__ import annotations

import datetime
import typing
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

EMBEDDED: Final = "embedded"
DIALECTS: Final = (
    "deepseek", "lkeap", "tokenhub", "aigateway", "newapi", "openai", "llamacpp", "vllm", "sglang", "ollama",
)  # fmt: skip
NEEDS: Final = ("tools", "thinking", "json_object", "prefix", "prefix_thinking", "fim", "logprobs", "n")

Text = Annotated[str, Meta(min_length=1)]
_Need = Literal["tools", "thinking", "json_object", "prefix", "prefix_thinking", "fim", "logprobs", "n"]
_Replay = Literal["", "keep", "strip", "reject", "fill"]
_Seconds = Annotated[float, Meta(gt=0)]
_Tokens = Annotated[int, Meta(ge=1)]
_BOUND: Final = r"^$|^\[-?[0-9.]+, -?[0-9.]+\]$"


def _says(text: str) -> Meta:
    return Meta(description=text)


class DialectRow(Struct, frozen=True, forbid_unknown_fields=True):
    """What `[dialects.NAME]` of hosts.toml says of every host of a dialect; a host's own row replaces it, and its
    options are laid over these one by one."""

    replay: Annotated[_Replay, _says("As a host's.")] = ""
    cannot: Annotated[frozenset[_Need], _says("As a host's.")] = frozenset()
    options: Annotated[dict[str, Any], _says("As a host's.")] = {}


class HostRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of hosts.toml, or `[hosts.NAME]` of moonpool.toml."""

    off: Annotated[bool, _says("Whether it is out of use, as if it had no key.")] = False
    dialect: Annotated[Text, _says(f"How it speaks: one of {', '.join(DIALECTS)}.")] = "openai"
    transport: Annotated[Literal["http", "llama"], _says("How bytes get there; llama is the embedded model.")] = "http"
    base_url: Annotated[str, _says("Where it is, up to what stands before /chat/completions; or env:NAME.")] = ""
    api_key: Annotated[
        str, _says("Who we are there: a literal, env:NAME or file:/path. Unset: the host is not there.")
    ] = ""
    owner: Annotated[str, _says("Whom GET /models names as owner of what it serves; its own name if empty.")] = ""
    account: Annotated[
        str, _says("Whose concurrency, balance and cache the key uses; hosts that name one account share them.")
    ] = ""
    concurrency: Annotated[int, Meta(ge=0), _says("Requests at once of the account behind the key; 0: not known.")] = 0
    concurrency_by_model: Annotated[
        dict[str, Annotated[int, Meta(ge=0)]], _says("The same for one model, under the host's own name for it.")
    ] = {}
    replay: Annotated[
        _Replay,
        _says(
            "What becomes of reasoning_content that is sent back: keep, strip, reject (a 400), or fill (keep, and "
            "an empty text where it is missing)."
        ),
    ] = ""
    balance: Annotated[
        list[Annotated[str, Meta(pattern="^/")]],
        _says("Where `hosts check` asks what is left, from base_url without a /v1 at its end; its dialect reads it."),
    ] = []
    listed: Annotated[bool, _says("Whether it charges us the list prices of models.toml.")] = False
    cannot: Annotated[
        frozenset[_Need] | None, _says("What it refuses whatever the model; else what its dialect cannot.")
    ] = None
    text_only: Annotated[bool, _says("Whether contents must be texts; every model it serves is then text_only.")] = (
        False
    )
    searches: Annotated[bool, _says("Whether it takes enable_search; without such a host the field is dropped.")] = (
        False
    )
    connect_s: Annotated[_Seconds | None, _says("Seconds to connect; else upstream.connect_s.")] = None
    first_s: Annotated[_Seconds | None, _says("Seconds until the first content; else upstream.first_s.")] = None
    gap_s: Annotated[_Seconds | None, _says("Seconds of silence within an answer; else upstream.gap_s.")] = None
    total_s: Annotated[_Seconds | None, _says("Seconds for a whole answer; else upstream.total_s.")] = None
    options: Annotated[dict[str, Any], _says("How it is spoken to, see below: over those of its dialect.")] = {}


class PeakRow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What tokens cost in peak hours: so many times the price beside it, or amounts of their own. Searches cost the
    same at all hours."""

    calendar: Annotated[Text, _says("When it is peak: a row of calendars.toml.")]
    factor: Annotated[str, _says('How many times as much: "2", "1.5"; empty where the amounts are given.')] = ""
    prompt_miss: Annotated[str, _says("As a price's, in peak hours.")] = ""
    prompt_hit: Annotated[str, _says("As a price's, in peak hours.")] = ""
    completion: Annotated[str, _says("As a price's, in peak hours.")] = ""


class PriceRow(Struct, frozen=True, forbid_unknown_fields=True):
    """Decimal texts per million tokens, from the first moment of a day in Beijing, where these prices are made."""

    valid_from: Annotated[datetime.date, _says("The first day of this price.")]
    prompt_miss: Annotated[Text, _says("Prompt tokens that were not cached.")]
    prompt_hit: Annotated[Text, _says("Prompt tokens that were.")]
    completion: Annotated[Text, _says("Tokens of the answer, thinking included.")]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$"), _says("Three letters.")] = "CNY"
    searches: Annotated[Text, _says("A thousand web searches.")] = "0"
    peak: Annotated[PeakRow | None, _says("What holds in peak hours; else one price holds at all hours.")] = None


class AgreedRow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one account pays for one model instead of the list price: amounts as a price has them, or a factor."""

    factor: Annotated[
        str,
        _says(
            'So many times the list price, peak hours included: "0.8"; rounded down to 10⁻¹² of a currency for each '
            'token; "1" is the list price again.'
        ),
    ] = ""
    prompt_miss: Annotated[str, _says("As a price's.")] = ""
    prompt_hit: Annotated[str, _says("As a price's.")] = ""
    completion: Annotated[str, _says("As a price's.")] = ""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$"), _says("As a price's.")] = "CNY"
    searches: Annotated[str, _says("As a price's.")] = "0"
    peak: Annotated[PeakRow | None, _says("As a price's.")] = None


_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[_Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS: Final = r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$"


class CalendarRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of calendars.toml, or `[calendars.NAME]` of moonpool.toml: when it is peak, by the clocks of Beijing
    (UTC+8, without summer time)."""

    hours: Annotated[
        list[Annotated[str, Meta(pattern=_HOURS)]],
        _says('In order, like "09:00-12:00": the first minute belongs to it, the last does not.'),
    ]
    days: Annotated[frozenset[_Day], _says("The days of the week that have these hours.")] = frozenset(DAYS)
    holidays: Annotated[str, _says("Whose public holidays have none, whatever day they are; empty: nobody's.")] = ""
    worked: Annotated[
        bool, _says("Whether a Saturday or Sunday that is worked, for a day off elsewhere, has these hours.")
    ] = False


class YearRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A year's public holidays: `[holidays.NAME.YEAR]` of calendars.toml, or of moonpool.toml."""

    off: Annotated[list[datetime.date], _says("The days off, weekends among them or not.")] = []
    worked: Annotated[list[datetime.date], _says("The Saturdays and Sundays that are worked instead.")] = []
    announced: Annotated[
        bool, _says("Whether the year's arrangement is known; false: only what the law says is there.")
    ] = True


class Served(Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of a model's `hosts` that says more than the host's name."""

    name: Annotated[Text, _says("The host's name.")]
    model: Annotated[str, _says("What the host calls the model, where that differs.")] = ""
    weight: Annotated[int, Meta(ge=0), _says("Its share among equals; 0: only when no other is left.")] = 1
    replay: Annotated[_Replay, _says("As the host's, for this model.")] = ""
    prices: Annotated[str | list[PriceRow], _says("What it costs us there, as a model's prices; else the list's.")] = []
    options: Annotated[dict[str, Any], _says("For its dialect, before those of the host.")] = {}


class RuleRow(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to one field of a request. A value out of `range` is a 400 whether it has an effect or not."""

    range: Annotated[str, Meta(pattern=r"^$|^[\[(]-?[0-9.]+, -?[0-9.]+\]$"), _says("Like [0, 2]; ( excludes.")] = ""
    default: Annotated[Any, _says("Filled in where the client says nothing.")] = None
    drop: Annotated[bool, _says("Taken out, because it has no effect; with a receipt.")] = False
    thinking: Annotated[
        str,
        Meta(pattern=_BOUND),
        _says("Like [0.95, 1]: values that have an effect while it thinks. Others are clamped; dropped at one point."),
    ] = ""
    plain: Annotated[str, Meta(pattern=_BOUND), _says("The same while it does not think.")] = ""
    refuse: Annotated[str, _says("A 400 with this sentence ({model} is the name), unless the value is false.")] = ""


class ModelRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of models.toml, or `[models.NAME]` of moonpool.toml."""

    hosts: Annotated[
        list[Text | Served], _says("In order of preference: tables, or names; a name keeps what was said of it here.")
    ] = []
    off: Annotated[bool, _says("Whether nobody can ask for it.")] = False
    alias: Annotated[str, _says("Another model that this is one more name of; then nothing else is said.")] = ""
    routing: Annotated[
        Literal["", "order", "weight", "least_busy", "price"],
        _says("How a host is chosen among those that can be used; else routing.policy."),
    ] = ""
    emulate: Annotated[
        frozenset[Literal["tools", "json_object"]],
        _says("What is emulated where a host cannot do it itself: marked as such, never silently."),
    ] = frozenset()
    json_word: Annotated[
        Literal["refuse", "add"],
        _says("What becomes of JSON mode where the messages lack the word json: a 400, or a sentence is added."),
    ] = "refuse"
    window: Annotated[_Tokens, _says("Tokens of context, question and answer together.")] = 131_072
    output_max: Annotated[_Tokens, _says("The longest answer that can be asked for, in tokens.")] = 8_192
    output_default: Annotated[_Tokens, _says("The longest answer where max_tokens is not given.")] = 4_096
    output_default_thinking: Annotated[_Tokens | None, _says("The same with thinking.")] = None
    output_default_effort_max: Annotated[_Tokens | None, _says("The same with thinking at the highest effort.")] = None
    output_default_sent: Annotated[
        bool, _says("Whether max_tokens is filled in, because hosts have another default than ours.")
    ] = True
    fim_output_max: Annotated[_Tokens | None, _says("The longest middle that is filled in; more is lowered.")] = None
    limit_counts_thinking: Annotated[bool, _says("Whether max_tokens includes the thinking.")] = True
    thinking_max: Annotated[int, Meta(ge=0), _says("The longest thinking where max_tokens does not include it.")] = 0
    thinking: Annotated[
        Literal["always", "never", "default_on", "default_off"], _says("Whether it thinks before it answers.")
    ] = "default_off"
    thinking_forced_tools: Annotated[
        Literal["kept", "thinking_off"], _says("What becomes of the thinking when a tool call is forced.")
    ] = "kept"
    can: Annotated[frozenset[_Need], _says("What it can beyond plain text.")] = frozenset(NEEDS)
    replay: Annotated[
        Literal["keep", "drop", "reject"], _says("What becomes of reasoning_content in the messages.")
    ] = "keep"
    system: Annotated[
        Literal["keep", "merge"],
        _says("What becomes of system messages: kept, or put before the text of the user's message that follows."),
    ] = "keep"
    text_only: Annotated[
        bool, _says("Contents that are lists of texts become texts, and those with images or files are a 400.")
    ] = False
    rules: Annotated[list[Text], _says("Sets of rules for fields; a later one goes before an earlier.")] = []
    prices: Annotated[str | list[PriceRow], _says("Dated prices, or the name of a list of them; none: free.")] = []
    product: Annotated[str, _says("Whose packs and switch its use goes by; its own name if empty.")] = ""
    released: Annotated[datetime.date | None, _says("Its birthday; GET /models gives it as created.")] = None


class Shipped(Struct, frozen=True, forbid_unknown_fields=True):
    """models.toml as a whole; `models` are raw, because the operator's are laid over them first."""

    rules: dict[str, dict[str, dict[str, Any]]]
    unsupported: dict[_Need, str]
    efforts: dict[str, str]
    prices: dict[str, list[PriceRow]]
    models: dict[str, dict[str, Any]]


def describe(kind: type[Struct]) -> list[tuple[str, str]]:
    """(field, what it is) of one of these records, for the reference page."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(name, _help(hint)) for name, hint in hints.items()]


def _help(hint: Any) -> str:
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in reversed(metas) if meta.description), "")
