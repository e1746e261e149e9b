"""Slack: incoming webhooks, and `chat.postMessage` with a token; the form is that of attachments, as in Flagger."""

import json
from collections.abc import Mapping
from typing import Any, Final

from splitproxy.control.notifiers.message import Message, translated
from splitproxy.control.outbound import clipped, shown

_COLOURS: Final = {"info": "good", "warn": "warning", "error": "danger"}
_SPECIAL: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body; texts have at most 3,000 characters, the fields' values 1,000."""
    attachment = {
        "fallback": _escaped(f"{message.title}: {message.text}", 3000),
        "color": _COLOURS[message.severity],
        "author_name": _escaped(message.title, 150),
        "text": _escaped(message.text, 3000),
        "fields": [
            {"title": _escaped(name, 150), "value": _escaped(value, 1000), "short": len(value) <= 40}
            for name, value in message.facts
        ],
    }
    return {
        **({"channel": provider["channel"]} if provider["channel"] else {}),
        "username": clipped(provider["username"], 80),
        "icon_emoji": ":rocket:",
        "attachments": [attachment],
    }


def refusal(text: str) -> str | None:
    """Return what is wrong; the Web API says it in the body of a 200."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None  # an incoming webhook says no more than `ok`
    if isinstance(content, dict) and content.get("ok") is False:
        return shown(f"Slack says: {content.get('error', 'not ok')}")
    return None


def _escaped(text: str, most: int) -> str:
    """Return `text` with Slack's three special characters escaped, which disarms links and mentions too."""
    return translated(text, _SPECIAL, most)
