import asyncio

import pytest

from splitproxy.control import publish
from splitproxy.control.publish import Refused, Snapshot


async def published(publisher, snapshot):
    await publisher.prepare(snapshot)
    await publisher.commit(snapshot)
    await publisher.settle()


async def test_commits_only_after_every_worker_has_prepared(publisher, scripted_worker, memfd):
    quick, slow = scripted_worker(0), scripted_worker(1, silent=True)
    publication = asyncio.create_task(published(publisher, Snapshot(1, memfd)))
    await slow.until_told(("prepare", 1))
    assert quick.told == [("prepare", 1)]
    slow.silent = False
    slow.link.send({"type": "prepared", "generation": 1})
    await publication
    assert quick.told == slow.told == [("prepare", 1), ("commit", 1)]
    assert {worker.slot for worker in publisher.serving()} == {0, 1}


async def test_a_refusal_is_reported_and_forgotten_by_all(publisher, scripted_worker, memfd):
    willing, unwilling = scripted_worker(0), scripted_worker(1, refuses="bad regex")
    with pytest.raises(Refused) as refused:
        await publisher.prepare(Snapshot(4, memfd))
    assert refused.value.args[0] == ["worker 1: bad regex"]
    await willing.until_told(("prepare", 4), ("forget", 4))
    await unwilling.until_told(("prepare", 4), ("forget", 4))
    assert publisher.current is None


async def test_silence_is_a_refusal(publisher, scripted_worker, memfd, monkeypatch):
    monkeypatch.setattr(publish, "ANSWER_SECONDS", 0.05)
    scripted_worker(0, silent=True)
    with pytest.raises(Refused, match=r"worker 0: no answer to prepare within 0\.05 s"):
        await publisher.prepare(Snapshot(1, memfd))


@pytest.mark.parametrize("how", ["its channel ends", "the supervisor says so"])
async def test_a_worker_that_dies_meanwhile_is_left_out(how, publisher, scripted_worker, memfd):
    living, dying = scripted_worker(0), scripted_worker(1, silent=True)
    publication = asyncio.create_task(published(publisher, Snapshot(1, memfd)))
    await dying.until_told(("prepare", 1))
    if how == "its channel ends":
        dying.link.close()
    else:
        publisher.gone(1, dying.pid)
    await publication
    assert living.serves == 1
    assert list(publisher.workers) == [0]


async def test_a_worker_that_starts_from_an_old_snapshot_meanwhile_is_brought_up_to_date(
    publisher, scripted_worker, memfd
):
    slow = scripted_worker(0, silent=True)
    publication = asyncio.create_task(published(publisher, Snapshot(2, memfd)))
    await slow.until_told(("prepare", 2))
    late = scripted_worker(1, serves=1)
    slow.silent = False
    slow.link.send({"type": "prepared", "generation": 2})
    await publication
    assert late.serves == 2
    assert len(publisher.serving()) == 2


async def test_a_worker_that_says_hello_later_with_an_old_snapshot_is_brought_up_to_date(
    publisher, scripted_worker, wait_until, memfd
):
    await published(publisher, Snapshot(3, memfd))
    old, new = scripted_worker(0, serves=2), scripted_worker(1, serves=3)
    await wait_until(publisher, lambda: len(publisher.serving()) == 2)
    assert old.told == [("prepare", 3), ("commit", 3)]
    assert new.told == []


async def test_a_worker_that_was_asked_to_finish_is_sent_nothing_more(publisher, scripted_worker, memfd):
    staying, leaving = scripted_worker(0), scripted_worker(1)
    publisher.leaving(1)
    await published(publisher, Snapshot(1, memfd))
    assert staying.serves == 1
    assert leaving.told == []
    assert [worker.slot for worker in publisher.serving()] == [0]


async def test_a_replaced_worker_takes_its_predecessors_place(publisher, scripted_worker, memfd, wait_until):
    scripted_worker(0)
    successor = scripted_worker(0)
    publisher.gone(0, successor.pid + 1)  # the predecessor's end may be told late
    await published(publisher, Snapshot(1, memfd))
    assert successor.serves == 1


async def test_a_worker_that_never_acknowledges_the_commit_is_logged_and_not_serving(
    publisher, scripted_worker, memfd, monkeypatch, caplog
):
    monkeypatch.setattr(publish, "ANSWER_SECONDS", 0.05)
    worker = scripted_worker(0)
    await publisher.prepare(Snapshot(1, memfd))
    worker.silent = True
    await publisher.commit(Snapshot(1, memfd))
    assert publisher.serving() == []
    assert "worker 0 does not serve generation 1" in caplog.text
