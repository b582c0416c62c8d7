"""Everything that can go wrong: one table, one exception.

A row of `ERRORS` says what a caller sees and what everybody does about it. `Problem` is raised anywhere and
becomes bytes in one place per dialect (`render_problem`). The prefix of a code says whose fault it is: `caller.`,
`account.`, `upstream.`, `platform.`. A new row must change what some caller does.

Sources: shared contract section 5 (the seeds' error tables), docs/reference/errors.md is generated from here.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

Retry = Literal["never", "other_target", "later"]
Charge = Literal["none", "metered"]


class Row(Struct, frozen=True):
    """`code` is ours and stable; `status`, `type`, `wire_code` are what the client reads; `retry` is what the
    router may do; `charge` what the ledger does; `sentence` the default message; `operator` where to look."""

    code: str
    status: int
    type: str
    wire_code: str
    retry: Retry
    charge: Charge
    sentence: str
    operator: str


_BAD: Final = "invalid_request_error"
_RUN: Final = "runtime_error"
_UP: Final = "upstream_error"
_NONE: Final = "nothing: the caller's program is at fault"
_TEMPORARY: Final = "service_unavailable_error"

# A table is read in columns.
# fmt: off
_ROWS: Final = (
    Row("caller.malformed", 400, _BAD, _BAD, "never", "none", "The request is malformed.", _NONE),
    Row("caller.invalid_value", 400, _BAD, _BAD, "never", "none", "A field has a value it cannot have.", _NONE),
    Row("caller.unknown_model", 400, _BAD, _BAD, "never", "none", "The model does not exist.",
        "`moonpool models list` shows what is served; a name can be added as a row"),
    Row("caller.unsupported", 400, _BAD, _BAD, "never", "none",
        "This model does not support what was asked for.", _NONE),
    Row("caller.too_long", 400, _RUN, "20059", "never", "none", "input content too long",
        "the model's context in the catalogue; for the embedded model `embedded.context`"),
    Row("caller.not_found", 404, _BAD, "not_found", "never", "none", "There is nothing at this address.", _NONE),
    Row("caller.wrong_method", 405, _BAD, "method_not_allowed", "never", "none",
        "This address does not take this method.", _NONE),
    Row("caller.conflict", 409, _BAD, "conflict", "never", "none", "This id stands for something else already.", _NONE),
    Row("caller.too_slow", 408, _BAD, "request_timeout", "never", "none", "The request did not arrive in time.",
        "`edge.head_s` and `edge.body_s`; slow clients or an attack"),
    Row("caller.length_required", 411, _BAD, "length_required", "never", "none", "A body needs a length.", _NONE),
    Row("caller.too_large", 413, _BAD, "request_too_large", "never", "none", "The body is too large.",
        "`edge.body_bytes_max`"),
    Row("caller.target_too_long", 414, _BAD, "uri_too_long", "never", "none", "The address is too long.", _NONE),
    Row("caller.unsupported_media", 415, _BAD, "unsupported_media_type", "never", "none",
        "The body must be plain, uncompressed JSON.", _NONE),
    Row("caller.head_too_large", 431, _BAD, "headers_too_large", "never", "none",
        "The header fields are too large.", "nothing: the limits are fixed (16 KiB, 100 fields)"),
    Row("caller.http_version", 505, _BAD, "http_version_not_supported", "never", "none",
        "Only HTTP/1.0 and HTTP/1.1 are spoken here.", _NONE),
    Row("caller.gone", 499, _BAD, "client_closed_request", "never", "metered",
        "The client closed the connection.", _NONE),
    Row("account.invalid_key", 401, "authentication_error", "invalid_api_key", "never", "none",
        "The API key is missing or wrong.", "`moonpool keys list`; a deleted key cannot be restored"),
    Row("account.signature", 401, "authentication_error", "invalid_signature", "never", "none",
        "The signature is missing, old or wrong.", "`payments`: the secret of that channel, and both clocks"),
    Row("account.no_quota", 402, _RUN, "20031", "never", "none", "not enough quota", "the account's funds"),
    Row("account.budget", 402, _RUN, "20031", "never", "none", "not enough quota: the key's own limit is reached",
        "the key's `limits`: money for a day or a month"),
    Row("account.disabled", 403, _BAD, "forbidden", "never", "none", "This account is disabled.",
        "`moonpool accounts list`"),
    Row("account.forbidden", 403, _BAD, "forbidden", "never", "none", "This key may not do that.",
        "the key's `limits`, or the role of the token's user"),
    Row("account.rate", 429, "rate_limit_error", "rate_limit_exceeded", "later", "none", "Too many requests a minute.",
        "the rates of the key and of its account"),
    Row("account.guesses", 429, "rate_limit_error", "rate_limit_exceeded", "later", "none",
        "Too many wrong keys or tokens came from this address. "
        "Wait as many seconds as Retry-After says, then try again.",
        "log lines `address braked`; `edge.wrong_keys_per_minute`"),
    Row("account.revoked", 401, "authentication_error", "invalid_api_key", "never", "metered",
        "The API key was deleted.", "nothing: somebody deleted it while this answer ran"),
    Row("account.concurrency", 429, _RUN, "20034", "later", "none", "concurrency exceeded",
        "`concurrency` of the account"),
    Row("caller.idempotency_running", 409, _BAD, "idempotency_in_progress", "later", "none",
        "A request with this Idempotency-Key is still running.", _NONE),
    Row("caller.idempotency_mismatch", 422, _BAD, "idempotency_mismatch", "never", "none",
        "This Idempotency-Key was used for another request.", _NONE),
    Row("platform.answer_lost", 500, "server_error", "idempotency_lost", "never", "none",
        "The first request with this Idempotency-Key was interrupted, or its answer is no longer kept; "
        "it may have been done and paid. Ask again with a new key.",
        "a process that died, or `idempotency.account_bytes_max` and `bytes_max`; a lost or changed vault.key"),
    Row("upstream.refused", 400, _BAD, _BAD, "never", "none", "The host refused the request.",
        "the log line's detail"),
    Row("upstream.reasoning_wanted", 400, _BAD, _BAD, "other_target", "none",
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "nothing: the host is asked again with empty texts in its place; then `replay` of its row is `fill`"),
    Row("upstream.content_risk", 400, _BAD, "content_risk", "never", "none", "The host refused the content.", _NONE),
    Row("upstream.credentials", 502, _UP, "upstream_failed", "other_target", "none", "The host could not be used.",
        "the host refuses our API key and is parked: `moonpool hosts check`, then `hosts list`"),
    Row("upstream.unpaid", 502, _UP, "upstream_failed", "other_target", "none", "The host could not be used.",
        "our balance or quota at the host is spent and it is parked: top it up there"),
    Row("upstream.forbidden", 502, _UP, "upstream_failed", "other_target", "none", "The host could not be used.",
        "our key may not use this model there: the rights of the key, the host's allow list"),
    Row("upstream.busy", 503, _TEMPORARY, _TEMPORARY, "other_target", "none", "The host is too busy.",
        "the host's limits for our account"),
    Row("upstream.failed", 502, _UP, "upstream_failed", "other_target", "metered", "The host failed.",
        "the log line's detail"),
    Row("upstream.unreachable", 502, _UP, "upstream_failed", "other_target", "none",
        "The host could not be reached.", "`moonpool hosts check`; the host's `connect_s`"),
    Row("upstream.timeout", 504, _UP, "upstream_timeout", "other_target", "metered",
        "The host did not answer in time.", "the host's `first_s`, `gap_s`, `total_s`"),
    Row("upstream.cut", 502, _UP, "upstream_incomplete", "other_target", "metered", "The host's answer broke off.",
        "the host's own log"),
    Row("upstream.too_large", 502, _UP, "upstream_failed", "other_target", "metered",
        "The host's answer is too large.", "`upstream.body_bytes_max`; one event may have 1 MiB"),
    Row("upstream.nonsense", 502, _UP, "upstream_failed", "other_target", "metered",
        "The host's answer makes no sense.", "the log line's detail; the host's dialect in hosts.toml"),
    Row("platform.queue_full", 429, "rate_limit_error", "rate_limit_exceeded", "later", "none",
        "All hosts of this model are taken.",
        "the hosts' `concurrency`, `routing.queue_max` and `routing.queue_s`; another host for the model"),
    Row("platform.overloaded", 503, _RUN, "overloaded", "later", "none", "The server has too much to do.",
        "load, and `edge.connections_max`"),
    Row("platform.storage", 503, _RUN, "storage_unavailable", "later", "none", "The ledger cannot be written.",
        "disk space and the log"),
    Row("platform.limits", 503, _RUN, "limits_unavailable", "later", "metered", "Limits cannot be checked now.",
        "the store of `limits`: is it up, and reachable from this machine?"),
    Row("platform.stopping", 503, _RUN, "overloaded", "later", "metered", "The server is stopping.",
        "nothing: it was asked to stop"),
    Row("platform.model_failed", 503, _RUN, "model_unavailable", "later", "metered",
        "The embedded model is not running.", "`moonpool doctor`, the child's last lines in the log"),
    Row("platform.fault", 500, "server_error", "internal_error", "never", "metered", "The server made a mistake.",
        "the traceback in the log: report it"),
)
# fmt: on

ERRORS: Final[dict[str, Row]] = {row.code: row for row in _ROWS}


class Problem(Exception):
    """Something of `ERRORS` happened.

    `message` goes to the client (default: the row's sentence); `detail` goes to the log only and is not in
    `str()`; `param` names the field at fault, as the client wrote it (`messages[0].role`); `retry_after_s` is
    for the header of that name. Raises KeyError for a code that is no row.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        detail: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.row = ERRORS[code]
        self.code = code
        self.message = message if message is not None else self.row.sentence
        self.param = param
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(f"{code}: {self.message}")

    @property
    def status(self) -> int:
        return self.row.status


def conflict(receipt: str, param: str, message: str | None = None) -> Problem:
    """What a client reads whose key refuses adaptations (`conflicts`): the field, and what would have become of it."""
    return Problem(
        "caller.unsupported",
        message or f"{param} cannot be kept as it is ({receipt}), and this key's switch `conflicts` refuses changes.",
        param=param,
    )
