"""Settings are read whole or refused with file, key and a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from moonpool.settings import ConfigError, Declared, Secret, Settings, address_of, load, masked, secret
from moonpool.settings_page import describe

REFUSED = [
    # what the file says; key; a part of the sentence
    ("prot = 1", "prot", "did you mean port?"),
    ("[edge]\nhead = 1", "edge.head", "did you mean edge.head_s?"),
    ("[stream]\nkeepalive_s = 1", "stream", "did you mean streams?"),
    ("zzzzzz = 1", "zzzzzz", "there is: home, host, port"),
    ("file = 'x'", "file", "is no setting"),
    ("[[accounts]]\nname = 'a'\nkey = 'x'", "accounts[0].key", "did you mean accounts[0].keys?"),
    ("[[accounts]]\nkeys = []", "accounts[0]", "`name`"),
    ("[[accounts]]\nname = ''", "accounts[0].name", "length >= 1"),
    ("[[accounts]]\nname = 'a'\nconcurrency = 0", "accounts[0].concurrency", "a whole number >= 1"),
    ("[[accounts]]\nname = 'a'\n[[accounts]]\nname = 'a'", "accounts", "a is declared twice"),
    ("port = 65536", "port", "a whole number <= 65535"),
    ("port = '80'", "port", "expected a whole number, got text"),
    ("port = 80.5", "port", "expected a whole number, got a number"),
    ("port = true", "port", "got true or false"),
    ("[edge]\nhead_s = 0", "edge.head_s", "a number > 0"),
    ("[edge]\nhead_s = nan", "edge.head_s", "a number > 0"),
    ("[edge]\ntrusted_proxies = ['10.0.0.1/8']", "edge.trusted_proxies", "10.0.0.1/8 has host bits set"),
    ("[edge]\ntrusted_proxies = ['proxy.internal']", "edge.trusted_proxies", "like 10.0.0.0/8"),
    ("[streams]\nusage = 'both'", "streams.usage", "'both'"),
    ("[embedded]\nthinks = 'maybe'", "embedded.thinks", "'maybe'"),
    ("edge = 3", "edge", "expected a table"),
    ("hosts = 3", "hosts", "expected a table"),
    ("host = ''", "host", "length >= 1"),
    ("workers = 2", "workers", "set workers to 1"),
    ("workers = 0", "workers", "a whole number >= 1"),
    ("store = 'mysql://db/x'", "store", "is not supported"),
    ("store = 'postgresql://db'", "store", "postgresql://USER@HOST:PORT/DATABASE"),
    ("store = 'postgresql://db:port/x'", "store", "postgresql://USER@HOST:PORT/DATABASE"),
    ("store = 'postgresql://me:secret@db/x'", "store", "PGPASSWORD"),
    ("store = 'postgresql://db/x?password=secret'", "store", "PGPASSWORD"),
    ("store = 'postgresql://db/x'\nworkers = 2", "workers", "limits"),
    ("store = 'sqlite://x'", "store", "sqlite:///FILE"),
    ("store = 'sqlite:///:memory:'", "store", "sqlite:///FILE"),
    ("limits = 'valkey:cache'", "limits", "valkey://HOST:PORT/DB"),
    ("limits = 'memcached://cache'", "limits", "valkey://HOST:PORT/DB"),
    ("limits = 'valkey://cache:6379/zero'", "limits", "valkey://HOST:PORT/DB"),
    ("limits = 'unix://socket'", "limits", "unix:///SOCKET"),
    ("limits = 'valkey://cache:port'", "limits", "valkey://HOST:PORT/DB"),
    ("limits = 'valkey://u:p[w@cache'", "limits", "valkey://HOST:PORT/DB"),
    ("limits = 'valkey://u:p/w@cache'", "limits", "%2F"),
    ("limits = 'redis://:p?w@cache'", "limits", "%3F"),
    ("limits = 'redis://:1?w@cache'", "limits", "and no others"),
    ("limits = 'valkeys://cache?ssl_cert_reqs=none'", "limits", "ssl_ca_certs, ssl_certfile, ssl_keyfile"),
    ("limits = 'valkeys://cache?ssl_ca_certs=ca.pem'", "limits", "whole paths"),
    ("limits = 'valkeys://cache?ssl_ca_certs='", "limits", "whole paths"),
    ("limits = 'valkeys://cache?ssl_keyfile=/key.pem'", "limits", "without its certificate"),
    ("limits = 'valkey://cache?ssl_ca_certs=/ca.pem'", "limits", "valkeys://"),
    ("port == 1", "", "is not TOML"),
]


def read(folder: Path, text: str, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    file = folder / "moonpool.toml"
    file.write_text(text)
    return load(file, environ or {}, {"home": str(folder), **overrides})


@pytest.mark.parametrize(("text", "key", "says"), REFUSED)
def test_refused_with_file_key_and_sentence(tmp_path: Path, text: str, key: str, says: str) -> None:
    """A misspelt key, a wrong type, a value out of bounds, an unsafe choice: each is refused and named."""
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, text)
    error = refusal.value
    assert error.file == str(tmp_path / "moonpool.toml")
    assert error.key == key
    assert says in error.sentence
    assert str(error).count("\n") == 0


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "valkey://cache",
        "valkeys://cache:6380",
        "redis://u:p@cache:6379/1",
        "rediss://cache",
        "unix:///s",
        "valkeys://:p@cache:6380/1?ssl_ca_certs=/ca.pem",
        "rediss://cache?ssl_ca_certs=/ca.pem&ssl_certfile=/cert.pem&ssl_keyfile=/key.pem",
        "env:LIMITS",
        "file:/run/limits",
    ],
)
def test_where_limits_can_be_kept(tmp_path: Path, url: str) -> None:
    """In memory, or in a Valkey or Redis, by address or socket."""
    assert read(tmp_path, f"limits = '{url}'").limits == url


def test_where_limits_are_kept_may_be_hidden(tmp_path: Path) -> None:
    """An address with a password may stand in the environment or in a file; what is wrong is said without it."""
    file = tmp_path / "address"
    file.write_text("valkey://u:secret@cache:6379/1\n")
    file.chmod(0o600)
    elsewhere = read(tmp_path, f"limits = 'file:{file}'")
    assert address_of(elsewhere, {}, "limits") == "valkey://u:secret@cache:6379/1"
    assert address_of(read(tmp_path, "limits = 'valkey://cache'"), {}, "limits") == "valkey://cache"
    for address in ("", "memory://", "valkey://u:secret@cache:port", "redis://u:secr/et@cache"):
        with pytest.raises(ConfigError) as refusal:
            address_of(read(tmp_path, "limits = 'env:LIMITS'"), {"LIMITS": address}, "limits")
        assert refusal.value.key == "limits"
        assert "secr" not in str(refusal.value)


def test_limits_that_need_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py the sentence says what to install."""
    monkeypatch.setattr("moonpool.settings.find_spec", lambda name: None)
    assert read(tmp_path, "limits = 'memory://'").limits == "memory://"
    with pytest.raises(ConfigError, match=r"pip install redis"):
        read(tmp_path, "limits = 'valkey://cache'")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """`--config` with a name that is no file is refused, not passed over."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml", {}, {})


def test_no_file_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file everything has its default, and state lives below the user's data folder."""
    monkeypatch.chdir(tmp_path)
    settings = load(None, {"HOME": "/home/u"}, {})
    assert settings.home == "/home/u/.local/share/moonpool"
    assert settings.file == ""
    assert msgspec.structs.replace(settings, home="") == Settings()
    assert load(None, {"HOME": "/home/u", "MOONPOOL_HOME": "/state"}, {}).home == "/state"


