"""Requests that control itself sends: to webhooks, to receivers of news, to providers of measurements.

What comes back is not trusted: bodies are read up to a limit and never unpacked, no redirect is followed, no proxy is
taken from the environment, no cookie is kept.
"""

import base64
import email.utils
import json
import random
import re
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp

SHOWN: Final = 1024
"""Characters of a foreign text that are kept."""

_CONNECT_SECONDS: Final = 5.0
_LONGEST_WAIT: Final = 30.0
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
"""Controls, what turns the direction of writing, and halves of surrogate pairs."""
_BEFORE_SENDING: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Reply(NamedTuple):
    """What came back, or why nothing did."""

    status: int | None
    """None: no answer, and `text` says why."""
    text: str = ""
    """The body, up to the limit and decoded; of a redirect where it would lead."""
    retry_after: float | None = None
    """Seconds that the receiver asks to be left alone."""
    sent: bool = True
    """Whether the request may have reached the receiver."""

    @property
    def transient(self) -> bool:
        """Whether another attempt may fare better: there was no answer, 429, or a 5xx other than 501."""
        return self.status is None or self.status == 429 or (self.status >= 500 and self.status != 501)


class Request(NamedTuple):
    """What to send, once."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    """Seconds from the beginning to the last byte of the answer, of which connecting may take five."""
    body: bytes | None = None
    """Sent by POST; None: a GET."""
    verify: bool = True
    """Whether the receiver's certificate is checked."""
    proxy: str | None = None
    most: int = 64 << 10
    """Bytes of the answer that are read."""


def session() -> aiohttp.ClientSession:
    """Return a new session; to be called where a loop runs, and closed by the caller.

    Each request has a connection of its own: one that was kept and has died meanwhile would make a good gate look bad.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "splitproxy", "Accept-Encoding": "identity"},
    )


async def send(session: aiohttp.ClientSession, what: Request) -> Reply:
    """Send and return what came back; a failure is a reply without a status, and nothing is raised."""
    limits = aiohttp.ClientTimeout(total=what.timeout, sock_connect=min(what.timeout, _CONNECT_SECONDS))
    try:
        async with session.request(
            "GET" if what.body is None else "POST",
            what.url,
            data=what.body,
            headers=what.headers,
            timeout=limits,
            ssl=what.verify,
            proxy=what.proxy,
            allow_redirects=False,
        ) as response:
            text = await _text(response, what.most)
            return Reply(response.status, text, _retry_after(response.headers.get("Retry-After")))
    except aiohttp.InvalidURL:
        # What stands in it is not repeated: addresses of receivers are secrets.
        return Reply(None, "cannot connect: the address is no URL", sent=False)
    except aiohttp.ClientHttpProxyError as error:
        return Reply(None, f"cannot connect: the proxy answers HTTP {error.status}", sent=False)
    except _BEFORE_SENDING as error:
        return Reply(None, f"cannot connect: {shown(_words(error))}", sent=False)
    except TimeoutError:
        return Reply(None, f"no answer within {what.timeout:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Reply(None, shown(_words(error)))


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return `document` as JSON; a half of a surrogate pair, which has no UTF-8, becomes a question mark."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """Return all headers in one, names in lower case; of those with the same name the last."""
    return {name.lower(): value for some in headers for name, value in some.items()}


def basic(username: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def shown(text: str, most: int = SHOWN) -> str:
    """Return a foreign text for people and logs: on one line, without invisible characters, clipped."""
    return clipped(_UNSEEN.sub(" ", text).strip(), most)


def clipped(text: str, most: int) -> str:
    """Return `text` with at most `most` characters, its end replaced by an ellipsis where it was longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def wait(attempt: int, reply: Reply) -> float:
    """Return the seconds to wait after `attempt`, counted from 0: what the receiver asks for, else 1, 2, 4 … 30."""
    if reply.retry_after is not None:
        return min(_LONGEST_WAIT, reply.retry_after)
    # Not exactly, so that many rollouts that failed together do not come back together.
    return min(_LONGEST_WAIT, 2.0 ** min(attempt, 10)) * random.uniform(0.8, 1.0)


async def _text(response: aiohttp.ClientResponse, most: int) -> str:
    if 300 <= response.status < 400 and "Location" in response.headers:
        return f"redirects to {response.headers['Location']}, which is not followed"
    kept = bytearray()
    async for part in response.content.iter_any():
        kept += part
        if len(kept) >= most:
            break
    return kept[:most].decode("utf-8", "replace")


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date; None without one that makes sense."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - time.time())  # noqa: TID251 - the date is wall time, so it is compared with wall time


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
