"""Requests of rules with filters: head by field, redirects of a backend, mirrored copies."""

from typing import TYPE_CHECKING

from splitproxy.core.fields import Field
from splitproxy.core.headers import rebuild_request, request_fields, request_lines
from splitproxy.proxy.mirror import start_copies
from splitproxy.proxy.pairs import start_pair

if TYPE_CHECKING:
    from splitproxy.core.filters import Rewrite
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.exchange import Exchange


def filter_request(exchange: "Exchange", rule: "Rule", backend: "Backend", *, copies: bool = True) -> bytes | None:
    """Return the head to send to `backend` and start the rule's mirrors; None when a redirect has answered.

    Not so with `copies` false: what is sent again is not mirrored again.
    Order of the Gateway API: the rule's filters first, which mirrored copies see too, then those of the backend.
    """
    if backend.redirect is not None:
        exchange.redirect(backend.redirect)
        return None
    head = exchange.head
    lines = request_lines(head, exchange.downstream.forwarded + exchange.lines, exchange.request_id)
    fields = request_fields(head, backend.pool.fallback_host)
    target = _rewrite(rule.rewrite, head.target, head.target, fields)
    if rule.request_modifier is not None:
        rule.request_modifier.apply(fields)
    mirrors, live = rule.mirrors, rule.live
    paired = live is not None and bool(live.mirrors) and backend.plain is live.primary
    if copies and (mirrors or paired):
        copied = rebuild_request(head, target, fields, lines)
        started = start_copies(exchange, mirrors, copied)
        if live is not None and paired:
            started += start_pair(exchange, live, copied)
        if exchange.upload is not None:
            exchange.upload.start_copies(started)
    target = _rewrite(backend.rewrite, head.target, target, fields)
    if backend.request_modifier is not None:
        backend.request_modifier.apply(fields)
    return rebuild_request(head, target, fields, lines)


def _rewrite(rewrite: "Rewrite | None", came: bytes, target: bytes, fields: list[Field]) -> bytes:
    """Return the target after `rewrite`, which goes by the target as it came; set the Host it names."""
    if rewrite is None:
        return target
    if rewrite.hostname is not None:
        fields[:] = [(b"Host", rewrite.hostname), *(field for field in fields if field[0].lower() != b"host")]
    if not rewrite.changes_path:
        return target
    path, _, query = came.partition(b"?")
    return rewrite.target(path, query)
