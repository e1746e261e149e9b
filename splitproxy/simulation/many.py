"""Thousands of rollouts on all cores, the same ones whatever the number of cores."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Final

import numpy as np

from splitproxy.simulation.playing import Played, Rollouts
from splitproxy.simulation.policy import Policy
from splitproxy.simulation.rivals import Rule
from splitproxy.simulation.summary import joined
from splitproxy.simulation.traffic import Traffic

CHUNK: Final = 500
"""Rollouts that are played together."""


def play(
    policy: Policy,
    traffic: Traffic,
    runs: int,
    seed: int,
    rules: Sequence[Rule] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Played:
    """Play so many rollouts and return what became of them; `progress` is told how many are done."""
    sizes = [min(CHUNK, runs - start) for start in range(0, runs, CHUNK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    tasks = [(policy, traffic, size, one, tuple(rules)) for size, one in zip(sizes, seeds, strict=True)]
    if len(tasks) == 1:
        parts = {0: _play(*tasks[0])}
        progress(runs)
        return joined([parts[0]])
    parts, done = {}, 0
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), mp_context=get_context("forkserver")) as pool:
        waiting = {pool.submit(_play, *task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(waiting):
                parts[waiting[future]] = future.result()
                done += sizes[waiting[future]]
                progress(done)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return joined([parts[number] for number in range(len(tasks))])


def _play(policy: Policy, traffic: Traffic, runs: int, seed: np.random.SeedSequence, rules: Sequence[Rule]) -> Played:
    return Rollouts(policy, traffic, runs, seed).play(rules)
