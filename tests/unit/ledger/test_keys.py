"""ledger/keys.py: the form of a key, and what is kept of it."""

from __future__ import annotations

import os
import re
from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonpool.ledger import keys


def test_a_new_key() -> None:
    """A key is the prefix, its public id, 43 random characters and a checksum; nothing of it is the same twice."""
    seen = set()
    for _ in range(50):
        key_id, text = keys.make(os.urandom)
        assert re.fullmatch(r"sk-mp-[0-9A-Za-z]{61}", text)
        assert text[6:18] == key_id == keys.public_id(text)
        assert keys.well_formed(text)
        seen |= {key_id, text[18:61]}
    assert len(seen) == 100


def test_a_key_depends_on_its_randomness_only() -> None:
    """The same randomness gives the same key, so that no other source is in it."""

    def counting() -> list[bytes]:
        return [bytes(range(each, each + 100)) for each in range(0, 150, 50)]

    def drawn(blocks: list[bytes]) -> tuple[str, str]:
        return keys.make(lambda count: blocks.pop(0)[:count])

    assert drawn(counting()) == drawn(counting())
    assert drawn(counting())[0] == "0123456789AB"


def test_all_characters_are_equally_likely() -> None:
    """Bytes that would favour some characters are thrown away."""
    every_byte = iter((*range(248, 256), *range(248)))
    text = keys._random_text(248, lambda count: bytes(next(every_byte, 0) for _ in range(256)))
    assert set(Counter(text).values()) == {4}
    assert len(Counter(text)) == 62


def test_a_mistyped_key_is_seen() -> None:
    """Any single wrong character, a missing or an added one, another case or prefix: not a key of ours."""
    _, text = keys.make(os.urandom)
    for place in range(len(text)):
        other = "b" if text[place] != "b" else "c"
        assert not keys.well_formed(text[:place] + other + text[place + 1 :])
        assert not keys.well_formed(text[:place] + text[place + 1 :])
    for wrong in ("", text + "a", text.upper(), text + "\n", " " + text, "sk-" + text[6:], "bench-key-123", "ａ" * 67):
        assert not keys.well_formed(wrong)
        with pytest.raises(ValueError, match="not a key"):
            keys.public_id(wrong)


@given(st.text(max_size=80))
def test_any_text_may_be_asked_about(text: str) -> None:
    """No text makes the check of form fail."""
    assert keys.well_formed(text) in {True, False}


def test_the_digest_is_of_the_whole_key() -> None:
    """SHA-256 over every character, for declared keys too."""
    assert keys.digest("bench-key-123") == sha256(b"bench-key-123").digest()
    assert keys.digest("bench-key-123") != keys.digest("bench-key-124")


def test_declared_keys_have_an_id() -> None:
    """A declared text has the same id every time, which has the form of an id and says nothing of the text."""
    key_id = keys.declared_id("bench-key-123")
    assert re.fullmatch(r"[0-9A-Za-z]{12}", key_id)
    assert key_id == keys.declared_id("bench-key-123")
    assert key_id != keys.declared_id("bench-key-124")
    own_id, text = keys.make(os.urandom)
    assert keys.declared_id(text) == own_id


def test_keys_are_the_same_for_ever() -> None:
    """Keys are out there and ids stand in books: the same randomness and the same text give what they always gave."""
    key_id, text = keys.make(lambda count: bytes(range(count)))
    assert (key_id, text[18:-6], text[-6:]) == ("0123456789AB", keys.ALPHABET[:43], "3KwEb7")
    assert keys.declared_id("bench-key-123") == "RCYGh3pS1RM0"


def test_masked() -> None:
    """What is shown of a key after its creation is its public id."""
    key_id, text = keys.make(os.urandom)
    assert keys.masked(key_id) == f"sk-mp-{key_id}…"
    assert text[18:] not in keys.masked(key_id)


def test_tokens_have_the_form_of_keys() -> None:
    """A token of a user differs from a key in its prefix only, so one is never taken for the other."""
    token_id, token = keys.make(os.urandom, keys.TOKEN_PREFIX)
    assert re.fullmatch(r"mp-op-[0-9A-Za-z]{61}", token)
    assert token[6:18] == token_id == keys.public_id(token, keys.TOKEN_PREFIX)
    assert keys.well_formed(token, keys.TOKEN_PREFIX)
    assert not keys.well_formed(token)
    _, key = keys.make(os.urandom)
    assert not keys.well_formed(key, keys.TOKEN_PREFIX)
    assert not keys.well_formed(keys.PREFIX + token[6:])
