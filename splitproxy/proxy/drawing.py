"""Draws without canaries that have no usable endpoint: while that lasts, others have their share."""

from random import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.exchange import Exchange
    from splitproxy.proxy.service import Service

_FORCED: Final = frozenset(("override", "match"))
"""Reasons that name the upstream, so that another one needs a reason of its own."""


def draw_again(exchange: "Exchange", rule: "Rule", backend: "Backend") -> "Backend":
    """Return where a request goes that was to go to `backend`, which may have no usable endpoint.

    Only a canary is left out, and only where failed requests of canaries go on to the primary anyway. What was drawn is
    drawn anew among the rest and keeps its reason; what was forced goes to the primary, as a failover.
    """
    left_out: list[Backend] = []
    failover = rule.repeats is not None and rule.repeats.failover
    while failover and backend.role == "canary" and not _usable(exchange.service, backend):
        left_out.append(backend)
        other = _other(exchange, rule, left_out)
        if other is None:
            break
        backend = other
    return backend


def _usable(service: "Service", backend: "Backend") -> bool:
    if backend.pool is None:
        backend.pool = service.upstream(backend.upstream)
    usable: bool = backend.pool.usable
    return usable


def _other(exchange: "Exchange", rule: "Rule", left_out: "list[Backend]") -> "Backend | None":
    split, live, head = rule.split, rule.live, exchange.head
    if exchange.reason in _FORCED:
        exchange.reason = "failover"
    if live is not None:
        return live.leading
    if exchange.reason == "failover":
        return split.leading
    address = exchange.downstream.address
    key = split.key(head, address)
    if split.issue is not None and head.cookie(split.issue) is None:
        key = exchange.service.mint()  # another id, so that the client stays where this draw puts it
        exchange.issued = split.cookie(key)
    return split.redraw(left_out, key, random())
