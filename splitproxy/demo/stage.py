"""The demo's processes and its folder: set up, and taken away again whatever happens."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from splitproxy.children import child_environment
from splitproxy.errors import SplitProxyError
from splitproxy.supervisor import DRAIN_SECONDS

_START_SECONDS: Final = 20.0
_LOG_LINES: Final = 20


class StageError(SplitProxyError):
    """A process of the demo did not start, or ended too early; `args[0]` says which and why."""


@dataclass(frozen=True)
class Stage:
    """What runs, once everything does."""

    proxy: str
    """`host:port`."""
    admin: str
    config: Path
    ended: "asyncio.Task[str]"
    """Done when the proxy ends unasked; its result says how."""
    log: deque[str]
    """The last lines that the proxy has logged."""


@contextlib.asynccontextmanager
async def stage(write: Callable[[dict[str, int], Path], str], *conduct: str) -> AsyncIterator[Stage]:
    """Set everything up, and take it away at the end: in order, or at once when cancelled. Raises StageError.

    `write` makes the proxy's file from the versions' ports and the demo's folder; `conduct`: options of the upstreams.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splitproxy-demo-")))
        upstreams = await _start(stack, "splitproxy.demo.upstreams", *conduct)
        ports = await _first_word(upstreams, "the upstreams", deque())
        config = folder / "splitproxy.yaml"
        config.write_text(write(ports, folder))
        proxy = await _start(stack, "splitproxy.demo.proxy", "--config", str(config))
        log: deque[str] = deque(maxlen=_LOG_LINES)
        ready = (await _first_word(proxy, "the proxy", log, word="ready"))["ready"]
        ended = asyncio.create_task(_until_end(proxy, log))
        stack.push_async_callback(_stop_reading, ended)
        (listener,) = ready["listeners"].values()
        yield Stage(listener, ready["admin"].removeprefix("http://"), config, ended, log)


async def _start(stack: contextlib.AsyncExitStack, module: str, *options: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, "--parent", str(os.getpid()), *options),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env=child_environment(),
        process_group=0,  # Ctrl-C in the terminal is for the demo alone, which ends the others in order
    )

    async def leave(why: type[BaseException] | None, *_: object) -> None:
        await _stop(process, signal.SIGKILL if why is asyncio.CancelledError else signal.SIGTERM)

    stack.push_async_exit(leave)
    return process


async def _stop(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DRAIN_SECONDS + 5):
            await process.stdout.read()  # lest it wait for somebody to read its last words
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _stop_reading(ended: "asyncio.Task[str]") -> None:
    ended.cancel()
    await asyncio.wait([ended])


async def _first_word(process: Process, name: str, log: deque[str], word: str | None = None) -> Any:
    """Return the first JSON object that `process` prints, or the first that has the key `word`. Raises StageError."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            while line := await process.stdout.readline():
                said = _parsed(line)
                if said is not None and (word is None or word in said):
                    return said
                log.append(line.decode(errors="replace").rstrip())
            code = await process.wait()
    except TimeoutError:
        why = f"{name} did not start within {_START_SECONDS:g} s"
    else:
        why = f"{name} ended with exit code {code}"
    raise StageError("\n".join([why, *log]))


async def _until_end(process: Process, log: deque[str]) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        log.append(line.decode(errors="replace").rstrip())
    return f"the proxy ended with exit code {await process.wait()}"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
