"""Heads on the wire: what crosses, what never does, what the proxy adds, and what filters and splits make of it."""

import math
import re

import pytest

GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\n"
HOP_BY_HOP = [b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"]


@pytest.fixture
def relayed(rig):
    """Return a function that sends a head and returns what the endpoint got of it and what the client got back."""

    async def relay(lines, start=GET, **options):
        endpoint = await rig.endpoint()
        await rig.serve(endpoint, **options)
        client = await rig.client()
        await client.send(start + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
        response = await client.response()
        assert response.status == 200, response.raw
        return endpoint.received[0], response

    return relay


async def test_every_field_is_forwarded_as_it_came_and_in_order(relayed):
    lines = [b"User-Agent: x", b"ACCEPT:*/*", b"x-UPPER: A, b", b"Cookie: a=b; c=d", b"X-A: 1", b"X-A:   2  ", b"X-E:"]
    request, _ = await relayed(lines)
    assert request.raw.startswith(GET + b"".join(line + b"\r\n" for line in lines))


@pytest.mark.parametrize(
    "lines",
    [
        [b"Connection: close", b"Keep-Alive: timeout=5"],
        [b"Connection: keep-alive, X-Private", b"X-Private: 1", b"x-private: 2"],
        [b"Connection: X-Absent"],
        [b"Connection: keep-alive, X-Absent, X-Gone"],
        [b"Connection: close, token, upgrade, token, keep-alive"],
        [b"Connection: x-private", b"Connection: keep-alive", b"X-Private: 1"],
        [b"Connection: TE", b"TE: trailers"],
        [b"Proxy-Connection: keep-alive", b"Trailer: X-Sum"],
        [b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
        [b"Connection: upgrade", b"Upgrade: h2c/1"],
        [b"Connection: upgrade", b"Upgrade: h2c HTTP/1.1"],
        [b"Connection: upgrade", b"Upgrade: x h2c"],
        [b"Connection: upgrade", b"Upgrade: h2c\xa0"],
        [b"Upgrade: websocket"],
        [b"Connection: X-Forwarded-For, X-Request-Id"],
    ],
)
async def test_no_hop_by_hop_field_crosses_whatever_connection_names(relayed, lines):
    request, _ = await relayed([*lines, b"X-Public: 1"])
    assert request.line == b"GET / HTTP/1.1"
    assert not request.names & {*HOP_BY_HOP, b"x-private", b"http2-settings"}
    assert request.get(b"x-public") == b"1"
    assert request.all(b"host") == [b"kit.test"]
    assert request.get(b"x-forwarded-for") == b"127.0.0.1"


@pytest.mark.parametrize("name", [b"Host", b"Cookie", b"Authorization", b"Content-Length"])
async def test_connection_cannot_take_an_end_to_end_field_away(rig, name):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    fields = b"Cookie: a=b\r\nAuthorization: x\r\nContent-Length: 2\r\nConnection: " + name
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\n" + fields + b"\r\n\r\nab")
    assert (await client.response()).status == 200
    assert endpoint.received[0].names >= {b"host", b"cookie", b"authorization", b"content-length"}


async def test_what_is_forwarded_says_who_asked_and_for_what(relayed):
    request, _ = await relayed([])
    assert request.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.all(b"x-forwarded-proto") == [b"http"]
    assert request.all(b"x-forwarded-host") == [b"kit.test"]
    (request_id,) = request.all(b"x-request-id")
    assert re.fullmatch(rb"[0-9a-f]{20}", request_id)


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"X-Forwarded-For: 6.6.6.6",
            b"X-FORWARDED-PROTO: https",
            b"x-forwarded-host: evil",
            b"Forwarded: for=6.6.6.6",
        ),
        *(b"X_Forwarded_For: 6.6.6.6", b"X-Forwarded_For: 6.6.6.6", b"X-Real-IP: 6.6.6.6", b"X-Forwarded-Port: 1"),
    ],
)
async def test_nobody_is_believed_about_who_asked(relayed, line):
    request, _ = await relayed([line, line])
    assert b"6.6.6.6" not in request.raw
    assert b"evil" not in request.raw
    assert line not in request.raw
    assert request.all(b"x-forwarded-for") == [b"127.0.0.1"]


