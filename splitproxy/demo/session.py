"""One run of the demo: set up, send and show until the end, judge, take away."""

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from splitproxy.demo import files, release, words
from splitproxy.demo.client import Client
from splitproxy.demo.figures import Figures, complaints, sides, to_dict
from splitproxy.demo.stage import Stage, StageError, stage
from splitproxy.demo.traffic import Seens, send

_LOOK_SECONDS: Final = {"live": 0.25, "lines": 1.0, "json": 0.5}
_SETTLE_SECONDS: Final = 5.0
"""How long the proxy's counts may lag behind the clients'."""
_INTERRUPTED: Final = 130

Show = Callable[[Figures], None]


@dataclass(frozen=True)
class Wish:
    """What the user wants."""

    canary: float | None
    """Percent that it gets throughout; None: what a rollout gives it."""
    scenario: str
    """How the canary does."""
    hold: float
    """Seconds that each step of the rollout lasts; one step long, every canary is good."""
    duration: float | None
    """Seconds; None is until interrupted."""
    seed: int | None
    style: str
    """live | lines | json."""
    brief: bool = False
    """Whether the duration is the user's: then a rollout need not have come to its end."""


async def play(wish: Wish) -> int:
    """Play the demo once and return the exit code: 0 it held, 1 it did not, 130 interrupted at the start or twice."""
    stop = asyncio.Event()
    playing = asyncio.current_task()
    assert playing is not None
    loop = asyncio.get_running_loop()
    begun = interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        if stop.is_set() or not begun:
            playing.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    if wish.style == "live":
        print("Starting two versions of a service, the proxy and traffic …", flush=True)
    try:
        async with stage(partial(_file, wish), *_conduct(wish)) as scene:
            begun = True
            figures = await _perform(wish, scene, stop)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return _INTERRUPTED
    reasons = _judged(wish, figures, interrupted)
    if scene.ended.done() and not scene.ended.cancelled():
        reasons.append(scene.ended.result())
    _conclude(wish, figures, reasons)
    if reasons and scene.log:
        print("\n".join(["The proxy's log ends with:", *scene.log]), file=sys.stderr)
    return 1 if reasons else 0


def _file(wish: Wish, ports: dict[str, int], folder: Path) -> str:
    return files.release(ports, folder, wish.hold) if wish.canary is None else files.split(ports, wish.canary)


def _conduct(wish: Wish) -> list[str]:
    seeding = [] if wish.seed is None else ["--seed", str(wish.seed)]
    return ["--scenario", wish.scenario, "--onset", str(wish.hold), *seeding]


def _judged(wish: Wish, figures: Figures, interrupted: bool) -> list[str]:
    """Return why it did not hold. A rollout that the user did not wait for is not held against anybody."""
    if wish.canary is not None:
        return complaints(figures, wish.canary)
    waited = not (interrupted or wish.brief) or release.ended(figures.rollout)
    if interrupted and not waited:
        return []
    return release.complaints(figures, wish.scenario, to_the_end=waited)


async def _perform(wish: Wish, scene: Stage, stop: asyncio.Event) -> Figures:
    loop = asyncio.get_running_loop()
    seen, admin, began = Seens(), Client(scene.admin), loop.time()
    if wish.duration is not None:
        loop.call_later(wish.duration, stop.set)
    scene.ended.add_done_callback(lambda _: stop.set())
    sending = asyncio.create_task(send(scene.proxy, random.Random(wish.seed), seen, stop))
    latest = Figures(0.0, [], seen)
    with _showing(wish, scene) as show:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS[wish.style])
            latest = await _look(wish, admin, latest, loop.time() - began)
            show(latest)
            if wish.style != "live" and release.ended(latest.rollout):
                stop.set()
        await sending
        if not scene.ended.done():
            latest = await _settle(wish, admin, latest, loop.time() - began)
    admin.close()
    return latest


async def _look(wish: Wish, admin: Client, before: Figures, seconds: float) -> Figures:
    """Return the figures of now; the proxy's part from `before` when it does not tell."""
    try:
        routes = await admin.json(f"/api/v1/routes?route={files.ROUTE}")
        if wish.canary is not None:
            return Figures(seconds, sides(routes), before.seen)
        rollout = await admin.json(f"/api/v1/rollouts/{files.ROLLOUT}")
        return Figures(seconds, release.sides(routes, rollout), before.seen, rollout)
    except (OSError, EOFError, ValueError):
        return replace(before, seconds=seconds)


async def _settle(wish: Wish, admin: Client, figures: Figures, seconds: float) -> Figures:
    """Look until the proxy has counted every request that was answered."""
    end = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while True:
        figures = await _look(wish, admin, figures, seconds)
        if figures.assigned >= figures.seen.answered or asyncio.get_running_loop().time() > end:
            return figures
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def _showing(wish: Wish, scene: Stage) -> Iterator[Show]:
    """Provide what shows figures."""
    where = (scene.proxy, scene.admin, scene.config)
    if wish.style == "live":
        from splitproxy.demo.view import View  # rich, for whoever has a terminal

        with View(*where, words.purpose(wish.canary, wish.scenario)) as view:
            yield view.show
    elif wish.style == "lines":
        print(words.beginning(*where, words.purpose(wish.canary, wish.scenario)), flush=True)
        lines = words.Lines()
        yield lambda figures: print("\n".join(lines.of(figures)), flush=True)
    else:
        yield lambda _: None


def _conclude(wish: Wish, figures: Figures, reasons: list[str]) -> None:
    if wish.style == "json":
        told = (
            to_dict(figures, reasons) if wish.canary is not None else release.to_dict(figures, wish.scenario, reasons)
        )
        print(json.dumps(told))
    else:
        print(f"\n{words.summary(figures, reasons)}\n\n{words.NEXT}", flush=True)
