"""The catalogue that settings and environment make: what is served, where, for how much, and what is refused."""

from __future__ import annotations

import calendar
import datetime
from typing import Any

import msgspec
import pytest

from moonpool.catalog import load, weights_rows
from moonpool.catalog.catalog import Catalogue, build
from moonpool.catalog.prices import schedule
from moonpool.catalog.rows import (
    DIALECTS,
    NEEDS,
    AgreedRow,
    CalendarRow,
    HostRow,
    ModelRow,
    PeakRow,
    PriceRow,
    RuleRow,
    Served,
    YearRow,
    describe,
)
from moonpool.dialects import DIALECTS as SPOKEN
from moonpool.errors import Problem
from moonpool.ledger.money import amount, cost, price_of
from moonpool.settings import ConfigError, Settings
from moonpool.settings_hosts import Embedded
from moonpool.words import Call, Usage

HOSTED = {"deepseek": "DEEPSEEK_API_KEY", "lkeap": "LKEAP_API_KEY", "tokenhub": "TOKENHUB_API_KEY"}
K = 1024
CONTRACT = {
    # model: window, longest answer, default answer, does the limit count the thinking, thinking
    "deepseek-r1": (64 * K, 16 * K, 4 * K, False, "always"),
    "deepseek-v3": (64 * K, 16 * K, 4 * K, True, "never"),
    "deepseek-v3-0324": (128 * K, 16 * K, 4 * K, True, "never"),
    "deepseek-prover-v2": (64 * K, 16 * K, 4 * K, True, "never"),
    "deepseek-v4-flash": (1024 * K, 384 * K, 8 * K, True, "default_on"),
    "deepseek-v4-pro": (1024 * K, 384 * K, 8 * K, True, "default_on"),
    "deepseek-reasoner": (64 * K, 8 * K, 4 * K, False, "always"),
    "deepseek-chat": (64 * K, 8 * K, 4 * K, True, "never"),
    "deepseek-flash": (1024 * K, 384 * K, 8 * K, True, "default_on"),
}
MINE = {"base_url": "http://127.0.0.1:9001/v1/", "dialect": "deepseek", "api_key": "x", "concurrency": 500}


def made(environ: dict[str, str] | None = None, **settings: Any) -> Catalogue:
    return build(Settings(home="/nowhere", file="moonpool.toml", **settings), environ or {})


def at(year: int, month: int, day: int, hour: int = 0) -> float:
    return float(calendar.timegm((year, month, day, hour, 0, 0)))


ALL_HOSTS = {
    **dict.fromkeys(HOSTED.values(), "key-of-a-host"),
    "NEWAPI_API_KEY": "key-of-a-host",
    "NEWAPI_BASE_URL": "http://127.0.0.1:3000/v1",
}
HERE = made()
EVERYWHERE = made(ALL_HOSTS)


def test_every_model_of_the_contract_is_served() -> None:
    """The names, windows, lengths and manners of thinking are the contract's."""
    assert [model.name for model in EVERYWHERE.models()] == sorted(CONTRACT)
    for name, (window, longest, default, counts, thinking) in CONTRACT.items():
        model = EVERYWHERE.find(name)
        assert (model.window, model.output_max, model.output_default) == (window, longest, default)
        assert (model.limit_counts_thinking, model.thinking) == (counts, thinking)
        assert ("thinking" in model.can) is (thinking != "never")


def test_nothing_configured_is_served_by_the_embedded_model() -> None:
    """Without a key every name is there, served here, with this machine's context, for nothing."""
    assert [model.name for model in HERE.models()] == sorted(CONTRACT)
    assert [host.name for host in HERE.hosts()] == ["embedded"]
    for model in HERE.models():
        (target,) = model.targets
        assert (target.host.transport, target.host.dialect) == ("llama", "llamacpp")
        assert target.model == weights_rows()[0].name
        assert model.window == target.options["context"] == 8192
        assert target.options["limit_counts_thinking"] is model.limit_counts_thinking
        assert model.owned_by == "moonpool-embedded"
        assert cost(Usage(10**6, 10**6, 10**6), model.price_at(at(2026, 11, 1))) == 0