async def test_a_request_id_that_came_is_kept_and_logged(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    await rig.ask(x_request_id="abc-1")
    assert endpoint.received[0].all(b"x-request-id") == [b"abc-1"]
    assert rig.log()[0]["requestId"] == "abc-1"


@pytest.mark.parametrize("lines", [[b"X-Request-Id: a b"], [b"X-Request-Id: " + b"a" * 129], [b"X-Request-Id: a"] * 2])
async def test_a_request_id_unfit_to_be_logged_is_replaced(relayed, lines):
    request, _ = await relayed(lines)
    (request_id,) = request.all(b"x-request-id")
    assert re.fullmatch(rb"[0-9a-f]{20}", request_id)


async def test_an_absolute_target_becomes_a_path_and_its_host_counts(relayed):
    start = b"GET http://SHOP.test:81/a?b HTTP/1.1\r\nHost: other.test\r\n"
    request, _ = await relayed([b"X: 1"], start, hostnames=["shop.test"])
    assert request.target == b"/a?b"
    assert request.all(b"host") == [b"shop.test:81"]


async def test_an_asterisk_is_forwarded(relayed):
    request, _ = await relayed([], b"OPTIONS * HTTP/1.1\r\nHost: kit.test\r\n")
    assert request.target == b"*"


# --- filters -----------------------------------------------------------------------------------------------------
def filters(*given):
    keys = {"URLRewrite": "urlRewrite"}
    return [{"filters": [{"type": kind, keys.get(kind, kind[0].lower() + kind[1:]): value} for kind, value in given]}]


MODIFIER = {
    "set": [{"name": "X-Set", "value": "new"}],
    "add": [{"name": "X-Added", "value": "more"}, {"name": "X-Fresh", "value": "1"}],
    "remove": ["X-Gone"],
}


async def test_request_fields_are_set_added_and_removed(relayed):
    lines = [b"x-set: a", b"x-set: b", b"X-Added: first", b"x-gone: 1", b"X-Kept: 1"]
    request, _ = await relayed(lines, rules=filters(("RequestHeaderModifier", MODIFIER)))
    assert request.all(b"x-set") == [b"new"]
    assert b",".join(request.all(b"x-added")).replace(b" ", b"") == b"first,more"
    assert request.all(b"x-fresh") == [b"1"]
    assert b"x-gone" not in request.names
    assert request.get(b"x-kept") == b"1"


async def test_response_fields_are_set_added_and_removed(rig):
    answer = (
        b"HTTP/1.1 200 OK\r\nX-Set: a\r\nX-Gone: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok"
    )
    await rig.serve(await rig.endpoint(answer), rules=filters(("ResponseHeaderModifier", MODIFIER)))
    response = await rig.ask()
    assert (response.all(b"x-set"), response.all(b"x-fresh")) == ([b"new"], [b"1"])
    assert b"x-gone" not in response.names
    assert response.all(b"set-cookie") == [b"a=b", b"c=d"]
    assert response.body == b"ok"


async def test_a_backend_has_filters_of_its_own(rig):
    endpoint = await rig.endpoint()
    modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {**MODIFIER, "add": [], "remove": []}}
    await rig.serve(endpoint, rules=[{"backendRefs": [{"name": "a", "weight": 1, "filters": [modifier]}]}])
    await rig.ask()
    assert endpoint.received[0].get(b"x-set") == b"new"


@pytest.mark.parametrize(
    ("path", "target", "wanted"),
    [
        ({"type": "ReplaceFullPath", "replaceFullPath": "/new"}, "/shop/a?b=c", b"/new?b=c"),
        ({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}, "/shop/a?b=c", b"/v2/a?b=c"),
        ({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}, "/shop", b"/"),
    ],
)
async def test_a_rewrite_changes_path_and_host(rig, path, target, wanted):
    endpoint = await rig.endpoint()
    (rule,) = filters(("URLRewrite", {"hostname": "inner.test", "path": path}))
    match = {
        "path": {"type": "PathPrefix", "value": "/shop"},
        "method": None,
        "headers": [],
        "cookies": [],
        "queryParams": [],
    }
    await rig.serve(endpoint, rules=[{**rule, "matches": [match]}])
    await rig.ask(target)
    assert endpoint.received[0].target == wanted
    assert endpoint.received[0].all(b"host") == [b"inner.test"]