def test_the_file_is_found_here_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moonpool.toml of the working folder goes before the one in home."""
    here, home = tmp_path / "here", tmp_path / "home"
    for folder, port in ((home, 2), (here, 1)):
        folder.mkdir()
        (folder / "moonpool.toml").write_text(f"port = {port}")
    monkeypatch.chdir(here)
    assert load(None, {}, {"home": str(home)}).port == 1
    (here / "moonpool.toml").unlink()
    assert load(None, {}, {"home": str(home)}).port == 2


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    """What was typed holds, dotted names reach into tables, None says nothing; both are checked."""
    settings = read(tmp_path, "port = 1\n[edge]\nhead_s = 3", **{"port": 2, "edge.body_s": 4, "host": None})
    assert (settings.port, settings.edge.head_s, settings.edge.body_s) == (2, 3.0, 4.0)
    assert settings.host == "127.0.0.1"
    with pytest.raises(ConfigError, match="port"):
        read(tmp_path, "", port=70_000)
    with pytest.raises(ConfigError, match="edge"):
        read(tmp_path, "edge = 3", **{"edge.body_s": 4})


def test_the_store_lies_in_home_unless_it_is_absolute(tmp_path: Path) -> None:
    """A relative file is below home, an absolute one is where it says."""
    assert read(tmp_path, "").store_path() == tmp_path / "moonpool.db"
    assert read(tmp_path, "store = 'sqlite:////var/x.db'").store_path() == Path("/var/x.db")


def test_tables_of_the_catalogue_come_through(tmp_path: Path) -> None:
    """`hosts` and `models` are handed on as they stand; the catalogue checks them."""
    settings = read(tmp_path, "[hosts.mine]\nanything = 1\n[models.m]\nhosts = ['mine']")
    assert settings.hosts == {"mine": {"anything": 1}}
    assert settings.models == {"m": {"hosts": ["mine"]}}


def test_every_setting_explains_itself() -> None:
    """Each has a help sentence and a default, and its default passes its own bounds."""
    rows = describe()
    assert len({row.path for row in rows}) == len(rows)
    for row in rows:
        assert row.help.endswith("."), row.path
        assert row.default or row.path.startswith(("hosts", "models", "calendars", "holidays")), row.path
    assert "file" not in {row.path for row in rows}
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()


def test_every_setting_of_the_issue_is_there() -> None:
    """Names that other rooms and operators' files rely on."""
    paths = {row.path for row in describe()}
    wanted = """home host port workers store limits edge.head_s edge.body_s edge.body_bytes_max
        edge.idle_s edge.stall_s edge.high_water_bytes edge.connections_max
        edge.drain_s streams.keepalive_s streams.usage upstream.connect_s upstream.first_s upstream.gap_s
        upstream.total_s upstream.body_bytes_max upstream.head_bytes_max
        upstream.connections_max upstream.idle_s embedded.enabled embedded.model embedded.context embedded.parallel
        embedded.threads embedded.thinking_budget_tokens embedded.thinks embedded.start_s log.requests
        accounts[].name accounts[].keys accounts[].post_paid accounts[].concurrency"""
    assert set(wanted.split()) <= paths


