"""The JSON Schema of the file, from the specs: for editors, for `splitproxy schema`, and for suggestions."""

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from splitproxy.config.fields import spelled_duration
from splitproxy.config.root import Config
from splitproxy.config.spec import Spec

Schema = dict[str, Any]
_PREFIX: Final = "#/$defs/"


@lru_cache(maxsize=1)
def _raw() -> Schema:
    return Config.model_json_schema(by_alias=True, mode="validation")


def document() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a configuration file."""
    tree = _tidied(_described(_raw()))
    tree["$defs"]["Substituted"] = {
        "description": "A value from the environment: ${NAME} or ${NAME:-default}.",
        "pattern": r"\$\{",
        "title": "Substituted",
        "type": "string",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:splitproxy:configuration", **tree}


def _described(tree: Schema) -> Schema:
    """Return a schema with the text below each field of a spec as its description.

    pydantic would read it for us, at every start and every load: it was a fifth of the time that the specs take.
    """
    tree = copy.deepcopy(tree)
    specs = {spec.__name__: spec for spec in _kinds_of(Spec)}
    for name, part in {**tree["$defs"], Config.__name__: tree}.items():
        if spec := specs.get(name):
            properties = part["properties"]
            for field, text in _texts_below(spec).items():
                key = spec.model_fields[field].alias
                properties[key] = dict(sorted({"description": text, **properties[key]}.items()))
    return tree


def _kinds_of(spec: type[Spec]) -> list[type[Spec]]:
    kinds = spec.__subclasses__()
    return [*kinds, *(one for kind in kinds for one in _kinds_of(kind))]


def _texts_below(spec: type[Spec]) -> dict[str, str]:
    """Return the text that stands below each field of a spec, or of one that it is made from."""
    found: dict[str, str] = {}
    for kind in reversed(spec.__mro__):
        if issubclass(kind, Spec):
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            found |= dict(_texts(body.body)) if isinstance(body, ast.ClassDef) else {}
    return found


def _texts(lines: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for line, below in pairwise(lines):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            yield line.target.id, inspect.cleandoc(text)


def _tidied(tree: Schema) -> Schema:
    """Return a schema as the file's writer should see it: no null, no validators' notes, variables allowed."""
    tidy = {key: _tidied_part(key, value) for key, value in tree.items() if key != "discriminator"}
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    alternatives = tidy.get("anyOf", [])
    if {"type": "null"} in alternatives:
        del tidy["anyOf"]
        if tidy.get("default", 0) is None:
            del tidy["default"]
        others = [one for one in alternatives if one != {"type": "null"}]
        tidy = {**tidy, **others[0]} if len(others) == 1 else {**tidy, "anyOf": others}
    default = tidy.get("default")
    if isinstance(default, dict):  # the parts have their own
        del tidy["default"]
    elif isinstance(default, float) and tidy.get("type") == "string":
        tidy["default"] = spelled_duration(default)
    return _or_substituted(tidy)


def _tidied_part(key: str, value: Any) -> Any:
    if key in {"properties", "patternProperties", "$defs"}:
        tidy = {name: _tidied(schema) for name, schema in value.items()}
        return tidy if key != "properties" else {name: _untitled(schema) for name, schema in tidy.items()}
    if key == "oneOf":
        return [_tidied(schema) for schema in value]
    if key == "anyOf":
        return _flattened([_tidied(schema) for schema in value])
    return _tidied(value) if key in {"items", "additionalProperties"} and isinstance(value, dict) else value


def _flattened(alternatives: list[Schema]) -> list[Schema]:
    flat: list[Schema] = []
    for one in alternatives:
        flat += [part for part in one.get("anyOf", [one]) if part not in flat]
    return flat


def _untitled(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "title"}


def _or_substituted(schema: Schema) -> Schema:
    """Return a schema that a `${…}` fits too, where it is for a scalar that not every text fits."""
    picky = schema.get("type") in {"integer", "number", "boolean"} or "pattern" in schema or "enum" in schema
    if not picky:
        return schema
    about: Schema = {key: schema[key] for key in ("description", "default", "examples") if key in schema}
    value = {key: item for key, item in schema.items() if key not in {*about, "title"}}
    return {**about, "anyOf": [value, {"$ref": _PREFIX + "Substituted"}]}


def keys_at(place: Sequence[str | int]) -> list[str]:
    """Return the keys that the mapping at `place` (a location of a validation error) may have."""
    here = [_raw()]
    for label in place:
        here = [found for schema in here for found in _step(schema, label)] or here
    return sorted({key for schema in here for form in _forms(schema) for key in form.get("properties", {})})


def _step(schema: Schema, label: str | int) -> Iterator[Schema]:
    tagged = schema.get("discriminator", {}).get("mapping", {})
    if label in tagged:
        yield _resolved({"$ref": tagged[label]})
        return
    for form in _forms(schema):
        if isinstance(label, int) and "items" in form:
            yield form["items"]
        elif label in form.get("properties", {}):
            yield form["properties"][label]
        else:
            yield from _values(form)


def _values(form: Schema) -> Iterator[Schema]:
    """Yield what the values of a mapping are whose keys the file chooses."""
    yield from form.get("patternProperties", {}).values()
    if isinstance(form.get("additionalProperties"), dict):
        yield form["additionalProperties"]


def _forms(schema: Schema) -> Iterator[Schema]:
    """Yield the alternatives that a schema consists of."""
    resolved = _resolved(schema)
    alternatives = [*resolved.get("anyOf", ()), *(one for one in resolved.get("oneOf", ()) if "$ref" in one)]
    if not alternatives:
        yield resolved
    for alternative in alternatives:
        yield from _forms(alternative)


def _resolved(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    found: Schema = schema if reference is None else _raw()["$defs"][reference.removeprefix(_PREFIX)]
    return found
