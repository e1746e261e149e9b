"""What one program hands over to the next, over a real channel."""

import os
import socket
import threading

import pytest

from splitproxy import handover
from splitproxy.channel import Channel, pair
from splitproxy.core import stats
from splitproxy.listening import Listeners


@pytest.fixture
def channels():
    ours, theirs = pair()
    ours.settimeout(5)
    made = Channel(ours)
    yield made, {handover.VARIABLE: str(theirs.detach()), "HOME": "/"}
    made.close()


def given(channel, *arguments):
    """Wait for the new program's first word and give it everything."""

    def run():
        said.append(channel.receive()[0])
        handover.give(channel, *arguments)

    said = []
    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def close(found):
    found.channel.close()
    for sockets in found.listeners.values():
        for sock in sockets.values():
            sock.close()
    for _, sock in found.opened:
        sock.close()
    if found.memory is not None:
        os.close(found.memory)


def test_everything_arrives(channels):
    channel, environment = channels
    memory = os.memfd_create("memory")
    opened = socket.create_server(("127.0.0.1", 0))
    old = Listeners()
    assert old.bind(["127.0.0.1:0"], [0, 3]) == {}
    thread, said = given(channel, old.give(), [("web", opened)], (memory, [0, 3]))
    found = handover.inherit(environment)
    thread.join(5)
    assert environment == {"HOME": "/"}
    assert said == [{"type": "hello", "layout": handover.layout()}]
    (sockets,) = found.listeners.values()
    assert list(sockets) == [0, 3]
    assert {sock.getsockname()[1] for sock in sockets.values()} == {int(old.bound("127.0.0.1:0").split(":")[1])}
    assert [(name, sock.getsockname()) for name, sock in found.opened] == [("web", opened.getsockname())]
    assert (os.fstat(found.memory).st_ino, found.slots) == (os.fstat(memory).st_ino, [0, 3])
    close(found)
    old.close_all()
    opened.close()
    os.close(memory)


def test_without_a_predecessor_there_is_nothing():
    assert handover.inherit({}) is None


def test_a_predecessor_that_dies_meanwhile_is_an_error(channels):
    channel, environment = channels
    channel.close()
    with pytest.raises(handover.HandoverError):
        handover.inherit(environment)


def test_the_layout_is_that_of_the_shared_memory(monkeypatch):
    before = handover.layout()
    assert before == handover.layout()
    monkeypatch.setattr(stats, "LAG_NS", 63)
    assert handover.layout() != before


@pytest.mark.parametrize(("workers", "fits"), [(1, True), (32, True), (33, False), (64, False)])
def test_memory_is_shared_where_both_programs_find_room(workers, fits):
    assert handover.room(list(range(workers))) == fits


# --- listeners --------------------------------------------------------------------------------------------------------
def adopted(old):
    new = Listeners()
    for address, sockets in old.give():
        new.adopt(address, {slot: sock.dup() for slot, sock in sockets.items()})
    return new


def accepts(sock):
    """Say whether a connection that is made now ends in the queue of `sock`."""
    with socket.create_connection(sock.getsockname(), 5):
        sock.settimeout(5)
        try:
            sock.accept()[0].close()
        except TimeoutError:
            return False
    return True


def test_a_successor_goes_on_with_the_same_sockets_in_slots_of_its_own():
    address, old = "127.0.0.1:0", Listeners()
    assert old.bind([address], [0, 1]) == {}
    new = adopted(old)
    assert new.bind([address], [2, 3, 4]) == {}
    assert new.bound(address) == old.bound(address)
    assert sorted(new.own()) == [(address, 0), (address, 1)]
    assert new.own() == []
    for slot in (0, 1):
        old.give_up(address, slot)
    old.quiesce_slot(0)
    old.quiesce_slot(1)
    old.close_all()
    sock = socket.socket(fileno=os.dup(new.take(address, 2)))
    assert accepts(sock)
    sock.close()
    new.close_all()


def test_what_a_successor_does_not_take_stays_the_others():
    address, old = "127.0.0.1:0", Listeners()
    assert old.bind([address, "localhost:0"], [0, 1]) == {}
    new = adopted(old)
    assert new.bind([address], [2]) == {}
    assert new.own() == [(address, 0)]
    new.close_all()
    old.close_all()


def test_a_socket_of_the_service_manager_is_shared_and_outlives_us():
    with socket.create_server(("127.0.0.1", 0)) as opened:
        host, port = opened.getsockname()
        address = f"{host}:{port}"
        listeners = Listeners([("web", opened)])
        assert listeners.bind([address], [0, 1]) == {}
        assert listeners.bound(address) == address
        assert list(listeners.give()) == []
        listeners.quiesce_slot(0)
        listeners.keep([])
        assert listeners.bind([address], [0]) == {}
        listeners.close_all()
        assert accepts(opened)
