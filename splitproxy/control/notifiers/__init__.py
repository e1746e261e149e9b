"""Where news goes: each receiver has a module that puts a message into the receiver's own form, pure and within limits.

Texts that are too long for a receiver are clipped, never refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from splitproxy.control import outbound
from splitproxy.control.notifiers import discord, gchat, msteams, rocket, slack, webhook
from splitproxy.control.notifiers.message import Message
from splitproxy.control.outbound import Reply, Request

_SECONDS: Final = 10.0
_FORMS: Final[Mapping[str, Callable[[Mapping[str, Any], Message], dict[str, Any]]]] = {
    "slack": slack.form,
    "msteams": msteams.form,
    "discord": discord.form,
    "rocket": rocket.form,
    "gchat": gchat.form,
    "webhook": webhook.form,
}


def request(provider: Mapping[str, Any], message: Message) -> Request:
    """Return what to send to an entry of `alertProviders`, in its plain form."""
    address = discord.address(provider["address"]) if provider["type"] == "discord" else provider["address"]
    headers = {"Content-Type": "application/json"}
    if provider["token"] is not None:
        headers["Authorization"] = f"Bearer {provider['token']}"
    body = outbound.encoded(_FORMS[provider["type"]](provider, message))
    return Request(address, headers, _SECONDS, body, proxy=provider["proxy"])


def refusal(provider: Mapping[str, Any], reply: Reply) -> str | None:
    """Return why the receiver did not take the message; None: it did."""
    if reply.status is None:
        return reply.text
    if not 200 <= reply.status < 300:
        return outbound.shown(f"HTTP {reply.status}: {reply.text}")
    if provider["type"] == "slack":
        return slack.refusal(reply.text)
    return None
