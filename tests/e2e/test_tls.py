"""TLS in the real program: certificates that change on disk, files that are gone, keys that nobody gets to see."""

import http.client
import os
import signal
import ssl
import threading

import pytest
import trustme

pytestmark = pytest.mark.slow
HOST = "shop.example.com"


def write(folder, certificate):
    """Put a certificate and its key where the configuration has them, each in one step."""
    for name, pem in (
        ("tls.crt", b"".join(part.bytes() for part in certificate.cert_chain_pems)),
        ("tls.key", certificate.private_key_pem.bytes()),
    ):
        (folder / f"{name}.new").write_bytes(pem)
        (folder / f"{name}.new").rename(folder / name)


class Encrypted:
    """A proxy whose listener speaks TLS and whose upstream does too."""

    def __init__(self, folder, services, running, free_address):
        self.folder, self.authority = folder, trustme.CA()
        write(folder, self.authority.issue_cert(HOST))
        (folder / "ca.crt").write_bytes(self.authority.cert_pem.bytes())
        inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("inner.test").configure_cert(inner)
        service = services[0]
        service.socket = inner.wrap_socket(service.socket, server_side=True, do_handshake_on_connect=False)
        self.config = {
            "listeners": [
                {"address": "127.0.0.1:0", "tls": {"certificates": [{"certFile": "tls.crt", "keyFile": "tls.key"}]}}
            ],
            "admin": {"address": free_address()},
            "workers": 2,
            "upstreams": [
                {
                    "name": "shop",
                    "endpoints": [f"https://{service.address}"],
                    "tls": {"caFile": "ca.crt", "serverName": "inner.test"},
                }
            ],
            "routes": [{"name": "shop", "rules": [{"backendRefs": [{"name": "shop"}]}]}],
        }
        self.proxy = running(self.config, folder)
        self.context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())

    def serial(self):
        """Ask on a connection of its own; return the serial number of the certificate that was shown."""
        host, port = self.proxy.listener.rsplit(":", 1)
        with Connection(host, int(port), self.context) as connection:
            connection.request("GET", "/", headers={"Host": HOST})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"shop-v1")
            return connection.sock.getpeercert()["serialNumber"]


class Connection(http.client.HTTPConnection):
    def __init__(self, host, port, context):
        super().__init__(host, port, timeout=20)
        self._context = context

    def connect(self):
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=HOST)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def encrypted(tmp_path, services, running, free_address):
    return Encrypted(tmp_path, services, running, free_address)


def test_a_changed_certificate_is_taken_over_without_a_lost_request(encrypted):
    before = encrypted.serial()
    stop, failures, seen = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                seen.append(encrypted.serial())
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    write(encrypted.folder, encrypted.authority.issue_cert(HOST))  # nobody is told: the files are watched
    proxy = encrypted.proxy
    with proxy._come:
        assert proxy._come.wait_for(lambda: "generation 2 serves" in proxy.log, 20), proxy.log
    after = encrypted.serial()
    stop.set()
    asking.join()
    assert after != before
    assert failures == []
    assert set(seen) <= {before, after}


def test_a_key_that_does_not_fit_is_refused_and_the_old_certificate_serves_on(encrypted):
    before = encrypted.serial()
    (encrypted.folder / "tls.key").write_bytes(encrypted.authority.issue_cert(HOST).private_key_pem.bytes())
    status, answer = encrypted.proxy.ask("/-/reload", "POST")
    assert status == 422
    assert "the key does not belong to the certificate" in answer["errors"][0]["message"]
    assert answer["errors"][0]["path"] == "listeners[0].tls.certificates[0].keyFile"
    assert encrypted.serial() == before


def test_a_replaced_worker_needs_no_files(encrypted):
    before = encrypted.serial()
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (encrypted.folder / name).unlink()
    proxy = encrypted.proxy
    for pid in proxy.children("splitproxy.proxy.worker"):
        os.kill(pid, signal.SIGKILL)
    with proxy._come:
        assert proxy._come.wait_for(lambda: proxy.log.count("was killed by SIGKILL") == 2, 20), proxy.log
    assert {encrypted.serial() for _ in range(10)} == {before}


def test_nobody_is_shown_a_key(encrypted):
    _, answer = encrypted.proxy.ask("/api/v1/config")
    (certificate,) = answer["config"]["listeners"][0]["tls"]["certificates"]
    assert certificate["names"] == [HOST]
    assert certificate["pem"] == "***"
    assert "PRIVATE KEY" not in str(answer)
    assert "PRIVATE KEY" not in str(encrypted.proxy.ask("/api/v1/upstreams")) + encrypted.proxy.log