def test_nothing_at_all_is_served_without_hosts() -> None:
    """With the embedded model switched off and no key there is no model, and that is said."""
    empty = made(embedded=Embedded(enabled=False))
    assert (empty.models(), empty.hosts()) == ((), ())
    assert empty.absent["embedded"] == "embedded.enabled is false"
    with pytest.raises(Problem) as refusal:
        empty.find("deepseek-chat")
    assert refusal.value.code == "caller.unknown_model"


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """The live service's sentence, with the names that are served here."""
    with pytest.raises(Problem) as refusal:
        HERE.find("gpt-x")
    problem = refusal.value
    assert (problem.status, problem.param) == (400, "model")
    assert problem.message == (
        f"The supported API model names are {', '.join(sorted(CONTRACT))}, but you passed gpt-x."
    )


@pytest.mark.parametrize(("host", "variable"), HOSTED.items())
def test_a_key_in_the_environment_is_enough(host: str, variable: str) -> None:
    """A host whose variable is set is there; the others say what they miss."""
    catalogue = made({variable: "key-of-a-host"})
    assert host in {found.name for found in catalogue.hosts()}
    assert host not in catalogue.absent
    assert catalogue.absent["newapi"] == "NEWAPI_API_KEY is not set in the environment"
    assert any(target.host.name == host for model in catalogue.models() for target in model.targets)


def test_a_reseller_needs_an_address_too() -> None:
    """NEWAPI_API_KEY alone is no host; with NEWAPI_BASE_URL it is."""
    alone = made({"NEWAPI_API_KEY": "k"})
    assert alone.absent["newapi"] == "NEWAPI_BASE_URL is not set in the environment"
    both = made({"NEWAPI_API_KEY": "k", "NEWAPI_BASE_URL": "http://127.0.0.1:3000/v1/"})
    assert next(host for host in both.hosts() if host.name == "newapi").base_url == "http://127.0.0.1:3000/v1"


def test_what_no_host_serves_falls_to_the_embedded_model() -> None:
    """With one key, models of other hosts are served here; hosted ones are never answered here behind one's back."""
    catalogue = made({"DEEPSEEK_API_KEY": "k"})
    assert [target.host.name for target in catalogue.find("deepseek-r1").targets] == ["embedded"]
    assert [target.host.name for target in catalogue.find("deepseek-flash").targets] == ["deepseek"]


def test_every_host_speaks_a_dialect_there_is() -> None:
    """Every name of a dialect that a row may have is one that is built in."""
    assert set(DIALECTS) <= set(SPOKEN)
    assert {host.dialect for host in EVERYWHERE.hosts()} <= set(SPOKEN)


def test_times_of_hosts_are_the_settings_unless_a_row_says_more() -> None:
    """`upstream` holds for every host; a host's own row goes before it."""
    settings: Any = {
        "hosts": {"mine": {**MINE, "first_s": 7.0}},
        "upstream": msgspec.convert({"gap_s": 3}, type_of("upstream")),
    }
    host = next(host for host in made(**settings).hosts() if host.name == "mine")
    assert (host.first_s, host.gap_s, host.total_s, host.connect_s) == (7.0, 3.0, 3600.0, 5.0)
    assert (host.base_url, host.api_key, host.concurrency) == ("http://127.0.0.1:9001/v1", "x", 500)


def type_of(name: str) -> Any:
    return type(getattr(Settings(), name))


def test_the_operators_rows_are_laid_over_ours() -> None:
    """What a row names is replaced, what it does not name stays."""
    catalogue = made(
        {"DEEPSEEK_API_KEY": "k"},
        hosts={"mine": MINE, "deepseek": {"concurrency": 7}},
        models={
            "deepseek-chat": {"hosts": [{"name": "mine", "model": "v3", "weight": 2}, "deepseek"]},
            "deepseek-v3": {"hosts": ["mine"], "output_max": 100, "output_default": 50},
        },
    )
    chat = catalogue.find("deepseek-chat")
    assert [(target.host.name, target.model) for target in chat.targets] == [
        ("mine", "v3"),
        ("deepseek", "deepseek-flash"),
    ]
    assert chat.targets[1].options["set"] == {"thinking": {"type": "disabled"}}, "a name keeps what was said of it"
    assert chat.owned_by == "mine"
    assert chat.output_max == 8192
    deepseek = next(host for host in catalogue.hosts() if host.name == "deepseek")
    assert (deepseek.concurrency, deepseek.api_key) == (7, "k")
    assert catalogue.find("deepseek-v3").checks["max_tokens"].high == 100


