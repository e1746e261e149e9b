"""How two answers to the same request differ: in status, headers, size, and in a JSON body place by place.

A *field* is a place of the answer and the kind of its difference: `$.items[].price` differs in `value`, or is
`missing`. Places in a JSON document are pooled where the document repeats itself: all elements of an array are `[]`,
all entries of an object that is used as a map (by id, date, name) are `*`. So a field is something that a service's
code wrote once, however long the answer is, and can be counted over many requests.

What is shown of a value is short, and nothing where a rule redacts it.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

STATUS: Final = "status"
SIZE: Final = "size"
BODY: Final = "body"
HEADER: Final = "header"
"""First steps of places that are not in a JSON document; there it is ROOT."""
ROOT: Final = "$"
ELEMENTS: Final = "[]"
ENTRIES: Final = "*"
MOST_FIELDS: Final = 100
"""Fields in which two answers are found to differ; what differs in more is not looked at to its end."""
HIDDEN: Final = "(redacted)"
SECRETS: Final = (
    *("password", "passwd", "passphrase", "secret", "token", "authorization", "cookie", "session", "credential"),
    *("apikey", "privatekey", "signature"),
)
"""Names whose values are never shown, nor are those of longer names that have one of them in it."""
_LONGEST: Final = 80
"""Characters of a value that are shown."""
_DEEPEST: Final = 60
"""Levels of a document that are looked at apart."""
_RECORD_KEYS: Final = 50
"""Keys of an object beyond which it is a map."""
_MOST_SORTED: Final = 1000
"""Elements of an array beyond which it is not looked whether they are the same in another order."""
_CONDITIONAL: Final = {200, 304}
_SIZE_PART: Final = 10
"""Sizes differ when they do by more than one part in so many."""
_WRITTEN: Final = re.compile(r"\.(?P<name>[^.\[\]]+)|(?P<elements>\[\])|\[\"(?P<quoted>[^\"]*)\"\]")
_NAME: Final = re.compile(r"[A-Za-z_$@][\w$@:./ -]{0,99}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-fA-F-]{16,}")
_WHOLE: Final = re.compile(rb"-?[0-9]+")
_PLAIN: Final = re.compile(r"[\w$@:/ -]+", re.ASCII)
_JSON: Final = re.compile(rb"application/(?:[\w.+-]+\+)?json\b")
_UNPACKED: Final = (b"gzip", b"x-gzip", b"deflate")

Place = tuple[str, ...]
"""Steps from the outside in: `("$", "items", "[]", "price")`, `("header", "etag")`, `("status",)`."""
Found = dict[tuple[Place, str], tuple[str, str]]
"""(place, kind) -> what is shown of the one answer and of the other there."""


class Answer(NamedTuple):
    """What is compared of a response."""

    status: int
    fields: Mapping[bytes, bytes]
    """Headers by name in lower case, several of a name joined."""
    size: int = 0
    """Octets of the body."""
    body: bytes | None = None
    """None: it was not kept, because it is too large or nobody asked for it."""


class Rule(NamedTuple):
    """A place, and all that is below it; or any step of that name."""

    place: Place
    """Begins with ROOT, HEADER, STATUS, SIZE or BODY; empty: see `name`."""
    name: str = ""

    def covers(self, place: Place) -> bool:
        """Return whether this rule is about `place`; entries of a map may be written as `*` and by their name alike."""
        if not self.place:
            return any(step.lower() == self.name for step in place[1:])
        return len(place) >= len(self.place) and all(
            own in (step, ENTRIES) for own, step in zip(self.place, place, strict=False)
        )

    def hides(self, place: Place) -> bool:
        """Return whether values at `place` are not to be shown: of a name, also where it is a part of a longer one."""
        if self.place:
            return self.covers(place)
        return any(_bare(self.name) in _bare(step) for step in place[1:])


class Terms(NamedTuple):
    """What of two answers is compared and what is kept quiet about."""

    bodies: bool = False
    """Whether more than statuses is compared."""
    headers: tuple[str, ...] = ()
    """Names in lower case."""
    ignored: tuple[Rule, ...] = ()
    redacted: tuple[Rule, ...] = ()
    most: int = 65_536
    """Octets of a body, unpacked too, beyond which it is not looked into."""


def rule(text: str) -> Rule:
    """Return the rule that `text` writes: `$.user.email`, `$.items[].id`, `header:etag`, `status`, or a bare name.

    Raises ValueError that says what is wrong with it.
    """
    if text in (STATUS, SIZE, BODY):
        return Rule((text,))
    if text.startswith(f"{HEADER}:"):
        return Rule((HEADER, text.partition(":")[2].strip().lower()))
    if not text.startswith(ROOT):
        if not text or any(letter in text for letter in '[]".'):
            raise ValueError("write a place, such as $.user.email or header:etag, or a bare name, such as password")
        return Rule((), text.lower())
    steps, at = [ROOT], len(ROOT)
    while at < len(text):
        found = _WRITTEN.match(text, at)
        if found is None:
            raise ValueError(f"at character {at + 1}: expected '.name', '[]' or '[\"name\"]'")
        steps.append(found["elements"] or found["name"] or found["quoted"])
        at = found.end()
    return Rule(tuple(steps))


def written(place: Place) -> str:
    """Return `place` as people write it in rules."""
    if place[0] != ROOT:
        return ":".join(place)
    return ROOT + "".join(_step(step) for step in place[1:])


def _step(step: str) -> str:
    if step == ELEMENTS:
        return step
    return f".{step}" if step == ENTRIES or _PLAIN.fullmatch(step) else f'["{step}"]'


def printable(text: str, longest: int = 500) -> str:
    """Return a text of an upstream's as it may be shown: on a terminal, too, it does nothing but stand there."""
    clipped = text[:longest]
    return clipped if clipped.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in clipped)