def test_a_secret_is_itself_or_comes_from_elsewhere(tmp_path: Path) -> None:
    """Literal, `env:NAME` and `file:/path`; what is around the text in a file does not count."""
    file = tmp_path / "key"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    assert secret("literal", {}, "k") == "literal"
    assert secret("env:A", {"A": "from-env"}, "k") == "from-env"
    assert secret(f"file:{file}", {}, "k") == "from-a-file"


@pytest.mark.parametrize(("mode", "content", "says"), [(0o644, "s", "chmod 600"), (0o600, " \n", "is empty")])
def test_an_unsafe_secret_file_is_refused(tmp_path: Path, mode: int, content: str, says: str) -> None:
    """A file that everybody can read, or that holds nothing, is refused by name."""
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=says) as refusal:
        secret(f"file:{file}", {}, "hosts.mine.api_key")
    assert refusal.value.key == "hosts.mine.api_key"


@pytest.mark.parametrize("text", ["", "env:NOT_THERE", "env:EMPTY", "file:/not/there"])
def test_a_missing_secret_is_refused(text: str) -> None:
    """Nothing stands for a secret that is not there."""
    with pytest.raises(ConfigError):
        secret(text, {"EMPTY": ""}, "k")


@pytest.mark.parametrize(
    "text", ["changeme", "change-me", "Secret", "password", "sk-xxxxxxxx", "your-api-key", "<key>"]
)
def test_a_declared_key_that_anybody_guesses_is_refused(text: str) -> None:
    """Placeholders from documentation are not keys."""
    with pytest.raises(ConfigError, match="guess"):
        Declared("a", [text]).secrets({})
    assert Declared("a", ["sk-bench-1234"]).secrets({}) == ["sk-bench-1234"]


def test_a_secret_hides_in_dumps_and_nowhere_else() -> None:
    """`repr` shows the last four characters at most; what is sent is the text itself."""
    hidden = Secret("sk-0123456789abcdef")
    assert "0123456789" not in repr({"key": hidden})
    assert repr(hidden).endswith("cdef'")
    assert f"Bearer {hidden}" == "Bearer sk-0123456789abcdef"
    assert masked("short") == "****"
    assert masked("env:NAME") == "env:NAME"
