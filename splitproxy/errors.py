"""The error tree. Each proxy error knows the status it is answered with and whose fault it is.

    SplitProxyError
      ConfigError                the operator's files are wrong; never reaches a request
      BadProxyHeader             a connection without a valid PROXY header; closed before any request
      LiveFull                   more rollouts than the shared memory has room for; never reaches a request
      ProxyError                 a request cannot be served (status, code)
        ClientError              the client's fault, always answered by us, never charged to an upstream
        LocalError               ours or the configuration's fault, never charged to an upstream
        UpstreamError            the endpoint's fault, charged to it as a failed attempt

`code` is the value of `error` in the JSON body, in the access log and in metrics: one word everywhere.
"""

from typing import ClassVar


class SplitProxyError(Exception):
    """Whatever this program raises on purpose."""


class ConfigError(SplitProxyError):
    """The configuration cannot be used; `args[0]` holds every reason, ready to print."""


class BadProxyHeader(SplitProxyError):
    """A connection does not begin as the PROXY protocol wants it to; it is closed."""


class RecordError(SplitProxyError):
    """A file of recorded signals is not as it has to be."""


class LiveFull(SplitProxyError):
    """No slot is left for the shares of one more rollout."""


class ProxyError(SplitProxyError):
    """A request cannot be served: `status` is answered, `code` names the reason, `detail` explains it."""

    status: int = 500
    code: ClassVar[str] = "internal_error"
    closes: ClassVar[bool] = False
    """Whether the client's connection must end, because its bytes can no longer be framed with certainty."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class ClientError(ProxyError):
    """The client's fault."""


class BadRequest(ClientError):
    """Malformed or ambiguous bytes (RFC 9112 §2.2, §6.3): never forwarded."""

    status, code, closes = 400, "bad_request", True


class RequestTimeout(ClientError):
    """The head or the body came too slowly."""

    status, code, closes = 408, "request_timeout", True


class ClientStalled(ClientError):
    """The client did not take its answer: cut off, so the status is that of the answer that had begun."""

    status, code, closes = 408, "client_stalled", True


class BodyTooLarge(ClientError):
    """The body is over `limits.bodyBytes`."""

    status, code, closes = 413, "body_too_large", True


class TargetTooLong(ClientError):
    """The request target is over `limits.uriBytes`."""

    status, code, closes = 414, "target_too_long", True


class ExpectationFailed(ClientError):
    """An Expect other than 100-continue (RFC 9110 §10.1.1)."""

    status, code, closes = 417, "expectation_failed", True


class MisdirectedRequest(ClientError):
    """Host is not the name that a client with a certificate asked for in its TLS handshake (RFC 9110 §15.5.20)."""

    status, code, closes = 421, "misdirected_request", True


class HeadTooLarge(ClientError):
    """The head is over `limits.headerBytes` or `limits.headerCount`."""

    status, code, closes = 431, "head_too_large", True


class ClientGone(ClientError):
    """The client left before its answer was complete: recorded as 499, answered with nothing."""

    status, code, closes = 499, "client_gone", True


class LocalError(ProxyError):
    """Ours or the configuration's fault."""


class NoRoute(LocalError):
    """No route matches."""

    status, code = 404, "no_route"


class MethodNotSupported(LocalError):
    """A method this proxy cannot forward (CONNECT)."""

    status, code, closes = 405, "method_not_allowed", True


class NotImplementedCoding(LocalError):
    """A transfer coding other than chunked (RFC 9112 §6.1)."""

    status, code, closes = 501, "transfer_coding_not_implemented", True


class VersionNotSupported(LocalError):
    """An HTTP version other than 1.0 and 1.1."""

    status, code, closes = 505, "version_not_supported", True


class NoBackend(LocalError):
    """The rule has no usable backendRef."""

    status, code = 500, "no_backend"


class InternalError(LocalError):
    """A bug: logged with its traceback."""

    status, code, closes = 500, "internal_error", True


class InjectedFault(LocalError):
    """Aborted by a Fault filter of the rule."""

    code = "injected_fault"

    def __init__(self, status: int) -> None:
        super().__init__("a Fault filter of the rule has answered instead of an upstream")
        self.status = status


class NoEndpoint(LocalError):
    """The upstream has no endpoint, for example because its name does not resolve."""

    status, code = 503, "no_endpoint"


class QueueFull(LocalError):
    """All connections are taken and so many requests wait that one more is refused."""

    status, code = 503, "queue_full"


class TooManyConnections(LocalError):
    """The listener has as many connections as it may."""

    status, code, closes = 503, "too_many_connections", True


class OutOfResources(LocalError):
    """The system has no descriptor, port or memory left for a connection to an endpoint, whose fault that is not."""

    status, code = 503, "out_of_resources"


class RequestDeadline(LocalError):
    """`timeouts.request` passed before the answer began."""

    status, code = 504, "request_deadline"


class UpstreamError(ProxyError):
    """The endpoint's fault."""

    status, code = 502, "upstream_error"


class ConnectFailed(UpstreamError):
    """No connection could be made, so nothing was sent."""

    status, code = 502, "connect_failed"


class ConnectTimeout(UpstreamError):
    """No connection within `connectTimeout`, so nothing was sent."""

    status, code = 504, "connect_timeout"


class UpstreamReset(UpstreamError):
    """The endpoint closed or reset the connection before its answer was complete."""

    status, code = 502, "upstream_reset"

    def __init__(self, detail: str = "", *, silent: bool = False) -> None:
        super().__init__(detail)
        self.silent = silent
        """Whether not one byte of an answer had come."""


class UpstreamProtocolError(UpstreamError):
    """The endpoint's bytes are not a valid HTTP/1 response."""

    status, code = 502, "upstream_protocol_error"


class InjectedUpstreamFault(UpstreamError):
    """Aborted by a Fault filter of a backendRef: counted as if its upstream had answered so."""

    code = "injected_fault"

    def __init__(self, status: int) -> None:
        super().__init__("a Fault filter of the backendRef has answered instead of the upstream")
        self.status = status


class UpstreamTimeout(UpstreamError):
    """The endpoint did not begin its answer, or fell silent within it, for too long."""

    status, code = 504, "upstream_timeout"
