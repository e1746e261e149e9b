"""The dashboard: a page that the admin address serves, with its few files, and what a browser may do with it.

There is no build step: what lies in `web` is what is sent. All that the page shows it asks of the admin API.
"""

import gzip
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from splitproxy.control.guard import Handler

_WEB: Final = Path(__file__).parent / "web"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{word} 'none'" for word in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
    )
)
"""Everything from here, nothing inline, no text becomes markup, and no other page may frame it."""
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def routes() -> list[web.RouteDef]:
    """Return the page at `/` and its files below `/assets/`."""
    files = (path.name for path in sorted(_WEB.iterdir()) if path.name != "index.html")
    assets = (web.get(f"/assets/{name}", _handler(name)) for name in files)
    return [web.get("/", _handler("index.html")), web.get("/favicon.ico", _handler("icon.svg")), *assets]


def _handler(name: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        body, zipped, content_type = _file(name)
        headers = {**HEADERS, "Content-Type": content_type, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            return web.Response(body=zipped, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=body, headers=headers)

    return answer


@cache
def _file(name: str) -> tuple[bytes, bytes, str]:
    """Return a file, the same packed, and its type."""
    body = (_WEB / name).read_bytes()
    return body, gzip.compress(body, 9, mtime=0), f"{_TYPES[Path(name).suffix]}; charset=utf-8"
