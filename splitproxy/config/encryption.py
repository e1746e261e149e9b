"""TLS on either side: what a listener proves itself with, and how endpoints are spoken to."""

from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from splitproxy.config.addresses import Hostname
from splitproxy.config.fields import Boolean, Checked, Items, Text, named, wrong
from splitproxy.config.spec import Spec

_VERSIONS = ("1.2", "1.3")


def _version(value: Any) -> str:
    if isinstance(value, str) and value in _VERSIONS:
        return str(value)
    hint = f'write "{value}", in quotes' if str(value) in _VERSIONS else ""
    raise wrong(f'"1.2" or "1.3" is wanted, not {named(value)}', hint)


TlsVersion = Annotated[str, Checked(_version, {"enum": list(_VERSIONS)})]


class Certificate(Spec):
    """A certificate and its key, in PEM files seen from the configuration's folder."""

    cert_file: Text
    """The certificate, then those between it and its root."""
    key_file: Text
    """The private key, not encrypted."""


class ListenerTls(Spec):
    """TLS for all connections of a listener. Changed files are taken over like a changed configuration."""

    certificates: Items[Certificate]
    """Chosen by the name that the client asks for; the first is for all other clients."""
    min_version: TlsVersion = "1.2"
    """The lowest version of TLS: "1.2" or "1.3"."""
    client_ca_file: Text | None = None
    """Clients prove themselves by certificates of these authorities (PEM); without it they are not asked."""
    client_auth: Literal["required", "optional"] = "required"
    """Whether a client without a certificate is turned away; one with a wrong certificate always is."""

    @model_validator(mode="after")
    def _has_an_authority(self) -> Self:
        if "client_auth" in self.model_fields_set and self.client_ca_file is None:
            raise wrong("clientAuth needs clientCaFile: whose certificates are accepted")
        return self


class UpstreamTls(Spec):
    """How `https://` endpoints are spoken to; their certificates are verified unless that is switched off."""

    ca_file: Text | None = None
    """Whose certificates are accepted (PEM); those of the system's store when left out."""
    server_name: Hostname | None = None
    """The name asked for and verified; the endpoint's own host when left out."""
    cert_file: Text | None = None
    """The certificate that we prove ourselves with (PEM); none when left out."""
    key_file: Text | None = None
    """Its private key."""
    insecure_skip_verify: Boolean = False
    """Whether any certificate is accepted; who can reach the path to the endpoints can then read and change all."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise wrong("certFile and keyFile belong together", "give both, or none")
        if self.insecure_skip_verify and self.ca_file is not None:
            raise wrong("caFile beside insecureSkipVerify means nothing", "leave insecureSkipVerify out")
        return self
