"""Whom a rollout asks and tells: webhooks, gates, alerts (Flagger's `webhooks` and `alerts`)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from splitproxy.config.addresses import WebUrl
from splitproxy.config.fields import (
    Boolean,
    DefinitionReference,
    HeaderName,
    Label,
    Lines,
    Name,
    Text,
    lasting,
    whole,
    wrong,
)
from splitproxy.config.filters import FRAMING
from splitproxy.config.hidden import HiddenValue
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec

Patience = Annotated[float, lasting(0.1)]
"""How long an answer is waited for."""


def _sendable(name: str) -> str:
    if name.lower() in FRAMING or name.lower() == "host":
        raise wrong(f"{clipped(name)} is written by the proxy itself", "leave it out")
    return name


SentHeader = Annotated[HeaderName, AfterValidator(_sendable)]


class NamespacedRef(Spec):
    """A thing defined elsewhere in the file."""

    name: DefinitionReference
    """Its name."""
    namespace: Text | None = None
    """Flagger's; means nothing here."""


class Call(Spec):
    """How a webhook is sent: POST, with JSON."""

    timeout: Patience = 10.0
    """Time for one answer."""
    retries: Annotated[int, whole(0, 100)] = 0
    """Further tries after a failed one."""
    headers: dict[SentHeader, HiddenValue] = Field(default_factory=dict)
    """Headers to send; a value may be `{file: path}`."""
    secret: HiddenValue | None = None
    """Signs the body (HMAC with SHA-256, in X-Splitproxy-Signature); may be `{file: path}`."""
    insecure_skip_verify: Boolean = False
    """Take any certificate."""
    disable_tls: Annotated[Boolean, Field(alias="disableTLS")] = False
    """Flagger's name for insecureSkipVerify."""
    mute_alert: Boolean = False
    """Send no alert while this gate is closed."""
    metadata: dict[str, Lines] = Field(default_factory=dict)
    """What is sent along."""


class Webhook(Call):
    """Someone who is asked, or told, at one moment of a rollout."""

    name: Label
    """For logs, alerts and the API."""
    type: Literal[
        "confirm-rollout",
        "pre-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "post-rollout",
        "rollback",
        "event",
    ] = "rollout"
    """When: as in Flagger."""
    url: WebUrl | None = None
    """Where; a confirm- webhook without it is a gate that operators open with approve and close with deny."""


class HandBackWebhook(Call):
    """Who updates the primary."""

    name: Label = "hand-back"
    """For logs, alerts and the API."""
    url: WebUrl
    """Where; an answer up to 202 says that the update has begun."""


class Alert(Spec):
    """News that go to some people."""

    name: Label
    """For logs."""
    severity: Literal["info", "warn", "error", ""] = "info"
    """The least that is sent: `info`, and Flagger's empty text, is everything, `error` failures alone."""
    provider_ref: NamespacedRef
    """One of alertProviders."""


class AlertProvider(Spec):
    """A place that takes news."""

    name: Name
    """By which alerts refer to it."""
    type: Literal["slack", "msteams", "discord", "rocket", "gchat", "webhook"]
    """What it understands; `webhook` takes plain JSON."""
    address: WebUrl
    """Its URL. It lets anybody write there, so it is never shown."""
    channel: Text = ""
    """The channel, where the kind has them."""
    username: Text = "splitproxy"
    """The name that it is written under."""
    proxy: WebUrl | None = None
    """An HTTP proxy on the way there."""
    token: HiddenValue | None = None
    """Sent as a bearer token; may be `{file: path}`."""
