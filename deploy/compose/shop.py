"""A small shop in two versions, and its visitors: what docker-compose.yaml releases. The standard library is enough.

    python shop.py serve      answers at port 8000: VERSION in JSON, after a few milliseconds; /healthz too
    python shop.py visit URL  asks URL some twenty times a second until it is stopped

FAIL_PERCENT of the answers are errors: with 20 a release of this version is taken back.
"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shop(BaseHTTPRequestHandler):
    """Answers every GET."""

    protocol_version = "HTTP/1.1"
    version = os.environ.get("VERSION", "1")
    failing = float(os.environ.get("FAIL_PERCENT", "0")) / 100

    def do_GET(self) -> None:
        """Answer with the version."""
        failed = self.path != "/healthz" and random.random() < self.failing
        time.sleep(random.uniform(0.001, 0.005))
        body = json.dumps({"version": self.version, "ok": not failed}).encode()
        self.send_response(500 if failed else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the proxy has an access log."""


def serve(port: int) -> None:
    """Serve until the process is stopped."""
    ThreadingHTTPServer(("", port), Shop).serve_forever()


def visit(url: str) -> None:
    """Ask `url` again and again; whatever comes is fine."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # an error is the proxy's to count
        time.sleep(random.expovariate(20))


if __name__ == "__main__":
    if sys.argv[1:2] == ["visit"] and len(sys.argv) == 3:
        visit(sys.argv[2])
    elif sys.argv[1:] == ["serve"]:
        serve(int(os.environ.get("PORT", "8000")))
    else:
        sys.exit(__doc__)