def _bare(text: str) -> str:
    return text.lower().replace("-", "").replace("_", "")


# --- two answers -----------------------------------------------------------------------------------------------------
class Reading:
    """An answer that is compared with others: what is made of its body is made once, when it is wanted."""

    def __init__(self, answer: Answer, terms: Terms) -> None:
        self.answer, self._most = answer, terms.most

    @cached_property
    def content(self) -> bytes:
        """The body as it was before it was packed; as it came, where that cannot be told or is too long."""
        body = self.answer.body or b""
        if self.answer.fields.get(b"content-encoding", b"").lower() not in _UNPACKED:
            return body
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out itself whether it is gzip or zlib
        try:
            content = unpacking.decompress(body, self._most)
        except zlib.error:
            return body
        return content if unpacking.eof else body

    @cached_property
    def document(self) -> tuple[Any] | None:
        """The JSON document in the body, with numbers as the octets that write them; None: it is none."""
        if not _JSON.match(self.answer.fields.get(b"content-type", b"").lower()):
            return None
        try:
            return (json.loads(self.content, parse_float=str.encode, parse_int=str.encode, parse_constant=_refused),)
        except ValueError:
            return None

    @property
    def described(self) -> str:
        """The body in a few words."""
        media = self.answer.fields.get(b"content-type", b"").decode("latin-1").partition(";")[0] or "no content-type"
        return _clipped(f"{media}, {self.answer.size} bytes" + ("" if self.document else ", no JSON"))


def differences(one: Reading, other: Reading, terms: Terms) -> Found:
    """Return where `other` differs from `one`.

    Of answers with different statuses nothing else is compared: a page and an error message have nothing in common. 200
    and 304 are both right: a client that knows the old version's answer gets to know the new one's.
    """
    found: Found = {}
    before, after = one.answer, other.answer
    if before.status != after.status:
        if {before.status, after.status} != _CONDITIONAL:
            found[(STATUS,), "value"] = (str(before.status), str(after.status))
    elif terms.bodies:
        _headers(before, after, terms, found)
        if before.body is None or after.body is None:
            _sizes(before, after, found)
        elif before.body != after.body:
            _bodies(one, other, found)
    return {field: shown for field, shown in found.items() if not any(own.covers(field[0]) for own in terms.ignored)}


def redacted(found: Found, terms: Terms) -> Found:
    """Return what was found with the values that nobody is to see taken out."""
    return {
        (place, kind): (HIDDEN, HIDDEN) if any(own.hides(place) for own in terms.redacted) else shown
        for (place, kind), shown in found.items()
    }


