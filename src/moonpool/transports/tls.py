"""Which certificates we trust: the system's, for every host and every proxy.

A host with a certificate of its own (a private authority) is served by putting that authority into the
system's store or by `SSL_CERT_FILE`, which OpenSSL reads by itself. Nothing here can switch checking off.
Source: RFC 9110 section 4.3.4 (https certificate verification), RFC 7301 (ALPN).
"""

from __future__ import annotations

import ssl


def system_context() -> ssl.SSLContext:
    """Trust of the system's store, names checked, TLS 1.2 or newer, HTTP/1.1 offered.

    Reading the store takes some ten milliseconds: the transport does so once, at its first https host.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
