"""`splitproxy explain`: say what a request gets, without sending it.

The request is written out and read by the same parser, and routed by the same table, as a worker's.
"""

import argparse
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from splitproxy.cli.showing import counted, loaded, reasons, show_problems
from splitproxy.core import snapshot
from splitproxy.core.filters import Redirect
from splitproxy.core.owned import LiveSplit
from splitproxy.core.requests import RequestHead, parse_request
from splitproxy.core.routing import Rule
from splitproxy.core.splitting import Backend
from splitproxy.errors import ConfigError, ProxyError
from splitproxy.reports import percent

Answer = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="a file, or a folder whose *.yaml merge")
    parser.add_argument("method", metavar="METHOD", help="such as GET")
    parser.add_argument("url", metavar="URL", help="http://host/path?query, or /path with a Host header")
    parser.add_argument(
        "-H", "--header", metavar="NAME: VALUE", action="append", default=[], type=field, help="a header; may repeat"
    )
    parser.add_argument("--address", default="127.0.0.1", help="the client's address, for splits by it (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def field(text: str) -> tuple[str, str]:
    """Return name and value of a header given as `name: value`. Raises ArgumentTypeError."""
    name, colon, value = text.partition(":")
    if not colon or not name or any(letter in text for letter in "\r\n\0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'name: value'")
    return name, value.strip()


def run(options: argparse.Namespace) -> int:
    """Explain one request and return 0; 1 when the configuration is not valid."""
    try:
        valid = loaded(options.config)
    except ConfigError as error:
        show_problems(reasons(error), "error", sys.stderr)
        print(f"{counted(len(reasons(error)), 'error')}: {options.config} is not valid.", file=sys.stderr)
        return 1
    answer = explained(valid.plain, _written(options), options.address.encode())
    print(json.dumps(answer, indent=2) if options.json else "\n".join(_lines(answer)))
    return 0


def _written(options: argparse.Namespace) -> bytes:
    """Return the head that a client would send."""
    url = urlsplit(options.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    fields = [(name, value) for name, value in options.header if name.lower() != "host" or not url.netloc]
    if url.netloc:
        fields.insert(0, ("Host", url.netloc))
    elif not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", "localhost"))
    lines = [f"{options.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode()


def explained(plain: dict[str, Any], raw: bytes, address: bytes) -> Answer:
    """Return what the request `raw` of a client at `address` gets under a plain snapshot."""
    compiled = snapshot.build(plain)
    try:
        head = parse_request(raw, compiled.limits.header_count, compiled.limits.uri_bytes)
    except ProxyError as error:
        return {"status": error.status, "error": error.code, "detail": error.detail}
    asked = {"method": head.method.decode(), "host": head.host.decode(), "path": head.path.decode("utf-8", "replace")}
    rule = compiled.table.match(head)
    if rule is None:
        return {"request": asked, "status": 404, "error": "no_route", "detail": "no route matches"}
    route = next(one for one in plain["routes"] if one["name"] == rule.route)
    written = next(one for one in route["rules"] if one["name"] == rule.name)
    answer: Answer = {"request": asked, "route": rule.route, "rule": rule.name}
    answer["filters"] = [_filter_in_words(item) for item in written["filters"]]
    answer["timeouts"] = written["timeouts"]
    if rule.redirect is not None:
        return {**answer, **_redirected(rule.redirect, head, plain)}
    return {**answer, **_chosen(rule, written, head, address, plain)}


def _redirected(redirect: Redirect, head: RequestHead, plain: dict[str, Any]) -> Answer:
    path, _, query = head.target.partition(b"?")
    listener = plain["listeners"][0]
    port = int(listener["address"].rpartition(":")[2])
    location = redirect.location(b"https" if listener["tls"] else b"http", head.host, port, path, query)
    return {"status": redirect.status, "location": location.decode("utf-8", "replace")}


def _chosen(rule: Rule, written: dict[str, Any], head: RequestHead, address: bytes, plain: dict[str, Any]) -> Answer:
    shares = [
        {"upstream": backend.upstream, "role": backend.role, "percent": share} for backend, share in rule.split.shares()
    ]
    backend, reason = rule.split.choose(head, address, 0.0)
    answer: Answer = {"split": shares, "reason": reason, **_repeated(rule, written)}
    if rule.live is not None:
        answer["rollout"] = _rollout(rule.live, written["rollout"], head)
    if backend is None:
        return {**answer, "status": 500, "error": "no_backend", "detail": "the rule has no usable backendRef"}
    if reason == "random" and rule.split.issue is not None:
        name = rule.split.issue.decode()
        return {**answer, "reason": "key", "detail": f"the client is given a cookie {name}, and its id decides"}
    if reason == "random":
        return {**answer, "detail": "chance decides for each request"}
    answer["upstream"] = backend.upstream
    answer["role"] = backend.role
    backends = rule.split.backends  # an override may lead to an upstream that is not among them
    own = written["backendRefs"][backends.index(backend)]["filters"] if backend in backends else []
    answer["backendFilters"] = [_filter_in_words(item) for item in own]
    if backend.redirect is not None:
        return {**answer, **_redirected(backend.redirect, head, plain)}
    return {**answer, "sentAs": _sent(rule, backend, head)}


def _repeated(rule: Rule, written: dict[str, Any]) -> Answer:
    """Return what is done when an attempt fails: who answers instead of whom, and the retries."""
    repeats, owner = rule.repeats, written.get("rollout")
    answer: Answer = {"failover": None, "retry": written.get("retry")}
    if repeats is None or not repeats.failover:
        return answer
    if owner is not None:
        return {**answer, "failover": {"from": [owner["canary"]], "to": owner["primary"]}}
    roles = {role: [one.upstream for one in rule.split.backends if one.role == role] for role in ("primary", "canary")}
    if roles["primary"] and roles["canary"]:
        answer["failover"] = {"from": roles["canary"], "to": roles["primary"][0]}
    return answer


def _rollout(live: LiveSplit, owner: dict[str, Any], head: RequestHead) -> Answer:
    """Return what the rollout that owns the rule may change; how far it is, only the running proxy knows."""
    detail = f"as before it begins: nothing goes to {owner['canary']}; its live share is not in the file"
    cohort = live.membership(head)
    if cohort is not None:
        detail += f"; goes to {owner['canary']} while cohort {cohort + 1} is let in"
    return {
        "name": live.name,
        "primary": owner["primary"],
        "canary": owner["canary"],
        "cohort": cohort,
        "detail": detail,
    }


def _sent(rule: Rule, backend: Backend, head: RequestHead) -> Answer:
    """Return the Host and the target that the upstream sees."""
    path, _, query = head.target.partition(b"?")
    host, target = head.authority, head.target
    for rewrite in (rule.rewrite, backend.rewrite):
        if rewrite is not None:
            host, target = rewrite.hostname or host, rewrite.target(path, query)
    return {"host": host.decode(), "target": target.decode("utf-8", "replace")}


def _filter_in_words(item: dict[str, Any]) -> str:
    kind = item["type"]
    body = item[next(key for key in item if key != "type")]
    match kind:
        case "RequestHeaderModifier" | "ResponseHeaderModifier":
            actions = [f"{action} {_names(body[action])}" for action in ("set", "add", "remove") if body[action]]
            what = "; ".join(actions)
        case "RequestMirror":
            what = f"{percent(body['percent'])} of {body['methods']} requests to {body['backendRef']['name']}"
        case _:
            what = ", ".join(f"{key} {_flat(value)}" for key, value in body.items() if value is not None)
    return f"{kind}: {what}" if what else kind


def _names(items: list[Any]) -> str:
    return ", ".join(item if isinstance(item, str) else item["name"] for item in items)


def _flat(value: Any) -> str:
    return " ".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value)


def _lines(answer: Answer) -> list[str]:
    """Return an answer as people read it."""
    asked = answer.get("request")
    lines = [("request", f"{asked['method']} {asked['host']}{asked['path']}")] if asked else []
    lines += [(key, answer[key]) for key in ("route", "rule") if key in answer]
    lines += [("filter", text) for text in answer.get("filters", ())]
    for share in answer.get("split", ()):
        lines.append(("split", f"{share['upstream']} {percent(share['percent'])} ({share['role']})"))
    if "rollout" in answer:
        lines.append(("rollout", f"{answer['rollout']['name']}, {answer['rollout']['detail']}"))
    if failover := answer.get("failover"):
        whose = " or ".join(failover["from"])
        lines.append(("failover", f"what fails at {whose} and may be sent again is answered by {failover['to']}"))
    if retry := answer.get("retry"):
        codes = f" or {', '.join(map(str, retry['codes']))}" if retry["codes"] else ""
        lines.append(("retry", f"{counted(retry['attempts'], 'more attempt')} after no answer{codes}"))
    lines += [(key, answer[key]) for key in ("reason", "upstream") if key in answer]
    lines += [("filter", text) for text in answer.get("backendFilters", ())]
    if "sentAs" in answer:
        lines.append(("sent as", f"{answer['sentAs']['target']} with Host {answer['sentAs']['host']}"))
    if "status" in answer:
        lines.append(("answer", f"{answer['status']} {answer.get('location') or answer['error']}"))
    if "detail" in answer:
        lines.append(("detail", answer["detail"]))
    return [f"{name + ':':10}{value}" for name, value in lines]
