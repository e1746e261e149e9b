"""The verbs that only need a file: check, explain, schema."""

import json
from pathlib import Path

import pytest

from splitproxy.cli import main

ROUTING = str(Path(__file__).parents[2] / "config" / "routing.yaml")
ROLLOUT = str(Path(__file__).parents[2] / "config" / "rollout.yaml")
SHOP = "http://shop.example.com"


def test_check_prints_the_effective_order_as_a_table(capsys):
    assert main(["check", ROUTING]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["HOST", "PATH", "CONDITIONS", "ROUTE/RULE", "GOES", "TO"]
    rows = [line.split("  ") for line in lines[1:-1]]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[3] == ["shop.example.com", "PathPrefix /", "-", "shop/everyone", "shop-primary 95 %, shop-canary 5 %"]
    assert rows[4] == ["api.example.com", "Exact /old", "-", "api/0", "redirect 301"]
    assert rows[0][2] == "GET, header user-agent ~ .*Firefox.*, query preview = true"
    assert lines[-1] == f"{ROUTING} is valid: 2 routes."


def test_check_as_json_is_for_scripts(capsys):
    assert main(["check", "-c", ROUTING, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is True
    assert answer["warnings"] == []
    assert answer["order"][3] == {
        "host": "shop.example.com",
        "path": "PathPrefix /",
        "conditions": "",
        "route": "shop",
        "rule": "everyone",
        "redirect": None,
        "shares": [
            {"upstream": "shop-primary", "role": "primary", "percent": 95.0},
            {"upstream": "shop-canary", "role": "canary", "percent": 5.0},
        ],
    }


@pytest.fixture
def bad(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("listeners: [{address: ':80'}]\nrotues: []\nworkers: 0\n")
    return str(file)


def test_check_prints_every_error_to_standard_error(bad, capsys):
    assert main(["check", bad]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        f"error: {bad}:2:1: rotues: unknown key 'rotues'\n  2 | rotues: []\n    | ^\n  hint: did you mean 'routes'?\n"
        in err
    )
    assert err.endswith(f"2 errors: {bad} is not valid.\n")


def test_check_gives_errors_as_json_too(bad, capsys):
    assert main(["check", bad, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert [(error["line"], error["path"]) for error in answer["errors"]] == [(2, "rotues"), (3, "workers")]


def test_check_prints_every_rollout_and_its_plan(capsys):
    assert main(["check", ROLLOUT]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("Rollout shop (canary): shop-v1 to shop-v2 on shop/0, revision 2.1.0")
    assert lines[first + 1 : first + 3] == [
        "  a check every 10 s, 5 failed checks end it",
        "  1. 10 % to the canary for 1 passed check",
    ]
    assert lines[first + 7] == "  then shop-v2 keeps the traffic; checks go on for 1 min"
    assert "Rollout pay (blue-green): shop-v1 to shop-v2 on pay/0" in lines
    assert lines[-2:] == [
        f"Rollouts are remembered in {Path.cwd() / 'splitproxy.db'}.",
        f"{ROLLOUT} is valid: 3 routes.",
    ]


def test_check_gives_rollouts_as_json_too(capsys):
    assert main(["check", ROLLOUT, "--json"]) == 0
    shop, search, _ = json.loads(capsys.readouterr().out)["rollouts"]
    assert shop["strategy"] == "canary"
    assert [stage["weight"] for stage in shop["stages"]] == [10, 20, 30, 40, 50]
    assert search | {"name": "search", "route": "search", "rules": ["0"], "primary": "shop-v1"} == search


def test_check_shortens_a_long_plan(tmp_path, capsys):
    file = tmp_path / "slow.yaml"
    file.write_text(
        Path(ROLLOUT)
        .read_text()
        .replace("stepWeight: 10\n", "stepWeight: 1\n")
        .replace("mode: swap, bakeTime: 1m", 'mode: handBack, webhook: {url: "http://127.0.0.1:1/"}')
        .replace("      threshold: 5 ", "      dryRun: true #")
    )
    assert main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert "  20. 20 % to the canary for 1 passed check\n  and 30 stages more\n" in out
    assert "the first failed check ends it; dry run: traffic stays as it is" in out
    assert "then shop-v1 is updated, and traffic returns to it" in out


def test_check_prints_warnings_and_is_content(tmp_path, capsys):
    file = tmp_path / "odd.yaml"
    file.write_text("listeners: [{address: ':80'}]\nroutes: [{name: r, rules: [{}]}]")
    assert main(["check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: ")
    assert "500: no usable backendRef" in out
    assert out.endswith(f"{file} is valid: 1 route, 1 warning.\n")


@pytest.mark.parametrize(
    "words", ["check", "check a -c b", "explain -c a", "explain GET /", "explain -c a GET / -H x", "check --josn a"]
)
def test_a_command_that_is_not_one_ends_in_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def explained(capsys, *words):
    assert main(["explain", "-c", ROUTING, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "rule", "reason", "upstream"),
    [
        (["GET", f"{SHOP}/"], "everyone", "key", None),
        (["GET", f"{SHOP}/", "-H", "X-Canary: always"], "testers", "match", "shop-canary"),
        (["GET", f"{SHOP}/", "-H", "Cookie: a=b; beta=1"], "testers", "match", "shop-canary"),
        (["GET", f"{SHOP}/new/x?preview=true", "-H", "User-Agent: a Firefox b"], "testers", "match", "shop-canary"),
        (["POST", f"{SHOP}/new/x?preview=true", "-H", "User-Agent: a Firefox b"], "everyone", "key", None),
        (["GET", f"{SHOP}/", "-H", "x-version: stable"], "everyone", "override", "shop-primary"),
        (["GET", f"{SHOP}/", "-H", "Cookie: version=next"], "everyone", "override", "shop-canary"),
        (["GET", "/", "-H", "Host: SHOP.example.com:8080"], "everyone", "key", None),
    ],
)
def test_explain_says_which_rule_and_upstream_a_request_gets(capsys, words, rule, reason, upstream):
    answer = explained(capsys, *words)
    assert (answer["route"], answer["rule"], answer["reason"]) == ("shop", rule, reason)
    assert answer.get("upstream") == upstream


def test_explain_gives_the_upstream_that_a_known_client_keeps(capsys):
    found = {
        client: explained(capsys, "GET", f"{SHOP}/", "-H", f"Cookie: sp_id=client-{client}")["upstream"]
        for client in range(100)
    }
    assert set(found.values()) == {"shop-primary", "shop-canary"}
    assert list(found.values()).count("shop-canary") < 20


def test_explain_shows_shares_filters_and_what_is_sent(capsys):
    answer = explained(capsys, "GET", f"{SHOP}/a?b", "-H", "x-version: stable")
    assert [(share["upstream"], share["percent"]) for share in answer["split"]] == [
        ("shop-primary", 95.0),
        ("shop-canary", 5.0),
    ]
    assert answer["filters"] == [
        "RequestHeaderModifier: set x-edge; remove x-debug",
        "ResponseHeaderModifier: add x-served-by",
        "RequestMirror: 20 % of safe requests to shop-canary",
    ]
    assert answer["sentAs"] == {"host": "shop.example.com", "target": "/a?b"}
    rewritten = explained(capsys, "GET", "http://api.example.com/v1/x?y")
    assert rewritten["sentAs"] == {"host": "internal.example", "target": "/api/v1/x?y"}


@pytest.mark.parametrize(
    ("words", "status", "rest"),
    [
        (["GET", "http://api.example.com/old?x"], 301, {"location": "http://api.example.com:8080/new?x"}),
        (["GET", "http://nobody.example/"], 404, {"error": "no_route"}),
        (["GET", f"{SHOP}/", "-H", "Transfer-Encoding: gzip"], 400, {"error": "bad_request"}),
        (["CONNECT", f"{SHOP}/"], 405, {"error": "method_not_allowed"}),
    ],
)
def test_explain_says_what_the_proxy_itself_answers(capsys, words, status, rest):
    answer = explained(capsys, *words)
    assert answer["status"] == status
    assert rest.items() <= answer.items()


def test_explain_for_people_is_aligned_text(capsys):
    assert main(["explain", "-c", ROUTING, "GET", f"{SHOP}/", "-H", "x-version: stable"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "request:  GET shop.example.com/",
        "route:    shop",
        "rule:     everyone",
        "filter:   RequestHeaderModifier: set x-edge; remove x-debug",
        "filter:   ResponseHeaderModifier: add x-served-by",
        "filter:   RequestMirror: 20 % of safe requests to shop-canary",
        "split:    shop-primary 95 % (primary)",
        "split:    shop-canary 5 % (canary)",
        "failover: what fails at shop-canary and may be sent again is answered by shop-primary",
        "retry:    2 more attempts after no answer or 502, 503, 504",
        "reason:   override",
        "upstream: shop-primary",
        "sent as:  / with Host shop.example.com",
    ]


def test_explain_splits_by_the_address_that_is_given(tmp_path, capsys):
    file = tmp_path / "shop.yaml"
    file.write_text("""
listeners: [{address: ":80"}]
upstreams: [{name: a, endpoints: ["http://x:1"]}, {name: b, endpoints: ["http://x:2"]}]
routes: [{name: r, rules: [{backendRefs: [{name: a}, {name: b}], split: {key: {sourceAddress: true}}}]}]
""")
    found = set()
    for number in range(20):
        assert main(["explain", "-c", str(file), "GET", "/", "--address", f"10.0.0.{number}", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        found.add((answer["reason"], answer["upstream"]))
    assert found == {("key", "a"), ("key", "b")}


def test_explain_refuses_a_bad_file(bad, capsys):
    assert main(["explain", "-c", bad, "GET", "/"]) == 1
    assert "2 errors" in capsys.readouterr().err


def test_schema_prints_the_schema(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Config"
