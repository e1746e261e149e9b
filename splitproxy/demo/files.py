"""What the demo has its proxy do, as files."""

from pathlib import Path
from typing import Final

ROUTE: Final = "shop"
ROLLOUT: Final = "shop"
ROLES: Final = {"v1": "primary", "v2": "canary"}
"""Version -> its role in the demo's route, to begin with."""
_WEIGHTS: Final = (5, 10, 25, 50, 75)
"""The canary's shares, in percent."""


def _places(ports: dict[str, int]) -> str:
    """Return what every file of the demo has in common: addresses, all of them free ones, and two versions."""
    return f"""\
listeners:
  - address: 127.0.0.1:0
admin:
  address: 127.0.0.1:0

upstreams:
  - name: v1
    endpoints: ["http://127.0.0.1:{ports["v1"]}"]
  - name: v2
    endpoints: ["http://127.0.0.1:{ports["v2"]}"]
"""


def split(ports: dict[str, int], canary: float) -> str:
    """Return the demo's file with `canary` percent of the requests to v2."""
    return f"""\
# The configuration of the running demo. Change a weight, save, and watch: the file is read again within two seconds.
{_places(ports)}
routes:
  - name: {ROUTE}
    rules:
      - backendRefs:
          - {{name: v1, weight: {round(100 - canary, 2):g}}}
          - {{name: v2, weight: {canary:g}}}
"""


def release(ports: dict[str, int], folder: Path, hold: float) -> str:
    """Return the demo's file with a rollout from v1 to v2, its state in `folder`.

    Each step lasts `hold` seconds, and what is promoted is watched for as long.
    """
    seconds, milliseconds = divmod(round(hold * 1000), 1000)
    # In seconds where it can be: five digits are the most that a unit may have.
    lasting = f"{seconds}s{milliseconds}ms" if milliseconds else f"{seconds}s"
    steps = "\n".join(f"        - {{setWeight: {weight}, hold: {lasting}}}" for weight in _WEIGHTS)
    return f"""\
# The configuration of the running demo. A new revision, saved, starts the rollout again.
{_places(ports)}
state:
  path: {folder}/splitproxy.db

routes:
  - name: {ROUTE}
    rules:
      - backendRefs: [{{name: v1}}]

rollouts:
  - name: {ROLLOUT}
    route: {ROUTE}
    primary: v1
    canary: v2
    revision: "2.0.0"
    promotion: {{mode: swap, bakeTime: {lasting}}}
    analysis:
      interval: 1s
      threshold: 4                # failed checks, all together, that end it
      minRequests: 3
      steps:
{steps}
      metrics:
        - {{name: request-success-rate, thresholdRange: {{min: 99}}}}
        - {{name: request-duration, thresholdRange: {{max: 250}}}}
"""
