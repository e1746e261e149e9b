from types import SimpleNamespace

import pytest

from splitproxy.control.guard import allowed_names, refusal

ALLOWED = frozenset({"admin.example.com", "10.0.0.5"})


def asked(host="127.0.0.1:9900", method="GET", **headers):
    hosts = host if isinstance(host, list) else [host]
    no = refusal(method, {name.replace("_", "-"): value for name, value in headers.items()}, hosts, ALLOWED)
    return no[0] if no else 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9900", "127.0.0.1", "127.8.9.10:1", "localhost:9900", "LOCALHOST", "x.localhost", "localhost.:9900",
     "[::1]:9900", "[::1]", "admin.example.com", "Admin.Example.com:80", "10.0.0.5:9900"],
)  # fmt: skip
def test_loopback_and_listed_names_are_served(host):
    assert asked(host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.6",
     "0.0.0.0:9900", "", "[::2]", "169.254.169.254", "2130706433", "sub.admin.example.com",
     ["127.0.0.1", "evil.example"], []],
)  # fmt: skip
def test_other_names_are_refused(host):
    assert asked(host) == 421


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_our_own_may_ask(method):
    assert asked(method=method, Origin="http://127.0.0.1:9900", Sec_Fetch_Site="same-origin") == 200
    assert asked("admin.example.com", method, Origin="https://admin.example.com") == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1", "", "file://"]
)
def test_a_foreign_origin_is_refused(method, origin):
    assert asked(method=method, Origin=origin) == 403


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("none", 200), ("same-origin", 200)]
)
def test_a_change_is_refused_when_another_site_asks_for_it(site, status):
    assert asked(method="POST", Sec_Fetch_Site=site) == status
    assert asked(method="GET", Sec_Fetch_Site=site) == 200


def test_the_bound_address_and_the_listed_hosts_are_allowed():
    running = SimpleNamespace(admin="10.0.0.5:9900", allowed_hosts=["Admin.example.com"])
    assert allowed_names(running) == {"10.0.0.5", "admin.example.com"}
    assert allowed_names(None) == frozenset()


def test_an_address_that_means_all_is_no_name_to_ask_for():
    everywhere = SimpleNamespace(admin="0.0.0.0:9900", allowed_hosts=[])
    assert refusal("GET", {}, ["10.1.2.3:9900"], allowed_names(everywhere))[0] == 421
