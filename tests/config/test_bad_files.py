"""Files that cannot be served: each error with its place, its path and what to write instead."""

import pytest

UPSTREAMS = """
  - {name: a, endpoints: ["http://127.0.0.1:9001"]}
  - {name: b, endpoints: ["http://127.0.0.1:9002"]}
"""


def document(**parts):
    """Return a good file with some of its parts replaced; a part is the text behind its key."""
    whole = {"listeners": " [{address: 127.0.0.1:8080}]", "upstreams": UPSTREAMS, **parts}
    return "\n".join(f"{key}:{text}" for key, text in whole.items())


def rule(text):
    """Return a good file with one rule, given as the inside of a flow mapping."""
    return document(routes=f"\n  - name: r\n    rules:\n      - {{{text}}}")


def matching(text):
    return rule(f"backendRefs: [{{name: a}}], matches: [{text}]")


def filtering(text):
    return rule(f"backendRefs: [{{name: a}}], filters: [{text}]")


RULE = "routes[0].rules[0]"
CASES = [
    # keys
    (document(**{"«rotues": " []"}), "rotues", "unknown key 'rotues'", "did you mean 'routes'?"),
    (document(admin=" {«adress: 127.0.0.1:1}"), "admin.adress", "unknown key 'adress'", "'address'"),
    (document(probes=" «{}"), "probes.address", "the key 'address' is missing", ""),
    (document(limits=" «[]"), "limits", "a mapping of keys and values is wanted, not a list", ""),
    (document(accessLog=" «no"), "accessLog", "a mapping of keys and values is wanted, not 'no'", ""),
    (
        document(listeners=" «127.0.0.1:80"),
        "listeners",
        "a list is wanted, not '127.0.0.1:80'",
        'write ["127.0.0.1:80"]',
    ),
    (
        document(listeners=" «{address: 127.0.0.1:80}"),
        "listeners",
        "a list is wanted, not a mapping",
        "begin each item",
    ),
    (document(workers=" «0"), "workers", "a whole number from 1 to 64, or auto, is wanted, not 0", ""),
    (document(workers=" «'2'"), "workers", "a whole number from 1 to 64, or auto, is wanted, not the text '2'", ""),
    (
        document(accessLog=" {format: «jsn}"),
        "accessLog.format",
        "json, common or combined is wanted, not 'jsn'",
        "'json'",
    ),
    (
        document(limits=" {headerCount: «1.5}"),
        "limits.headerCount",
        "a whole number from 1 to 10000 is wanted, not 1.5",
        "",
    ),
    (document(limits=" {headerCount: «010}"), "limits.headerCount", "not the text '010'", "write 10"),
    (document(limits=" {headerTimeout: «1:30}"), "limits.headerTimeout", "not the text '1:30'", "write 1m30s"),
    (document(limits=" {headerTimeout: «10}"), "limits.headerTimeout", "not 10", "write 10s"),
    # names
    (
        document(listeners=" [{name: w, address: ':1'}, {name: «w, address: ':2'}]"),
        "listeners[1].name",
        "the listener 'w' stands twice",
        "",
    ),
    (
        document(upstreams="\n - {name: a, endpoints: ['http://x:1']}\n - {name: «a, endpoints: ['http://x:2']}"),
        "upstreams[1].name",
        "the upstream 'a' stands twice; first at upstreams[0].name (line 3)",
        "",
    ),
    (
        document(upstreams=" [{name: «1.10, endpoints: ['http://x:1']}]"),
        "upstreams[0].name",
        "YAML reads 1.10 as a number",
        'write "1.10"',
    ),
    (
        document(upstreams=" [{name: «true, endpoints: ['http://x:1']}]"),
        "upstreams[0].name",
        "YAML reads true as true or false",
        'write "true"',
    ),
    (document(upstreams=" [{name: «a b, endpoints: ['http://x:1']}]"), "upstreams[0].name", "a name of 1 to 63", ""),
    (
        document(routes=" [{name: r, rules: [{}]}, {name: «r, rules: [{}]}]"),
        "routes[1].name",
        "the route 'r' stands twice",
        "",
    ),
    (document(routes=" [{name: r, rules: [{name: '1'}, «{}]}]"), "routes[0].rules[1]", "the rule '1' stands twice", ""),
    (
        document(routes=" [{name: r, hostnames: [A.b, «a.B], rules: [{}]}]"),
        "routes[0].hostnames[1]",
        "the host name 'a.b' stands twice",
        "",
    ),
    (document(routes=" [{name: r, rules: «[]}]"), "routes[0].rules", "a route has at least one rule", ""),
    (
        document(routes=" [{name: r, rules: [{}]}, «x]"),
        "routes[1]",
        "a mapping of keys and values is wanted, not 'x'",
        "",
    ),
    # listeners
    ("«" + document(listeners=" []"), "listeners", "there is no listener", "write listeners:"),
    (
        document(listeners=" [{address: ':80'}, {address: «'127.0.0.1:80'}]"),
        "listeners[1].address",
        "127.0.0.1:80 and 0.0.0.0:80 of listeners[0].address (line 1) take the same port",
        "",
    ),
    (
        document(admin=" {address: «'127.0.0.1:8080'}"),
        "admin.address",
        "take the same port",
        "give the admin API another address",
    ),
    (document(probes=" {address: «'127.0.0.1:9900'}"), "probes.address", "127.0.0.1:9900 and 127.0.0.1:9900 of", ""),
    # health
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: «{interval: 1s}}]"),
        "upstreams[0].healthCheck.path",
        "the key 'path' is missing",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: {path: «healthz}}]"),
        "upstreams[0].healthCheck.path",
        "a path begins with '/'",
        "write '/healthz'",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: {path: «'/a b'}}]"),
        "upstreams[0].healthCheck.path",
        "visible ASCII characters",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: {path: /, statuses: [«299-200]}}]"),
        "upstreams[0].healthCheck.statuses[0]",
        "from the lower status to the higher",
        "write 200-299",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: {path: /, statuses: «[]}}]"),
        "upstreams[0].healthCheck.statuses",
        "without a status no answer",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], healthCheck: {path: /, interval: «0s}}]"),
        "upstreams[0].healthCheck.interval",
        "at least 10ms is wanted",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], outlierDetection: {maxEjectionPercent: «101}}]"),
        "upstreams[0].outlierDetection.maxEjectionPercent",
        "a number from 0 to 100",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], outlierDetection: {«consecutive5xx: 5}}]"),
        "upstreams[0].outlierDetection.consecutive5xx",
        "unknown key",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], panicThreshold: «-1}]"),
        "upstreams[0].panicThreshold",
        "a number from 0 to 100",
        "",
    ),
    # upstreams
    (document(upstreams=" [{name: a, endpoints: «[]}]"), "upstreams[0].endpoints", "at least one endpoint", ""),
    (document(upstreams=" [«{name: a}]"), "upstreams[0].endpoints", "the key 'endpoints' is missing", ""),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1', «'http://X:1/']}]"),
        "upstreams[0].endpoints[1]",
        "the endpoint 'http://x:1' stands twice",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: «[{url: 'http://x:1', weight: 0}]}]"),
        "upstreams[0].endpoints",
        "no endpoint has a weight",
        "",
    ),
    # TLS
    (
        document(upstreams=" [{name: a, endpoints: [«'https://x']}]"),
        "upstreams[0].endpoints[0]",
        "an endpoint names its port",
        "https://x:443",
    ),
    (
        document(upstreams=" [{name: a, endpoints: «['https://x:1', 'http://x:2']}]"),
        "upstreams[0].endpoints",
        "are all http:// or all https://",
        "make an upstream of each kind",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], «tls: {serverName: y}}]"),
        "upstreams[0].tls",
        "tls means nothing here",
        "write https://",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['https://x:1'], tls: «{certFile: c}}]"),
        "upstreams[0].tls",
        "certFile and keyFile belong together",
        "give both",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['https://x:1'], tls: «{caFile: c, insecureSkipVerify: true}}]"),
        "upstreams[0].tls",
        "caFile beside insecureSkipVerify",
        "",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['https://x:1'], tls: {caFile: «nowhere.crt}}]"),
        "upstreams[0].tls.caFile",
        "there is no such file",
        "",
    ),
    (
        document(listeners=" [{address: ':1', tls: {certificates: «[]}}]"),
        "listeners[0].tls.certificates",
        "at least one certificate",
        "",
    ),
    (
        document(listeners=" [{address: ':1', tls: {minVersion: «1.2, certificates: [{certFile: a, keyFile: b}]}}]"),
        "listeners[0].tls.minVersion",
        '"1.2" or "1.3" is wanted, not 1.2',
        'write "1.2"',
    ),
    (
        document(listeners=" [{address: ':1', tls: {minVersion: «'1.1', certificates: [{certFile: a, keyFile: b}]}}]"),
        "listeners[0].tls.minVersion",
        '"1.2" or "1.3" is wanted',
        "",
    ),
    (
        document(listeners=" [{address: ':1', tls: «{clientAuth: optional, certificates: [*p]}}]").replace(
            "*p", "{certFile: a, keyFile: b}"
        ),
        "listeners[0].tls",
        "clientAuth needs clientCaFile",
        "",
    ),
    (
        document(listeners=" [{address: ':1', trustedProxies: [«10.0.0.1/8]}]"),
        "listeners[0].trustedProxies[0]",
        "a network such as 10.0.0.0/8 or 192.0.2.7 is wanted",
        "write 10.0.0.0/8",
    ),
    (
        document(listeners=" [{address: ':1', maxConnections: «-1}]"),
        "listeners[0].maxConnections",
        "a whole number from 0 to 1000000 is wanted",
        "",
    ),
    (
        document(listeners=" [{address: ':1', trustedProxies: [«lb.internal]}]"),
        "listeners[0].trustedProxies[0]",
        "a network such as",
        "",
    ),
    (document(listeners=" [{address: ':1', proxyProtocol: «v2}]"), "listeners[0].proxyProtocol", "true or false", ""),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], loadBalancing: «leastRequests}]"),
        "upstreams[0].loadBalancing",
        "roundRobin, leastRequest, random or hash is wanted",
        "leastRequest",
    ),
    (
        document(upstreams=" [{name: a, endpoints: ['http://x:1'], «healthChek: {}}]"),
        "upstreams[0].healthChek",
        "unknown key 'healthChek'",
        "did you mean 'healthCheck'?",
    ),
    # references
    (
        rule("backendRefs: [{name: «aa}]"),
        f"{RULE}.backendRefs[0].name",
        "there is no upstream 'aa'",
        "did you mean 'a'?",
    ),
    (
        filtering("{type: RequestMirror, requestMirror: {backendRef: {name: «c}}}"),
        f"{RULE}.filters[0].requestMirror.backendRef.name",
        "there is no upstream 'c'",
        "",
    ),
    (
        rule("backendRefs: [{name: a}], split: {overrides: [{header: x, value: y, upstream: «c}]}"),
        f"{RULE}.split.overrides[0].upstream",
        "there is no upstream 'c'",
        "",
    ),
    # weights, splits, timeouts
    (
        rule("backendRefs: [{name: a, weight: «'90'}]"),
        f"{RULE}.backendRefs[0].weight",
        "not the text '90'",
        "write 90, without quotes",
    ),
    (rule("backendRefs: [{name: a, weight: «33.333}]"), f"{RULE}.backendRefs[0].weight", "at most two decimals", ""),
    (rule("backendRefs: [{name: a, weight: «-1}]"), f"{RULE}.backendRefs[0].weight", "from 0 to 1000000", ""),
    (rule("split: {key: «{}}"), f"{RULE}.split.key", "exactly one of cookie, header, query and sourceAddress", ""),
    (rule("split: {key: «{cookie: a, header: b}}"), f"{RULE}.split.key", "exactly one of", ""),
    (rule("split: {key: «{sourceAddress: false}}"), f"{RULE}.split.key", "exactly one of", ""),
    (
        rule("split: {key: «{header: a, issue: true}}"),
        f"{RULE}.split.key",
        "only a cookie can be issued",
        "leave `issue` out",
    ),
    (
        rule("split: {overrides: [«{value: x, upstream: a}]}"),
        f"{RULE}.split.overrides[0]",
        "exactly one of header and cookie",
        "",
    ),
    (rule("split: {failover: «on}"), f"{RULE}.split.failover", "true or false is wanted", "write true"),
    (rule("retry: {attempts: «0}"), f"{RULE}.retry.attempts", "a whole number from 1 to 10 is wanted, not 0", ""),
    (rule("retry: {codes: [«200]}"), f"{RULE}.retry.codes[0]", "a whole number from 400 to 599 is wanted, not 200", ""),
    (rule("retry: {«code: [502]}"), f"{RULE}.retry.code", "unknown key 'code'", "did you mean 'codes'?"),
    (rule("retry: «null"), f"{RULE}.retry", "", ""),
    (
        rule("timeouts: {request: 1s, backendRequest: «2s}"),
        f"{RULE}.timeouts.backendRequest",
        "may not take longer than the whole request (1s)",
        "",
    ),
    # matches
    (
        matching("{path: {type: «Prefix, value: /}}"),
        f"{RULE}.matches[0].path.type",
        "Exact, PathPrefix or RegularExpression is wanted",
        "'PathPrefix'",
    ),
    (matching("{path: {value: «shop}}"), f"{RULE}.matches[0].path.value", "a path begins with '/'", "write '/shop'"),
    (
        matching("{path: {type: Exact, value: «/a/../b}}"),
        f"{RULE}.matches[0].path.value",
        "'/../' cannot stand in a path",
        "",
    ),
    (
        matching("{path: {type: RegularExpression, value: «'/a(b'}}"),
        f"{RULE}.matches[0].path.value",
        "not a usable regular expression: missing )",
        "",
    ),
    (
        matching("{path: {type: RegularExpression, value: «'/x[z-a]'}}"),
        f"{RULE}.matches[0].path.value",
        "invalid character class range at character 4: 'z-a'",
        "",
    ),
    (
        matching("{path: {type: RegularExpression, value: «'(?=x)'}}"),
        f"{RULE}.matches[0].path.value",
        "at character 1",
        "no look-around",
    ),
    (
        matching("{headers: [{name: x, type: RegularExpression, value: «'(x{1000}){1000}'}]}"),
        f"{RULE}.matches[0].headers[0].value",
        "not a usable regular expression",
        "",
    ),
    (
        matching("{headers: [{name: x, type: RegularExpression, value: «'x{500}y{500}z{500}'}]}"),
        f"{RULE}.matches[0].headers[0].value",
        "too complex",
        "",
    ),
    (matching("{method: «get}"), f"{RULE}.matches[0].method", "GET, HEAD, POST", "did you mean 'GET'?"),
    (matching("{method: «CONNECT}"), f"{RULE}.matches[0].method", "is wanted, not 'CONNECT'", ""),
    (
        matching("{headers: [{name: «'x y', value: a}]}"),
        f"{RULE}.matches[0].headers[0].name",
        "a header name is wanted",
        "",
    ),
    (
        matching("{headers: [{name: x, value: «1}]}"),
        f"{RULE}.matches[0].headers[0].value",
        "YAML reads 1 as a number",
        'write "1"',
    ),
    (
        matching('{cookies: [{name: x, value: «"a\\r\\nb"}]}'),
        f"{RULE}.matches[0].cookies[0].value",
        "CR, LF and NUL may not stand in it (at character 2)",
        "",
    ),
    (
        matching("{queryParams: [«{name: x}]}"),
        f"{RULE}.matches[0].queryParams[0].value",
        "the key 'value' is missing",
        "",
    ),
    (
        matching("{headers: [{name: x, value: «[a]}]}"),
        f"{RULE}.matches[0].headers[0].value",
        "a header value is wanted, not a list",
        "",
    ),
    # filters
    (
        filtering("{type: «RequestHeaderModifer}"),
        f"{RULE}.filters[0].type",
        "is wanted, not 'RequestHeaderModifer'",
        "'RequestHeaderModifier'",
    ),
    (filtering("«{requestMirror: {}}"), f"{RULE}.filters[0].type", "the key 'type' is missing", ""),
    (filtering("«{type: RequestMirror}"), f"{RULE}.filters[0].requestMirror", "the key 'requestMirror' is missing", ""),
    (
        filtering(
            "{type: RequestMirror, requestMirror: «{backendRef: {name: b}, percent: 1, fraction: {numerator: 1}}}"
        ),
        f"{RULE}.filters[0].requestMirror",
        "percent and fraction say the same thing twice",
        "",
    ),
    (
        filtering("{type: RequestMirror, requestMirror: {backendRef: {name: b}, fraction: «{numerator: 101}}}"),
        f"{RULE}.filters[0].requestMirror.fraction",
        "a fraction is at most 1",
        "",
    ),
    (filtering("{type: URLRewrite, urlRewrite: «{}}"), f"{RULE}.filters[0].urlRewrite", "this rewrites nothing", ""),
    (
        filtering(
            "{type: URLRewrite, urlRewrite: {path:"
            " {type: ReplaceFullPath, replaceFullPath: /, «replacePrefixMatch: /}}}"
        ),
        f"{RULE}.filters[0].urlRewrite.path.replacePrefixMatch",
        "unknown key 'replacePrefixMatch'",
        "",
    ),
    (
        rule("filters: [{type: RequestRedirect, requestRedirect: «{statusCode: 301}}]"),
        f"{RULE}.filters[0].requestRedirect",
        "this redirects every request to where it is",
        "",
    ),
    (
        rule("filters: [{type: RequestRedirect, requestRedirect: {port: 1, statusCode: «304}}]"),
        f"{RULE}.filters[0].requestRedirect.statusCode",
        "301, 302, 303, 307 or 308 is wanted, not",
        "",
    ),
    (
        rule("filters: [{type: RequestRedirect, requestRedirect: {port: 1}}], «backendRefs: [{name: a}]"),
        f"{RULE}.backendRefs",
        "backendRefs beside the redirect at routes[0].rules[0].filters[0] (line 9)",
        "",
    ),
    (
        rule(
            "filters: [{type: RequestRedirect, requestRedirect: {port: 1}},"
            " «{type: URLRewrite, urlRewrite: {hostname: x}}]"
        ),
        f"{RULE}.filters[1]",
        "a URLRewrite beside a RequestRedirect",
        "",
    ),
    (
        rule(
            "filters: [{type: RequestRedirect, requestRedirect: {port: 1}},"
            " «{type: Fault, fault: {abort: {status: 500}}}]"
        ),
        f"{RULE}.filters[1]",
        "a Fault beside a RequestRedirect",
        "",
    ),
    (
        rule("backendRefs: [{name: a}], filters: [{type: Fault, fault: «{}}]"),
        f"{RULE}.filters[0].fault",
        "this fault does nothing",
        "give a delay or an abort",
    ),
    (
        rule("backendRefs: [{name: a}], filters: [{type: Fault, fault: {abort: {status: «200}}}]"),
        f"{RULE}.filters[0].fault.abort.status",
        "a whole number from 400 to 599 is wanted, not 200",
        "",
    ),
    (
        rule("backendRefs: [{name: a}], filters: [{type: Fault, fault: {delay: «{percent: 1}}}]"),
        f"{RULE}.filters[0].fault.delay.duration",
        "the key 'duration' is missing",
        "",
    ),
    (
        rule("backendRefs: [{name: a}], filters: [{type: Fault, fault: {delay: {duration: 1s, percent: «101}}}]"),
        f"{RULE}.filters[0].fault.delay.percent",
        "a number from 0 to 100",
        "",
    ),
    (
        filtering("{type: URLRewrite, urlRewrite: {hostname: x}}, {type: «URLRewrite, urlRewrite: {hostname: y}}"),
        f"{RULE}.filters[1].type",
        "the filter 'URLRewrite' stands twice",
        "",
    ),
    (
        rule("backendRefs: [{name: a, filters: [{type: «RequestMirror, requestMirror: {backendRef: {name: b}}}]}]"),
        f"{RULE}.backendRefs[0].filters[0].type",
        "is wanted, not 'RequestMirror'",
        "",
    ),
    (
        filtering("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], remove: [«a]}}"),
        f"{RULE}.filters[0].requestHeaderModifier.remove[0]",
        "the header 'a' stands twice",
        "",
    ),
    (
        filtering("{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [«Transfer-Encoding]}}"),
        f"{RULE}.filters[0].responseHeaderModifier.remove[0]",
        "belongs to the connection or frames the body",
        "",
    ),
    (
        filtering("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: «Host, value: b}]}}"),
        f"{RULE}.filters[0].requestHeaderModifier.set[0].name",
        "Host is not changed by a header filter",
        "use a URLRewrite",
    ),
    (
        filtering("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: {«fle: b}}]}}"),
        f"{RULE}.filters[0].requestHeaderModifier.set[0].value.fle",
        "unknown key 'fle'",
        "did you mean 'file'?",
    ),
    (
        filtering("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: {file: «nowhere}}]}}"),
        f"{RULE}.filters[0].requestHeaderModifier.set[0].value.file",
        "there is no such file",
        "",
    ),
    (
        rule(
            "backendRefs: [{name: a}], matches: [{path: {type: Exact, value: /x}}], filters: [{type: URLRewrite,"
            " urlRewrite: {path: {type: «ReplacePrefixMatch, replacePrefixMatch: /}}}]"
        ),
        f"{RULE}.filters[0].urlRewrite.path.type",
        "needs a rule with exactly one match, a PathPrefix",
        "use ReplaceFullPath",
    ),
    (
        rule(
            "matches: [{path: {value: /x}}, {path: {value: /y}}], filters: [{type: RequestRedirect,"
            " requestRedirect: {path: {type: «ReplacePrefixMatch, replacePrefixMatch: /}}}]"
        ),
        f"{RULE}.filters[0].requestRedirect.path.type",
        "needs a rule with exactly one match",
        "",
    ),
    (
        document(
            upstreams=" [{name: a, endpoints: ['http://localhost:8080']}]",
            routes=" [{name: r, rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: «a}}}]}]}]",
        ),
        f"{RULE}.filters[0].requestMirror.backendRef.name",
        "copies would come back: 'a' has the listener 127.0.0.1:8080",
        "",
    ),
]


@pytest.mark.parametrize(("text", "path", "message", "hint"), CASES)
def test_an_error_is_found_at_its_place(refuse, text, path, message, hint):
    before, _, _ = text.partition("«")
    problems = refuse(text.replace("«", ""))
    found = [problem for problem in problems if message in problem.message]
    assert found, "\n".join(map(str, problems))
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert (found[0].line, found[0].column, found[0].path) == (line, column, path)
    assert hint in found[0].hint


@pytest.mark.parametrize("text", [case[0] for case in CASES])
def test_one_mistake_is_told_once(refuse, text):
    assert len(refuse(text.replace("«", ""))) == 1
