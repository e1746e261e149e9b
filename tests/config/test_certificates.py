"""Certificates, keys and authorities in a configuration: read, tried, kept out of sight."""

from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

CA = trustme.CA()
OTHER = trustme.CA()
LISTENER = """
listeners:
  - address: ':8443'
    tls: {certificates: [{certFile: tls.crt, keyFile: tls.key}]%s}
"""
MUTUAL = LISTENER % ", clientCaFile: ca.crt"
UPSTREAM = """
listeners: [{address: ':8080'}]
upstreams:
  - {name: a, endpoints: ['https://shop.internal:443'], tls: {%s}}
routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]
"""


def pem(certificate):
    return b"".join(part.bytes() for part in certificate.cert_chain_pems), certificate.private_key_pem.bytes()


CHAIN, KEY = pem(CA.issue_cert("shop.test", "*.Shop.test"))
OTHER_KEY = OTHER.issue_cert("x.test").private_key_pem.bytes()
LOCKED_KEY = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)


@pytest.fixture
def files(tmp_path):
    """Return a function that writes files beside the configuration."""

    def write(**named):
        for name, data in {"tls_crt": CHAIN, "tls_key": KEY, "ca_crt": CA.cert_pem.bytes(), **named}.items():
            if data is not None:
                (tmp_path / name.replace("_", ".")).write_bytes(data)

    return write


def test_what_a_listener_needs_is_in_the_plain_form_and_hidden_from_people(files, load_text, tmp_path):
    files()
    loaded = load_text(MUTUAL)
    tls = loaded.plain["listeners"][0]["tls"]
    (certificate,) = tls["certificates"]
    assert certificate["names"] == ["shop.test", "*.shop.test"]
    assert certificate["pem"]["key"].encode().strip() == KEY.strip()
    assert (tls["minVersion"], tls["clientAuth"]) == ("1.2", "required")
    assert tls["clientCa"].encode().strip() == CA.cert_pem.bytes().strip()
    assert loaded.public["listeners"][0]["tls"]["certificates"][0]["pem"] == "***"
    assert "PRIVATE" not in str(loaded.public)
    assert {"tls.crt", "tls.key", "ca.crt"} <= {path.name for path in loaded.sources}
    assert [warning for warning in loaded.warnings if "certificate" in str(warning)] == []


def test_every_file_counts_for_the_checksum(files, load_text):
    files()
    before = load_text(MUTUAL).checksum
    files(ca_crt=OTHER.cert_pem.bytes())
    assert load_text(MUTUAL).checksum != before


@pytest.mark.parametrize(
    ("named", "path", "message"),
    [
        ({"tls_crt": b"nothing"}, "certFile", "holds no certificate"),
        ({"tls_crt": KEY}, "certFile", "holds no certificate"),
        ({"tls_key": CHAIN}, "keyFile", "holds no private key"),
        ({"tls_key": LOCKED_KEY}, "keyFile", "the private key is encrypted"),
        ({"tls_key": OTHER_KEY}, "keyFile", "the key does not belong to the certificate"),
        ({"tls_crt": CHAIN[:100] + b"AAAA" + CHAIN[104:]}, "keyFile", "is damaged"),
        ({"tls_crt": CHAIN.replace(b"A", b"\xff", 1)}, "certFile", "holds no certificate"),
    ],
)
def test_what_cannot_serve_is_refused_with_its_place(files, refuse, named, path, message):
    files(**named)
    (problem,) = refuse(LISTENER % "")
    assert problem.path == f"listeners[0].tls.certificates[0].{path}"
    assert problem.line == 4
    assert message in problem.message


def test_a_file_that_is_not_there_is_named(files, refuse, tmp_path):
    files()
    (tmp_path / "tls.key").unlink()
    (problem,) = refuse(LISTENER % "")
    assert problem.path == "listeners[0].tls.certificates[0].keyFile"
    assert "tls.key': there is no such file" in problem.message


def test_authorities_are_looked_at_too(files, refuse):
    files(ca_crt=CHAIN[:90] + b"AAAA" + CHAIN[94:])
    (problem,) = refuse(MUTUAL)
    assert problem.path == "listeners[0].tls.clientCaFile"
    assert "damaged" in problem.message


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-400, -1, "expired on"),
        (-1, 5, "expires on"),
        (2, 100, "is valid from"),
        (-1, 100, ""),
    ],
)
def test_the_times_of_a_certificate_are_worth_a_warning(files, load_text, begins, ends, said):
    now = datetime.now(UTC).replace(tzinfo=None)
    times = {"not_before": now + timedelta(days=begins), "not_after": now + timedelta(days=ends)}
    chain, key = pem(CA.issue_cert("shop.test", **times))
    files(tls_crt=chain, tls_key=key)
    warnings = [warning for warning in load_text(LISTENER % "").warnings if "certificate" in warning.message]
    assert [warning.path for warning in warnings] == ["listeners[0].tls.certificates[0].certFile"] * bool(said)
    assert all(said in warning.message for warning in warnings)


def test_an_upstream_has_every_default(load_text):
    plain = load_text(UPSTREAM % "").plain["upstreams"][0]
    assert plain["tls"] == {
        "caFile": None,
        "serverName": None,
        "certFile": None,
        "keyFile": None,
        "insecureSkipVerify": False,
        "ca": "",
        "pem": None,
    }
    without = UPSTREAM.replace(", tls: {%s}", "")
    assert load_text(without).plain["upstreams"][0]["tls"] == plain["tls"]


def test_what_an_upstream_needs_is_read(files, load_text):
    files()
    loaded = load_text(UPSTREAM % "caFile: ca.crt, certFile: tls.crt, keyFile: tls.key, serverName: Shop.Test")
    tls = loaded.plain["upstreams"][0]["tls"]
    assert tls["ca"].encode().strip() == CA.cert_pem.bytes().strip()
    assert tls["pem"]["key"].encode().strip() == KEY.strip()
    assert tls["serverName"] == "shop.test"
    assert loaded.public["upstreams"][0]["tls"]["pem"] == "***"


def test_what_weakens_trust_is_a_warning(load_text):
    text = UPSTREAM.replace("':8080'", "':8080', proxyProtocol: true") % "insecureSkipVerify: true"
    places = [warning.path for warning in load_text(text).warnings]
    assert places == ["listeners[0].proxyProtocol", "upstreams[0].tls.insecureSkipVerify"]
    text = text.replace("proxyProtocol: true", "trustedProxies: ['0.0.0.0/0']")
    assert "listeners[0].trustedProxies[0]" in [warning.path for warning in load_text(text).warnings]
