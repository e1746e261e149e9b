"""An admin API that answers as written down."""

import http.server
import json
import threading

import pytest


class Api(http.server.ThreadingHTTPServer):
    """Answers from `answers` and notes what it was asked."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            self.server.asked.append((self.command, self.path, body, self.headers.get("X-Splitproxy-Operator")))
            if self.path == "/api/v1/events":
                self.stream()
                return
            queue = self.server.answers.get((self.command, self.path)) or [(404, {"error": f"no {self.path}"})]
            status, told = queue.pop(0) if len(queue) > 1 else queue[0]
            if not status:  # as if the proxy had been killed
                self.close_connection = True
                return
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self):
            self.server.lasts.append(self.headers.get("Last-Event-ID"))
            self.close_connection = True
            if self.server.streams:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(self.server.streams.pop(0))

        def do_GET(self):
            self.answer()

        def do_POST(self):
            self.answer()

        def do_PUT(self):
            self.answer()

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.asked, self.answers, self.streams, self.lasts = [], {}, [], []
        """`streams`: what each connection for events gets before it is closed; `lasts`: their Last-Event-ID."""
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def says(self, *answers, method="GET", path="/api/v1/rollouts/shop"):
        self.answers[method, path] = list(answers)


@pytest.fixture
def api(monkeypatch):
    server = Api()
    monkeypatch.setenv("SPLITPROXY_ADMIN", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    server.server_close()
