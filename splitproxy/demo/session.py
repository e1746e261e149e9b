"""One run of the demo: set up, send and show until the end, judge, take away."""

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from splitproxy.demo import words
from splitproxy.demo.client import Client
from splitproxy.demo.figures import Figures, complaints, sides, to_dict
from splitproxy.demo.stage import ROUTE, Stage, StageError, stage
from splitproxy.demo.traffic import Seens, send

_LOOK_SECONDS: Final = {"live": 0.25, "lines": 1.0, "json": 0.5}
_SETTLE_SECONDS: Final = 5.0
"""How long the proxy's counts may lag behind the clients'."""
_INTERRUPTED: Final = 130

Show = Callable[[Figures], None]


@dataclass(frozen=True)
class Wish:
    """What the user wants."""

    canary: float
    """Percent."""
    duration: float | None
    """Seconds; None is until interrupted."""
    seed: int | None
    style: str
    """live | lines | json."""


async def play(wish: Wish) -> int:
    """Play the demo once and return the exit code: 0 it held, 1 it did not, 130 interrupted at the start or twice."""
    stop = asyncio.Event()
    playing = asyncio.current_task()
    assert playing is not None
    loop = asyncio.get_running_loop()
    begun = False

    def interrupt() -> None:
        if stop.is_set() or not begun:
            playing.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    try:
        async with stage(wish.canary, wish.seed) as scene:
            begun = True
            figures = await _perform(wish, scene, stop)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return _INTERRUPTED
    reasons = complaints(figures, wish.canary)
    if scene.ended.done() and not scene.ended.cancelled():
        reasons.append(scene.ended.result())
    _conclude(wish, figures, reasons)
    if reasons and scene.log:
        print("\n".join(["The proxy's log ends with:", *scene.log]), file=sys.stderr)
    return 1 if reasons else 0


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
            latest = await _look(admin, latest, loop.time() - began)
            show(latest)
        await sending
        latest = await _settle(admin, latest, loop.time() - began)
    admin.close()
    return latest


async def _look(admin: Client, before: Figures, seconds: float) -> Figures:
    """Return the figures of now; the proxy's part from `before` when it does not tell."""
    try:
        routes = await admin.json(f"/api/v1/routes?route={ROUTE}")
    except (OSError, EOFError, ValueError):
        return Figures(seconds, before.sides, before.seen)
    return Figures(seconds, sides(routes), before.seen)


async def _settle(admin: Client, figures: Figures, seconds: float) -> Figures:
    """Look until the proxy has counted every request that was answered."""
    end = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while True:
        figures = await _look(admin, figures, seconds)
        if figures.assigned >= figures.seen.answered or asyncio.get_running_loop().time() > end:
            return figures
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def _showing(wish: Wish, scene: Stage) -> Iterator[Show]:
    """Provide what shows figures."""
    where = (scene.proxy, scene.admin, scene.config)
    if wish.style == "live":
        from splitproxy.demo.view import View  # rich, for whoever has a terminal

        with View(*where) as view:
            yield view.show
    elif wish.style == "lines":
        print(words.beginning(*where, wish.canary), flush=True)
        yield lambda figures: print(words.line(figures), flush=True)
    else:
        yield lambda _: None


def _conclude(wish: Wish, figures: Figures, reasons: list[str]) -> None:
    if wish.style == "json":
        print(json.dumps(to_dict(figures, reasons)))
    else:
        print(f"\n{words.summary(figures, reasons)}\n\n{words.NEXT}", flush=True)
