"""The access log: one line a request, whatever the request says."""

import json
import re

import pytest

COMMON = r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(.*)" (\d{3}) (\d+)'


async def test_a_line_says_where_a_request_went_and_how_it_went(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    response = await client.ask("/a?b=c", user_agent="test")
    (line,) = rig.log()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert 0 < line.pop("upstreamMs") <= line.pop("durationMs") < 1000
    request_id = endpoint.received[0].get(b"x-request-id").decode()
    assert line == {
        "requestId": request_id,
        "client": "127.0.0.1",
        "method": "GET",
        "host": "kit.test",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "route": "shop",
        "rule": "0",
        "upstream": "a",
        "role": "primary",
        "reason": "match",
        "endpoint": f"127.0.0.1:{endpoint.port}",
        "attempts": 1,
        "bytesIn": len(b"GET /a?b=c HTTP/1.1\r\nhost: kit.test\r\nuser-agent: test\r\n\r\n"),
        "bytesOut": len(response.raw) + 2,
        "error": None,
        "userAgent": "test",
    }


async def test_what_never_became_a_request_has_a_line_too(rig):
    await rig.serve(await rig.endpoint())
    client = await rig.client()
    await client.send(b"nonsense\r\n\r\n")
    response = await client.response()
    (line,) = rig.log()
    assert (line["status"], line["error"], line["method"], line["target"]) == (400, "bad_request", None, None)
    assert line["requestId"] == response.json["requestId"]


QUOTED = r'"(?:[^"\\]|\\.)*"'
HOSTILE = [
    b"\x1b[2J",
    b'","status":200,"x":"',
    b'" 200 0\\n127.0.0.1',
    b"\xc2\x85\xe2\x80\xa8",
    b"\xff\xfe",
    b"\\",
    b"%0d%0aforged",
    b"\t",
]


@pytest.mark.parametrize("style", ["json", "common", "combined"])
@pytest.mark.parametrize("text", HOSTILE)
async def test_no_byte_of_a_request_can_forge_a_line(rig, style, text):
    await rig.serve(await rig.endpoint(), log_format=style)
    client = await rig.client()
    target = b"/" + text if re.fullmatch(rb"[!-~]+", text) and not re.search(rb'["]', text) else b"/"
    head = b"GET %b HTTP/1.1\r\nHost: kit.test\r\nUser-Agent: %b\r\nReferer: %b\r\nX-Request-Id: %b\r\n\r\n"
    await client.send(head % (target, text, text, text))
    assert (await client.response()).status in {200, 400}
    rig.lines()
    written = rig.log_path.read_bytes()
    assert written.count(b"\n") == 1
    assert re.fullmatch(rb"[\x20-\x7e]+\n", written), "printable ASCII and nothing else"
    if style == "json":
        assert json.loads(written)["status"] in {200, 400}
    else:
        tail = rf"( {QUOTED} {QUOTED})?" if style == "combined" else ""
        assert re.fullmatch(rf"127\.0\.0\.1 - - \[[^\]]+\] {QUOTED} (200|400) \d+{tail}\n", written.decode())


async def test_common_lines(rig):
    await rig.serve(await rig.endpoint(), log_format="common")
    response = await rig.ask("/a?b")
    (line,) = rig.lines()
    found = re.fullmatch(COMMON, line)
    assert found.groups() == ("GET /a?b HTTP/1.1", "200", str(len(response.raw) + 2))


async def test_combined_lines_end_with_referer_and_agent(rig):
    await rig.serve(await rig.endpoint(), log_format="combined")
    await rig.ask(referer="http://x/", user_agent='a "b"')
    await rig.ask()
    first, second = rig.lines()
    assert re.fullmatch(COMMON + r' "http://x/" "a \\"b\\""', first)
    assert re.fullmatch(COMMON + r' "-" "-"', second)


async def test_after_a_rotation_lines_go_to_the_new_file(rig):
    await rig.serve(await rig.endpoint())
    await rig.ask("/before")
    rotated = rig.log_path.with_suffix(".1")
    rig.log_path.rename(rotated)
    rig.service.access_log.reopen()
    await rig.ask("/after")
    assert [line["target"] for line in rig.log()] == ["/after"]
    assert json.loads(rotated.read_text())["target"] == "/before"
    rig.log_path.write_text(rotated.read_text() + rig.log_path.read_text())  # whole again, to be counted at the end


async def test_an_answer_from_nobody_names_nobody(rig):
    await rig.serve(await rig.endpoint(), hostnames=["other.test"])
    await rig.ask()
    (line,) = rig.log()
    assert [line[name] for name in ("route", "upstream", "role", "endpoint", "attempts", "error")] == [
        *(None, None, "none", None, 0, "no_route"),
    ]
