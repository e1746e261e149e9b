"""Rocket.Chat: incoming integrations, whose attachments are much like Slack's."""

from collections.abc import Mapping
from typing import Any, Final

from splitproxy.control.notifiers.message import Message
from splitproxy.control.outbound import clipped

_COLOURS: Final = {"info": "#0076D7", "warn": "#F2A900", "error": "#FF0000"}


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body; a server takes 5,000 characters unless told otherwise, so the text has at most 3,000."""
    return {
        **({"channel": provider["channel"]} if provider["channel"] else {}),
        "username": clipped(provider["username"], 80),
        "emoji": ":rocket:",
        "attachments": [
            {
                "color": _COLOURS[message.severity],
                "author_name": clipped(message.title, 150),
                "text": clipped(message.text, 3000),
                "fields": [
                    {"title": name, "value": value, "short": len(value) <= 40}
                    for name, value in message.clipped_facts(100, 150)
                ],
            }
        ],
    }
