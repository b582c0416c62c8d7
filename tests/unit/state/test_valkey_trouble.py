"""What operators read of a store of limits that fails: a sentence, and nothing that the store or the library said."""

from __future__ import annotations

import socket
import ssl

import pytest
import redis.exceptions as made

from moonpool.state.valkey_trouble import explained

SECRET = "wrong-secret"


def after(error: Exception, reason: BaseException) -> Exception:
    """As redis-py makes it of what the system raised."""
    error.__context__ = reason
    return error


def tls(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, SECRET)
    error.reason = reason  # type: ignore[assignment]
    return error


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, SECRET)
    error.verify_message = "certificate has expired"
    return error


@pytest.mark.parametrize(
    ("error", "says", "lasting"),
    [
        (made.AuthenticationError(SECRET), "refuses the user or the password", True),
        (made.NoPermissionError(SECRET), "does not let it do what limits need", True),
        (made.NoPermissionError(f"{SECRET} has no permissions to run the 'evalsha' command"), "need (evalsha)", True),
        (made.ResponseError("User x has no permissions to run the 'set' command"), "need (set)", True),
        (made.ResponseError("The user executing the script can't run this command or subcommand"), "need", True),
        (made.ReadOnlyError(SECRET), "is a replica", True),
        (made.ResponseError("ACL failure in script: No permissions to access a key script: on @x:4."), "need", True),
        (made.ResponseError("The user executing the script can't access at least one of the keys"), "need", True),
        (after(made.ConnectionError(SECRET), made.AuthenticationError(SECRET)), "refuses the user or the", True),
        (made.BusyLoadingError(SECRET), "still reading", False),
        (made.ClusterDownError(SECRET), "cluster of several primaries", True),
        (made.ResponseError("Script attempted to access a non local key in a cluster node"), "several primaries", True),
        (made.ConnectionError(SECRET), "ended the connection", False),
        (TimeoutError(SECRET), "did not answer in time", False),
        (made.ResponseError(SECRET), "ResponseError from", False),
        (ValueError(SECRET), "ValueError from", False),
        (after(made.ConnectionError(SECRET), ConnectionRefusedError(111, SECRET)), "nobody listens", False),
        (after(made.ConnectionError(SECRET), FileNotFoundError(2, SECRET)), "nobody listens", False),
        (after(made.ConnectionError(SECRET), socket.gaierror(-2, SECRET)), "the name of", True),
        (after(made.ConnectionError(SECRET), untrusted()), "is not trusted: certificate has expired", True),
        (after(made.ConnectionError(SECRET), tls("WRONG_VERSION_NUMBER")), "failed: WRONG_VERSION_NUMBER", True),
        (after(made.ConnectionError(SECRET), tls(None)), "failed: SSLError", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_operators_read(error: Exception, says: str, lasting: bool) -> None:
    """Each kind of failure has a sentence of ours, which says whose turn it is; what was raised is not in it."""
    found = explained(error)
    assert says in str(found)
    assert "the store of limits" in str(found)
    assert SECRET not in str(found)
    assert found.lasting is lasting


def test_a_connection_that_ends_at_once() -> None:
    """Who hangs up without a word may want something else than we said: that is asked, and only then."""
    said = str(explained(made.ConnectionError(SECRET), met=False))
    assert "does it want TLS" in said
    assert SECRET not in said
    assert "TLS" not in str(explained(made.ConnectionError(SECRET)))
    assert "TLS" not in str(explained(made.AuthenticationError(SECRET), met=False))
