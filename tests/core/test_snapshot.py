"""The compiled configuration and its way to a worker."""

import marshal

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.health import HealthCheck, OutlierDetection
from splitproxy.core.snapshot import AccessLogPlan, EndpointPlan, ListenerPlan, Loader, build, encode
from splitproxy.errors import ConfigError


def load(data):
    loader = Loader(data)
    steps = sum(1 for _ in loader)
    return loader.snapshot, steps


def test_a_snapshot_holds_all_that_a_worker_needs(spec):
    plain = spec.config(
        spec.route("shop", spec.rule(to={"a": 90, "b": 10})),
        upstreams=[spec.upstream("a", "127.0.0.1:9001", "shop.internal:80"), spec.upstream("b", loadBalancing="hash")],
        accessLog={"path": "-", "format": "json"},
        workers=3,
    )
    snapshot = build(plain, generation=7)
    assert snapshot.generation == 7
    assert snapshot.workers == 3
    assert snapshot.listeners == (ListenerPlan("web", "127.0.0.1:8080"),)
    assert snapshot.access_log == AccessLogPlan("-", "json")
    limits = snapshot.limits
    assert (limits.header_bytes, limits.header_count, limits.uri_bytes, limits.body_bytes) == (65536, 100, 8192, 0)
    assert (limits.header_timeout, limits.body_idle_timeout, limits.keep_alive_timeout) == (10.0, 30.0, 75.0)
    upstream = snapshot.upstreams["a"]
    assert upstream.endpoints == (EndpointPlan("127.0.0.1", 9001, 1), EndpointPlan("shop.internal", 80, 1))
    assert (upstream.policy, snapshot.upstreams["b"].policy) == ("roundRobin", "hash")
    assert (upstream.connect_timeout, upstream.idle_timeout) == (3.0, 30.0)
    assert (upstream.max_idle, upstream.max_connections, upstream.max_pending) == (128, 1024, 1024)
    rule = snapshot.table.match(spec.request("GET", "/"))
    assert [(backend.upstream, share) for backend, share in rule.split.shares()] == [("a", 90.0), ("b", 10.0)]


def test_what_is_said_of_health_is_taken_over(spec):
    check = {"path": "/up", "host": None, "statuses": ["200-299", "404"], "interval": 1.0, "timeout": 0.5}
    outliers = {"consecutiveErrors": 5, "interval": 10.0, "baseEjectionTime": 30.0, "maxEjectionTime": 300.0}
    a, b = build(
        spec.config(
            upstreams=[
                spec.upstream(
                    "a",
                    healthCheck={**check, "healthyThreshold": 2, "unhealthyThreshold": 3},
                    outlierDetection={**outliers, "maxEjectionPercent": 10},
                    slowStart=20.0,
                ),
                spec.upstream("b", panicThreshold=0),
            ]
        )
    ).upstreams.values()
    assert a.health_check == HealthCheck("/up", "", ((200, 299), (404, 404)), 1.0, 0.5, 2, 3)
    assert a.outliers == OutlierDetection(5, 10.0, 30.0, 300.0, 10)
    assert (a.slow_start, a.panic_percent) == (20.0, 50)
    assert (b.health_check, b.outliers, b.slow_start, b.panic_percent) == (None, None, 0.0, 0)


def test_without_an_access_log_there_is_none(spec):
    assert build(spec.config()).access_log is None


def test_an_upstream_is_equal_to_itself_after_a_reload_and_to_nothing_else(spec):
    one, same, other = (
        build(spec.config(upstreams=[spec.upstream("a", connectTimeout=seconds)])).upstreams["a"]
        for seconds in (3.0, 3.0, 4.0)
    )
    assert one == same
    assert one != other


def test_a_rule_is_plain_when_nothing_changes_or_copies_what_passes(spec):
    modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [], "add": [], "remove": ["x"]}}

    def rule(**more):
        return build(spec.config(spec.route("r", spec.rule(**more)))).table.match(spec.request("GET", "/"))

    assert rule(to={"a": 1, "b": 1}, key={"cookie": "c", "issue": True}).plain
    assert not rule(filters=[modifier]).plain
    assert not rule(to=[spec.ref("a"), spec.ref("b", 0, [modifier])]).plain


def test_a_mirror_is_set_up_as_the_file_says(spec):
    plain = {
        "backendRef": {"name": "copy"},
        "percent": 12.5,
        "maxBodyBytes": 1000,
        "maxInFlight": 3,
        "timeout": 1.5,
        "methods": "all",
    }
    config = spec.config(spec.route("r", spec.rule(filters=[{"type": "RequestMirror", "requestMirror": plain}])))
    rule = build(config).table.match(spec.request("GET", "/"))
    (mirror,) = rule.mirrors
    assert not rule.plain
    assert mirror.backend.key == ("series", "r", "0", "copy", "mirror")
    assert (mirror.percent, mirror.max_body_bytes, mirror.max_in_flight, mirror.timeout) == (12.5, 1000, 3, 1.5)
    assert mirror.all_methods


