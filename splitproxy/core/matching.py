"""What a match asks of a request beside its path: method, headers, cookies, query parameters, compiled to one test."""

from collections.abc import Callable
from typing import Final, Protocol

from splitproxy.core.filters import Plain
from splitproxy.errors import ConfigError

MAX_SUBJECT: Final = 4096
"""Bytes of a value that a regular expression looks at; no longer value matches one."""
MAX_PROGRAM: Final = 1000
"""Instructions of a compiled regular expression. With MAX_SUBJECT it bounds a match to some 30 ms at worst."""
_PATTERN_MEMORY: Final = 1 << 20


class RequestView(Protocol):
    """What routing and splitting need of a request. Names and values are bytes as on the wire."""

    @property
    def method(self) -> bytes:
        """As it came: methods are case-sensitive."""

    @property
    def host(self) -> bytes:
        """Lower case, without port; IPv6 in brackets."""

    @property
    def path(self) -> bytes:
        """Normalised for matching."""

    @property
    def query(self) -> bytes:
        """What follows the question mark; empty when there is none."""

    def field(self, name: bytes, /) -> bytes | None:
        """Return the value of the field `name` (lower case), repeated ones joined by a comma."""

    def cookie(self, name: bytes, /) -> bytes | None:
        """Return the first cookie called `name`."""

    def param(self, name: bytes, /) -> bytes | None:
        """Return the first query parameter called `name`, decoded."""


Matcher = Callable[[bytes], bool]
"""Tells whether a whole value matches."""
Test = Callable[[RequestView], bool]
Rank = tuple[int, ...]
"""What goes first among matches of the same path: the lower one."""
Compiled = tuple[Test | None, Rank, str]
"""A test (None: nothing is asked), its rank and its description."""


def compile_pattern(value: str) -> Matcher:
    """Return what tells whether a whole value matches the regular expression `value` (RE2 syntax), in linear time.

    Octets are matched, not characters, so that no invalid UTF-8 slips past; `.` is any octet. Raises ConfigError.
    """
    import re2  # only a configuration with a regular expression pays for it

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _PATTERN_MEMORY
    options.dot_nl = options.never_capture = True
    options.log_errors = False
    try:
        pattern = re2.compile(value.encode(), options)
    except re2.error as error:
        reason = error.args[0]
        raise ConfigError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    if pattern.programsize > MAX_PROGRAM:
        raise ConfigError(f"too complex: {pattern.programsize} instructions, at most {MAX_PROGRAM} are allowed")
    whole = pattern.fullmatch
    return lambda subject: len(subject) <= MAX_SUBJECT and whole(subject) is not None


class Conditions:
    """Compiles conditions; equal patterns once."""

    def __init__(self) -> None:
        self._patterns: dict[str, Matcher] = {}

    def pattern(self, value: str) -> Matcher:
        """Return the matcher of a regular expression."""
        found = self._patterns.get(value)
        if found is None:
            found = self._patterns[value] = compile_pattern(value)
        return found

    def compile(self, plain: Plain) -> Compiled:
        """Compile all of the match `plain` but its path."""
        method = plain["method"]
        if method is None and not (plain["headers"] or plain["cookies"] or plain["queryParams"]):
            return _UNCONDITIONAL
        tests: list[Test] = []
        words: list[str] = []
        rank = [1]
        if method is not None:
            rank = [0]
            words.append(method)
            tests.append(_method_is(method.encode()))
        for kind, word in _KINDS.items():
            named: dict[str, Plain] = {}
            for item in plain[kind]:  # of a name listed twice the first counts (Gateway API, HTTPHeaderMatch)
                named.setdefault(_key(kind, item["name"]), item)
            for name, item in named.items():
                tests.append(self._value_test(kind, name.encode(), item))
                words.append(f"{word} {name} {'=' if item['type'] == 'Exact' else '~'} {item['value']}")
            rank.append(-len(named))
        return _all(tests), tuple(rank), ", ".join(words)

    def _value_test(self, kind: str, name: bytes, item: Plain) -> Test:
        if item["type"] == "Exact":
            return _VALUE_IS[kind](name, item["value"].encode())
        return _VALUE_MATCHES[kind](name, self.pattern(item["value"]))


_UNCONDITIONAL: Final[Compiled] = (None, (1, 0, 0, 0), "")
_KINDS: Final = {"headers": "header", "cookies": "cookie", "queryParams": "query"}


def _key(kind: str, name: str) -> str:
    return name.lower() if kind == "headers" else name


def _method_is(method: bytes) -> Test:
    return lambda request: request.method == method


def _field_is(name: bytes, value: bytes) -> Test:
    return lambda request: request.field(name) == value


def _cookie_is(name: bytes, value: bytes) -> Test:
    return lambda request: request.cookie(name) == value


def _param_is(name: bytes, value: bytes) -> Test:
    return lambda request: request.param(name) == value


def _field_matches(name: bytes, matches: Matcher) -> Test:
    return lambda request: (value := request.field(name)) is not None and matches(value)


def _cookie_matches(name: bytes, matches: Matcher) -> Test:
    return lambda request: (value := request.cookie(name)) is not None and matches(value)


def _param_matches(name: bytes, matches: Matcher) -> Test:
    return lambda request: (value := request.param(name)) is not None and matches(value)


_VALUE_IS: Final = {"headers": _field_is, "cookies": _cookie_is, "queryParams": _param_is}
_VALUE_MATCHES: Final = {"headers": _field_matches, "cookies": _cookie_matches, "queryParams": _param_matches}


def _all(tests: list[Test]) -> Test | None:
    if len(tests) < 2:
        return tests[0] if tests else None
    every = tuple(tests)

    def test(request: RequestView) -> bool:
        for one in every:  # noqa: SIM110 - a generator would cost more than the tests
            if not one(request):
                return False
        return True

    return test
