import asyncio
import base64
import contextlib
import json
import re
import shutil
import socket
import time
from urllib.parse import unquote_plus

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from splitproxy.control.providers import build
from splitproxy.core.analysis import Measurement

DEFAULTS = {
    "headers": {},
    "token": None,
    "username": None,
    "password": None,
    "insecureSkipVerify": False,
    "timeout": 5.0,
    "jsonPath": "$",
}
NO_DATA = Measurement(None)


class Source:
    """Stands for a service: notes what it is asked and gives one answer."""

    def __init__(self, status=200, body="", headers=None):
        self.answer, self.got = (status, body, headers), []

    async def give(self, request):
        self.got.append(request)
        status, body, headers = self.answer
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        return web.Response(status=status, body=text, headers=headers)


async def ask(source, kind, query, path="", **given):
    """Return what a provider makes of what a service answers, at an address with this path."""
    application = web.Application()
    application.router.add_get("/{anything:.*}", source.give)
    async with TestServer(application) as server:
        plain = {**DEFAULTS, "type": kind, "address": f"http://{server.host}:{server.port}{path}", **given}
        return await build(plain).query(query)


def vector(*values):
    return {
        "status": "success",
        "data": {
            "resultType": "vector",
            "result": [{"metric": {"n": str(n)}, "value": [1.5, value]} for n, value in enumerate(values)],
        },
    }


def result(kind, value):
    return {"status": "success", "data": {"resultType": kind, "result": value}}


# --- prometheus ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "measured"),
    [
        (vector("12.5"), Measurement(12.5)),
        (vector("-1e-3"), Measurement(-0.001)),
        (result("scalar", [1.5, "3"]), Measurement(3.0)),
        (vector(), NO_DATA),
        (vector("NaN"), NO_DATA),
        (result("scalar", [1.5, "NaN"]), NO_DATA),
    ],
)
async def test_prometheus_gives_one_number_or_no_data(answer, measured):
    assert await ask(Source(body=answer), "prometheus", "up") == measured


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (Source(body=vector("1", "2", "3")), "the query gives 3 series, not one: put sum(...) or the like around it"),
        (Source(body=vector("+Inf")), "the value is infinite: the query divides by zero"),
        (Source(body=vector("-Inf")), "the value is infinite"),
        (Source(body=vector("many")), "'many' is no number"),
        (Source(body=vector(True)), "true is no number"),
        (Source(body=vector(10**400)), "is no number"),
        (Source(body=result("matrix", [])), "the query gives a matrix, not one number"),
        (Source(body=result("string", [1.5, "a"])), "the query gives a string, not one number"),
        (Source(body={"status": "error", "errorType": "timeout", "error": "late"}), "Prometheus says: late"),
        (Source(422, {"status": "error", "error": "parse error"}), 'HTTP 422: {"status": "error", "error": "parse er'),
        (Source(503, "starting"), "HTTP 503: starting"),
        (Source(204), "the answer is no JSON: it is empty"),
        (Source(302, "", {"Location": "/login"}), "HTTP 302: redirects to /login, which is not followed"),
        (Source(body="<html>\x07login"), "the answer is no JSON: <html> login"),
        (Source(body=""), "the answer is no JSON: it is empty"),
        (Source(body="[" * 100_000), "the answer is no JSON: ["),
        (Source(body={}), "the answer is not of the form that Prometheus gives"),
        (Source(body=result("vector", [{"metric": {}}])), "the answer is not of the form that Prometheus gives"),
        (Source(body=[]), "the answer is not of the form that Prometheus gives"),
    ],
)
async def test_prometheus_says_why_it_has_none(source, error):
    measured = await ask(source, "prometheus", "up")
    assert measured.value is None
    assert measured.error.startswith(error) or error in measured.error
    assert len(measured.error) <= 1024


async def test_many_series_are_counted_however_long_the_answer():
    measured = await ask(Source(body=vector(*["1"] * 5000)), "prometheus", "up")
    assert measured.error.startswith("the query gives 5000 series")


@pytest.mark.parametrize(
    ("path", "asked"),
    [("", "/api/v1/query"), ("/", "/api/v1/query"), ("/prom/", "/prom/api/v1/query"), ("/a?t=1", "/a/api/v1/query")],
)
async def test_prometheus_is_asked_at_its_address(path, asked):
    source = Source(body=vector("1"))
    await ask(source, "prometheus", 'sum(\n  rate(x{a=~"b+|c&d"}[1m])\n)  # 100 %', path)
    (request,) = source.got
    assert request.path == asked
    assert request.query["query"] == 'sum( rate(x{a=~"b+|c&d"}[1m]) ) # 100 %'
    assert ("t" in request.query) == ("?" in path)


@pytest.mark.parametrize("kind", ["prometheus", "web"])
async def test_credentials_and_headers_are_sent_with_every_query_alike(kind):
    source = Source(body=vector("1") if kind == "prometheus" else "1")
    application = web.Application()
    application.router.add_get("/{anything:.*}", source.give)
    headers = {"X-Scope-OrgID": "shop", "accept": "*/*"}
    async with TestServer(application) as server:
        address = f"http://{server.host}:{server.port}"
        plain = {**DEFAULTS, "type": kind, "address": address, "headers": headers, "token": "t"}
        provider = build(plain)
        for _ in range(3):
            assert await provider.query("up") == Measurement(1.0)
        await build({**plain, "token": None, "username": "u", "password": "p"}).query("up")
    assert headers == {"X-Scope-OrgID": "shop", "accept": "*/*"}
    for request in source.got[:3]:
        assert request.headers.getall("Authorization") == ["Bearer t"]
        assert request.headers.getall("X-Scope-OrgID") == ["shop"]
        assert request.headers.getall("Accept") == ["*/*"]
    assert base64.b64decode(source.got[3].headers["Authorization"].removeprefix("Basic ")) == b"u:p"


