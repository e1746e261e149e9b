"""Where things are: host names, addresses to listen at, URLs of endpoints."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from splitproxy.config.fields import Checked, text, wrong
from splitproxy.config.problems import clipped

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
# Names of containers and services often hold an underscore, so an endpoint's host may.
_ENDPOINT_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)


def _is_address(host: str) -> bool:
    if not host[-1:].isdigit() and ":" not in host:
        return False
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _port(digits: str, whole: str, example: str) -> int:
    if not _PORT.fullmatch(digits) or int(digits) > 65535:
        raise wrong(f"a port up to 65535 is wanted in {clipped(whole)}", f"write it as {example}")
    return int(digits)


# --- host names ------------------------------------------------------------------------------------------------------
def _name(host: str, given: str) -> str:
    """Return `host` in lower case; what is not a DNS name is refused with the reason."""
    folded = host.lower()
    if not folded.isascii():
        raise wrong(f"a host name is ASCII, not {clipped(given)}", _punycode(folded))
    if _is_address(folded):
        raise wrong(f"a host name is wanted, not the address {clipped(given)}", "routes are chosen by name")
    if re.search(r":[0-9]*$", folded):
        raise wrong(f"a host name has no port, {clipped(given)} does", f"write {clipped(given.rpartition(':')[0])}")
    if len(folded) > 253 or not _HOSTNAME.fullmatch(folded):
        raise wrong(f"a host name such as shop.example.com is wanted, not {clipped(given)}")
    return folded


def _punycode(host: str) -> str:
    try:
        return f"write {host.encode('idna').decode()}"
    except UnicodeError:
        return ""


def hostname(value: Any) -> str:
    """Return one exact host name in lower case."""
    given = text(value, "a host name is wanted")
    if given.startswith("*"):
        raise wrong(f"one host name is wanted, not the wildcard {clipped(given)}")
    return _name(given, given)


def host_pattern(value: Any) -> str:
    """Return a host name, or one behind `*.`, in lower case (Gateway API `Hostname`)."""
    given = text(value, "a host name is wanted")
    if given == "*":
        raise wrong("'*' alone is not a host name", "leave `hostnames` out to match every host")
    if given.startswith("*."):
        return f"*.{_name(given[2:], given)}"
    if "*" in given:
        raise wrong(f"a wildcard is the whole first label, as in *.example.com, not {clipped(given)}")
    return _name(given, given)


_HOST_SCHEMA: Final = {"type": "string", "maxLength": 253}
Hostname = Annotated[str, Checked(hostname, _HOST_SCHEMA)]
HostPattern = Annotated[str, Checked(host_pattern, {**_HOST_SCHEMA, "examples": ["shop.example.com", "*.example.com"]})]


# --- listeners -------------------------------------------------------------------------------------------------------
def listen_address(value: Any) -> str:
    """Return `host:port` with the host as an IP address; `:8080` is all of IPv4, `[::]:8080` all addresses.

    Port 0 is any free one, for tests and demonstrations.
    """
    example = "127.0.0.1:8080, [::1]:8080 or :8080"
    if isinstance(value, int) and not isinstance(value, bool):
        raise wrong(f"an address is wanted, not the number {value}", f'write ":{value}" for all addresses')
    given = text(value, f"an address such as {example} is wanted")
    host, colon, digits = given.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        hint = f"write 127.0.0.1:{given}" if _PORT.fullmatch(given) else ""
        raise wrong(f"an address such as {example} is wanted, not {clipped(given)}", hint)
    port = _port(digits, given, example)
    if host == "localhost":
        return f"127.0.0.1:{port}"
    return f"{_bound(host, given, example)}:{port}"


def _bound(host: str, given: str, example: str) -> str:
    if not host:
        return "0.0.0.0"
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise wrong(f"an address such as {example} is wanted, not {clipped(given)}") from None
    if isinstance(address, IPv4Address) and host.startswith("["):
        raise wrong(f"an IPv4 address stands without brackets, {clipped(given)}")
    return str(address) if isinstance(address, IPv4Address) else f"[{address}]"


Address = Annotated[
    str,
    Checked(
        listen_address,
        {"type": "string", "pattern": ":[0-9]+$", "examples": ["127.0.0.1:8080", "[::]:80", ":8080"]},
    ),
]


def split_address(address: str) -> tuple[str, int]:
    """Return host (without brackets) and port of a validated address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def overlap(one: str, other: str) -> bool:
    """Say whether two listener addresses cannot both be bound."""
    (host, port), (other_host, other_port) = split_address(one), split_address(other)
    if port != other_port or not port:
        return False
    mine, theirs = ip_address(host), ip_address(other_host)
    if mine == theirs:
        return True
    dual = any(isinstance(address, IPv6Address) and address.is_unspecified for address in (mine, theirs))
    return dual or (mine.version == theirs.version and (mine.is_unspecified or theirs.is_unspecified))


