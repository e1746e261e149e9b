"""What users of a split, sticky and mirrored service may rely on, asked by many of them at once.

`behaviour.py` starts all that this needs, runs it and judges the result. Each answer is entered under a name that says
where it came from (`share primary`, `visitor 25 canary`: 25 being the canary's share at that time), so that the shares
can be read off the statistics.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from locust import FastHttpUser, constant_pacing, task
from locust.contrib.fasthttp import ResponseContextManager

VERSIONS = ("primary", "canary")


class Client(FastHttpUser):
    """Ten requests a second, each on the connection of the one before."""

    abstract = True
    host_name = ""
    wait_time = constant_pacing(0.1)

    def ask(self, method: str, path: str, kind: str, **more: Any) -> tuple[str, int] | None:
        """Send one request; return the version that answered and the canary's share then in force, or None."""
        headers = {"Host": self.host_name}
        with self.client.request(method, path, headers=headers, name=kind, catch_response=True, **more) as response:
            return self.judged(response, kind)

    def judged(self, response: ResponseContextManager, kind: str) -> tuple[str, int] | None:
        """Check one answer and enter it under its version."""
        if response.status_code != HTTPStatus.OK:
            response.failure(f"status {response.status_code}: {response.text}")
            return None
        headers: Mapping[str, Any] = response.headers or {}
        version = headers.get("x-version", "")
        if version not in VERSIONS or response.text != version:
            response.failure(f"answered by {version!r} with {response.text!r}")
            return None
        share = int(headers.get("x-canary-share", "0"))
        if problem := self.problem(version, share):
            response.failure(problem)
            return None
        response.request_meta["name"] = f"{kind} {version}"
        return version, share

    def problem(self, _version: str, _share: int) -> str | None:
        """Say what is wrong with being sent to this version."""
        return None


class Anyone(Client):
    """Drawn anew for every request."""

    host_name = "share.example.com"
    weight = 3

    @task
    def look(self) -> None:
        self.ask("GET", "/items/1?q=lamp", "share")

    @task
    def order(self) -> None:
        self.ask("POST", "/orders", "share", data=b"x" * 10240)


class Sticky(Client):
    """Knows which version it was sent to, and under which share of the canary."""

    abstract = True
    host_name = "sticky.example.com"

    def on_start(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Become somebody else."""
        self.version = ""
        self.share = 0
        self.client.cookiejar.clear()

    def problem(self, version: str, share: int) -> str | None:
        before, self.version, self.share = (self.version, self.share), version, share
        if "sp_id" not in {cookie.name for cookie in self.client.cookiejar}:
            return "no sp_id cookie was issued"
        if not before[0] or before[0] == version:
            return None
        if before[0] == "canary":
            return f"went back to the primary while the canary's share went from {before[1]} to {share}"
        return None if share > before[1] else f"moved to the canary though its share stayed at {share}"


class Regular(Sticky):
    """One client for the whole run: moves to the canary at most once, when its share grows, and never back."""

    weight = 2

    @task
    def come_back(self) -> None:
        self.ask("GET", "/basket", "regular")


class Visitor(Sticky):
    """Comes, looks at three pages, and is never seen again: a fair draw of new clients."""

    weight = 2

    @task
    def visit(self) -> None:
        self.forget()
        first = self.ask("GET", "/", "visitor")
        if first:
            self.environment.events.request.fire(
                request_type="DRAW",
                name=f"visitor {first[1]} {first[0]}",
                response_time=0,
                response_length=0,
                exception=None,
                context={},
            )
        for number in range(2):
            self.ask("GET", f"/items/{number}", "visitor")


class Mirrored(Client):
    """Gets its answer from the primary, whatever becomes of the copy."""

    host_name = "mirror.example.com"
    weight = 2

    @task
    def look(self) -> None:
        self.ask("GET", "/items/2", "mirrored")

    @task
    def order(self) -> None:
        self.ask("POST", "/orders", "mirrored", data=b"y" * 10240)

    def problem(self, version: str, _share: int) -> str | None:
        return None if version == "primary" else f"answered by the {version}, which is not in the split"
