"""TLS contexts, made from keys and certificates that are held in memory.

OpenSSL reads certificates by path alone, hence the memory files: what was checked at load is what is used, whatever has
become of the files on disk since, and a process needs no permission to read these.
"""

import os
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from splitproxy.core.snapshot import ClientTls, Pair, ServerTls
from splitproxy.errors import SplitProxyError

_PROTOCOLS: Final = ("http/1.1",)
_LOWEST: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl.VerifyFlags` does not name."""
_CERTIFICATE: Final = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY: Final = re.compile(
    rb"-----BEGIN ((?:[A-Z]+ )?)PRIVATE KEY-----(.+?)-----END (?:[A-Z]+ )?PRIVATE KEY-----", re.DOTALL
)
_ROUNDS: Final = 16
"""More than any handshake takes."""


class TlsError(SplitProxyError):
    """A certificate or key cannot be used; `args[0]` says why."""


# --- PEM -------------------------------------------------------------------------------------------------------------
def certificates(data: bytes) -> str:
    """Return the certificates in a PEM file, whatever stands around them left out. Raises TlsError."""
    found = _CERTIFICATE.findall(data)
    try:
        text = "".join(f"{block.decode('ascii')}\n" for block in found)
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise TlsError("holds no certificate (PEM: -----BEGIN CERTIFICATE-----)")
    return text


def private_key(data: bytes) -> str:
    """Return the private key in a PEM file. Raises TlsError."""
    found = _KEY.search(data)
    if found is None:
        raise TlsError("holds no private key (PEM: -----BEGIN PRIVATE KEY-----)")
    if found[1] == b"ENCRYPTED " or b"ENCRYPTED" in found[2]:
        raise TlsError("the private key is encrypted, and there is nobody to ask for the password")
    try:
        return f"{found[0].decode('ascii')}\n"
    except UnicodeDecodeError:
        raise TlsError("the private key is damaged") from None


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Have a text under a path, for no longer than needed."""
    descriptor = os.memfd_create("splitproxy-pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Raise TlsError when key and certificate do not belong together, or one of them is damaged."""
    try:
        with _as_file(pair.chain) as chain, _as_file(pair.key) as key:
            context.load_cert_chain(chain, key, lambda: b"")
    except ssl.SSLError as error:
        raise TlsError(_PAIR_WORDS.get(error.reason or "", "the certificate or its key is damaged")) from None


_PAIR_WORDS: Final = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "KEY_TYPE_MISMATCH": "the key does not belong to the certificate",
    "EE_KEY_TOO_SMALL": "the key is too short to be secure",
}


def _trust(context: ssl.SSLContext, authorities: str) -> None:
    try:
        context.load_verify_locations(cadata=authorities)
    except ssl.SSLError as error:
        raise TlsError(f"holds a damaged certificate: {in_words(error)}") from None


def check_authorities(text: str) -> None:
    """Raise TlsError when one of these certificates cannot be used to verify others."""
    _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), text)


def in_words(error: ssl.SSLError) -> str:
    """Say what went wrong with TLS, without OpenSSL's place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    return (error.reason or error.strerror or str(error)).replace("_", " ").lower()


# --- what a certificate says -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself; times in seconds since 1970."""

    names: tuple[str, ...]
    begins: float
    ends: float


def examine(chain: str, key: str) -> Facts:
    """Try certificate and key in a handshake with ourselves. Raises TlsError when no client would take part in it."""
    pair = Pair(chain, key)
    server = _server(ServerTls((pair,), "1.2", "", client_required=False), pair)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # The certificate alone is to be believed: neither its issuer nor the present time matters here.
    client.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    leaf, end, _ = chain.partition("-----END CERTIFICATE-----")
    _trust(client, leaf + end)
    facts = _handshake(server, client)
    names = [value for kind, value in facts.get("subjectAltName", ()) if kind == "DNS"]
    if not facts.get("subjectAltName"):
        names = [value for part in facts.get("subject", ()) for kind, value in part if kind == "commonName"]
    begins, ends = (ssl.cert_time_to_seconds(facts[key]) for key in ("notBefore", "notAfter"))
    return Facts(tuple(name.lower() for name in names), begins, ends)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Return what the server's certificate says, as `SSLObject.getpeercert` has it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _ in range(_ROUNDS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise TlsError(in_words(error)) from None
            found: dict[str, Any] | None = side.getpeercert()
            if found:
                return found
    raise TlsError("a handshake with it does not come to an end")


# --- contexts --------------------------------------------------------------------------------------------------------
class ServerSide:
    """A listener's side of TLS: `context`, and the names that clients have asked for."""

    def __init__(self, plan: ServerTls) -> None:
        """Raise TlsError when a certificate of `plan` cannot be used."""
        contexts = [_server(plan, pair) for pair in plan.pairs]
        self.context = contexts[0]
        self.mutual = bool(plan.client_ca)
        """Whether clients prove who they are."""
        self.asked: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        """Connection -> the name in its handshake, in lower case; where clients prove who they are, and ask for one."""
        self._by_name: dict[str, ssl.SSLContext] = {}
        for pair, context in zip(plan.pairs, contexts, strict=True):
            for name in pair.names:
                self._by_name.setdefault(name, context)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Take the certificate for `name` (RFC 6066 §3): its own, that of `*.` and its parent, or the first."""
        if not name:
            return
        name = name.lower()
        if self.mutual:
            self.asked[connection] = name
        found = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if found is not None:
            connection.context = found


def overlook_invalid_names() -> None:
    """Have nothing printed about a handshake that asks for what is no text: anybody can send that all the time.

    It fails, and is told of as all that fail.
    """
    usual = sys.unraisablehook

    def hook(found: "sys.UnraisableHookArgs") -> None:
        if not (isinstance(found.exc_value, UnicodeError) and isinstance(found.object, bytes)):
            usual(found)

    sys.unraisablehook = hook


def _server(plan: ServerTls, pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _LOWEST[plan.minimum]
    context.set_alpn_protocols(_PROTOCOLS)
    _load(context, pair)
    if plan.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED if plan.client_required else ssl.CERT_OPTIONAL
        _trust(context, plan.client_ca)
    return context


def client_context(plan: ClientTls) -> ssl.SSLContext:
    """Return a context for connections to endpoints. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_PROTOCOLS)
    if not plan.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif plan.ca:
        _trust(context, plan.ca)
    else:
        context.load_default_certs()
    if plan.pair is not None:
        _load(context, plan.pair)
    return context