def test_a_model_of_the_operators_own() -> None:
    """A new name needs nothing but a host, and costs nothing until a price is given."""
    models = {"house": {"hosts": ["mine"]}, "dear": {"hosts": ["mine"], "prices": [PRICE]}, "same": {"alias": "dear"}}
    catalogue = made(hosts={"mine": {"base_url": "http://127.0.0.1:1"}}, models=models)
    house, dear = catalogue.find("house"), catalogue.find("dear")
    assert house.can == set(NEEDS) - {"prefix", "prefix_thinking"}, "nobody's standard: its dialect or row would say so"
    assert house.price_at(at(2026, 1, 1)).completion == 0
    assert dear.price_at(at(2026, 1, 2)).completion == price_of("3")
    same = catalogue.find("same")
    assert (same.name, same.targets, same.prices) == ("same", dear.targets, dear.prices)
    assert same.targets[0].model == "dear"


def test_the_embedded_model_can_stand_behind_a_host() -> None:
    """Named in `hosts`, it is one more target, in its place."""
    catalogue = made(hosts={"mine": MINE}, models={"deepseek-chat": {"hosts": ["mine", "embedded"]}})
    assert [target.host.name for target in catalogue.find("deepseek-chat").targets] == ["mine", "embedded"]
    assert catalogue.find("deepseek-chat").window == 64 * K


def test_a_gguf_of_the_operators_own() -> None:
    """Its name and whether it thinks come from the file, unless the settings say."""
    facts = {"model": "R1 Distill", "thinks": True}
    for thinks, expected in (("auto", True), ("no", False), ("yes", True)):
        settings = Settings(home="/nowhere", embedded=Embedded(model="/data/r1.gguf", thinks=thinks))  # type: ignore[arg-type]
        (target,) = build(settings, {}, facts).find("deepseek-chat").targets
        assert (target.model, target.options["thinks"]) == ("R1 Distill", expected)
    (target,) = build(settings, {}).find("deepseek-chat").targets
    assert target.model == "r1"


def test_what_the_weights_cannot_is_not_offered() -> None:
    """The second row of the weights fills in no middle, so no model does."""
    small = made(embedded=Embedded(model=weights_rows()[1].name))
    assert "fim" in HERE.find("deepseek-chat").can
    assert "fim" not in small.find("deepseek-chat").can


def test_where_no_host_can_think_nothing_thinks_by_default() -> None:
    """A model that thinks by default answers without it at a host that cannot."""
    catalogue = made(hosts={"mine": {**MINE, "cannot": ["thinking"]}}, models={"deepseek-flash": {"hosts": ["mine"]}})
    assert catalogue.find("deepseek-flash").thinking == "never"


