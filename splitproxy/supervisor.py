"""The first process: keeps the listening sockets, starts and restarts control and the workers, hands down signals.

It imports next to nothing and decides next to nothing, so that it is the one part that does not fail. What is to be
bound and how many workers run is control's word (`splitproxy.channel` lists the messages); what already runs goes on
without control.
"""

import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from splitproxy import handover, listening, systemd
from splitproxy.channel import Message, pair
from splitproxy.children import BackOff, Child
from splitproxy.core.live import LIVE_BYTES, LIVE_OFFSET
from splitproxy.core.stats import MAX_WORKERS
from splitproxy.household import Household
from splitproxy.succession import House, Succession
from splitproxy.turns import Turns
from splitproxy.vigil import LOOK_SECONDS, Vigil

DRAIN_SECONDS: Final = 25.0
"""How long requests may take to end once asked to, where control does not say; below Kubernetes' 30 s."""
_CUT_SECONDS: Final = 2.0
"""What a worker has beyond that to cut off what is left, before it is killed."""
_SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
_HOPELESS: Final = 3
"""Deaths of workers in a row, before any was ever ready, after which the start has failed."""


@dataclass(frozen=True)
class Programs:
    """What to start, less the descriptors. Tests put their own here."""

    control: Sequence[str]
    worker: Sequence[str] = ("-m", "splitproxy.proxy.worker")


@dataclass(frozen=True)
class Ready:
    """What runs, once everything does."""

    generation: int
    listeners: dict[str, str]
    admin: str
    workers: int


@dataclass(frozen=True)
class _Serving:
    """What control committed last; a new worker serves this at once, control alive or not."""

    generation: int
    addresses: list[str]
    memfds: tuple[int, int]
    """The snapshot, and a description of it that only control can read."""


