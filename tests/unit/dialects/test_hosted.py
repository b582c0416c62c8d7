"""What the flavours of hosted providers send, where it differs from the family, and what they say is left."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from moonpool.catalog import load
from moonpool.dialects import CLIENT, DIALECTS
from moonpool.errors import Problem
from moonpool.words import Host, Target


def rendered(dialect: str, *, refuse: bool = False, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    call = replace(CLIENT.parse_call("chat", json.dumps(body).encode(), "id"), refuse=refuse)
    options = load.read(load.HOSTS_FILE)["dialects"].get(dialect, {}).get("options", {})
    outbound = DIALECTS[dialect].render_call(call, Target(Host("h", dialect, options=options), "theirs"))
    return json.loads(outbound.body), outbound.adjusted


@pytest.mark.parametrize("dialect", ["tokenhub", "aigateway"])
def test_few_stops(dialect: str) -> None:
    """Four texts end an answer there: the rest is cut with a receipt, or refused where the key says so."""
    for stops in ("a", ["a"], list("abcd")):
        body, receipts = rendered(dialect, stop=stops)
        assert (body["stop"], receipts) == (stops, ())
    body, receipts = rendered(dialect, stop=list("abcdef"))
    assert (body["stop"], receipts) == (list("abcd"), ("stop:6->4",))
    with pytest.raises(Problem) as caught:
        rendered(dialect, stop=list("abcde"), refuse=True)
    assert (caught.value.code, caught.value.param) == ("caller.unsupported", "stop")


def test_the_effort_stands_inside_of_thinking() -> None:
    """The gateway reads it there, and there only (PROVIDERS 3.2)."""
    body, _ = rendered("aigateway", reasoning_effort="max")
    assert body["thinking"] == {"type": "enabled", "reasoning_effort": "max"}
    assert "reasoning_effort" not in body
    body, _ = rendered("aigateway", thinking={"type": "enabled"}, reasoning_effort="low", stop=list("abcde"))
    assert (body["thinking"], len(body["stop"])) == ({"type": "enabled", "reasoning_effort": "low"}, 4)
    assert "thinking" not in rendered("aigateway")[0]
    body, _ = rendered("tokenhub", reasoning_effort="max")
    assert body["reasoning_effort"] == "max"


PLAYED = [
    ("lkeap", Problem("account.concurrency"), 429,
     {"message": "concurrency exceeded", "type": "runtime_error", "param": None, "code": "20034"}),
    ("lkeap", Problem("caller.too_long"), 400,
     {"message": "input content too long", "type": "runtime_error", "param": None, "code": "20059"}),
    ("newapi", Problem("account.invalid_key"), 401,
     {"message": "Invalid token", "type": "new_api_error", "param": "", "code": ""}),
    ("newapi", Problem("caller.unknown_model", "x"), 503,
     {"message": "No available channel for model x under group default (distributor)", "type": "new_api_error",
      "param": "", "code": "model_not_found"}),
    ("tokenhub", Problem("account.no_quota"), 402,
     {"message": "endpoint is inactive: FREE_QUOTA_EXHAUSTED", "type": "permission_error", "code": "401007",
      "source": "gateway", "upstream_code": "", "upstream_status": 0}),
    ("aigateway", Problem("account.invalid_key", "who, requestId=1"), 401,
     {"message": "[G2] who, requestId=1", "code": "GATEWAY_INVALID_VIRTUAL_KEY", "source": "gateway",
      "retry_history": None}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "problem", "status", "members"), PLAYED)
def test_played_in_their_own_words(dialect: str, problem: Problem, status: int, members: dict[str, Any]) -> None:
    """Bodies and statuses as the provider writes them, for whoever plays it; ids of requests are the same each time."""
    flavour = DIALECTS[dialect]
    assert flavour.status_of(problem) == status
    body = flavour.render_problem(problem, in_stream=False)
    error = json.loads(body)["error"]
    error.pop("request_id", None)
    if dialect == "newapi":
        error["message"], _, request = error["message"].partition(" (request id: ")
        assert request.endswith(")")
    assert error == members
    assert flavour.render_problem(problem, in_stream=False) == body


BALANCES = [
    ("deepseek", {"is_available": True, "balance_infos": [
        {"currency": "CNY", "total_balance": "110.00", "granted_balance": "10.00", "topped_up_balance": "100.00"},
        {"currency": "USD", "total_balance": "1.50"}]}, ("110.00 CNY, 1.50 USD", False)),
    ("deepseek", {"is_available": False, "balance_infos": []}, ("0", True)),
    ("deepseek", ["odd"], None),
    ("newapi", {"code": True, "data": {"total_available": 6_250_000, "unlimited_quota": False}}, ("12.50 USD", False)),
    ("newapi", {"code": True, "data": {"total_available": -5, "unlimited_quota": True}}, ("unlimited", False)),
    ("newapi", {"code": True, "data": {"total_available": 0}}, ("0.00 USD", True)),
    ("newapi", {"error": {"message": "no"}}, None),
    ("newapi", {"data": "odd", "hard_limit_usd": "x", "total_usage": None}, None),
    ("newapi", {"hard_limit_usd": 100_000_000, "total_usage": 5}, ("unlimited", False)),
    ("newapi", {"hard_limit_usd": 3, "total_usage": 300.0}, ("0.00 USD", True)),
    ("openai", {"balance_infos": []}, None),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "answer", "left"), BALANCES)
def test_balances(dialect: str, answer: Any, left: Any) -> None:
    """Each provider's own shape (PROVIDERS 1.2, 4.3); errors with status 200 and odd values say nothing."""
    flavour: Any = DIALECTS[dialect]
    assert flavour.read_balance({"/path": answer}) == left