PRICE = {"valid_from": datetime.date(2026, 1, 1), "prompt_miss": "2", "prompt_hit": "1", "completion": "3"}
WORK = {"calendar": "weekdays"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    # the operator's tables; key; a part of the sentence
    ({"hosts": {"mine": {"base_ur": "x"}}}, "hosts.mine.base_ur", "did you mean base_url?"),
    ({"hosts": {"mine": {**MINE, "dialect": "klingon"}}}, "hosts.mine.dialect", "there is: deepseek, lkeap, tokenhub"),
    ({"hosts": {"mine": {**MINE, "dialect": "deepsek"}}}, "hosts.mine.dialect", "did you mean deepseek?"),
    ({"hosts": {"mine": {"dialect": "openai"}}}, "hosts.mine.base_url", "begins with http"),
    ({"hosts": {"mine": {**MINE, "base_url": "ftp://x"}}}, "hosts.mine.base_url", "begins with http"),
    ({"hosts": {"mine": {**MINE, "gap_s": 0}}}, "hosts.mine.gap_s", "a number > 0"),
    ({"hosts": {"mine": {**MINE, "transport": "pigeon"}}}, "hosts.mine.transport", "'pigeon'"),
    ({"hosts": {"mine": {**MINE, "cannot": ["fly"]}}}, "hosts.mine.cannot[0]", "'fly'"),
    ({"hosts": {"mine": {**MINE, "api_key": "file:/not/there"}}}, "hosts.mine.api_key", "cannot be read"),
    ({"models": {"deepseek-chat": {"host": ["mine"]}}}, "models.deepseek-chat.host", "did you mean hosts?"),
    ({"models": {"deepseek-chat": {"hosts": ["depseek"]}}}, "models.deepseek-chat.hosts", "did you mean deepseek?"),
    (
        {"models": {"m": {"hosts": [{"name": "embedded", "wight": 1}]}}},
        "models.m.hosts[0].wight",
        "did you mean weight?",
    ),
    ({"models": {"m": {"hosts": [{"model": "x"}]}}}, "models.m.hosts[0]", "`name`"),
    ({"models": {"m": {"hosts": ["embedded", "embedded"]}}}, "models.m.hosts", "twice"),
    ({"models": {"m": {"output_max": 0}}}, "models.m.output_max", "a whole number >= 1"),
    ({"models": {"m": {"thinking": "sometimes"}}}, "models.m.thinking", "'sometimes'"),
    ({"models": {"m": {"can": ["fly"]}}}, "models.m.can[0]", "'fly'"),
    ({"models": {"m": {"rules": ["comon"]}}}, "models.m.rules", "did you mean common?"),
    ({"models": {"m": {"prices": "v4-flsh"}}}, "models.m.prices", "did you mean v4-flash?"),
    ({"models": {"m": {"prices": [{**PRICE, "completion": "1e3"}]}}}, "models.m.prices[0]", "no amount"),
    ({"models": {"m": {"prices": [PRICE, PRICE]}}}, "models.m.prices[1]", "order of their dates"),
    ({"models": {"m": {"prices": [{"prompt_miss": "1"}]}}}, "models.m.prices[0]", "`valid_from`"),
    (
        {"models": {"m": {"prices": [{**PRICE, "prompt_hi": "1"}]}}},
        "models.m.prices[0].prompt_hi",
        "did you mean prompt_hit?",
    ),
    ({"models": {"m": {"prices": [{**PRICE, "currency": "yuan"}]}}}, "models.m.prices[0].currency", "regex"),
    (
        {"models": {"m": {"prices": [{**PRICE, "peak": {"calendar": "weekday", "factor": "2"}}]}}},
        "models.m.prices[0].peak.calendar",
        "did you mean weekdays?",
    ),
    (
        {"models": {"m": {"prices": [{**PRICE, "peak": {"calendar": "weekdays", "facter": "2"}}]}}},
        "models.m.prices[0].peak.facter",
        "did you mean factor?",
    ),
    ({"models": {"m": {"prices": [{**PRICE, "peak": {"calendar": "weekdays"}}]}}}, "models.m.prices[0].peak", "either"),
    (
        {"models": {"m": {"prices": [{**PRICE, "peak": {"calendar": "weekdays", "factor": "2", "completion": "9"}}]}}},
        "models.m.prices[0].peak",
        "either",
    ),
    (
        {"models": {"m": {"prices": [{**PRICE, "prompt_hit": "0.000001", "peak": {**WORK, "factor": "1.5"}}]}}},
        "models.m.prices[0].peak",
        "more than 6 decimals",
    ),
    ({"calendars": {"c": {"hours": ["09:00-25:00"]}}}, "calendars.c.hours[0]", "regex"),
    ({"calendars": {"c": {"hours": ["09:00-12:00", "11:00-13:00"]}}}, "calendars.c.hours", "come after"),
    ({"calendars": {"c": {"hours": ["12:00-12:00"]}}}, "calendars.c.hours", "come after"),
    ({"calendars": {"c": {"hours": [], "holidays": "xx"}}}, "calendars.c.holidays", "there is: cn"),
    ({"holidays": {"cn": {"2027": {"off": [datetime.date(2026, 1, 1)]}}}}, "holidays.cn.2027.off", "not in 2027"),
    ({"holidays": {"cn": {"next": {}}}}, "holidays.cn.next", "no year"),
    (
        {"holidays": {"cn": {"2027": {"off": [datetime.date(2027, 1, 1)], "worked": [datetime.date(2027, 1, 1)]}}}},
        "holidays.cn.2027.worked",
        "day off as well",
    ),
    ({"models": {"m": {"alias": "deepseek-cht"}}}, "models.m.alias", "did you mean deepseek-chat?"),
    ({"models": {"m": {"alias": "o"}, "o": {"alias": "m"}}}, "models.m.alias", "itself an alias"),
]


@pytest.mark.parametrize(("tables", "key", "says"), WRONG)
def test_what_cannot_be_is_refused_at_start(tables: dict[str, Any], key: str, says: str) -> None:
    """File, key and rule are named, with the nearest name that there is."""
    with pytest.raises(ConfigError) as refusal:
        made(**tables)
    error = refusal.value
    assert (error.file, error.key) == ("moonpool.toml", key)
    assert says in error.sentence


