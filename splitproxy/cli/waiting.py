"""`status NAME --wait PHASE`: wait until a rollout is where it is meant to get, or will not."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final

from splitproxy import reports
from splitproxy.cli.looking import LOOK_SECONDS, RESTART_SECONDS, patient_look
from splitproxy.cli.progress import working
from splitproxy.reports import Rollout

REACHED: Final = 0
ENDED_OTHERWISE: Final = 1
TIMED_OUT: Final = 3
NOT_TOLD: Final = 4
"""Nobody answers, there is no such rollout, or it may not be asked for."""
_ENDS: Final = frozenset({"Succeeded", "Failed"})


class Goal:
    """What is waited for, and until when."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._phases, self._revision, self._timeout = options.wait, options.revision, options.timeout
        self._end = time.monotonic() + options.timeout if options.timeout else float("inf")

    def left(self) -> float:
        """Return the seconds that are left; infinite without --timeout."""
        return max(0.0, self._end - time.monotonic())

    def outcome(self, rollout: Rollout) -> int | None:
        """Return the exit code that `rollout` decides, None while there is more to wait for."""
        ours = self._revision is None or rollout["revision"] == self._revision
        if ours and rollout["phase"] in self._phases:
            return REACHED
        if ours and rollout["phase"] in _ENDS:
            return ENDED_OTHERWISE
        return None if self.left() else TIMED_OUT

    def complaint(self, code: int, rollout: Rollout) -> str:
        """Return why it was in vain."""
        if code == ENDED_OTHERWISE:
            return f"It ended otherwise. {standing(rollout)}"
        most = reports.duration(self._timeout) if self._timeout >= 1 else f"{self._timeout:g} s"
        return f"It took longer than {most}. {standing(rollout)}"


def wait(options: argparse.Namespace, seen: Callable[[Rollout], None] | None = None) -> tuple[int, Rollout | None]:
    """Wait as the options say, telling `seen` every look; return the exit code and how it stands then.

    Says on standard error why it was in vain.
    """
    goal, patience = Goal(options), 0.0
    with working(f"Waiting for {' or '.join(options.wait)}") as work:
        while True:
            found: Rollout | None = patient_look(options.admin, options.name, min(patience, goal.left()))
            if found is None:
                return NOT_TOLD, None
            if seen:
                seen(found)
            code = goal.outcome(found)
            if code is not None:
                break
            work.text = reports.headline(found)
            time.sleep(min(LOOK_SECONDS, goal.left()))
            patience = RESTART_SECONDS
    if code != REACHED:
        print(goal.complaint(code, found), file=sys.stderr)
    return code, found


def standing(rollout: Rollout) -> str:
    """Return where a rollout stands and why, in one line."""
    reason = f": {rollout['reason']}" if rollout["reason"] else ""
    return reports.headline(rollout) + reason
