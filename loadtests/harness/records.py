"""Runs of the benchmark that are kept: written small, read back as outcomes, with what was measured again."""

import json
from pathlib import Path
from typing import Any

from .scenarios import Outcome, Row, Sample

Record = dict[str, Any]
"""What `bench.py --json` writes, `about`, and `later`: figures of one row that were measured again afterwards."""


def compact(found: Record) -> str:
    """Return a run as text of one line for each row, figures rounded to six digits."""
    lines = ["{"]
    for name, value in found.items():
        if name != "scenarios":
            lines.append(f' "{name}": {json.dumps(value, ensure_ascii=False)},')
    lines.append(' "scenarios": [')
    for number, scenario in enumerate(found["scenarios"]):
        head = {name: value for name, value in scenario.items() if name != "rows"}
        lines.append(f'  {json.dumps(head, ensure_ascii=False)[:-1]}, "rows": [')
        rows = [f"   {json.dumps(_small(row), ensure_ascii=False)}" for row in scenario["rows"]]
        lines.append(",\n".join(rows))
        lines.append("  ]}" + ("," if number + 1 < len(found["scenarios"]) else ""))
    return "\n".join([*lines, " ]", "}"]) + "\n"


def _small(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _small(each) for name, each in value.items() if each is not None and each != ""}
    return [_small(each) for each in value] if isinstance(value, list) else value


def outcomes(found: Record) -> list[Outcome]:
    """Return the outcomes of a run, as `bench.py` had them."""
    return [
        Outcome(
            scenario["name"],
            scenario["title"],
            [
                Row(
                    row["peer"],
                    row.get("variant", ""),
                    [Sample(**one) for one in row["samples"]],
                    row.get("left_out", ""),
                )
                for row in scenario["rows"]
            ],
            scenario["notes"],
        )
        for scenario in found["scenarios"]
    ]


def latest(records: list[Record]) -> list[Outcome]:
    """Return every scenario as last measured: a later record takes the place of an earlier, `later` that of a row."""
    by_name: dict[str, Outcome] = {}
    for found in records:
        for outcome in outcomes(found):
            by_name[outcome.name] = outcome
        for again in found.get("later", ()):
            row = by_name[again["scenario"]].row(again["peer"], again.get("variant", ""))
            if row is None:
                raise ValueError(
                    f"later: there is no {again['peer']} {again.get('variant', '')} in {again['scenario']}"
                )
            row.samples = [Sample(extra=extra) for extra in again["samples"]]
    return list(by_name.values())


def read(folder: Path) -> list[Record]:
    """Return the runs of a folder, oldest first: their names begin with the date."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
