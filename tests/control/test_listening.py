import socket
import threading
import time

import pytest

from splitproxy.listening import BACKLOG, Listeners, split_address


@pytest.fixture
def listeners():
    listeners = Listeners()
    yield listeners
    listeners.close_all()


def connect(address, seconds=5.0):
    return socket.create_connection(split_address(address), seconds)


def serving(descriptor):
    """Do what a worker does with a listener's descriptor."""
    sock = socket.socket(fileno=socket.dup(descriptor))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def test_every_slot_has_a_socket_of_its_own(listeners):
    assert listeners.bind(["127.0.0.1:0"], [0, 1, 4]) == {}
    workers = [serving(listeners.take("127.0.0.1:0", slot)) for slot in (0, 1, 4)]
    assert {sock.getsockname() for sock in workers} == {split_address(listeners.bound("127.0.0.1:0"))}
    clients = [connect(listeners.bound("127.0.0.1:0")) for _ in range(60)]
    shares = [len(accept_all(sock)) for sock in workers]
    assert sum(shares) == 60
    assert all(shares), "the kernel gives each its share"
    for sock in (*clients, *workers):
        sock.close()


def accept_all(sock):
    accepted = []
    while True:
        try:
            accepted.append(sock.accept()[0])
        except BlockingIOError:
            for connection in accepted:
                connection.close()
            return accepted


def test_connections_wait_for_a_worker_that_is_not_there_yet(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    with connect(listeners.bound("127.0.0.1:0")), serving(listeners.take("127.0.0.1:0", 0)) as worker:
        assert len(accept_all(worker)) == 1


def test_a_socket_whose_worker_only_starts_takes_no_connections(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    listeners.take("127.0.0.1:0", 1)
    clients = [connect(listeners.bound("127.0.0.1:0")) for _ in range(20)]
    with serving(listeners.take("127.0.0.1:0", 0)) as worker:
        assert len(accept_all(worker)) == 20
    for client in clients:
        client.close()


def test_a_port_that_another_program_has_is_refused_in_words_and_all_is_taken_back(listeners):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even if it would share
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        failures = listeners.bind(["127.0.0.1:0", taken, "192.0.2.1:80"], [0])
        assert failures == {
            taken: "the port is in use by another program",
            "192.0.2.1:80": "this machine has no such address",
        }
        with pytest.raises(KeyError):
            listeners.bound("127.0.0.1:0")


def test_a_second_program_of_our_own_is_refused_too(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    second = Listeners()
    address = listeners.bound("127.0.0.1:0")
    assert second.bind([address], [0]) == {address: "the port is in use by another program"}


def test_what_is_bound_is_kept_when_more_is_asked_for(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    bound = listeners.bound("127.0.0.1:0")
    assert listeners.bind(["127.0.0.1:0", "[::1]:0"], [0, 1]) == {}
    assert listeners.bound("127.0.0.1:0") == bound
    assert listeners.bound("[::1]:0").startswith("[::1]:")
    listeners.keep(["127.0.0.1:0"])
    with pytest.raises(KeyError):
        listeners.bound("[::1]:0")


def test_no_host_means_every_ipv4_address(listeners):
    assert listeners.bind([":0"], [0]) == {}
    assert listeners.bound(":0").startswith("0.0.0.0:")


def test_a_quiesced_socket_lets_nothing_new_in_and_resets_nothing_that_is_queued(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    address = listeners.bound("127.0.0.1:0")
    queued = connect(address)
    worker = serving(listeners.take("127.0.0.1:0", 0))
    listeners.quiesce("127.0.0.1:0", 0)
    listeners.close_all()
    with pytest.raises(TimeoutError):
        connect(address, 0.2)
    accepted, _ = worker.accept()
    accepted.sendall(b"served")
    assert queued.recv(6) == b"served"
    for sock in (worker, accepted, queued):
        sock.close()
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_who_connects_while_a_listener_is_closed_is_served_or_refused_but_never_reset(listeners):
    listeners.bind(["127.0.0.1:0"], [0])
    address, outcomes, stop = listeners.bound("127.0.0.1:0"), [], threading.Event()
    worker = serving(listeners.take("127.0.0.1:0", 0))

    def come_and_go():
        while not stop.is_set():
            try:
                with connect(address, 0.5) as client:
                    outcomes.append("served" if client.recv(1) == b"x" else "closed without an answer")
            except (ConnectionRefusedError, TimeoutError):
                outcomes.append("refused")
                return
            except ConnectionResetError:
                outcomes.append("reset")

    clients = [threading.Thread(target=come_and_go) for _ in range(4)]
    for client in clients:
        client.start()
    serve_for(worker, 0.2)
    listeners.quiesce("127.0.0.1:0", 0)
    listeners.close_all()
    serve_for(worker, 0.2)
    worker.close()
    stop.set()
    for client in clients:
        client.join()
    assert set(outcomes) == {"served", "refused"}


def serve_for(worker, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection, _ = worker.accept()
        except BlockingIOError:
            time.sleep(0.0005)
            continue
        connection.sendall(b"x")
        connection.close()
