"""What a rollout is run with: what all of them share, and what the configuration says beside the plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp

from splitproxy.control.rollouts.hooks import Hooks
from splitproxy.control.rollouts.measuring import Keys, Template
from splitproxy.control.rollouts.news import News
from splitproxy.control.rollouts.store import Store
from splitproxy.control.signals import Signals
from splitproxy.core.live import Traffic
from splitproxy.core.tallies import Aims


@dataclass(frozen=True)
class Parts:
    """What all rollouts share."""

    signals: Signals
    store: Store
    session: aiohttp.ClientSession
    """For readiness."""
    hooks: Hooks
    news: News
    publish: Callable[[str, dict[str, Any]], None]
    """Tells listeners of the API of an event."""
    put: Callable[[Mapping[str, Any], Traffic, int, Aims], int]
    """Puts the traffic of a served plain rollout in force, drawn with the salt of a run; returns the epoch."""
    monotonic: Callable[[], float]
    counters: str
    """Tells the counters of the signals from those of another life of the program."""


class Facts(NamedTuple):
    """What a configuration says about a rollout beside its plain form."""

    keys: Keys
    templates: Mapping[str, Template]
    endpoints: Mapping[str, list[str]]
    """Upstream -> URLs."""