# --- on the way ------------------------------------------------------------------------------------------------------
def many(spec, count):
    return spec.config(
        *(spec.route(f"r{number}", spec.rule(to=f"u{number}"), hosts=[f"h{number}.com"]) for number in range(count)),
        upstreams=[spec.upstream(f"u{number}") for number in range(count)],
    )


def test_a_large_configuration_travels_in_small_steps(spec):
    plain = many(spec, 1_000)
    segments = list(encode(plain, 1))
    assert max(map(len, segments)) < 40_000
    snapshot, steps = load(b"".join(segments))
    assert steps == len(segments)
    assert len(snapshot.upstreams) == 1_000
    assert len(snapshot.table.order()) == 1_000
    for number in (0, 500, 999):
        assert spec.chosen(snapshot.table, spec.request("GET", "/", f"h{number}.com")) == f"u{number}"


def test_a_route_with_very_many_rules_is_cut_too_and_keeps_their_order(spec):
    rules = [spec.rule(spec.match("/same", method="GET"), name=str(number), to=f"u{number}") for number in range(500)]
    segments = list(encode(spec.config(spec.route("large", *rules, hosts=["a.com", "b.com"])), 1))
    assert max(map(len, segments)) < 40_000
    snapshot, _ = load(b"".join(segments))
    names = [line.rule.name for line in snapshot.table.order() if line.host == "b.com"]
    assert names == [str(number) for number in range(500)]
    assert snapshot.table.match(spec.request("GET", "/same", "a.com")).name == "0"


def test_nothing_is_served_before_the_last_step(spec):
    loader = Loader(b"".join(encode(many(spec, 100), 1)))
    steps = iter(loader)
    next(steps)
    assert loader.snapshot is None
    for _ in steps:
        pass
    assert loader.snapshot is not None


def test_a_snapshot_can_be_read_from_a_mapping(spec):
    data = b"".join(encode(many(spec, 3), 5))
    snapshot, _ = load(memoryview(bytearray(data + bytes(4096 - len(data) % 4096))))
    assert snapshot.generation == 5


@pytest.mark.parametrize("kept", [0, 3, 4, 100, -1])
def test_bytes_cut_short_are_refused(spec, kept):
    data = b"".join(encode(many(spec, 3), 1))
    with pytest.raises(ValueError, match="cut short"):
        load(data[:kept])


@pytest.mark.parametrize(
    "body",
    [b"", b"no marshal", marshal.dumps(7), marshal.dumps(("head", 1, 2)), marshal.dumps(("odd", 1)), b"\xe9"],
    ids=["nothing", "no marshal", "a number", "three parts", "an unknown kind", "half"],
)
def test_what_is_no_snapshot_is_refused(body):
    with pytest.raises(ValueError, match="snapshot"):
        load(len(body).to_bytes(4, "big") + body)


def test_what_cannot_be_compiled_is_refused_by_name(spec):
    config = spec.config(spec.route("r", spec.rule(spec.match("(", "RegularExpression"))))
    with pytest.raises(ConfigError, match="missing"):
        build(config)


# --- the same answer everywhere --------------------------------------------------------------------------------------
weights = st.lists(st.integers(0, 1_000).map(lambda units: units / 100), min_size=1, max_size=4)
keys = st.sampled_from([None, {"sourceAddress": True}, {"header": "x-user"}, {"cookie": "id", "issue": True}])


@settings(max_examples=60, deadline=None)
@given(
    rules=st.lists(st.tuples(st.sampled_from(("/", "/a", "/a/b")), weights, keys), min_size=1, max_size=4),
    asked=st.lists(
        st.tuples(
            st.sampled_from(("/", "/a/x", "/a/b/c")), st.text("ab", max_size=3), st.floats(0, 1, exclude_max=True)
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_two_workers_give_the_same_answer(spec, rules, asked):
    plain = spec.config(
        spec.route(
            "r",
            *(
                spec.rule(spec.match(path), name=str(number), to={f"u{at}": w for at, w in enumerate(given)}, key=key)
                for number, (path, given, key) in enumerate(rules)
            ),
        )
    )
    data = b"".join(encode(plain, 3))
    workers = [load(data)[0], load(data)[0], build(plain, 3)]
    for path, user, point in asked:
        answers = set()
        for worker in workers:
            request = spec.request("GET", path, headers={"x-user": user}, cookies={"id": user})
            rule = worker.table.match(request)
            if rule is None:
                answers.add(None)
                continue
            backend, reason = rule.split.choose(request, user.encode(), point, b"fresh" if rule.split.issue else None)
            answers.add((rule.name, None if backend is None else backend.key, reason))
        assert len(answers) == 1
