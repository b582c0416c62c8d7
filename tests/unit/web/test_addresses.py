"""Which addresses may a message go to that somebody else gave?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from moonpool.errors import Problem
from moonpool.web.addresses import Address, check_url, guarded, is_special

SPECIAL = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "not an address",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"]


@pytest.mark.parametrize("address", SPECIAL)
def test_special(address: str) -> None:
    """Whatever is not a public address, in whatever form it is written."""
    assert is_special(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """Public addresses stay usable, those inside of IPv6 forms too."""
    assert not is_special(address)


def test_one_special_answer_spoils_a_name() -> None:
    """A name of which any address is special leads nowhere; what is judged is what is handed on."""
    answers: dict[str, Sequence[Address]] = {
        "good": [(2, "1.1.1.1"), (10, "2606:4700:4700::1111")],
        "mixed": [(2, "1.1.1.1"), (2, "169.254.169.254")],
    }

    async def look_up(name: str, port: int) -> Sequence[Address]:
        return answers[name]

    resolve = guarded(look_up)
    assert asyncio.run(_of(resolve("good", 443))) == answers["good"]
    with pytest.raises(OSError, match="not public"):
        asyncio.run(_of(resolve("mixed", 443)))


async def _of(answer: object) -> object:
    return await answer  # type: ignore[misc]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "https://", "https:///x", "example.com", "https://u:p@example.com/",
        "https://example.com/#x", "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
        "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://example.com:99999/",
        "https://exa mple.com/", "https://example.com/\r\nx: y", "https://example.com\\@127.0.0.1/",
        "https://ex\u00e4mple.com/", "https://example.com/" + "x" * 2000, "https://[::1", "https://127.0.0.1./",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str) -> None:
    """Nothing but https and a name or a public address, without a password."""
    with pytest.raises(Problem) as refused:
        check_url(url, private=False)
    assert (refused.value.code, refused.value.param) == ("caller.invalid_value", "url")


@pytest.mark.parametrize(
    ("url", "private", "parts"),
    [
        ("https://example.com", False, ("https://example.com", "/")),
        ("https://example.com:8443/a?b=c", False, ("https://example.com:8443", "/a?b=c")),
        ("https://1.1.1.1/x", False, ("https://1.1.1.1", "/x")),
        ("https://[2606:4700:4700::1111]/x", False, ("https://[2606:4700:4700::1111]", "/x")),
        ("http://127.0.0.1:9000/x", True, ("http://127.0.0.1:9000", "/x")),
    ],
)
def test_addresses_that_are_taken(url: str, private: bool, parts: tuple[str, str]) -> None:
    """Taken apart into what is connected to and what is asked for."""
    assert check_url(url, private=private) == parts
