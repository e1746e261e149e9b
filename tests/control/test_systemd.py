"""What a service manager is told, with its real socket, and the sockets that it hands over."""

import os
import socket
import subprocess
import sys

import pytest

from splitproxy.children import child_environment
from splitproxy.systemd import Notifier, inherited


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path):
    """Return the variable's value and the socket."""
    where = str(tmp_path / "notify") if request.param == "file" else f"@splitproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(where.replace("@", "\0"))
        sock.settimeout(5)
        yield where, sock


def test_every_word_arrives(manager):
    where, sock = manager
    environment = {"NOTIFY_SOCKET": where, "HOME": "/"}
    notifier = Notifier(environment)
    assert environment == {"HOME": "/"}
    notifier.ready("Serving")
    notifier.alive()
    notifier.status("Upgrading")
    notifier.main_process(7)
    notifier.stopping("Draining")
    told = [sock.recv(1000) for _ in range(5)]
    assert told == [
        b"READY=1\nSTATUS=Serving",
        b"WATCHDOG=1",
        b"STATUS=Upgrading",
        b"MAINPID=7",
        b"STOPPING=1\nSTATUS=Draining",
    ]
    notifier.hush()
    notifier.ready("not any more")
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1000)


def test_an_heir_is_silent_until_it_is_its_turn(manager):
    where, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": where}, heir=True)
    notifier.stopping("nobody is to hear this")
    notifier.speak()
    notifier.ready("Serving")
    assert sock.recv(1000).startswith(b"READY=1")


@pytest.mark.parametrize("where", ["", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_who_listens_is_no_error(where):
    Notifier({"NOTIFY_SOCKET": where}).ready("Serving")


def test_a_manager_that_reads_nothing_holds_nothing_up(manager):
    notifier = Notifier({"NOTIFY_SOCKET": manager[0]})
    for _ in range(10_000):
        notifier.alive()


@pytest.mark.parametrize(
    ("variables", "heir", "seconds"),
    [
        ({}, False, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, False, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, False, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, False, 0.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, True, 15.0),
        ({"WATCHDOG_USEC": "soon"}, False, 0.0),
    ],
)
def test_signs_of_life_come_twice_as_often_as_is_asked(variables, heir, seconds):
    notifier = Notifier(dict(variables), heir=heir)
    assert notifier.watchdog == seconds
    assert "WATCHDOG_PID" not in notifier.environment()


@pytest.mark.parametrize(
    "variables",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid())}],
)
def test_what_is_meant_for_another_process_is_left_alone(variables):
    environment = dict(variables)
    assert inherited(environment, first=10_000) == []
    assert environment == {}


def test_listening_sockets_come_with_their_names_and_others_are_left_alone():
    code = """
import os, socket, sys
from splitproxy.systemd import inherited
environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:pipe"}
found = inherited(environment, first=int(sys.argv[1]))
print(environment, [(name, sock.getsockname()[1], sock.get_inheritable(), sock.getblocking()) for name, sock in found])
os.fstat(int(sys.argv[1]) + 1)
"""
    first = 900  # below the usual limit, and above what the tests' own process has open
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        for place, descriptor in enumerate((one.fileno(), reader, two.fileno())):
            os.dup2(descriptor, first + place)
        done = subprocess.run(
            [sys.executable, "-c", code, str(first)],
            pass_fds=range(first, first + 3),
            env=child_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        ports = [sock.getsockname()[1] for sock in (one, two)]
    for descriptor in (reader, writer, *range(first, first + 3)):
        os.close(descriptor)
    assert done.stdout.strip() == str({}) + " " + str(
        [("web", ports[0], False, False), ("unknown", ports[1], False, False)]
    )