def reaches(address: str, host: str, port: int) -> bool:
    """Say whether a connection to `host` and `port` from this machine surely ends at the listener `address`."""
    bound, bound_port = split_address(address)
    if port != bound_port or not port:
        return False
    listener = ip_address(bound)
    try:
        target = ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" and (listener.is_loopback or listener.is_unspecified)
    return target == listener or (listener.is_unspecified and (target.is_loopback or target.is_unspecified))


# --- networks --------------------------------------------------------------------------------------------------------
def network(value: Any) -> str:
    """Return a network in CIDR notation; an address alone is a network of one."""
    example = "10.0.0.0/8 or 192.0.2.7"
    given = text(value, f"a network such as {example} is wanted")
    try:
        return str(ip_network(given))
    except ValueError:
        pass
    try:
        hint = f"write {ip_network(given, strict=False)}"
    except ValueError:
        hint = ""
    raise wrong(f"a network such as {example} is wanted, not {clipped(given)}", hint)


Network = Annotated[str, Checked(network, {"type": "string", "examples": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]})]


# --- endpoints -------------------------------------------------------------------------------------------------------
def endpoint_url(value: Any) -> str:
    """Return `http://host:port` or `https://host:port` in lower case; what is more than that is refused."""
    example = "http://127.0.0.1:9001"
    given = text(value, f"a URL such as {example} is wanted")
    try:
        parts = urlsplit(given)
    except ValueError:
        raise wrong(f"a URL such as {example} is wanted, not {clipped(given)}") from None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        hint = f"write {clipped('http://' + given)}" if "://" not in given and ":" in given else ""
        raise wrong(f"a URL such as {example} is wanted, not {clipped(given)}", hint)
    if "@" in parts.netloc:
        raise wrong("an endpoint has no user name or password", "set the header with a RequestHeaderModifier")
    if parts.path not in {"", "/"} or "?" in given or "#" in given:
        raise wrong(f"an endpoint is host and port alone, {clipped(given)} has more", "change paths with a URLRewrite")
    return f"{parts.scheme}://{_endpoint_place(parts.netloc.lower(), given, example)}"


def _endpoint_place(place: str, given: str, example: str) -> str:
    host, colon, digits = place.rpartition(":")
    if not colon or place.endswith("]"):
        standard = ":443" if given.lower().startswith("https:") else ":80"
        hint = f"write {clipped(given.rstrip('/') + standard)}"
        raise wrong(f"an endpoint names its port, {clipped(given)} does not", hint)
    port = _port(digits, given, example)
    if not port:
        raise wrong(f"a port from 1 to 65535 is wanted in {clipped(given)}")
    if host.startswith("[") and host.endswith("]"):
        if not _is_address(host):
            raise wrong(f"{clipped(host)} is not an IPv6 address")
        return f"[{ip_address(host[1:-1])}]:{port}"
    if not _ENDPOINT_HOST.fullmatch(host):
        raise wrong(f"{clipped(host)} is not a host name or address")
    return f"{host}:{port}"


EndpointUrl = Annotated[
    str,
    Checked(
        endpoint_url,
        {
            "type": "string",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+:[0-9]+/?$",
            "examples": ["http://127.0.0.1:9001", "https://shop.internal:443"],
        },
    ),
]


# --- other services --------------------------------------------------------------------------------------------------
_LONGEST_URL: Final = 2048


def web_url(value: Any) -> str:
    """Return the URL of a service that is asked or told something, as it was written."""
    wanted = "a URL such as http://127.0.0.1:9300/gate is wanted"
    given = str(text(value, wanted))
    try:
        parts = urlsplit(given)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise wrong(f"{wanted}, not {clipped(given)}") from None
    if not usable or parts.scheme not in {"http", "https"}:
        hint = f"write {clipped('http://' + given)}" if given and "://" not in given else ""
        raise wrong(f"{wanted}, not {clipped(given)}", hint)
    if not given.isascii() or not given.isprintable() or " " in given or len(given) > _LONGEST_URL:
        raise wrong(f"a URL is ASCII without spaces, of at most {_LONGEST_URL} characters")
    if "@" in parts.netloc:
        raise wrong("a URL has no user name or password here", "keep them out of it: send a header or a token")
    if "#" in given:
        raise wrong("what follows '#' is never sent", "leave it out")
    return given


WebUrl = Annotated[str, Checked(web_url, {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^#@ ]+$"})]
