"""Passwords, users and TLS between us and the store of limits: who gets in, who does not, and what operators read then.

Valkey as it comes in its wheel speaks no TLS: a proxy before it does, as in many installations.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
import uvloop

from faults.sink import Clock
from faults.stage import Stage, good, play, until
from faults.upstream import FaultProxy
from moonpool.app import App
from moonpool.cli import doctor
from moonpool.settings import ConfigError, Settings
from moonpool.settings_hosts import Embedded
from moonpool.state.valkey import ValkeyLimiter
from moonpool.state.valkey_link import Link
from moonpool.state.valkey_trouble import LinkError
from moonpool.words import Account, Key, Limits
from valkey_server import ValkeyServer, valkey_server

SECRET = "pa:ss/w@rd?#%-of-all"
OWN = "secret of the user's own"
PATIENT_S = 5.0
HASTY_S = 0.1
NOW = 1_700_000_000.0
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "many-machines.md"
(RULES,) = re.findall(r"^user moonpool on >PASSWORD (.+)$", GUIDE.read_text("utf-8"), re.MULTILINE)
COMMANDS = re.findall(r"\+([a-z|]+)", RULES)
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
BOTH_LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def running() -> Iterator[ValkeyServer]:
    with valkey_server(password=SECRET) as server:
        yield server


@pytest.fixture
def server(running: ValkeyServer) -> ValkeyServer:
    """An empty one that wants a password, and lets the user of the guide in."""
    running.ask("FLUSHALL")
    running.ask("ACL", "SETUSER", "moonpool", "reset", "on", f">{OWN}", *RULES.split())
    return running


def address(port: int, user: str = "moonpool", secret: str = OWN, scheme: str = "valkey", rest: str = "/0") -> str:
    return f"{scheme}://{quote(user)}:{quote(secret, safe='')}@127.0.0.1:{port}{rest}"


@contextlib.asynccontextmanager
async def linked(url: str, call_s: float = PATIENT_S) -> AsyncIterator[Link]:
    link = Link(url, call_s=call_s)
    try:
        yield link
    finally:
        await link.close()


async def refusal(url: str, call_s: float = PATIENT_S) -> str:
    """What the link says when it is used."""
    async with linked(url, call_s) as link:
        with pytest.raises(LinkError) as refused:
            await link.call([(4, "n", 15)], NOW)
    return str(refused.value)


async def everything(url: str) -> None:
    """All that a limiter does, by way of this address."""
    limiter = ValkeyLimiter(
        Link(url, call_s=PATIENT_S),
        lambda request_id: None,
        node="n",
        clock=lambda: NOW,
        note=lambda event, **facts: None,
    )
    await limiter.start(NOW)
    key = Key("k", "a", limits=Limits(concurrency=5, requests_per_minute=5, tokens_per_minute=50))
    account = Account("a", "a", True, 5, None, False, 9, 90)
    assert not (await limiter.take("x", account, key, 10, NOW)).refused
    assert not (await limiter.take("y", Account("a", "a", True, 5), Key("l", "a"), 10, NOW)).refused
    await limiter.renew(NOW)
    assert await limiter.held("a", NOW) == 2
    limiter.give("x", "a", 3, NOW)
    limiter.give("y", "a", 3, NOW)
    assert await limiter.held("a", NOW) == 0
    assert limiter.trouble() is None
    await limiter.stop()


@BOTH_LOOPS
def test_who_is_let_in(run: Any, server: ValkeyServer) -> None:
    """With the password of all, with a user's own, over a socket and with another database, and whatever characters
    are in it: everything can be done."""

    async def act() -> None:
        async with FaultProxy(f"{server.folder}/s") as proxy:
            for url in (
                f"redis://:{quote(SECRET, safe='')}@127.0.0.1:{proxy.port}",
                address(proxy.port, "default", SECRET, "redis"),
                address(proxy.port),
                address(proxy.port, rest="/3"),
                f"unix://moonpool:{quote(OWN)}@{server.folder}/s",
            ):
                await everything(url)

    run(act())


def test_the_rights_of_the_guide(server: ValkeyServer) -> None:
    """The user of the guide needs each right that it names: without one the very first call says which is missing,
    not the first request that has a rate. Only the library's name is not insisted on."""

    async def act() -> None:
        async with FaultProxy(f"{server.folder}/s") as proxy:
            url = address(proxy.port, rest="/1")
            for command in COMMANDS:
                server.ask("SCRIPT", "FLUSH")
                async with linked(url) as link:
                    if command == "eval":  # is wanted where the store has forgotten the script
                        await link.call([(4, "n", 15)], NOW)
                        server.ask("SCRIPT", "FLUSH")
                    server.ask("ACL", "SETUSER", "moonpool", f"-{command}")
                    if command == "client|setinfo":
                        await link.call([(4, "n", 15)], NOW)
                    else:
                        with pytest.raises(LinkError, match=re.escape(f"limits need ({command})")) as refused:
                            await link.call([(4, "n", 15)], NOW)
                        assert refused.value.lasting
                server.ask("ACL", "SETUSER", "moonpool", f"+{command}")
            await everything(url)
            server.ask("ACL", "SETUSER", "moonpool", "resetkeys", "~other:*")
            assert "does not let it do what limits need" in await refusal(url)

    asyncio.run(act())


