"""Trace context as W3C has it, samplers as OpenTelemetry has them, and spans on their way between processes."""

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.requests import parse_request
from splitproxy.core.tracing import (
    MARK,
    Call,
    Context,
    Sampling,
    Span,
    pack,
    parent_line,
    parse_parent,
    unpack,
    unrecorded,
    without_values,
)

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
GOOD = b"00-%b-%b-01" % (TRACE, SPAN)
PARENTS = [
    (GOOD, Context(TRACE, SPAN, 1)),
    (GOOD[:-2] + b"00", Context(TRACE, SPAN, 0)),
    (GOOD[:-2] + b"ff", Context(TRACE, SPAN, 255)),
    (b"cc" + GOOD[2:], Context(TRACE, SPAN, 1)),
    (b"cc" + GOOD[2:] + b"-what-the-future-will-be-like", Context(TRACE, SPAN, 1)),
    (None, None),
    (b"", None),
    (b"ff" + GOOD[2:], None),
    (GOOD + b"-01", None),
    (GOOD + b"-", None),
    (b"cc" + GOOD[2:] + b".what-the-future-will-not-be-like", None),
    (GOOD.upper(), None),
    (GOOD[:-1], None),
    (GOOD + b" ", None),
    (GOOD + b", " + GOOD, None),
    (b"00-" + b"0" * 32 + GOOD[35:], None),
    (GOOD[:36] + b"0" * 16 + b"-01", None),
    (GOOD.replace(b"a", b"g"), None),
]


@pytest.mark.parametrize(("value", "context"), PARENTS)
def test_a_parent_is_believed_or_not(value, context):
    assert parse_parent(value) == context


@given(st.binary(max_size=80))
def test_whatever_comes_as_a_parent_is_a_context_or_nothing(value):
    context = parse_parent(value)
    assert context is None or value[3:55] == b"%b-%b-%02x" % context


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_what_we_say_is_understood(trace, span, flags):
    line = parent_line(b"%032x" % trace, b"%016x" % span, flags)
    name, _, value = line.partition(b": ")
    assert name == b"traceparent"
    assert parse_parent(value.removesuffix(b"\r\n")) == (b"%032x" % trace, b"%016x" % span, flags & 3)


def head(*lines):
    return parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % b"".join(b"%b\r\n" % line for line in lines), 99, 99)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"TraceParent:00-%b-%b-00" % (TRACE, SPAN)], True),
        ([b"traceparent: 00-%b-%b-02 " % (TRACE, SPAN), b"tracestate: a=b"], True),
        ([b"traceparent: %b" % GOOD], False),
        ([b"traceparent: 00-%b-%b-00" % (TRACE.upper(), SPAN)], False),
        ([b"traceparent: 00-%b-%b-00" % (TRACE, SPAN), b"TRACEPARENT: %b" % GOOD], False),
        ([b"traceparent: 00-%b-%b-00" % (TRACE, b"0" * 16)], False),
        ([b"tracestate: a=b", b"traceparent: 00-%b-%b-00" % (TRACE, SPAN)], False),
    ],
)
def test_the_plain_case_is_told_from_all_others(lines, expected):
    request = head(*lines)
    assert unrecorded(request, request.low.find(MARK)) is expected
    if expected:
        assert not parse_parent(request.field(b"traceparent")).sampled


# --- samplers --------------------------------------------------------------------------------------------------------
def sampling(sampler, ratio=1.0, query="names"):
    return Sampling({"sampler": sampler, "ratio": ratio, "query": query})


LOW, HIGH = TRACE[:16] + b"1" + b"0" * 15, TRACE[:16] + b"f" * 16


@pytest.mark.parametrize(
    ("sampler", "ratio", "root", "wanted"),
    [
        ("always_on", 1.0, 1.0, {0: True, 1: True}),
        ("always_off", 1.0, 0.0, {0: False, 1: False}),
        ("traceidratio", 0.5, 0.5, {0: True, 1: True}),
        ("parentbased_always_on", 1.0, 1.0, {0: False, 1: True}),
        ("parentbased_always_off", 1.0, 0.0, {0: False, 1: True}),
        ("parentbased_traceidratio", 0.01, 0.01, {0: False, 1: True}),
    ],
)
def test_samplers(sampler, ratio, root, wanted):
    chosen = sampling(sampler, ratio)
    assert chosen.bound == round(root * 2**64)
    assert {flags: chosen.wants(Context(LOW, SPAN, flags)) for flags in (0, 1)} == wanted


def test_a_ratio_decides_by_the_trace():
    half = sampling("traceidratio", 0.5)
    assert (half.wants(Context(LOW, SPAN, 0)), half.wants(Context(HIGH, SPAN, 1))) == (True, False)


# --- queries ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "told"),
    [
        (b"", b""),
        (b"a=1&b=2", b"a=REDACTED&b=REDACTED"),
        (b"token", b"REDACTED"),
        (b"a=b=c&&=x", b"a=REDACTED&&=REDACTED"),
    ],
)
def test_values_of_a_query_are_not_told(query, told):
    assert without_values(query) == told
    assert sampling("always_on").told(query) == told
    assert sampling("always_on", query="full").told(query) == query
    assert sampling("always_on", query="none").told(query) == b""


@settings(max_examples=30)
@given(st.lists(st.text("abc", min_size=1).map(str.encode)), st.lists(st.text("0123", min_size=1).map(str.encode)))
def test_no_value_of_a_query_is_told(names, values):
    query = b"&".join(b"%b=%b" % pair for pair in zip(names, values, strict=False))
    assert not set(b"0123") & set(without_values(query))


# --- spans -----------------------------------------------------------------------------------------------------------
def of(kind):
    """Return instances of a tuple whose fields have the types they are declared with."""
    by_type = {bytes: st.binary(max_size=40), str: st.text(max_size=20), int: st.integers(0, 2**63)}
    parts = {
        name: by_type[type_] if type_ in by_type else st.lists(of(Call), max_size=3).map(tuple)
        for name, type_ in kind.__annotations__.items()
    }
    return st.fixed_dictionaries(parts).map(lambda values: kind(**values))


@settings(max_examples=20)
@given(st.lists(of(Span), max_size=2))
def test_spans_arrive_as_they_were_sent(spans):
    assert unpack(pack(spans)) == spans
