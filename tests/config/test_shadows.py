"""What is said to be shadowed never wins in the table that workers route by."""

from dataclasses import dataclass

from hypothesis import given, settings, strategies as st

from splitproxy.config import Config
from splitproxy.config.plain import plain
from splitproxy.config.shadows import shadows
from splitproxy.core import snapshot


@dataclass
class Request:
    """A request as routing sees it."""

    host: bytes
    path: bytes
    method: bytes
    fields: dict[bytes, bytes]
    query: bytes = b""

    def field(self, name: bytes) -> bytes | None:
        return self.fields.get(name)

    def cookie(self, _name: bytes) -> bytes | None:
        return None

    def param(self, _name: bytes) -> bytes | None:
        return None


PATHS = st.one_of(
    st.builds(lambda value: {"value": value}, st.sampled_from(["/", "/a", "/a/", "/a/b"])),
    st.builds(lambda value: {"type": "Exact", "value": value}, st.sampled_from(["/a", "/a/b"])),
    st.builds(
        lambda value: {"type": "RegularExpression", "value": value}, st.sampled_from([".*", "/a.*", "/a/.*", "/a"])
    ),
)
HEADERS = st.lists(
    st.builds(lambda name, value: {"name": name, "value": value}, st.sampled_from("xy"), st.sampled_from("12")),
    max_size=2,
)
MATCHES = st.builds(
    lambda path, method, headers: {"path": path, **method, "headers": headers},
    PATHS,
    st.sampled_from([{}, {"method": "GET"}]),
    HEADERS,
)
ROUTES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["h.x", "*.x"]), unique=True, max_size=2), st.lists(MATCHES, min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=5,
)
REQUESTS = st.builds(
    Request,
    st.sampled_from([b"h.x", b"g.x", b"y"]),
    st.sampled_from([b"/", b"/a", b"/a/", b"/a/b", b"/a/b/c", b"/ab"]),
    st.sampled_from([b"GET", b"PUT"]),
    st.dictionaries(st.sampled_from([b"x", b"y"]), st.sampled_from([b"1", b"2"])),
)


@settings(max_examples=200, deadline=None)
@given(routes=ROUTES, requests=st.lists(REQUESTS, min_size=5, max_size=20))
def test_a_rule_that_is_said_to_be_shadowed_never_wins(routes, requests):
    config = Config.model_validate(
        {
            "routes": [
                {"name": f"r{index}", "hostnames": hosts, "rules": [{"matches": [match]} for match in matches]}
                for index, (hosts, matches) in enumerate(routes)
            ]
        }
    )
    dead = {(f"r{later[1]}", str(later[3])) for later, _, hosts in shadows(config) if not hosts}
    table = snapshot.build(plain(config, {}, {})).table
    for request in requests:
        rule = table.match(request)
        assert rule is None or (rule.route, rule.name) not in dead
