"""Discord: its own form of webhooks, with an embed.

Flagger sends Slack's form to the address with `/slack` behind it; an address that has it already is taken without.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from splitproxy.control.notifiers.message import Message, translated
from splitproxy.control.outbound import clipped

_COLOURS: Final = {"info": 0x2EB67D, "warn": 0xF2A900, "error": 0xE01E5A}
_MARKUP: Final = {character: f"\\{character}" for character in r"\*_~`|>#[]<@"}
_FORBIDDEN: Final = re.compile("discord|clyde", re.IGNORECASE)


def address(configured: str) -> str:
    """Return the address that takes Discord's own form."""
    return configured.rstrip("/").removesuffix("/slack")


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body; an embed takes 6,000 characters in all, 256 of title, 1,024 of a field's value, 25 fields."""
    return {
        # Discord refuses messages from such names.
        "username": clipped(_FORBIDDEN.sub("chat", provider["username"]), 80),
        "allowed_mentions": {"parse": []},
        "embeds": [
            {
                "title": _escaped(message.title, 256),
                "description": _escaped(message.text, 3000),
                "color": _COLOURS[message.severity],
                "fields": [
                    {"name": _escaped(name, 30), "value": _escaped(value, 180), "inline": len(value) <= 40}
                    for name, value in message.facts
                ],
            }
        ],
    }


def _escaped(text: str, most: int) -> str:
    """Return `text` with what Discord takes for markup escaped."""
    return translated(text, _MARKUP, most)