def _headers(one: Answer, other: Answer, terms: Terms, found: Found) -> None:
    for name in terms.headers:
        key = name.encode()
        before, after = one.fields.get(key), other.fields.get(key)
        if before != after:
            kind = "missing" if after is None else "extra" if before is None else "value"
            shown = (_clipped((value or b"").decode("latin-1")) for value in (before, after))
            found[(HEADER, name), kind] = (next(shown), next(shown))


def _sizes(one: Answer, other: Answer, found: Found) -> None:
    if abs(one.size - other.size) * _SIZE_PART > max(one.size, other.size):
        found[(SIZE,), "value"] = (str(one.size), str(other.size))


def _bodies(one: Reading, other: Reading, found: Found) -> None:
    if one.content == other.content:
        return
    try:
        before, after = one.document, other.document
        if before is None or after is None:
            kind = "value" if before is after else "type"
            found[(BODY,), kind] = (one.described, other.described)
            _sizes(one.answer, other.answer, found)
        else:
            _walk(before[0], after[0], (ROOT,), found)
    except RecursionError:  # nested deeper than anything that is meant to be read
        found[(BODY,), "value"] = ("nested too deeply", "nested too deeply")


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


# --- two documents ---------------------------------------------------------------------------------------------------
def _walk(one: Any, other: Any, place: Place, found: Found) -> None:
    """Compare two values of a document. Equal parts, which is nearly all, are passed over at the speed of C."""
    if one == other or len(found) >= MOST_FIELDS:
        return
    kinds = _kind(one), _kind(other)
    if kinds[0] != kinds[1]:
        _note(found, place, "type", one, other)
    elif len(place) > _DEEPEST:
        _note(found, place, "value", one, other)
    elif isinstance(one, dict):
        (_map if _is_map(one) or _is_map(other) else _record)(one, other, place, found)
    elif isinstance(one, list):
        _array(one, other, place, found)
    elif kinds[0] != "number" or not _equal(one, other):
        _note(found, place, "value", one, other)


def _record(one: dict[str, Any], other: dict[str, Any], place: Place, found: Found) -> None:
    for key, value in one.items():
        if key in other:
            _walk(value, other[key], (*place, key), found)
        else:
            _note(found, (*place, key), "missing", value, None)
    for key, value in other.items():
        if key not in one:
            _note(found, (*place, key), "extra", None, value)


def _map(one: dict[str, Any], other: dict[str, Any], place: Place, found: Found) -> None:
    if one.keys() != other.keys():
        _note(found, place, "keys", one, other)
    for key, value in one.items():
        if key in other:
            _walk(value, other[key], (*place, ENTRIES), found)


def _array(one: list[Any], other: list[Any], place: Place, found: Found) -> None:
    if len(one) != len(other):
        _note(found, place, "length", one, other)
    elif len(one) <= _MOST_SORTED and _in_order(one) == _in_order(other):
        _note(found, place, "order", one, other)
    else:
        for before, after in zip(one, other, strict=True):
            _walk(before, after, (*place, ELEMENTS), found)


def _equal(one: bytes, other: bytes) -> bool:
    """Say whether two numbers that are written in different ways are the same; whole ones are written in one way."""
    return not (_WHOLE.fullmatch(one) and _WHOLE.fullmatch(other)) and float(one) == float(other)


def _in_order(values: Iterable[Any]) -> list[str]:
    return sorted(map(repr, values))


def _is_map(value: dict[str, Any]) -> bool:
    """Say whether an object's keys are data rather than names that a programmer chose."""
    return len(value) > _RECORD_KEYS or not all(_NAME.fullmatch(key) and not _ID.fullmatch(key) for key in value)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case bytes():
            return "number"
        case str():
            return "text"
        case _:
            return "object" if isinstance(value, dict) else "array"


def _note(found: Found, place: Place, kind: str, one: Any, other: Any) -> None:
    if len(found) < MOST_FIELDS:
        before = "" if kind == "extra" else _shown(one)
        found.setdefault((place, kind), (before, "" if kind == "missing" else _shown(other)))


def _shown(value: Any) -> str:
    """Return a value in short: of what is nested only how much there is, as rules may redact some of it."""
    if isinstance(value, dict | list):
        return f"{_kind(value)} of {len(value)}"
    return _clipped(value.decode() if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False))


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
