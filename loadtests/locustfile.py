"""Users and shapes of the everyday cases for Locust.

    locust -f loadtests/locustfile.py --case spike --host http://shop.example.com --headless --html spike.html
    locust -f loadtests/locustfile.py --host http://shop.example.com           # with Locust's page: pick the case there

`everyday.py` starts a proxy with all that the cases need and runs this against it. Every case ends by itself; the exit
code is 1 when a limit was broken. With a host of one's own: `--host-name` is the Host header (default: the case's),
`--path` the path.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from gevent import GreenletExit
from harness.everyday import CASES, PACE, SLOW_MILLISECONDS, Case, Checks, Kind, Limits, in_words, judge
from locust import FastHttpUser, LoadTestShape, constant_pacing, events, task
from locust.env import Environment

SPAWNED_A_SECOND = 1000
"""All users of a stage come at once: a spike is to be one."""
SECONDS_TO_END = 10
"""How long requests under way may take when the time is up, unless `--stop-timeout` says so."""


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    group = parser.add_argument_group("Everyday cases")
    group.add_argument("--case", choices=list(CASES), default="steady", help="what happens")
    group.add_argument("--quick", action="store_true", default=False, help="a few seconds with few users")
    group.add_argument("--seconds", type=float, default=None, help="length (default: the case's)")
    group.add_argument("--most-users", type=int, default=None, help="users at the most (default: the case's)")
    group.add_argument("--host-name", default="", help="Host header (default: the case's)")
    group.add_argument("--path", default="", help="one path for all requests (default: the case's)")
    group.add_argument("--max-failures", type=float, default=None, help="failed requests, percent")
    group.add_argument("--max-p95", type=float, default=None, help="p95 of each kind of request, milliseconds")
    group.add_argument("--max-p99", type=float, default=None, help="p99 of each kind of request, milliseconds")
    group.add_argument("--max-lost", type=int, default=None, help="requests that never ended")
    group.add_argument("--figures", default="", help="file for the verdict and its figures (JSON)")


def chosen(options: Any) -> Case:
    """Return the case that was asked for, with the length, users and limits that were."""
    case = CASES[options.case]
    case = case.quick() if options.quick else case
    limits = {"failures": "max_failures", "p95": "max_p95", "p99": "max_p99", "lost": "max_lost"}
    return replace(
        case,
        **_given(options, {"seconds": "seconds", "users": "most_users"}),
        limits=replace(case.limits, **_given(options, limits)),
    )


def _given(options: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what was said by option: Locust's page sends text, empty where nothing was said."""
    said = {name: getattr(options, option) for name, option in names.items()}
    whole = {"users", "lost"}
    return {
        name: int(value) if name in whole else float(value) for name, value in said.items() if value not in {None, ""}
    }


class User(FastHttpUser):
    """Ten requests a second, each on the connection of the one before."""

    abstract = True
    kind = ""
    wait_time = constant_pacing(PACE)
    asked: ClassVar[int] = 0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.host_name = options.host_name or CASES[options.case].host
        self.path = options.path

    def ask(self, method: str, path: str, **more: Any) -> str:
        """Send one request; return the version that says it answered, empty where none does."""
        User.asked += 1
        began = time.monotonic()
        try:
            return self._judged(method, path, {"headers": {"Host": self.host_name}, **more})
        except GreenletExit:
            # Locust ends users that wait by force, and meets some that have just begun, before anything is sent. Those
            # whose requests did not end in time are ended in the same way, but later.
            if time.monotonic() - began < self.environment.stop_timeout:
                User.asked -= 1
            raise

    def _judged(self, method: str, path: str, more: dict[str, Any]) -> str:
        with self.client.request(method, self.path or path, name=self.kind, catch_response=True, **more) as response:
            if not HTTPStatus.OK <= response.status_code < HTTPStatus.BAD_REQUEST:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
                return ""
            version = str((response.headers or {}).get("x-version", ""))
            if problem := self.problem(version):
                response.failure(problem)
            return version

    def problem(self, _version: str) -> str | None:
        """Say what is wrong with an answer of this version."""
        return None


class Page(User):
    """Looks at a page."""

    kind = "page"
    weight = 3

    @task
    def look(self) -> None:
        self.ask("GET", "/items/1?q=lamp")


class Order(User):
    """Sends 10 KB."""

    kind = "order"

    @task
    def order(self) -> None:
        self.ask("POST", "/orders", data=b"x" * 10240)


class Session(User):
    """Keeps its cookies, and goes from the old version to the new one at most once."""

    kind = "session"
    seen = ""

    @task
    def come_back(self) -> None:
        self.seen = self.ask("GET", "/basket") or self.seen

    def problem(self, version: str) -> str | None:
        if self.seen == "next" and version != "next":
            return f"went back from the new version to {version}"
        return None


class Slow(User):
    """Asks the service that takes its time."""

    kind = "slow"

    def on_start(self) -> None:
        super().on_start()
        self.host_name = self.environment.parsed_options.host_name or "slow.example.com"

    @task
    def wait_for_it(self) -> None:
        self.ask("GET", f"/slow/{SLOW_MILLISECONDS}")


USERS: dict[str, type[User]] = {user.kind: user for user in (Page, Order, Session, Slow)}


class Everyday(LoadTestShape):
    """The shape of the chosen case, and the users that belong to it."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        assert self.runner
        case = chosen(self.runner.environment.parsed_options)
        users = case.users_at(self.get_run_time())
        return None if users is None else (users, SPAWNED_A_SECOND, [USERS[kind] for kind in case.kinds])


@events.init.add_listener
def _let_requests_end(environment: Environment, **_: Any) -> None:
    environment.stop_timeout = environment.stop_timeout or SECONDS_TO_END


@events.test_start.add_listener
def _begin(**_: Any) -> None:
    User.asked = 0


def seen(environment: Environment) -> list[Kind]:
    """Return what clients saw, by kind of request."""
    return [
        Kind(
            name,
            entry.num_requests - entry.num_failures,
            entry.num_failures,
            *(float(entry.get_response_time_percentile(share) or 0) for share in (0.5, 0.95, 0.99)),
        )
        for (name, _), entry in sorted(environment.stats.entries.items())
    ]


def _write(path: str, kinds: list[Kind], limits: Limits, checks: Checks) -> None:
    told = [{"held": held, "what": text} for held, text in checks]
    figures = {"asked": User.asked, "kinds": [asdict(kind) for kind in kinds], "limits": asdict(limits)}
    Path(path).write_text(json.dumps({"checks": told, **figures}, indent=1) + "\n")


@events.quitting.add_listener
def _end(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    kinds, limits = seen(environment), chosen(options).limits
    checks = judge(kinds, User.asked, limits, {"slow": SLOW_MILLISECONDS})
    print(f"{options.case}\n{in_words(checks)}", file=sys.stderr)
    environment.process_exit_code = 0 if all(held for held, _ in checks) else 1
    if options.figures:
        _write(options.figures, kinds, limits, checks)