def test_redis_lets_the_same_user_in() -> None:
    """The line of the guide holds for Redis 6.2 as well, and so do the sentences."""

    async def act() -> None:
        with valkey_server("redis", password=SECRET) as redis:
            redis.ask("ACL", "SETUSER", "moonpool", "reset", "on", f">{OWN}", *RULES.split())
            url = f"unix://moonpool:{quote(OWN)}@{redis.folder}/s"
            await everything(url)
            redis.ask("ACL", "SETUSER", "moonpool", "-set")
            assert "does not let it do what limits need" in await refusal(url)
            redis.ask("ACL", "SETUSER", "moonpool", "+set", "resetkeys", "~other:*")
            assert "does not let it do what limits need" in await refusal(url)
            assert "refuses the user or the password" in await refusal(redis.url)

    asyncio.run(act())


@BOTH_LOOPS
@pytest.mark.parametrize(
    "wrong", [("moonpool", "wrong-secret"), ("nobody", OWN), ("default", "wrong-secret"), None], ids=str
)
def test_who_is_not_let_in(run: Any, server: ValkeyServer, wrong: tuple[str, str] | None) -> None:
    """A wrong password, a user that is not there, no password at all: one sentence, without any of them."""

    async def act() -> None:
        async with FaultProxy(f"{server.folder}/s") as proxy:
            plain = f"valkey://127.0.0.1:{proxy.port}"
            said = await refusal(plain if wrong is None else address(proxy.port, *wrong))
            refused = "refuses the user or the password of the address, or wants one that it does not have"
            assert said == f"the store of limits {refused}"

    run(act())


