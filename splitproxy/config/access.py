"""Who may do what with the admin API, and how the program ends."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final, Literal

from splitproxy.config.addresses import Address, Hostname, split_address
from splitproxy.config.fields import Boolean, Duration, Items, Name, Text
from splitproxy.config.hidden import HiddenValue
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec

LEAST_TOKEN: Final = 16
"""Characters; what is shorter can be guessed."""


class Token(Spec):
    """Lets its bearer ask the admin API."""

    name: Name
    """Who has it; this is the name in the audit log and in the history of rollouts."""
    role: Literal["read", "operator"] = "read"
    """`read` may look; `operator` may also reload, drain, and act on rollouts."""
    value: HiddenValue
    """At least 16 characters; may be `{file: path}`."""


class Admin(Spec):
    """The admin API, the metrics and the dashboard."""

    address: Address = "127.0.0.1:9900"
    """Where it listens. Off loopback, `tokens` are needed."""
    allowed_hosts: Items[Hostname] = ()
    """Host names under which it may be asked for, besides loopback and the address itself."""
    tokens: Items[Token] = ()
    """Who may ask; with none, everybody who reaches the address may do everything."""
    insecure: Boolean = False
    """Listen off loopback without tokens."""
    audit_log: Text | None = None
    """A file that gets a line for each change that was asked for; the program's log when left out."""


class Drain(Spec):
    """How the program ends after SIGTERM."""

    delay: Duration = 0.0
    """How long listeners stay open once /readyz says 503, so that load balancers notice. 0s is not at all."""
    timeout: Duration = 25.0
    """How long requests and tunnels may take from then on before they are cut off. 0s is no limit."""


def check_admin(admin: Admin, values: Mapping[Path, str], findings: Findings) -> None:
    """Report an admin API that is open to all, and tokens that are no good; `values` are those read from files."""
    base: Path = ("admin", "tokens")
    if not admin.tokens and not admin.insecure and not ip_address(split_address(admin.address)[0]).is_loopback:
        message = "other machines can reach this address, and anybody could reload, drain and promote"
        hint = "add tokens, or use 127.0.0.1; `probes` offers health and metrics alone"
        findings.add(("admin", "address"), message, hint)
    known: dict[str, int] = {}
    for index, token in enumerate(admin.tokens):
        if token.name in {earlier.name for earlier in admin.tokens[:index]}:
            findings.add((*base, index, "name"), f"the token {clipped(token.name)} stands twice")
        path: Path = (*base, index, "value")
        value = token.value if isinstance(token.value, str) else values.get(path)
        if value is None:  # its file could not be read, which is reported
            continue
        if len(value) < LEAST_TOKEN:
            message = f"a token has at least {LEAST_TOKEN} characters"
            findings.add(path, message, "make one with `openssl rand -hex 32`")
        if known.setdefault(value, index) != index:
            findings.add(path, f"the same token as that of {admin.tokens[known[value]].name}", "make one for each")