class Supervisor:
    """One `run()` is one life of the program; it returns the exit code."""

    def __init__(self, programs: Programs, say: Callable[[str, str], None], announce: Callable[[Ready], None]) -> None:
        """`say(level, text)` reports an event; `announce` is called once, when all workers serve."""
        self._programs, self._say, self._announce = programs, say, announce
        self._turns = Turns()
        self._household = Household(self._turns, say, self._heard)
        self._control: Child | None = None
        self._workers: dict[int, Child] = {}
        self._slots: list[int] = []
        self._serving: _Serving | None = None
        self._back_off = BackOff()
        self._ready = False
        self._stopping = False
        self._delay, self._patience = 0.0, DRAIN_SECONDS
        """Seconds for which listeners stay open once a drain has begun, and for requests from then on (0: no limit)."""
        self._code = 0
        """What the exit code will be."""
        self._exit: int | None = None

    # --- life --------------------------------------------------------------------------------------------------------
    def run(self) -> int:
        """Run until told to stop and return the exit code: 0 stopped, 1 did not start, 130 interrupted twice."""
        self._turns.catch(_SIGNALS, self._signalled)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            self._inherit(handover.inherit(os.environ))
        except handover.HandoverError as error:
            self._say("error", str(error))
            return 1
        self._vigil = Vigil(self._stats)
        self._turns.every(LOOK_SECONDS, self._look)
        if self._systemd.watchdog:
            self._turns.every(self._systemd.watchdog, self._systemd.alive)
        self._start_control()
        while self._exit is None or self._household.children:
            self._turns.turn()
        return self._exit

    def _inherit(self, left: handover.Inheritance | None) -> None:
        """Begin with what a service manager or a predecessor left, or with nothing."""
        self._systemd = systemd.Notifier(os.environ, heir=left is not None)
        self._listeners = listening.Listeners(left.opened if left else systemd.inherited(os.environ))
        self._succession = Succession(self._turns, self._say, left, self._systemd)
        for address, sockets in left.listeners.items() if left else ():
            self._listeners.adopt(address, sockets)
        if left and left.memory is not None:
            self._stats = left.memory
        else:
            self._stats = os.memfd_create("splitproxy-stats")
            os.ftruncate(self._stats, LIVE_OFFSET + LIVE_BYTES)  # sparse: only what is used takes memory

    def _finish(self, code: int, *, at_once: bool = False) -> None:
        """End every process and then the loop: control by closing its channel, what remains by force."""
        self._stopping = True
        if self._exit is None or at_once:
            self._exit = code
        for child in list(self._household.children.values()):
            child.leaving = True
            if at_once or child.slot is not None:
                self._household.kill(child)
            else:
                self._household.retire(child)
        self._listeners.close_all()

    def _fail(self) -> None:
        """End with 1: the start has failed. What a predecessor's clients have here already is finished."""
        (self._drain if self._succession.unproven else self._finish)(1)

    def _drain(self, code: int = 0, *, delay: float | None = None) -> None:
        """Say that we are going; `delay` later (as configured) close the listeners, finish, and exit with `code`."""
        if self._stopping:
            return
        self._stopping, self._code = True, code
        delay = self._delay if delay is None else delay
        self._systemd.stopping("Draining")
        self._succession.dismiss()
        if self._control:
            self._household.send(self._control, {"type": "drain"})
        if delay and self._workers:
            self._say("info", f"draining: listeners are closed in {delay:g} s")
            for worker in self._workers.values():
                self._household.send(worker, {"type": "leaving"})
            self._turns.after(delay, self._close_doors)
        else:
            self._close_doors()

    def _close_doors(self) -> None:
        if self._exit is not None:
            return
        for slot in list(self._workers):
            self._release_worker(slot)
        self._listeners.close_all()
        if left := len(self._household.workers()):
            self._say("info", f"draining: {left} worker(s) finish their requests")
            if self._patience:
                self._turns.after(self._patience + _CUT_SECONDS, self._lose_patience)
        else:
            self._finish(self._code)

    def _lose_patience(self) -> None:
        if self._exit is None:
            self._say("warning", f"worker(s) did not end after {self._patience + _CUT_SECONDS:g} s and are killed")
            self._finish(self._code)

    def _house(self) -> House:
        """Return what a successor needs of us."""

        def memory() -> tuple[int, list[int]]:
            return self._stats, [worker.slot for worker in self._household.workers() if worker.slot is not None]

        def retire_control() -> bool:
            if self._control:
                self._household.retire(self._control)
            return self._control is not None

        return House(memory, retire_control, self._start_control, partial(self._drain, delay=0.0))

    # --- signals -----------------------------------------------------------------------------------------------------
    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            match number:
                case signal.SIGHUP if self._control and not self._stopping:
                    self._systemd.reloading()
                    self._household.send(self._control, {"type": "reload"})
                case signal.SIGINT if self._stopping:
                    self._finish(130, at_once=True)
                case signal.SIGTERM | signal.SIGINT:
                    self._drain()
                case signal.SIGUSR1:
                    for worker in list(self._workers.values()):
                        self._household.send(worker, {"type": "reopen"})
                case signal.SIGUSR2 if not self._stopping:
                    self._succession.upgrade(self._listeners, self._house())

    # --- children ----------------------------------------------------------------------------------------------------
    def _start_control(self) -> None:
        if self._stopping or self._control or self._succession.under_way:
            return
        serving = self._serving
        resume = ("--resume", str(serving.generation)) if serving else ()
        self._control = control = self._household.start(None, self._programs.control, self._stats, *resume)
        if not serving:
            return
        self._household.send(control, {"type": "serving", "generation": serving.generation}, serving.memfds)
        for worker in list(self._workers.values()):
            self._introduce(worker)

    def _start_worker(self, slot: int) -> None:
        serving = self._serving
        if self._stopping or slot not in self._slots or slot in self._workers or serving is None:
            return
        program, number = self._programs.worker, str(slot)
        worker = self._workers[slot] = self._household.start(slot, program, self._stats, "--slot", number)
        self._household.send(worker, {"type": "snapshot", "generation": serving.generation}, serving.memfds[:1])
        for address in serving.addresses:
            self._hand_over(worker, address)
        self._introduce(worker)

    def _hand_over(self, worker: Child, address: str) -> None:
        assert worker.slot is not None
        try:
            descriptor = self._listeners.take(address, worker.slot)
        except OSError as error:
            self._say("error", f"{worker.name} goes without a listener on {address}: {listening.in_words(error)}")
        else:
            self._household.send(worker, {"type": "listener", "address": address}, [descriptor])

    def _introduce(self, worker: Child) -> None:
        """Give control and `worker` the two ends of a new channel."""
        if not self._control:
            return
        here, there = pair()
        self._household.send(worker, {"type": "control"}, [here.fileno()])
        self._household.send(
            self._control, {"type": "worker", "slot": worker.slot, "pid": worker.pid}, [there.fileno()]
        )
        here.close()
        there.close()

    def _look(self) -> None:
        """Kill workers and control when they stand still; each is replaced like any that dies."""
        control = [self._control] if self._control else []
        for child in self._vigil.look([*control, *self._workers.values()]):
            self._say("error", f"{child.name} (pid {child.pid}) has stood still and is killed")
            self._household.kill(child)

    def _reap(self) -> None:
        for pid, child, code in self._household.reap():
            if child:
                self._ended(child, code)
            else:
                self._succession.reaped(pid, code, stopping=self._stopping)

    def _ended(self, child: Child, code: int) -> None:
        if child is self._control:
            self._control = None
        elif child.slot is not None and self._workers.get(child.slot) is child:
            del self._workers[child.slot]
        if child.slot is not None and self._control:
            self._household.send(self._control, {"type": "worker-gone", "slot": child.slot, "pid": child.pid})
        if self._stopping:
            if self._exit is None and not self._household.workers():
                self._finish(self._code)
        elif child.slot is None and self._succession.under_way:
            self._succession.hand_over()
        elif not child.leaving:
            self._replace(child, code)

    def _replace(self, child: Child, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        deaths, delay = self._back_off.died(child)
        if not self._ready and (self._serving is None or deaths >= _HOPELESS):
            self._say("error", f"{child.name} {how} before it was ready")
            self._fail()
            return
        self._say("error", f"{child.name} (pid {child.pid}) {how}; started again" + (f" in {delay:g} s" * (delay > 0)))
        if child.slot is None:
            self._turns.after(delay, self._start_control)
        else:
            self._turns.after(delay, partial(self._start_worker, child.slot))

    # --- what control says -------------------------------------------------------------------------------------------
    def _heard(self, child: Child) -> None:
        if child.channel.fileno() < 0:
            return  # closed by an earlier event of this turn
        try:
            received = child.channel.receive()
        except BlockingIOError:
            return
        if received is None:
            self._household.hang_up(child)
            if not child.leaving and not self._stopping:
                self._household.kill(child)  # usually dead already; if not, nobody can tell it anything any more
            return
        message, fds = received
        if child is self._control:
            self._vigil.heard(child)
            self._obey(message, fds)

    def _obey(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "listen":
                self._listen(message)
            case "forget":
                self._listeners.keep(self._serving.addresses if self._serving else ())
            case "committed":
                self._commit(message, (fds[0], fds[1]))
            case "ready":
                self._all_ready(message)
            case "reloaded":
                if self._ready:
                    self._systemd.ready(f"{message['result']}: generation {message['generation']} serves")
            case "failed":
                self._fail()
            case "drain":
                self._drain()
            case "alive":
                pass
            case unknown:
                raise AssertionError(unknown)

    def _listen(self, message: Message) -> None:
        slots = self._plan(message["workers"])
        failures = self._listeners.bind(message["addresses"], slots)
        if len(slots) < message["workers"]:
            why = f"only {len(slots)} of {message['workers']} workers find a place while others drain"
            failures = dict.fromkeys(message["addresses"], why)
        answer: Message = {"type": "listening", "id": message["id"]}
        if failures:
            answer["error"] = failures
        else:
            answer["addresses"] = {address: self._listeners.bound(address) for address in message["addresses"]}
        if self._control:
            self._household.send(self._control, answer)

    def _plan(self, workers: int) -> list[int]:
        """Return the slots that `workers` workers take: the present ones first, never one that is still draining."""
        draining = {
            *self._succession.reserved,
            *(child.slot for child in self._household.children.values() if child.leaving),
        }
        free = (slot for slot in range(MAX_WORKERS) if slot not in draining and slot not in self._slots)
        return [*self._slots, *free][:workers]

    def _commit(self, message: Message, memfds: tuple[int, int]) -> None:
        if self._stopping:
            return
        before, self._slots = self._serving, self._plan(message["workers"])
        self._serving = _Serving(message["generation"], message["addresses"], memfds)
        self._delay, self._patience = message.get("drain", (0.0, DRAIN_SECONDS))
        for slot, worker in list(self._workers.items()):
            if slot in self._slots:
                self._exchange_listeners(worker, before.addresses if before else [])
            else:
                self._release_worker(slot)
        if before:
            for descriptor in before.memfds:
                os.close(descriptor)
        self._listeners.keep(self._serving.addresses, self._slots)
        for slot in self._slots:
            self._start_worker(slot)
        if self._control:
            self._household.send(self._control, {"type": "settled", "generation": message["generation"]})

    def _exchange_listeners(self, worker: Child, before: list[str]) -> None:
        """Hand over the listeners that are new and have those closed that are not wanted any more."""
        assert worker.slot is not None
        assert self._serving is not None
        for address in self._serving.addresses:
            if address not in before:
                self._hand_over(worker, address)
        for address in before:
            if address not in self._serving.addresses:
                self._listeners.quiesce(address, worker.slot)
                self._household.send(worker, {"type": "release", "address": address})

    def _release_worker(self, slot: int) -> None:
        """Let a worker finish what it has; nobody takes its slot before it is gone."""
        worker = self._workers.pop(slot)
        worker.leaving = True
        self._listeners.quiesce_slot(slot)
        self._household.send(worker, {"type": "drain", "seconds": self._patience})
        if self._control:
            self._household.send(self._control, {"type": "worker-leaving", "slot": slot})

    def _all_ready(self, message: Message) -> None:
        if self._ready or self._serving is None:
            return
        self._ready = True
        bound = {address: self._listeners.bound(address) for address in self._serving.addresses}
        self._announce(Ready(message["generation"], bound, message["admin"], len(self._slots)))
        self._succession.ready(self._listeners)
