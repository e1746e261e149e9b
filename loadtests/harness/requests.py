"""The requests every peer gets: browser-like heads that differ from one to the next, the same for the same seed."""

import random
from collections.abc import Callable
from pathlib import Path

VARIANTS = 2000
_POST_VARIANTS = 200
_POST_BYTES = 10240

_AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
]
_LANGUAGES = [
    "en-GB,en;q=0.9",
    "de-DE,de;q=0.9,en;q=0.6",
    "fr-FR,fr;q=0.8,en;q=0.5",
    "ja,en-US;q=0.7,en;q=0.3",
    "pt-BR",
]
_PLATFORMS = ['"Windows"', '"macOS"', '"Linux"', '"Android"']
_WORDS = ["boots", "lamp", "kettle", "garden chair", "desk", "notebook", "rain coat", "bicycle", "tent", "mirror"]


def browser_head(chance: random.Random, method: str, target: str, host: str, extra: str = "") -> bytes:
    """Return a request head with a dozen fields, as a browser sends them."""
    agent = chance.choice(_AGENTS)
    cookie = "; ".join(
        [
            f"session={chance.randbytes(16).hex()}",
            f"_ga=GA1.1.{chance.randrange(10**9)}.{chance.randrange(10**9)}",
            f"theme={chance.choice(['dark', 'light'])}",
            f"cart={chance.randbytes(chance.randrange(4, 20)).hex()}",
        ]
    )
    return (
        f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n"
        f'sec-ch-ua: "Chromium";v="{chance.randrange(120, 143)}", "Not A(Brand";v="24"\r\n'
        f"sec-ch-ua-mobile: ?{chance.randrange(2)}\r\nsec-ch-ua-platform: {chance.choice(_PLATFORMS)}\r\n"
        f"User-Agent: {agent}\r\nAccept: text/html,application/json;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
        f"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n"
        f"Referer: https://{host}/list/{chance.randrange(10000)}?page={chance.randrange(40)}\r\n"
        f"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: {chance.choice(_LANGUAGES)}\r\n"
        f'Cookie: {cookie}\r\nIf-None-Match: "{chance.randbytes(8).hex()}"\r\n{extra}\r\n'
    ).encode()


def _item(chance: random.Random) -> str:
    word = chance.choice(_WORDS).replace(" ", "+")
    return f"/items/{chance.randrange(100000)}?q={word}&page={chance.randrange(1, 30)}&v={chance.randbytes(4).hex()}"


def _small(chance: random.Random, _routes: int) -> bytes:
    return browser_head(chance, "GET", _item(chance), "shop.example.com")


def _fresh(chance: random.Random, _routes: int) -> bytes:
    return browser_head(chance, "GET", f"/fresh{_item(chance)}", "shop.example.com")


def _closing(chance: random.Random, _routes: int) -> bytes:
    return browser_head(chance, "GET", _item(chance), "shop.example.com", "Connection: close\r\n")


def _get_64k(chance: random.Random, _routes: int) -> bytes:
    return browser_head(chance, "GET", f"/files/64k?v={chance.randbytes(6).hex()}", "shop.example.com")


def _get_1m(chance: random.Random, _routes: int) -> bytes:
    return browser_head(chance, "GET", f"/files/1m?v={chance.randbytes(6).hex()}", "shop.example.com")


def _post(chance: random.Random, _routes: int) -> bytes:
    body = chance.randbytes(_POST_BYTES // 2).hex().encode()
    extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nOrigin: https://shop.example.com\r\n"
    return browser_head(chance, "POST", _item(chance), "shop.example.com", extra) + body


def _spread(chance: random.Random, routes: int) -> bytes:
    route = chance.randrange(routes)
    return browser_head(chance, "GET", f"{route_prefix(route).rstrip('/')}{_item(chance)}", route_host(route))


def route_host(number: int) -> str:
    """Return the host of route `number`: even routes have one of their own, odd routes share one."""
    return f"shop-{number:05d}.example.com" if number % 2 == 0 else "shared.example.com"


def route_prefix(number: int) -> str:
    """Return the path prefix of route `number`: odd routes are told apart by it."""
    return "/" if number % 2 == 0 else f"/team-{number:05d}"


_KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    "small": _small,
    "fresh": _fresh,
    "closing": _closing,
    "64k": _get_64k,
    "1m": _get_1m,
    "post": _post,
    "routes": _spread,
}


def generate(kind: str, routes: int = 1, seed: int = 20261123) -> list[bytes]:
    """Return the raw requests of one kind."""
    chance = random.Random(f"{seed}/{kind}/{routes}")
    count = _POST_VARIANTS if kind == "post" else VARIANTS
    return [_KINDS[kind](chance, routes) for _ in range(count)]


def save(requests: list[bytes], path: Path) -> None:
    """Write requests for the load generators: each after a line with its length."""
    path.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))


def load(path: Path) -> list[bytes]:
    """Read what `save` wrote."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        line = data.index(b"\n", at)
        end = line + 1 + int(data[at:line])
        found.append(data[line + 1 : end])
        at = end
    return found
