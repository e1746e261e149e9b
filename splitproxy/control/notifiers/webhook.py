"""A webhook for programs: everything as plain values; the `id` tells one piece of news from another."""

from collections.abc import Mapping
from typing import Any

from splitproxy.control.notifiers.message import Message


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body."""
    return {
        "id": message.id,
        "severity": message.severity,
        "title": message.title,
        "text": message.text,
        **message.content,
        "channel": provider["channel"],
        "username": provider["username"],
    }
