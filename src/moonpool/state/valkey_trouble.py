"""What is wrong with the store of limits, in a sentence for operators.

Rule: none of it is the library's or the store's own message, which may hold what the address does, a password: from
those only names of commands and reasons of TLS are taken.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

STORE: Final = "the store of limits"
_RIGHTS: Final = re.compile(
    r"permissions to run the '([a-z|]{1,40})' command|can't run this command"
    r"|permissions to access a key|can't access at least one of the keys"
)
"""How Valkey, and Redis before 7, put it when a command of the script is not allowed."""
_SAYS: Final = {
    "AuthenticationError": "refuses the user or the password of the address, or wants one that it does not have",
    "NoPermissionError": "lets this user in and does not let it do what limits need",
    "ReadOnlyError": "is a replica, which takes no writes: the address has to lead to the primary",
    "ClusterDownError": "is a cluster of several primaries, which limits cannot use",
    "BusyLoadingError": "is still reading its file",
    "TimeoutError": "did not answer in time",
    "ConnectionError": "ended the connection",
}
"""By the name of the class of redis-py, or of Python; what comes first here goes before what it is wrapped in."""
_LASTING: Final = frozenset(("AuthenticationError", "NoPermissionError", "ReadOnlyError", "ClusterDownError"))
_SILENT: Final = " before it said anything (does it want TLS, or a certificate of ours?)"


class LinkError(Exception):
    """The store did not answer in time, or not what it must. The sentence may be shown to operators. `lasting`: it
    will be so until somebody changes something."""

    def __init__(self, sentence: str, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.lasting = lasting


def explained(error: Exception, *, met: bool = True) -> LinkError:
    """What came out of a call, of whatever kind, as what operators read. `met`: it has answered before."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return LinkError(f"the certificate of {STORE} is not trusted: {each.verify_message}", lasting=True)
        if isinstance(each, ssl.SSLError):
            return LinkError(f"TLS with {STORE} failed: {each.reason or type(each).__name__}", lasting=True)
        if isinstance(each, socket.gaierror):
            return LinkError(f"the name of {STORE} is not known", lasting=True)
        if isinstance(each, ConnectionRefusedError | FileNotFoundError):
            return LinkError(f"nobody listens at the address of {STORE}")
    names = {type(each).__name__ for each in chain}
    text = str(error)
    right = _RIGHTS.search(text)
    if right is not None:
        names.add("NoPermissionError")
    elif "cluster" in text.lower():
        names.add("ClusterDownError")
    name = next((name for name in _SAYS if name in names), None)
    if name is None:
        return LinkError(f"{type(error).__name__} from {STORE}")
    says = f"{STORE} {_SAYS[name]}"
    if right is not None and right[1]:
        says += f" ({right[1]})"
    elif name == "ConnectionError" and not met:
        says += _SILENT
    return LinkError(says, name in _LASTING)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was made of, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
