"""X-Forwarded-*: whose word is taken, what upstreams see, and what the client's address is used for."""

import pytest

CLAIMS = {
    "x_forwarded_for": "6.6.6.6, 203.0.113.9",
    "x_forwarded_proto": "https",
    "x_forwarded_host": "www.shop.test",
    "x_forwarded_port": "8443",
    "x_forwarded_prefix": "/evil",
    "x_real_ip": "6.6.6.6",
    "forwarded": "for=6.6.6.6",
}
TRUSTED = {"trustedProxies": ["127.0.0.0/8"]}
TWO = [{"name": "a", "weight": 1, "filters": []}, {"name": "b", "weight": 1, "filters": []}]


def seen(request):
    return {name: value for name, value in request.fields if name.lower().startswith((b"x-forw", b"x-real", b"forw"))}


async def test_nobody_is_believed_by_default(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    await rig.ask(**CLAIMS)
    assert seen(endpoint.received[0]) == {
        b"X-Forwarded-For": b"127.0.0.1",
        b"X-Forwarded-Proto": b"http",
        b"X-Forwarded-Host": b"kit.test",
    }
    assert rig.log()[0]["client"] == "127.0.0.1"


async def test_another_peer_than_the_trusted_is_not_believed(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={"trustedProxies": ["192.0.2.0/24"]})
    await rig.ask(**CLAIMS)
    assert seen(endpoint.received[0])[b"X-Forwarded-For"] == b"127.0.0.1"
    assert rig.log()[0]["client"] == "127.0.0.1"


@pytest.mark.on_loop("uvloop", "asyncio")
async def test_a_trusted_peer_is_believed_and_what_it_may_not_say_is_cut(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=TRUSTED)
    await rig.ask(**CLAIMS)
    assert seen(endpoint.received[0]) == {
        b"X-Forwarded-For": b"6.6.6.6, 203.0.113.9, 127.0.0.1",
        b"X-Forwarded-Proto": b"https",
        b"X-Forwarded-Host": b"www.shop.test",
        b"X-Forwarded-Port": b"8443",
    }
    assert rig.log()[0]["client"] == "203.0.113.9"


async def test_requests_of_many_clients_share_a_trusted_connection(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=TRUSTED)
    proxy = await rig.client()
    addresses = ["203.0.113.9", "203.0.113.10", None, "203.0.113.9"]
    for address in addresses:
        await proxy.ask(**({"x_forwarded_for": address} if address else {}))
    assert [line["client"] for line in rig.log()] == [address or "127.0.0.1" for address in addresses]
    chains = [request.get(b"x-forwarded-for").decode() for request in endpoint.received]
    assert chains == [f"{address}, 127.0.0.1" if address else "127.0.0.1" for address in addresses]


async def test_a_reload_changes_who_is_believed_from_the_next_connection_on(rig):
    endpoint = await rig.endpoint()
    for listener, client in (({}, "127.0.0.1"), (TRUSTED, "203.0.113.9"), ({}, "127.0.0.1")):
        await rig.serve(endpoint, listener=listener)
        await rig.ask(x_forwarded_for="203.0.113.9")
        assert rig.log()[-1]["client"] == client


async def test_bytes_that_are_no_request_are_the_peers(rig):
    await rig.serve(await rig.endpoint(), listener=TRUSTED)
    proxy = await rig.client()
    await proxy.ask(x_forwarded_for="203.0.113.9")
    await proxy.send(b"nonsense\r\n\r\n")
    assert (await proxy.response()).status == 400
    assert [line["client"] for line in rig.log()] == ["203.0.113.9", "127.0.0.1"]


async def test_a_split_by_source_address_goes_by_the_client(rig):
    split = {"key": {"sourceAddress": True}, "overrides": []}
    await rig.serve(
        await rig.endpoint(), await rig.endpoint(), rules=[{"backendRefs": TWO, "split": split}], listener=TRUSTED
    )
    proxy = await rig.client()
    for number in range(40):
        for _ in range(2):
            await proxy.ask(x_forwarded_for=f"203.0.113.{number}")
    lines = rig.log()
    upstreams = {}
    for line in lines:
        upstreams.setdefault(line["client"], set()).add(line["upstream"])
    assert all(len(found) == 1 for found in upstreams.values())
    assert set.union(*upstreams.values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("claims", "location"),
    [
        ({}, "http://kit.test:{port}/x"),
        ({"x_forwarded_proto": "https"}, "https://kit.test/x"),
        ({"x_forwarded_proto": "http"}, "http://kit.test/x"),
        ({"x_forwarded_proto": "https", "x_forwarded_port": "8443"}, "https://kit.test:8443/x"),
    ],
)
async def test_redirects_lead_to_where_the_client_is(rig, claims, location):
    redirect = {"scheme": None, "hostname": None, "path": None, "port": None, "statusCode": 302}
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}], "backendRefs": []}
    await rig.serve(await rig.endpoint(), rules=[rule], listener=TRUSTED)
    answer = await rig.ask("/x", **claims)
    assert answer.get(b"location").decode() == location.format(port=rig.port)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cookies_are_secure_where_the_client_speaks_tls(rig, scheme):
    split = {"key": {"cookie": "sp_id", "issue": True}, "overrides": []}
    await rig.serve(
        await rig.endpoint(), await rig.endpoint(), rules=[{"backendRefs": TWO, "split": split}], listener=TRUSTED
    )
    cookie = (await rig.ask(x_forwarded_proto=scheme)).get(b"set-cookie")
    assert cookie.endswith(b"; Secure") is (scheme == "https")
