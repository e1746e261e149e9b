"""Recorded signals: JSON lines, each a second's counts of both sides.

    {"weight": 5, "canary": {"requests": 50, "failed": 0}, "primary": {"requests": 950, "failed": 1}}

`weight` in percent. Either side may have `"above"`: how many of its requests were above each of the primary's p50, p75,
p90, p95, p99 and p99.9; where both have it in every line, latency is compared too.
"""

import json
from collections.abc import Iterable
from typing import Any

from splitproxy.core.evidence import Batch, Evidence, Terms
from splitproxy.core.slowness import THRESHOLDS
from splitproxy.core.standing import Standing
from splitproxy.errors import RecordError
from splitproxy.simulation.traffic import Second


def read(lines: Iterable[str], name: str) -> tuple[Second, ...]:
    """Return the seconds of a record called `name`. Raises RecordError: a line is not as described."""
    seconds = [_second(line, f"{name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not seconds:
        raise RecordError(f"{name} has no line: each second wants one, with weight, canary and primary")
    latency = all(one.slow for one in seconds)
    return tuple(seconds if latency else [one._replace(slow=()) for one in seconds])


def replay(seconds: Iterable[Second], terms: Terms) -> tuple[int | None, Standing]:
    """Return in which second what was recorded convicts the canary, counted from 1 (None: never), and the standing."""
    evidence = Evidence(terms)
    for number, one in enumerate(seconds, 1):
        evidence.tick()
        slow = one.slow if number > terms.warmup else ()
        if evidence.add(Batch(one.weight, one.canary, one.primary, one.bad_canary, one.bad_primary, slow)):
            return number, evidence.standing()
    return None, evidence.standing()


def _second(line: str, place: str) -> Second:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{place}: not JSON ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("weight"), int | float):
        raise RecordError(f'{place}: an object with "weight" (percent), "canary" and "primary" is wanted')
    if not 0 <= found["weight"] <= 100:
        raise RecordError(f"{place}: weight is {found['weight']}, a percentage from 0 to 100 is wanted")
    canary, primary = (_side(found.get(side), f"{place}: {side}") for side in ("canary", "primary"))
    above, its_above = canary[2], primary[2]
    slow = tuple((a, canary[0] - a, b, primary[0] - b) for a, b in zip(above, its_above, strict=False))
    return Second(canary[0], primary[0], canary[1], primary[1], found["weight"] / 100.0, slow)


def _side(side: Any, place: str) -> tuple[int, int, tuple[int, ...]]:
    if not isinstance(side, dict):
        raise RecordError(f'{place} is missing: {{"requests": 50, "failed": 0}} is wanted')
    requests, failed = (side.get(key) for key in ("requests", "failed"))
    if not (isinstance(requests, int) and isinstance(failed, int) and 0 <= failed <= requests):
        raise RecordError(f"{place}: requests and failed have to be whole numbers, failed not above requests")
    above = side.get("above", [])
    sound = isinstance(above, list) and all(isinstance(one, int) and 0 <= one <= requests for one in above)
    if not sound or len(above) not in {0, len(THRESHOLDS)} or sorted(above, reverse=True) != above:
        raise RecordError(
            f"{place}: above has to be {len(THRESHOLDS)} whole numbers that do not grow, none above requests"
        )
    return requests, failed, tuple(above)
