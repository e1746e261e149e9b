"""`python -m splitproxy.control`: the control process, started by the supervisor."""

import argparse
import gc
import signal
import sys

from splitproxy.control.loading import Loading
from splitproxy.control.watch import Watch


def main() -> int:
    """Run until the supervisor hangs up."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # The supervisor decides when this process ends: /metrics is asked for until the last request is done, also
        # where a service manager sends the signal to every process of the group.
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="splitproxy.control")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--stats", type=int, required=True)
    parser.add_argument("-c", dest="path", required=True)
    parser.add_argument("--workers")
    parser.add_argument("--resume", type=int)
    options = parser.parse_args()
    watch = Watch(options.path)
    watch.look()  # before anything is read, so that no change is missed
    first = Loading(options.path, options.workers, 1) if options.resume is None else None
    gc.disable()
    from splitproxy import logs  # while the first load is under way in its own process
    from splitproxy.control.app import App, Options

    gc.freeze()
    gc.enable()
    logs.set_up("control")
    app = App(Options(options.channel, options.stats, options.path, options.workers, options.resume))
    return app.run(first, watch)


if __name__ == "__main__":
    sys.exit(main())
