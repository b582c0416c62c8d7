"""The admin routes and the pages for machines, asked of a real platform without a socket in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from admin_rig import on_platform
from moonpool.errors import Problem
from moonpool.relay.platform import Platform
from moonpool.web import admin, ops
from moonpool.words import Usage


def test_a_key_lives_and_dies(tmp_path: Path) -> None:
    """A key's secret is in the answer of its creation only, and a deleted key is gone."""

    async def run(platform: Platform) -> None:
        body = json.dumps({"name": "mine", "switches": {"keepalive": "off"}}).encode()
        status, made = await admin.handle(platform, "POST", "/keys", "", body)
        assert status == 201
        assert isinstance(made, dict)
        listed: Any = (await admin.handle(platform, "GET", "/admin/v1/keys", "account=default"))[1]
        (row,) = [row for row in listed["data"] if row["id"] == made["id"]]
        assert row["switches"] == {"keepalive": "off"}
        assert made["key"] not in json.dumps(listed)
        assert (await admin.handle(platform, "DELETE", f"/keys/{made['id']}"))[0] == 200
        with pytest.raises(Problem, match="not_found"):
            await admin.handle(platform, "DELETE", f"/keys/{made['id']}")

    on_platform(tmp_path, run)


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "code", "param"),
    [
        ("GET", "/nowhere", "", b"", "caller.not_found", None),
        ("PATCH", "/keys", "", b"", "caller.wrong_method", None),
        ("GET", "/keys", "acount=x", b"", "caller.invalid_value", "acount"),
        ("GET", "/keys", "account=nobody", b"", "caller.not_found", "account"),
        ("POST", "/keys", "", b"{", "caller.malformed", None),
        ("POST", "/keys", "", b"\xff", "caller.malformed", None),
        ("POST", "/keys", "", b'{"name": 5}', "caller.invalid_value", "name"),
        ("POST", "/keys", "", b'{"nam": "x"}', "caller.invalid_value", None),
        ("POST", "/keys", "", b'{"switches": {"usage": "no"}}', "caller.invalid_value", "switches.usage"),
        ("POST", "/keys", "", b'{"name": "a\\nb"}', "caller.invalid_value", "name"),
        ("POST", "/accounts", "", b"{}", "caller.invalid_value", None),
        ("POST", "/accounts", "", b'{"name": "default"}', "caller.invalid_value", "name"),
        ("POST", "/accounts", "", b'{"name": "x", "concurrency": 0}', "caller.invalid_value", "concurrency"),
        ("GET", "/models/none", "", b"", "caller.unknown_model", "model"),
        ("POST", "/hosts/check", "host=none", b"", "caller.invalid_value", "host"),
    ],
)
def test_refusals(
    tmp_path: Path, method: str, path: str, query: str, body: bytes, code: str, param: str | None
) -> None:
    """What cannot be done is a Problem of the caller's that names the field; nothing else escapes."""

    async def run(platform: Platform) -> Problem:
        with pytest.raises(Problem) as refused:
            await admin.handle(platform, method, path, query, body)
        return refused.value

    problem = on_platform(tmp_path, run)
    assert (problem.code, problem.param) == (code, param)


def test_every_route_that_reads_answers(tmp_path: Path) -> None:
    """Every GET route without names in its path answers 200 with something JSON can say."""

    async def run(platform: Platform) -> None:
        for route in admin.ROUTES:
            if route.method == "GET" and "{" not in route.path:
                status, page = await admin.handle(platform, "GET", route.path)
                assert status == 200
                assert json.dumps(page)
            assert route.says.endswith(".")

    on_platform(tmp_path, run)


def test_metrics_are_prometheus_and_all_are_documented(tmp_path: Path) -> None:
    """/metrics parses, holds only rows of METERS and of the process, counts what was counted, bounds its labels."""

    async def run(platform: Platform) -> str:
        platform.meters.count("tiny", "far", 200, "stop", 0.02, 0.3, Usage(3, 2, 7, 1))
        platform.meters.count("tiny", "far", 200, "word of a host", None, 0.3, Usage())
        platform.meters.count("tiny", "far", 502, "upstream.failed", None, 700.0, Usage())
        page = ops.handle(platform, "/metrics")
        assert page is not None
        assert page[0] == 200
        return page[2].decode()

    text = on_platform(tmp_path, run)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    documented = {meter.name.removesuffix("_total") for meter in ops.METERS}
    assert {name for name in families if not name.startswith("process_")} <= documented
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    asked = (("host", "far"), ("model", "tiny"), ("status", "200"))
    assert samples["moonpool_requests_total", asked] == 2
    assert samples["moonpool_ends_total", (("cause", "other"),)] == 1
    assert samples["moonpool_ends_total", (("cause", "upstream.failed"),)] == 1
    assert samples["moonpool_tokens_total", (("class", "completion"), ("model", "tiny"))] == 7
    assert samples["moonpool_first_byte_seconds_count", ()] == 1
    assert samples["moonpool_first_byte_seconds_bucket", (("le", "0.025"),)] == 1
    assert samples["moonpool_request_seconds_bucket", (("le", "300.0"),)] == 2
    assert samples["moonpool_request_seconds_bucket", (("le", "+Inf"),)] == 3


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        ({"store": "ok", "embedded": None}, set()),
        ({"store": "ok", "embedded": {"state": "ready"}}, set()),
        ({"store": "ok", "embedded": {"state": "loading"}}, {"embedded"}),
        ({"store": "the disk is full", "embedded": {"state": "absent"}}, {"embedded", "store"}),
    ],
)
def test_what_is_waited_for(parts: dict[str, Any], reasons: set[str]) -> None:
    """A server is ready when its store can be written and its embedded model, if it has one, answers."""
    assert set(ops.unready(parts)) == reasons


def test_what_is_warned_of() -> None:
    """A lost store of limits keeps nobody from being asked: it is said, and the server stays ready."""
    parts = {"store": "ok", "embedded": None, "limits": "the store of limits did not answer in time"}
    assert ops.unready(parts) == {}
    assert ops.warnings(parts) == {"limits": "the store of limits did not answer in time"}
    assert ops.warnings({"limits": "ok"}) == ops.warnings({}) == {}


def test_pages(tmp_path: Path) -> None:
    """Alive at once, ready when all is there, a page for a person, and nothing at other addresses."""

    async def run(platform: Platform) -> None:
        for path in ("/health", "/ready", "/"):
            page = ops.handle(platform, path)
            assert page is not None
            assert page[0] == 200
        assert ops.handle(platform, "/admin/v1/keys") is None

    on_platform(tmp_path, run)