def test_a_host_without_its_key_is_not_there() -> None:
    """An operator's row may name a variable that this machine does not have: then another host serves."""
    catalogue = made(
        hosts={"mine": {**MINE, "api_key": "env:MINE"}}, models={"deepseek-chat": {"hosts": ["mine", "embedded"]}}
    )
    assert catalogue.absent["mine"] == "MINE is not set in the environment"
    assert [target.host.name for target in catalogue.find("deepseek-chat").targets] == ["embedded"]


PRICES = [
    # model; a moment (UTC); hit, miss, out per million tokens as published
    ("deepseek-v4-flash", at(2026, 4, 25), ("0.2", "1", "2")),
    ("deepseek-v4-flash", at(2026, 5, 1), ("0.02", "1", "2")),
    ("deepseek-v4-flash", at(2026, 8, 16, 15), ("0.02", "1", "2")),
    ("deepseek-v4-flash", at(2026, 8, 16, 16), ("0.05", "1.5", "4.5")),
    ("deepseek-v4-flash", at(2026, 11, 1), ("0.02", "1", "4")),
    ("deepseek-v4-pro", at(2026, 4, 25), ("1", "12", "24")),
    ("deepseek-v4-pro", at(2026, 6, 1), ("0.025", "3", "6")),
    ("deepseek-v4-pro", at(2026, 11, 1), ("0.15", "4.5", "13.5")),
    ("deepseek-flash", at(2026, 11, 1), ("0.02", "1", "4")),
    ("deepseek-chat", at(2025, 3, 1), ("0.5", "2", "8")),
    ("deepseek-chat", at(2025, 12, 1), ("0.2", "2", "3")),
    ("deepseek-chat", at(2026, 11, 1), ("0.02", "1", "4")),
    ("deepseek-reasoner", at(2025, 3, 1), ("1", "4", "16")),
    ("deepseek-reasoner", at(2026, 11, 1), ("0.02", "1", "4")),
    ("deepseek-r1", at(2020, 1, 1), ("1", "4", "16")),
]


@pytest.mark.parametrize(("name", "moment", "published"), PRICES)
def test_prices_are_dated_and_exact(name: str, moment: float, published: tuple[str, str, str]) -> None:
    """A million tokens of a class cost what was published for that day."""
    price = EVERYWHERE.find(name).price_at(moment)
    hit, miss, out = (amount(text) for text in published)
    assert cost(Usage(prompt_hit=10**6), price) == hit
    assert cost(Usage(prompt_miss=10**6), price) == miss
    assert cost(Usage(completion=10**6, reasoning=5), price) == out
    assert price.currency == "CNY"


def test_what_we_owe_is_the_price_of_what_the_host_serves() -> None:
    """At a host that charges list prices, an old name costs us what its successor costs; elsewhere nothing is known."""
    first, *others = EVERYWHERE.find("deepseek-chat").targets
    assert first.host.name == "deepseek"
    assert first.prices is not None
    for now in (at(2026, 9, 1), at(2026, 11, 1), at(2026, 11, 27, 2)):
        assert first.prices.at(now) == EVERYWHERE.find("deepseek-flash").price_at(now)
    assert [target.prices for target in others] == [None, None]


def test_an_operators_price_holds_for_the_embedded_model_too() -> None:
    """It is free unless somebody says otherwise."""
    catalogue = made(models={"deepseek-chat": {"prices": [PRICE]}})
    assert catalogue.find("deepseek-chat").price_at(at(2026, 6, 1)).completion == price_of("3")
    assert catalogue.find("deepseek-flash").price_at(at(2026, 6, 1)).completion == 0


def test_every_shipped_row_is_whole() -> None:
    """Every model has a birthday, dated prices, rules that exist and hosts that exist; every rule is used."""
    shipped = load.shipped()
    hosts = load.host_rows(Settings())
    used = set()
    for name, table in shipped.models.items():
        row = load.row(table, ModelRow, name, "models.toml")
        assert row.released, name
        assert row.prices in shipped.prices, name
        assert row.output_default <= row.output_max <= row.window, name
        assert row.thinking_max or row.limit_counts_thinking, name
        assert {entry if isinstance(entry, str) else entry.name for entry in row.hosts} <= set(hosts)
        used |= set(row.rules)
    assert used == set(shipped.rules)
    assert set(shipped.unsupported) == set(NEEDS)
    assert set(shipped.prices) == {row["prices"] for row in shipped.models.values()}
    known = load.known_calendars(Settings())
    for name, rows in shipped.prices.items():
        assert schedule(rows, name, "", "", known)


