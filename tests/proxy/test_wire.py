"""Bytes in, bytes out: tables of requests and responses, each sent whole and byte by byte."""

import asyncio
import json
import re
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
CHUNKED = b"POST / HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n"
bytewise = pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])


def octets(text):
    """Return the bytes of a case: a list holds lines, `{{x*n}}` stands for n times x."""
    text = "\r\n".join(text) if isinstance(text, list) else text
    return re.sub(r"\{\{(.)\*(\d+)\}\}", lambda found: found[1] * int(found[2]), text).encode("latin-1")


def table(name):
    rows = json.loads((CASES / name).read_text())
    return pytest.mark.parametrize("case", rows, ids=[row["name"] for row in rows])


@bytewise
@table("refused_requests.json")
async def test_a_malformed_or_ambiguous_request_is_refused_and_never_forwarded(rig, case, bytewise):
    data = octets(case["send"])
    bytewise = bytewise and len(data) < 20_000
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(data, bytewise=bytewise)
    response = await client.response()
    assert response.status == case.get("status", response.status)
    assert 400 <= response.status < 600
    assert response.get(b"connection") == b"close"
    assert response.get(b"content-type") == b"application/json"
    assert set(response.json) == {"error", "detail", "requestId"}
    assert response.json["error"] == case.get("error", response.json["error"])
    assert response.json["detail"]
    assert await client.ends() == "eof"
    assert endpoint.connections == 0
    (line,) = rig.log()
    assert (line["status"], line["error"]) == (response.status, response.json["error"])
    assert line["requestId"] == response.json["requestId"]
    assert rig.codes() == {str(response.status): 1}
    assert not rig.outcomes()


@bytewise
@table("bad_chunked_bodies.json")
async def test_a_broken_chunked_body_is_refused(rig, case, bytewise):
    data = octets(case["body"])
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(CHUNKED + data, bytewise=bytewise and len(data) < 10_000)
    response = await client.response()
    assert (response.status, response.json["error"]) == (400, "bad_request")
    assert await client.ends() == "eof"
    assert endpoint.received == [], "no endpoint takes it for a whole request"
    assert rig.codes(upstream="a") == {}, "the client's fault is not charged to the upstream"


@bytewise
@table("responses.json")
async def test_a_response_is_relayed(rig, case, bytewise):
    answer = rig.answering(octets(case["answer"]), bytewise=bytewise, then="close" if case.get("closes") else "")
    endpoint = await rig.endpoint(answer)
    await rig.serve(endpoint)
    client = await rig.client()
    for _ in range(2):
        response = await client.ask("/a?b")
        assert (response.status, response.body) == (case["status"], case["body"].encode())
        assert response.line.startswith(b"HTTP/1.1 ")
        assert [message.status for message in response.interim] == case.get("interim", [])
        assert response.trailers == [tuple(map(str.encode, pair)) for pair in case.get("trailers", [])]
        assert not response.names & set(map(str.encode, case.get("without", [])))
        assert response.names >= set(map(str.encode, case.get("has_names", [])))
        assert len(response.all(b"date")) == 1
        for line in case.get("has", []):
            assert b"\r\n" + octets(line) + b"\r\n" in response.raw
    assert endpoint.connections == (1 if case.get("reused") else 2)
    assert rig.outcomes() == {case.get("outcome", "success"): 2}


@bytewise
@table("bad_responses.json")
async def test_what_is_no_response_is_answered_by_502_and_its_connection_is_not_kept(rig, case, bytewise):
    # Byte by byte, some of it comes too late: the head would have been relayed.
    bytewise = bytewise and not case.get("begun_if_bytewise") and len(octets(case["answer"])) < 10_000
    answer = rig.answering(octets(case["answer"]), bytewise=bytewise, then="close" if case.get("closes") else "")
    endpoint = await rig.endpoint(answer)
    await rig.serve(endpoint)
    client = await rig.client()
    error = case.get("error", "upstream_protocol_error")
    for _ in range(2):
        response = await client.ask()
        assert (response.status, response.json["error"]) == (502, error)
        assert set(response.json) == {"error", "detail", "requestId"}
    assert endpoint.connections == 2, "never reused"
    assert rig.codes(upstream="a", role="primary") == {"502": 2}
    assert rig.outcomes(upstream="a") == {error: 2}
    assert not any(known.idle for known in rig.pool().endpoints.values())


@pytest.mark.on_loop("uvloop", "asyncio")
@pytest.mark.parametrize(("version", "bytewise"), [(b"HTTP/1.1", False), (b"HTTP/1.1", True), (b"HTTP/1.0", False)])
@table("cut_responses.json")
async def test_an_answer_that_breaks_off_is_cut_off_by_a_reset(rig, case, bytewise, version):
    relayed = asyncio.Event()

    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(octets(case["head"]), bytewise=bytewise)
        await relayed.wait()
        await peer.send(octets(case["rest"]), bytewise=bytewise and len(case["rest"]) < 50)
        if case["then"] == "reset":
            peer.reset()
        elif case["then"]:
            peer.close()
        else:
            await peer.reader.read()

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(b"GET / %b\r\nHost: kit.test\r\n\r\n" % version)
    got = await client.reader.readuntil(b"\r\n\r\n")
    relayed.set()
    try:
        while data := await client.reader.read(65_536):
            got += data
        end = "a clean end"
    except ConnectionResetError:
        end = "a reset"
    assert end == "a reset"
    assert got.count(b"HTTP/1.1 ") == 1, "never a second status after a head"
    assert not got.endswith(b"0\r\n\r\n")
    (line,) = rig.log()
    error = case.get("error", "upstream_reset")
    assert (line["status"], line["error"]) == (200, error)
    assert rig.codes() == {"200": 1}
    assert rig.outcomes() == {error: 1}
    assert endpoint.connections == 1, "never sent again"
    assert not any(known.idle for known in rig.pool().endpoints.values())
