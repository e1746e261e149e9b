"""Google Chat: incoming webhooks, with a card of the second version."""

from collections.abc import Mapping
from typing import Any, Final

from splitproxy.control.notifiers.message import Message, translated
from splitproxy.control.outbound import clipped

_COLOURS: Final = {"info": "#1e8e3e", "warn": "#f29900", "error": "#d93025"}
_SPECIAL: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def form(provider: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the body; a message takes 32 KB, the texts here have at most 3,000 characters."""
    colour = _COLOURS[message.severity]
    said = f'<font color="{colour}"><b>{message.severity.upper()}</b></font> {_escaped(message.text, 3000)}'
    facts = [
        {"decoratedText": {"topLabel": clipped(name, 100), "text": _escaped(value, 400), "wrapText": True}}
        for name, value in message.facts
    ]
    card = {
        "header": {"title": clipped(provider["username"], 80), "subtitle": clipped(message.title, 150)},
        "sections": [{"widgets": [{"textParagraph": {"text": said}}, *facts]}],
    }
    fallback = clipped(f"{message.title}: {message.text}", 3000)
    return {"fallbackText": fallback, "cardsV2": [{"cardId": "rollout", "card": card}]}


def _escaped(text: str, most: int) -> str:
    """Return `text` without anything that a card takes for markup."""
    return translated(text, _SPECIAL, most)