@pytest.mark.parametrize("kind", ["prometheus", "web"])
async def test_a_source_that_cannot_be_asked_is_an_error(kind):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        plain = {**DEFAULTS, "type": kind, "address": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeout": 0.2}
        assert (await build(plain).query("up")).error.startswith("cannot connect: ")
        silent.listen()
        assert await build(plain).query("up") == Measurement(None, error="no answer within 0.2 s")


# --- web -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "path", "measured"),
    [
        ("42", "$", Measurement(42.0)),
        ('"42.5"', "$", Measurement(42.5)),
        ('{"data": {"rates": [{"errors": 0.25}]}}', "$.data.rates[0].errors", Measurement(0.25)),
        ('{"value": null}', "$.value", NO_DATA),
        ('{"value": NaN}', "$.value", NO_DATA),
        ('{"value": "nan"}', "$.value", NO_DATA),
    ],
)
async def test_a_service_gives_the_number_at_the_path(body, path, measured):
    assert await ask(Source(body=body), "web", "/errors", jsonPath=path) == measured


@pytest.mark.parametrize(
    ("source", "path", "error"),
    [
        (Source(body="{}"), "$.value", "there is no $.value in the answer"),
        (Source(body="[]"), "$[0].value", "there is no $[0] in the answer"),
        (Source(body='{"value": true}'), "$.value", "true is no number"),
        (Source(body='{"value": [1]}'), "$.value", "[1] is no number"),
        (Source(body='{"value": "1 %"}'), "$.value", "'1 %' is no number"),
        (Source(body='{"value": 1e999}'), "$.value", "the value is infinite"),
        (Source(body="ok"), "$", "the answer is no JSON: ok"),
        (Source(500, "broken"), "$", "HTTP 500: broken"),
    ],
)
async def test_a_service_that_gives_none_is_an_error(source, path, error):
    measured = await ask(source, "web", "", jsonPath=path)
    assert measured.value is None
    assert measured.error.startswith(error)


@pytest.mark.parametrize(
    ("address", "query", "asked"),
    [
        ("", "", "/"),
        ("", "/errors?version=v2", "/errors?version=v2"),
        ("", "errors", "/errors"),
        ("/api", "errors?a=b c", "/api/errors?a=b c"),
        ("/api/", "/errors", "/api/errors"),
        ("/api?key=1", "?version=v2", "/api?key=1&version=v2"),
        ("/api?key=1", "", "/api?key=1"),
        ("", "@127.0.0.1:1/errors", "/@127.0.0.1:1/errors"),
        ("", "//127.0.0.1:1/errors", "/127.0.0.1:1/errors"),
    ],
)
async def test_a_service_is_asked_at_its_address_and_nowhere_else(address, query, asked):
    source = Source(body="1")
    assert await ask(source, "web", f" {query}\n", address) == Measurement(1.0)
    assert unquote_plus(str(source.got[0].rel_url)) == asked


def test_a_type_that_is_unknown_is_an_error():
    with pytest.raises(ValueError, match="'datadog' is no type of provider: use prometheus or web"):
        build({**DEFAULTS, "type": "datadog", "address": "http://127.0.0.1"})


# --- a real Prometheus -----------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def prometheus(folder, target):
    """Give the address of a Prometheus that scrapes `target` four times a second."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{chosen.getsockname()[1]}"
    config = folder / "prometheus.yml"
    scrape = {"job_name": "shop", "scrape_interval": "250ms", "scrape_timeout": "250ms"}
    scrape["static_configs"] = [{"targets": [target]}]
    config.write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("prometheus", *options, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        await process.wait()


async def until_measured(provider, query, limit=20.0):
    """Ask until there is data."""
    end = time.monotonic() + limit
    while True:
        measured = await provider.query(query)
        if measured.value is not None or time.monotonic() > end:
            return measured
        await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
async def test_a_real_prometheus_is_asked(tmp_path):
    async def metrics(_request):
        return web.Response(text='errors{version="v1"} 1\nerrors{version="v2"} 2.5\nnone{version="v2"} NaN\n')

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    async with TestServer(application) as server, prometheus(tmp_path, f"127.0.0.1:{server.port}") as address:
        provider = build({**DEFAULTS, "type": "prometheus", "address": address})
        assert await until_measured(provider, 'errors{version=~"v2|x+"}') == Measurement(2.5)
        assert await provider.query("sum(errors)") == Measurement(3.5)
        assert await provider.query("scalar(sum(errors))") == Measurement(3.5)
        assert await provider.query('errors{version="v3"}') == NO_DATA
        assert await provider.query("none") == NO_DATA
        assert (await provider.query("errors")).error.startswith("the query gives 2 series")
        assert (await provider.query("errors[1m]")).error.startswith("the query gives a matrix")
        assert "infinite" in (await provider.query("sum(errors) / 0")).error
        assert re.match("HTTP 400: .*parse error", (await provider.query("sum(")).error)
        async with aiohttp.ClientSession() as session, session.get(f"{address}/-/ready") as ready:
            assert ready.status == 200
