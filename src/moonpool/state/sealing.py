"""What can be read only with a key that is not in the database.

AES-256-GCM with a random nonce for each text; the account and all marks of a thought are bound to it as associated
data, so a row that is moved to another account or another mark cannot be opened (so are the account and the key of a
stored answer). Marks are stored keyed as well: who has the database alone can neither read a thought nor test a guess
of what was said.

The key is a text of an operator's own (`vault.key`), or a file beside the database that the first start makes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

MARK_BYTES: Final = 16
_NONCE_BYTES: Final = 12


class Sealer:
    """`secret` is any text that nobody can guess; `randomness(n)` gives n random bytes; what is sealed for one
    `purpose` cannot be opened for another."""

    def __init__(
        self, secret: str, randomness: Callable[[int], bytes] = os.urandom, purpose: bytes = b"moonpool thought"
    ) -> None:
        # Imported here because only a server seals: commands need not wait for it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._refused = (InvalidTag, ValueError)
        self._cipher = AESGCM(_derived(secret, purpose))
        self._marks = _derived(secret, b"moonpool mark")
        self._randomness = randomness

    def mark(self, account: str, mark: bytes) -> bytes:
        """A mark of this account as it is stored."""
        named = blake2b(mark, key=self._marks, digest_size=MARK_BYTES)
        named.update(account.encode())
        return named.digest()

    def seal(self, account: str, marks: Sequence[bytes], text: str) -> bytes:
        """`marks` as they are stored."""
        return self.seal_bytes(_bound(account, marks), text.encode("utf-8", "surrogatepass"))

    def open(self, account: str, marks: Sequence[bytes], sealed: bytes) -> str | None:
        """None for what another key sealed, or what is not as it was written."""
        data = self.open_bytes(_bound(account, marks), sealed)
        return None if data is None else data.decode("utf-8", "surrogatepass")

    def seal_bytes(self, bound: bytes, data: bytes) -> bytes:
        """`bound` must be the same when it is opened."""
        nonce = self._randomness(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, bound)

    def open_bytes(self, bound: bytes, sealed: bytes) -> bytes | None:
        """None as `open`."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except self._refused:
            return None


def key_file(path: Path, randomness: Callable[[int], bytes] = os.urandom) -> None:
    """Make the file with a new key if there is none, for its owner only. Raises OSError."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.write(file, randomness(32).hex().encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def _derived(secret: str, purpose: bytes) -> bytes:
    return blake2b(secret.encode(), digest_size=32, key=purpose).digest()


def _bound(account: str, marks: Sequence[bytes]) -> bytes:
    return b"".join((*marks, account.encode()))