async def test_a_redirect_is_answered_and_counted_to_nobody(rig):
    redirect = {"scheme": "https", "hostname": "new.test", "path": None, "port": None, "statusCode": 301}
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, rules=filters(("RequestRedirect", redirect)))
    client = await rig.client()
    for _ in range(2):
        response = await client.ask("/a?b")
        assert (response.status, response.get(b"location")) == (301, b"https://new.test/a?b")
    assert endpoint.connections == 0
    assert rig.codes(upstream="", route="shop") == {"301": 2}


# --- splits ------------------------------------------------------------------------------------------------------
def split(canary, key=None, overrides=()):
    refs = [{"name": name, "weight": weight, "filters": []} for name, weight in (("a", 100 - canary), ("b", canary))]
    return [{"backendRefs": refs, "split": {"key": key, "overrides": list(overrides)}}]


async def two(rig, rules):
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name for name in (b"a", b"b")]
    endpoints = [await rig.endpoint(answer) for answer in answers]
    await rig.serve(*endpoints, rules=rules)
    return endpoints


async def test_shares_are_within_binomial_bounds_end_to_end(rig):
    await two(rig, split(20))
    client, count = await rig.client(), 3000
    got = [(await client.ask()).body for _ in range(count)]
    share = got.count(b"b") / count
    assert abs(share - 0.2) < 6 * math.sqrt(0.2 * 0.8 / count)
    assert rig.codes(upstream="a", role="primary") == {"200": got.count(b"a")}
    assert rig.codes(upstream="b", role="canary") == {"200": got.count(b"b")}
    assert rig.reasons() == {"random": count}


async def test_a_header_or_cookie_overrides_the_split(rig):
    overrides = [
        {"header": "x-version", "value": "next", "upstream": "b"},
        {"cookie": "version", "value": "next", "upstream": "b"},
    ]
    await two(rig, split(0, overrides=overrides))
    assert (await rig.ask(x_version="next")).body == b"b"
    assert (await rig.ask(cookie="a=b; version=next")).body == b"b"
    assert (await rig.ask(x_version="other")).body == b"a"
    assert rig.reasons() == {"override": 2, "match": 1}
    assert [line["reason"] for line in rig.log()] == ["override", "override", "match"]


async def test_a_key_always_leads_to_the_same_upstream(rig):
    await two(rig, split(50, key={"header": "x-user-id"}))
    for user in range(20):
        assert len({(await rig.ask(x_user_id=user)).body for _ in range(3)}) == 1
    assert rig.reasons() == {"key": 60}


async def test_an_issued_cookie_is_used_for_the_very_request_and_from_then_on(rig):
    endpoints = await two(rig, split(50, key={"cookie": "sp_id", "issue": True}))
    for _ in range(10):
        first = await rig.ask()
        (cookie,) = first.all(b"set-cookie")
        found = re.fullmatch(rb"sp_id=([0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax", cookie)
        assert found
        again = await rig.ask(cookie=f"sp_id={found[1].decode()}")
        assert again.body == first.body
        assert again.all(b"set-cookie") == []
    assert rig.reasons() == {"key": 20}
    assert len(endpoints[0].received) + len(endpoints[1].received) == 20


async def test_an_issued_cookie_stands_beside_the_upstreams_own(rig):
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"
    await rig.serve(
        await rig.endpoint(answer), await rig.endpoint(answer), rules=split(50, key={"cookie": "sp_id", "issue": True})
    )
    cookies = (await rig.ask()).all(b"set-cookie")
    assert len(cookies) == 2
    assert b"a=b" in cookies
