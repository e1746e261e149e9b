"""The proxy one would write in an afternoon: an aiohttp server and client session, streaming, weighted, on uvloop.

A yardstick for the benchmark, not a part of splitproxy.
"""

import argparse
import os
import random
import signal
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict

HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host"]
)
SESSION: web.AppKey[ClientSession] = web.AppKey("session")


def end_to_end(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((k, v) for k, v in headers.items() if (low := k.lower()) not in HOP_BY_HOP and low not in named)


class Proxy:
    def __init__(self, shares: list[str]) -> None:
        pairs = [share.split("=") for share in shares]
        self.origins = [f"http://127.0.0.1:{port}" for port, _ in pairs]
        self.weights = [float(weight) for _, weight in pairs]

    async def session(self, app: web.Application) -> AsyncIterator[None]:
        async with ClientSession(
            connector=TCPConnector(limit=1024, keepalive_timeout=30),
            timeout=ClientTimeout(total=None, sock_connect=3, sock_read=60),
            auto_decompress=False,
            skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding", "Content-Type"],
        ) as session:
            app[SESSION] = session
            yield

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = end_to_end(CIMultiDict(request.headers))
        headers["Host"] = request.host
        before = headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{before}, {request.remote}" if before else str(request.remote)
        origin = random.choices(self.origins, self.weights)[0]
        body = request.content if request.body_exists else None
        try:
            upstream = await request.app[SESSION].request(
                request.method, origin + request.raw_path, headers=headers, data=body, allow_redirects=False
            )
        except (ClientError, TimeoutError) as error:
            return web.json_response({"error": str(error)}, status=502)
        async with upstream:
            answer = web.StreamResponse(
                status=upstream.status, reason=upstream.reason, headers=end_to_end(CIMultiDict(upstream.headers))
            )
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("shares", nargs="+", metavar="PORT=WEIGHT")
    options = parser.parse_args()
    children = []
    for _ in range(options.workers - 1):
        if child := os.fork():
            children.append(child)
        else:
            children.clear()
            break
    proxy = Proxy(options.shares)
    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(proxy.session)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    loop = uvloop.new_event_loop()
    try:
        web.run_app(
            app,
            host="127.0.0.1",
            port=options.port,
            reuse_port=True,
            access_log=None,
            print=None,
            backlog=4096,
            loop=loop,
        )
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
