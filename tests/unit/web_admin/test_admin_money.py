"""Money that comes in by an operator's hand, by a code and by a payment service: once, and as it was said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from admin_rig import Answer, ask, call, on_app, token_of
from moonpool.app import App
from moonpool.errors import Problem
from moonpool.settings import ConfigError
from moonpool.web import admin, payments

MONEY = {"fund": "topped_up", "amount": "12.5", "currency": "CNY"}


async def balance(app: App, account: str) -> Any:
    return (await ask(app.platform, "GET", f"/accounts/{account}"))["balance"]


def test_a_deposit_happens_once_for_its_id(tmp_path: Path) -> None:
    """The same id again is no second deposit, and for other money, another fund or account it is refused; without an id
    each one counts. What came is listed newest first."""

    async def run(app: App) -> None:
        desk = app.platform
        for account in ("a", "b"):
            await ask(desk, "POST", "/accounts", {"name": account})
        body = {"id": "order-7", **MONEY}
        answers = await asyncio.gather(
            *(admin.handle(desk, "POST", "/accounts/a/deposits", "", json.dumps(body).encode()) for _ in range(20))
        )
        assert sorted(status for status, _ in answers) == [200] * 19 + [201]
        assert (await balance(app, "a"))["available"] == "12.50"
        for other in ({"amount": "12.51"}, {"fund": "granted"}, {"currency": "USD"}):
            with pytest.raises(Problem) as refused:
                await ask(desk, "POST", "/accounts/a/deposits", {**body, **other})
            assert refused.value.code == "caller.conflict"
        with pytest.raises(Problem, match="conflict"):
            await ask(desk, "POST", "/accounts/b/deposits", body)
        for _ in range(2):
            await ask(desk, "POST", "/accounts/b/deposits", {**MONEY, "fund": "granted", "amount": "0.000001"})
        assert (await balance(app, "b"))["granted"] == "0.000002"
        listed = (await ask(desk, "GET", "/accounts/b/deposits"))["data"]
        assert [row["amount"] for row in listed] == ["0.000001", "0.000001"]
        first = (await ask(desk, "GET", "/accounts/b/deposits", query="limit=1"))["data"]
        assert first == listed[:1]
        rest = (await ask(desk, "GET", "/accounts/b/deposits", query=f"before={first[0]['id']}"))["data"]
        assert rest == listed[1:]

    on_app(tmp_path, run)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "5\n"}, "amount"),
        ({"amount": "0.0000000000001"}, "amount"),
        ({"amount": "999999999999"}, "amount"),
        ({"amount": 5}, "amount"),
        ({"currency": "cny"}, "currency"),
        ({"currency": "CNY\n"}, "currency"),
        ({"fund": "cash"}, "fund"),
        ({"id": "pay:alipay:1"}, "id"),
        ({"id": "code\n"}, "id"),
        ({"note": "a\nb"}, "note"),
    ],
)
def test_what_is_no_deposit(tmp_path: Path, change: dict[str, Any], param: str) -> None:
    """Amounts are exact texts above nothing; an id cannot pass for that of a payment or a code."""

    async def run(app: App) -> Problem:
        with pytest.raises(Problem) as refused:
            await ask(app.platform, "POST", "/accounts/default/deposits", {**MONEY, **change})
        return refused.value

    problem = on_app(tmp_path, run)
    assert (problem.code, problem.param) == ("caller.invalid_value", param)


def test_packs(tmp_path: Path) -> None:
    """A pack is valid for a year unless said otherwise, happens once for its id, and is listed as it is drawn."""

    async def run(app: App) -> None:
        desk = app.platform
        pack = {"id": "p", "kind": "paid", "product": "tiny", "unit": "tokens", "units": 1000}
        for _ in range(2):
            made = await ask(desk, "POST", "/accounts/default/packs", pack)
        assert made["expires_at"] - made["bought_at"] == 365 * 86_400
        await ask(desk, "POST", "/accounts/default/packs", {**pack, "id": "t", "kind": "trial", "valid_days": 30})
        listed = (await ask(desk, "GET", "/accounts/default/packs"))["data"]
        assert [(row["id"], row["left"]) for row in listed] == [("t", 1000), ("p", 1000)]
        assert (await ask(desk, "GET", "/accounts/default"))["packs"] == listed
        for change, param in (({"units": 2000}, "id"), ({"product": "none", "id": "q"}, "product")):
            with pytest.raises(Problem) as refused:
                await ask(desk, "POST", "/accounts/default/packs", {**pack, **change})
            assert refused.value.param == param

    on_app(tmp_path, run)


@pytest.mark.parametrize("kind", ["money", "pack"])
def test_a_code_is_worth_one_credit(tmp_path: Path, kind: str) -> None:
    """Case 79: one code redeemed from 50 sessions of two accounts at once is one credit, of one of them; two codes for
    one account are two."""
    gift: dict[str, Any] = {"fund": "granted", "amount": "5", "currency": "CNY"}
    if kind == "pack":
        gift = {"kind": "trial", "product": "tiny", "units": 500, "valid_days": 10}

    async def worth(app: App, account: str) -> int:
        page = await ask(app.platform, "GET", f"/accounts/{account}")
        if kind == "money":
            return int(float(page["balance"]["granted"]) / 5)
        return sum(int(pack["left"]) for pack in page["packs"]) // 500

    async def run(app: App) -> None:
        desk = app.platform
        for account in ("a", "b"):
            await ask(desk, "POST", "/accounts", {"name": account})
        tokens = {account: await token_of(desk, f"of {account}", **{account: "owner"}) for account in ("a", "b")}
        made = (await ask(desk, "POST", "/codes", {"gift": gift, "count": 2, "note": "spring"}))["data"]

        async def redeem(account: str, code: str) -> Answer:
            path = f"{admin.BASE}/accounts/{account}/redeem"
            return await call(app.port, "POST", path, {"code": code}, tokens[account])

        first = await asyncio.gather(*(redeem("ab"[turn % 2], made[0]["code"]) for turn in range(50)))
        given = [answer for answer in first if answer.status == 200 and not answer.page["again"]]
        assert len(given) == 1
        assert await worth(app, "a") + await worth(app, "b") == 1
        winner = "a" if await worth(app, "a") else "b"
        for answer in first:
            assert answer.status in {200, 400, 429}
        again = await redeem(winner, made[0]["code"])
        assert again.page["again"] is True
        assert (await redeem(winner, made[1]["code"])).status == 200
        assert await worth(app, winner) == 2
        listed = {row["id"]: row for row in (await ask(desk, "GET", "/codes"))["data"]}
        assert all(listed[code["id"]]["redeemed_by"] == winner for code in made)
        assert made[0]["code"] not in json.dumps(listed)
        assert (await ask(desk, "GET", "/audit/verify"))["ok"] is True

    on_app(tmp_path, run)


def test_codes_that_are_not_valid(tmp_path: Path) -> None:
    """Mistyped, unknown, somebody else's and expired codes are one answer; ten wrong ones in an hour, and no other is
    looked at until it is over."""

    async def run(app: App) -> None:
        desk = app.platform
        for account in ("a", "b"):
            await ask(desk, "POST", "/accounts", {"name": account})
        gift = {"fund": "granted", "amount": "5", "currency": "CNY"}
        taken, free = (await ask(desk, "POST", "/codes", {"gift": gift, "count": 2}))["data"]
        await ask(desk, "POST", "/accounts/b/redeem", {"code": taken["code"]})
        wrong = ["", "mp-gift-x", taken["code"][:-1] + "_", taken["code"]]
        seen = set()
        for code in wrong:
            with pytest.raises(Problem) as refused:
                await ask(desk, "POST", "/accounts/a/redeem", {"code": code})
            seen.add((refused.value.code, refused.value.message, refused.value.param))
        assert len(seen) == 1
        for _ in range(7):
            with pytest.raises(Problem):
                await ask(desk, "POST", "/accounts/a/redeem", {"code": "mp-gift-x"})
        with pytest.raises(Problem) as refused:
            await ask(desk, "POST", "/accounts/a/redeem", {"code": free["code"]})
        assert refused.value.code == "account.rate"
        assert refused.value.retry_after_s
        assert (await ask(desk, "POST", "/accounts/b/redeem", {"code": free["code"]}))["again"] is False

    on_app(tmp_path, run)


CHANNELS = '[payments.ali]\nsecret = "env:ALI"\n[payments.wx]\nsecret = "env:WX"\n'
SECRETS = {"ALI": "a-secret-of-the-first-channel-0123456789", "WX": "a-secret-of-the-other-channel-0123456789"}
PAYMENT = {"event": "e1", "account": "default", "amount": "30", "currency": "CNY", "channel": "ali"}


async def pay(app: App, body: Any, key: str = SECRETS["ALI"], late_s: float = 0.0, header: str | None = None) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = payments.sign(key, int(app.platform.clock() - late_s), data) if header is None else header
    return await call(app.port, "POST", payments.PATH, data, fields={payments.HEADER: signature} if signature else {})


def test_a_payment_counts_once(tmp_path: Path) -> None:
    """Case 79: one event delivered 20 times, in parallel, is one deposit, logged once."""

    async def run(app: App) -> None:
        answers = await asyncio.gather(*(pay(app, PAYMENT) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert sorted(answer.page["again"] for answer in answers) == [False] + [True] * 19
        assert (await balance(app, "default"))["topped_up"] == "30.00"
        rows = (await ask(app.platform, "GET", "/audit"))["data"]
        made = [row for row in rows if row["actor"] == "payment ali" and "failed" not in row["detail"]]
        assert len(made) - sum("failed" in row["detail"] for row in rows) == 1
        assert (await pay(app, {**PAYMENT, "channel": "wx"}, SECRETS["WX"])).page["again"] is False

    on_app(tmp_path, run, CHANNELS, **SECRETS)


def test_payments_that_are_refused(tmp_path: Path) -> None:
    """Case 80: no signature, an old or a future one, one for other bytes, another channel's secret, and another amount,
    currency or account for a known event: refused, and nothing is booked."""

    async def run(app: App) -> None:
        assert (await pay(app, PAYMENT)).status == 200
        raw = json.dumps(PAYMENT).encode()
        good = payments.sign(SECRETS["ALI"], int(app.platform.clock()), raw)
        for answer in (
            await pay(app, PAYMENT, header=""),
            await pay(app, PAYMENT, header="t=,v1="),
            await pay(app, PAYMENT, header=good.partition(",")[0]),
            await pay(app, PAYMENT, header=good.replace("t=", "t=1")),
            await pay(app, PAYMENT, header=good + "é"),
            await pay(app, raw + b" ", header=good),
            await pay(app, PAYMENT, late_s=301.0),
            await pay(app, PAYMENT, late_s=-302.0),
            await pay(app, PAYMENT, SECRETS["WX"]),
            await pay(app, {**PAYMENT, "event": "e2"}, SECRETS["WX"]),
            await pay(app, {**PAYMENT, "channel": "none"}),
            await pay(app, b"{", header="t=1,v1=00"),
        ):
            assert (answer.status, answer.page["error"]["code"]) == (401, "invalid_signature")
        for change in ({"amount": "31"}, {"currency": "USD"}):
            answer = await pay(app, {**PAYMENT, **change})
            assert (answer.status, answer.page["error"]["code"]) == (409, "conflict")
        assert (await pay(app, {**PAYMENT, "event": "e3", "account": "nobody"})).status == 404
        assert (await pay(app, {**PAYMENT, "event": "e3", "amount": "0"})).status == 400
        assert (await pay(app, {**PAYMENT, "event": "e3", "price": 1})).status == 400
        assert (await pay(app, b"{")).status == 400
        assert (await call(app.port, "GET", payments.PATH)).status == 405
        assert (await balance(app, "default"))["topped_up"] == "30.00"
        assert len((await ask(app.platform, "GET", "/accounts/default/deposits"))["data"]) == 1

    on_app(tmp_path, run, CHANNELS, **SECRETS)


def test_no_secret_no_address(tmp_path: Path) -> None:
    """Case 80: without a channel there is no such address, whatever is signed with an empty secret."""

    async def run(app: App) -> None:
        assert (await pay(app, PAYMENT, "")).status == 404
        assert (await call(app.port, "GET", payments.PATH)).status == 404

    on_app(tmp_path, run)


@pytest.mark.parametrize(
    ("config", "environ", "key"),
    [
        ('[payments.ali]\nsecret = ""\n', {}, "payments.ali.secret"),
        ("[payments.ali]\n", {}, "payments.ali.secret"),
        ('[payments.ali]\nsecret = "env:ALI"\n', {}, "payments.ali.secret"),
        ('[payments.ali]\nsecret = "env:ALI"\n', {"ALI": "short"}, "payments.ali.secret"),
        (CHANNELS, {"ALI": "x" * 40, "WX": "x" * 40}, "payments"),
        ('[payments.ali]\nsecrt = "x"\n', {}, "payments.ali.secrt"),
    ],
)
def test_secrets_that_are_none(tmp_path: Path, config: str, environ: dict[str, str], key: str) -> None:
    """A channel whose secret is missing, short or another's keeps the server from starting."""

    async def run(app: App) -> None:
        raise AssertionError("it started")

    with pytest.raises(ConfigError) as refused:
        on_app(tmp_path, run, config, **environ)
    assert refused.value.key == key
