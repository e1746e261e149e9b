"""Connections to endpoints over TLS: how they are opened, and why one could not be."""

import asyncio
import ssl
from functools import lru_cache
from typing import Any, Final

from splitproxy.core.snapshot import ClientTls
from splitproxy.errors import ConnectFailed, OutOfResources
from splitproxy.proxy.crowd import OUR_LACK
from splitproxy.tls import client_context, in_words

GOODBYE: Final = 2.0
"""Seconds that the other side has to answer the end of TLS before its connection is closed."""

context = lru_cache(maxsize=64)(client_context)
"""The context for a plan; made once, since reading the system's certificates takes many milliseconds."""


def options(plan: ClientTls | None, host: str) -> dict[str, Any]:
    """Return what `loop.create_connection` needs besides the address, for an endpoint that is configured as `host`."""
    if plan is None:
        return {}
    return {
        "ssl": context(plan),
        "server_hostname": plan.server_name or host,
        "ssl_shutdown_timeout": GOODBYE,
    }


def whole(transport: asyncio.BaseTransport) -> bool:
    """Return whether a stream that has ended was ended by its sender: TLS says so at the end (RFC 9112 §9.8)."""
    connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if connection is None:
        return True
    try:
        return connection.read(1) == b""
    except ssl.SSLError:
        return False


def no_connection(name: str, error: OSError) -> ConnectFailed | OutOfResources:
    """Return what it means that no connection to the endpoint `name` could be made."""
    detail = f"cannot connect to {name}: {cause(error)}"
    return OutOfResources(detail) if error.errno in OUR_LACK else ConnectFailed(detail)


def cause(error: OSError) -> str:
    """Say why no connection could be made."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {in_words(error)}"
    return error.strerror or str(error)