def test_a_wrong_password_is_told_to_operators(
    server: ValkeyServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A server starts with it, as with a store that cannot be reached, and serves its share; the log, /ready, the
    status and doctor say what is wrong, and none of them the password. When it is right, all is well by itself."""
    wrong = "wrong-secret-of-an-operator"

    async def act(here: Stage) -> None:
        async def warned() -> str:
            page = (await here.get("/ready")).json
            assert page["status"] == "ready"
            return str(page.get("warnings", {}).get("limits", ""))

        async def checks() -> list[doctor.Finding]:
            return [await asyncio.to_thread(check, here.app.settings) for check in (doctor.server, doctor.limits)]

        platform = here.app.platform
        await until(lambda: "password" in (platform.limiter.trouble() or ""), "it is found out")
        said = await warned()
        assert "refuses the user or the password" in said
        assert b"\nmoonpool_limits_ready 0.0\n" in (await here.get("/metrics")).body
        assert (await here.ask()).status == 200
        found = await checks()
        assert [finding.state for finding in found] == ["warn", "fail"]
        assert all(said in finding.says and finding.do for finding in found)
        assert wrong not in str(found)
        server.ask("ACL", "SETUSER", "moonpool", f">{wrong}")
        platform.limiter.tick(platform.monotonic())
        await until(lambda: platform.limiter.trouble() is None, "it is let in")
        assert await warned() == ""
        found = await checks()
        assert [finding.state for finding in found] == ["ok", "ok"]

    url = f"unix://moonpool:{wrong}@{server.folder}/s"
    play(tmp_path, good, act=act, limits=url, limits_call_s=PATIENT_S)
    log = capfd.readouterr().err
    assert "refuses the user or the password" in log
    assert "back_after_s" in log
    assert wrong not in log


def test_a_password_that_was_changed(server: ValkeyServer) -> None:
    """Whose connection is ended and whose password no longer holds: the log says so once, after it said that the store
    was lost."""

    async def act() -> None:
        notes: list[dict[str, Any]] = []
        clock = Clock(NOW)
        link = Link(f"unix://moonpool:{quote(OWN)}@{server.folder}/s", call_s=PATIENT_S)
        limiter = ValkeyLimiter(
            link, lambda request_id: None, node="n", clock=clock, note=lambda event, **facts: notes.append(facts)
        )
        await limiter.start(clock.at)
        server.ask("ACL", "SETUSER", "moonpool", "resetpass", ">another")
        server.ask("CLIENT", "KILL", "USER", "moonpool")
        await limiter.renew(clock.at)
        for _ in range(3):
            clock.at += 1.0
            limiter.tick(clock.at)
            await until(lambda: limiter._probe_task is None, "it was asked")
        assert len(notes) == 2
        assert "ended the connection" in notes[0]["lost"]
        assert "refuses the user or the password" in notes[1]["lost"] == limiter.trouble()
        await limiter.stop()

    asyncio.run(act())


# TLS.


def serving(*names: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def written(authority: trustme.CA, folder: Path) -> str:
    path = folder / f"{id(authority)}.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@BOTH_LOOPS
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls(run: Any, server: ValkeyServer, tmp_path: Path, scheme: str) -> None:
    """With a certificate of the authority that the address names, for the name in it, everything can be done."""

    async def act() -> None:
        trusted = f"?ssl_ca_certs={written(AUTHORITY, tmp_path)}"
        async with FaultProxy(f"{server.folder}/s", context=serving("localhost", "127.0.0.1")) as proxy:
            url = address(proxy.port, scheme=scheme, rest=f"/2{trusted}")
            await everything(url)
            await everything(url.replace("127.0.0.1", "localhost").replace("/2?", "?"))

    run(act())


@BOTH_LOOPS
@pytest.mark.parametrize(
    ("names", "trusted", "says"),
    [
        ("127.0.0.1", STRANGER, "the certificate of the store of limits is not trusted: "),
        ("127.0.0.1", None, "the certificate of the store of limits is not trusted: "),
        ("elsewhere.test", AUTHORITY, "is not trusted: IP address mismatch"),
    ],
    ids=["another authority", "the system's authorities", "another name"],
)
def test_tls_that_is_not_trusted(
    run: Any, server: ValkeyServer, tmp_path: Path, names: str, trusted: trustme.CA | None, says: str
) -> None:
    """A certificate of another authority, or for another name, ends it before a password is sent."""

    async def act() -> None:
        rest = "" if trusted is None else f"?ssl_ca_certs={written(trusted, tmp_path)}"
        async with FaultProxy(f"{server.folder}/s", context=serving(names)) as proxy:
            assert says in await refusal(address(proxy.port, scheme="valkeys", rest=rest))

    run(act())


def test_only_the_authority_that_is_named(
    server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `ssl_ca_certs` the system's authorities are trusted; with it they are not."""
    monkeypatch.setenv("SSL_CERT_FILE", written(AUTHORITY, tmp_path))

    async def act() -> None:
        async with FaultProxy(f"{server.folder}/s", context=serving("127.0.0.1")) as proxy:
            await everything(address(proxy.port, scheme="valkeys"))
            rest = f"?ssl_ca_certs={written(STRANGER, tmp_path)}"
            assert "is not trusted" in await refusal(address(proxy.port, scheme="valkeys", rest=rest))

    asyncio.run(act())


@BOTH_LOOPS
def test_tls_with_a_certificate_of_our_own(run: Any, server: ValkeyServer, tmp_path: Path) -> None:
    """A store that wants one of its clients gets the one that the address names, and refuses who has none."""

    async def act() -> None:
        own = AUTHORITY.issue_cert("moonpool.test")
        own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
        own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        trusted = f"?ssl_ca_certs={written(AUTHORITY, tmp_path)}"
        async with FaultProxy(f"{server.folder}/s", context=serving("127.0.0.1", clients=AUTHORITY)) as proxy:
            for rest in (
                f"{trusted}&ssl_certfile={tmp_path}/both.pem",
                f"{trusted}&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem",
            ):
                await everything(address(proxy.port, scheme="valkeys", rest=rest))
            said = await refusal(address(proxy.port, scheme="valkeys", rest=trusted))
            assert re.search("TLS with the store of limits failed|a certificate of ours", said)

    run(act())


@BOTH_LOOPS
def test_one_side_without_tls(run: Any, server: ValkeyServer) -> None:
    """TLS towards a store that speaks none, and none towards one that does: a sentence, in time."""

    async def act() -> None:
        async with FaultProxy(f"{server.folder}/s") as proxy:
            said = await refusal(address(proxy.port, scheme="valkeys", rest=""), HASTY_S)
            assert "the store of limits" in said  # it waits for the rest of a command
        async with FaultProxy(f"{server.folder}/s", context=serving("127.0.0.1")) as proxy:
            said = await refusal(address(proxy.port))
            assert "ended the connection before it said anything (does it want TLS" in said

    run(act())


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("ssl_ca_certs=/not/there.pem", "ssl_ca_certs that cannot be used (No such file or directory)"),
        ("ssl_ca_certs={folder}/text", "ssl_ca_certs that cannot be used (NO_CERTIFICATE_OR_CRL_FOUND)"),
        ("ssl_certfile={folder}/text", "ssl_certfile that cannot be used (it does not hold what it must)"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, option: str, says: str) -> None:
    """A file of the address that is not there, or holds no certificate, keeps a server from starting, and doctor says
    the same."""
    (tmp_path / "text").write_text("nothing of the kind")
    url = f"valkeys://u:{SECRET.partition('/')[0]}@127.0.0.1:1?{option.format(folder=tmp_path)}"
    settings = Settings(home=str(tmp_path / "home"), port=0, limits=url, embedded=Embedded(enabled=False))

    with pytest.raises(ConfigError) as refused:
        asyncio.run(App(settings, {}).start())
    assert refused.value.key == "limits"
    assert says in refused.value.sentence
    assert "pa:ss" not in str(refused.value)
    finding = doctor.limits(settings)
    assert finding.state == "fail"
    assert says in finding.says


# A store that answers, and cannot do it.


def test_a_replica() -> None:
    """One that takes no writes is said to be that."""
    with valkey_server(options=("--replicaof", "127.0.0.1", "1")) as server:
        assert "is a replica" in asyncio.run(refusal(server.url))


def test_a_store_without_room(server: ValkeyServer) -> None:
    """One whose memory is full is used all the same: what limits write there is little, and ends."""

    async def act() -> None:
        url = f"unix://moonpool:{quote(OWN)}@{server.folder}/s"
        server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            await everything(url)
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")

    asyncio.run(act())
