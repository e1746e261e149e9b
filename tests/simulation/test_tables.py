"""The figures in the document are those that were measured, and meet what was promised."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "loadtests"))
    spec = importlib.util.spec_from_file_location("evidence_tables", ROOT / "loadtests/evidence_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("mirrored_evidence", None)


def test_the_document_says_what_is_kept(tables, monkeypatch, tmp_path):
    page = tmp_path / "evidence.md"
    page.write_text((ROOT / "docs/evidence.md").read_text())
    monkeypatch.setattr(tables, "PAGE", page)
    assert tables.write(json.loads(tables.RESULTS.read_text()))
    assert page.read_text() == (ROOT / "docs/evidence.md").read_text()


def test_every_cell_has_as_many_rollouts_as_it_should(tables):
    kept = json.loads(tables.RESULTS.read_text())
    assert {name: kept[name]["runs"] for name in tables.GROUPS} == {
        name: runs for name, (_, runs) in tables.GROUPS.items()
    }


def test_a_target_that_is_missed_is_said_to_be(tables, monkeypatch, tmp_path):
    page = tmp_path / "evidence.md"
    page.write_text("<!-- false -->\n<!-- /false -->\n")
    monkeypatch.setattr(tables, "PAGE", page)
    kept = json.loads(tables.RESULTS.read_text())["false"]
    kept["bursts"][0]["early"] = 21
    assert not tables.write({"false": kept})
    assert "| bursts | 21 of 20,000 |" in page.read_text()
    assert "**no**" in page.read_text()