@pytest.mark.parametrize(
    "kind", [HostRow, ModelRow, Served, PriceRow, PeakRow, AgreedRow, CalendarRow, YearRow, RuleRow]
)
def test_every_field_explains_itself(kind: type[msgspec.Struct]) -> None:
    """No field of a row is without documentation."""
    described = dict(describe(kind))
    assert list(described) == [field.name for field in msgspec.structs.fields(kind)]
    assert all(text.endswith(".") for text in described.values()), described


def test_what_is_shown_holds_no_secret() -> None:
    """`effective` can be printed: keys are masked, amounts are texts, and JSON can say all of it."""
    catalogue = made(
        {"DEEPSEEK_API_KEY": "key-that-nobody-may-see"}, hosts={"mine": {**MINE, "api_key": "hidden-too-hidden"}}
    )
    page = catalogue.effective()
    text = msgspec.json.encode(page).decode()
    assert "nobody" not in text
    assert "hidden-too" not in text
    assert "nobody" not in repr(catalogue)
    assert page["models"]["deepseek-flash"]["prices"][0]["completion"] == "4.00"
    assert page["models"]["deepseek-flash"]["rules"]["top_p"] == "(0, 1.0]"
    assert page["absent"]["lkeap"].startswith("LKEAP_API_KEY")


def test_weights_are_rows() -> None:
    """Each has a name, a size, a hash, a licence and at least one source that needs no address."""
    rows = weights_rows()
    assert len({row.name for row in rows}) == len(rows) == 2
    for row in rows:
        assert len(bytes.fromhex(row.sha256)) == 32
        assert row.bytes > 2**20
        assert row.licence == "Apache-2.0"
        assert row.can <= set(NEEDS)
        assert row.window >= Embedded().context
        first = row.sources[0]
        assert first.kind == "package_parts"
        assert first.parts >= 1
        assert ("{part" in first.member) is (first.parts > 1)
        for source in row.sources:
            assert not source.endpoint
            if source.kind == "package_parts":
                assert source.package.format(part=1)
                assert source.version
            else:
                assert source.repository
                assert source.revision
                assert source.file == row.file


def test_targets_of_a_uniform_model_are_not_looked_at() -> None:
    """Where all targets can the same, asking which can costs nothing."""
    model = HERE.find("deepseek-chat")
    assert model.targets_for(frozenset({"tools"})) is model.targets
    call = Call("id", "chat", model.name, False, {}, b"", output_max=None)
    assert model.tokens_max(call) == model.output_max


def test_what_a_host_costs_us_may_be_its_own() -> None:
    """An entry of a model's hosts names prices: a list of the catalogue's, or its own; routing by price reads them."""
    own = [{"valid_from": "2020-01-01", "prompt_miss": "3", "prompt_hit": "1", "completion": "5"}]
    hosts = [{"name": "a", "prices": own}, {"name": "b", "prices": "flash"}, "c"]
    row = {"base_url": "http://h", "api_key": "k"}
    settings = Settings(home="h", hosts=dict.fromkeys("abc", row), models={"m": {"hosts": hosts}})
    targets = build(settings, {}).find("m").targets
    costs = [target.prices and target.prices.at(at(2026, 11, 1)) for target in targets]
    assert [price and price.prompt_miss for price in costs] == [3_000_000, 1_000_000, None]
    assert [price and price.version for price in costs] == ["models.m.hosts.a@2020-01-01", "flash@2026-11-01", None]


def test_old_names_go_to_whoever_serves_their_successor() -> None:
    """With the key of another host only: its own name for the successor, and the right switch of the thinking."""
    catalogue = build(Settings(home="h"), {"TOKENHUB_API_KEY": "k"})
    for name, kind in (("deepseek-chat", "disabled"), ("deepseek-reasoner", "enabled")):
        (target,) = catalogue.find(name).targets
        assert (target.host.name, target.model) == ("tokenhub", "deepseek-v4-flash")
        assert target.options["set"] == {"thinking": {"type": kind}}
