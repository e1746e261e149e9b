"""Microsoft Teams: an Adaptive Card for a workflow, or the MessageCard of the old connectors.

The address alone decides: connectors live under `webhook.office.com`, `outlook.office.com` and `outlook.office365.com`;
everything else is taken for a workflow (Power Automate). Either takes 28 KB.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from splitproxy.control.notifiers.message import Message

_CONNECTORS: Final = ("webhook.office.com", "outlook.office.com", "outlook.office365.com")
_THEME: Final = {"info": "0076D7", "warn": "F2A900", "error": "FF0000"}
_COLOUR: Final = {"info": "Good", "warn": "Warning", "error": "Attention"}


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body that this address takes."""
    host = urlsplit(provider["address"]).hostname or ""
    old = any(host == name or host.endswith(f".{name}") for name in _CONNECTORS)
    return _message_card(message) if old else _workflow(message)


def _workflow(message: Message) -> dict[str, Any]:
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [
            {
                "type": "TextBlock",
                "text": _short(message.title, 300),
                "weight": "Bolder",
                "size": "Medium",
                "color": _COLOUR[message.severity],
                "wrap": True,
            },
            {"type": "TextBlock", "text": _short(message.text, 4000), "wrap": True},
            {"type": "FactSet", "facts": [{"title": name, "value": value} for name, value in _facts(message)]},
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _message_card(message: Message) -> dict[str, Any]:
    return {
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": _THEME[message.severity],
        "summary": _short(message.title, 300),
        "sections": [
            {
                "activityTitle": _short(message.text, 4000),
                "activitySubtitle": _short(message.title, 300),
                "facts": [{"name": name, "value": value} for name, value in _facts(message)],
            }
        ],
    }


def _facts(message: Message) -> list[tuple[str, str]]:
    return [(_short(name, 100), _short(value, 400)) for name, value in message.facts]


def _short(text: str, most: int) -> str:
    """Return `text` in at most `most` bytes of UTF-8: the limit here is one of bytes."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= most else raw[: most - 3].decode("utf-8", "ignore") + "…"
