"""The examples that ship load, and the schema that ships is the one in force."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from splitproxy.config import load
from splitproxy.config.schema import document

FOLDER = Path(__file__).parents[2] / "config"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))
VALIDATOR = Draft202012Validator(document())


def test_there_are_the_four_examples():
    assert [file.name for file in EXAMPLES] == ["first.yaml", "reference.yaml", "rollout.yaml", "routing.yaml"]


def test_the_schema_that_ships_is_current():
    shipped = json.loads((FOLDER / "splitproxy.schema.json").read_text())
    assert shipped == document(), "run: splitproxy schema > config/splitproxy.schema.json"


def test_the_schema_is_one():
    Draft202012Validator.check_schema(document())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads_without_a_warning(file):
    assert load(file, {}).warnings == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_tells_editors_its_schema_and_fits_it(file):
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=./splitproxy.schema.json\n")
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []


def mappings(schema):
    yield schema
    yield from (form for form in schema["$defs"].values() if "properties" in form)


def test_every_mapping_of_the_schema_is_closed_and_every_key_explained():
    schema = document()
    for form in mappings(schema):
        assert form["additionalProperties"] is False
        assert form["description"]
        for key, value in form["properties"].items():
            explained = value.get("description") or schema["$defs"][value["$ref"].rpartition("/")[2]]["description"]
            assert explained, f"{form['title']}.{key}"


def test_the_schema_knows_no_null_and_no_float_for_a_duration():
    text = json.dumps(document())
    assert '"null"' not in text
    assert '": null' not in text
    assert document()["$defs"]["Limits"]["properties"]["headerTimeout"]["default"] == "10s"


def test_the_reference_names_every_key():
    def names(tree):
        if isinstance(tree, dict):
            yield from tree
            for value in tree.values():
                yield from names(value)
        elif isinstance(tree, list):
            for value in tree:
                yield from names(value)

    text = (FOLDER / "reference.yaml").read_text()
    named = set(names(yaml.safe_load(text)))
    only_told_of = {
        "file",
        "threshold",
        "disableTLS",
        "sourceLabels",
        "namespace",
    }  # a file that is not there; warnings
    only_told_of |= {"primaryReadyThreshold", "canaryReadyThreshold"}
    only_told_of |= {"tls", "certificates", "certFile", "keyFile", "minVersion", "clientCaFile", "clientAuth"}
    only_told_of |= {"caFile", "serverName"}
    assert all(key in text for key in only_told_of)
    named |= only_told_of
    assert {key for form in mappings(document()) for key in form["properties"]} - named == set()


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("workers", 2, True),
        ("workers", "auto", True),
        ("workers", "${N}", True),
        ("workers", "two", False),
        ("limits", {"headerTimeout": "10s"}, True),
        ("limits", {"headerTimeout": 10}, False),
        ("limits", {"headerBytes": "64Ki"}, True),
        ("limits", {"headerBytes": "64KB"}, False),
        ("accessLog", {"format": "jsn"}, False),
        ("probes", None, False),
        ("probs", {}, False),
    ],
)
def test_an_editor_says_what_loading_says(load_text, key, value, fits):
    whole = {"listeners": [{"address": ":80"}], key: value}
    assert VALIDATOR.is_valid(whole) is fits
    text = yaml.safe_dump(whole)
    if fits:
        load_text(text, {"N": "3"})
    else:
        with pytest.raises(Exception, match="Problem"):
            load_text(text)


RELEASE = {"name": "o", "route": "r", "primary": "a", "canary": "b"}
AROUND = {
    "listeners": [{"address": ":80"}],
    "upstreams": [{"name": name, "endpoints": [f"http://{name}:80"]} for name in "ab"],
    "routes": [{"name": "r", "rules": [{"backendRefs": [{"name": "a"}]}]}],
}


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"skipAnalysis": True}, True),
        ({"skipAnalysis": "${SKIP}"}, True),
        ({"skipAnalysis": "yes"}, False),
        ({"revision": 2.1}, False),
        ({"revision": "2.1"}, True),
        ({"allowedWindows": ["09:00-17:00 UTC"]}, True),
        ({"allowedWindows": [9]}, False),
        ({"analysis": {"stepWeight": 0.5, "interval": "1s"}}, True),
        ({"analysis": {"stepWeight": 101}}, False),
        ({"analysis": {"stepWeights": [1, 5], "sessionAffinity": {"cookieName": "v", "maxAge": "24h"}}}, True),
        ({"analysis": {"steps": [{"setWeight": 5, "hold": "1m"}, {"pause": {}}]}}, True),
        ({"analysis": {"steps": [{"weight": 5}]}}, False),
        ({"analysis": {"iterations": 1, "match": [{"headers": {"x": {"exact": "y"}}}]}}, True),
        ({"analysis": {"iterations": 1, "match": [{"headers": {"x": {"exact": "y", "regex": "y"}}}]}}, False),
        ({"analysis": {"iterations": 1, "match": [{"headers": {"x y": {"exact": "y"}}}]}}, False),
        ({"analysis": {"stepWeight": 1, "webhooks": [{"name": "g", "type": "confirm-rollout"}]}}, True),
        ({"analysis": {"stepWeight": 1, "webhooks": [{"name": "g", "type": "confirm"}]}}, False),
    ],
)
def test_an_editor_says_of_rollouts_what_loading_says(load_text, changes, fits):
    whole = {**AROUND, "rollouts": [RELEASE | {"analysis": {"stepWeight": 10}} | changes]}
    assert VALIDATOR.is_valid(whole) is fits
    text = yaml.safe_dump(whole)
    if fits:
        load_text(text, {"SKIP": "true"})
    else:
        with pytest.raises(Exception, match="Problem"):
            load_text(text)
