import asyncio
import json
import os
import sqlite3
import stat
import threading

import pytest

from splitproxy.control.rollouts import store as stores
from splitproxy.control.rollouts.store import (
    KEPT,
    SCHEMA,
    Entry,
    NewerStore,
    Row,
    Store,
    StoreError,
    StoreTaken,
)


def row(name="shop", **fields):
    plain = {"state": {"v": 1, "step": 2}, "plan": json.dumps({"name": name}), "clock": 12.5, "evidence": {"due": 13.0}}
    at = "2026-01-01T00:00:00.000+00:00"
    return Row(name, **{**plain, "started_at": None, "phase_at": at, "saved_at": at, **fields})


def entry(store, text, rollout="shop", **fields):
    return Entry(store.next_id(), rollout, 1, "2026-01-01T00:00:00.000+00:00", "note", False, text, {"n": 1}, **fields)


@pytest.fixture
def opened(tmp_path):
    stores = []

    def open_store(path=tmp_path / "state.db"):
        stores.append(Store(path))
        return stores[-1], stores[-1].load()

    yield open_store
    for store in stores:
        store.close()


async def test_what_was_saved_is_there_after_a_restart(opened):
    store, rows = opened()
    assert rows == {}
    first, second = entry(store, "one"), entry(store, "two")
    await store.save(row(), [first, second])
    await store.save(row(clock=20.0, started_at="then"), [])
    store.close()
    again, rows = opened()
    assert rows == {"shop": row(clock=20.0, started_at="then")}
    assert again.newest("shop", 10) == [first, second]
    assert again.next_id() == second.id + 1


async def test_history_is_read_in_pages(opened):
    store, _ = opened()
    await store.save(row(), [entry(store, str(n)) for n in range(10)])
    await store.save(row("pay"), [entry(store, "other", "pay")])
    assert [one.text for one in store.history("shop", limit=4)] == ["0", "1", "2", "3"]
    after = store.history("shop", limit=4)[-1].id
    assert [one.text for one in store.history("shop", after=after)] == ["4", "5", "6", "7", "8", "9"]
    assert [one.text for one in store.newest("shop", 2)] == ["8", "9"]
    assert store.history("unknown") == []


async def test_the_newest_entries_of_each_rollout_are_kept(opened):
    store, _ = opened()
    await store.save(row("quiet"), [entry(store, "the only one", "quiet")])
    await store.save(row(), [entry(store, str(n)) for n in range(KEPT + 50)])
    await store.save(row(), [entry(store, "last") for _ in range(100)])
    kept = store.newest("shop", 2 * KEPT)
    assert (len(kept), kept[0].text, kept[-1].text) == (KEPT, "150", "last")
    assert len(store.newest("quiet", 10)) == 1


async def test_many_at_once_are_all_written(opened):
    store, _ = opened()
    await asyncio.gather(*(store.save(row(f"r{n}"), [entry(store, "x", f"r{n}")]) for n in range(200)))
    store.close()
    again, rows = opened()
    assert len(rows) == 200
    assert len(again.newest("r7", 5)) == 1


async def test_what_is_queued_at_the_end_is_written(opened):
    store, _ = opened()
    saving = asyncio.create_task(store.save(row(), []))
    await asyncio.sleep(0)
    store.close()
    await saving
    assert "shop" in opened()[1]


def test_only_its_owner_may_read_it(opened, tmp_path):
    opened()
    assert stat.S_IMODE(os.stat(tmp_path / "state.db").st_mode) == 0o600


async def test_it_is_durable(opened, tmp_path):
    store, _ = opened()
    await store.save(row(), [])
    reader = sqlite3.connect(tmp_path / "state.db")
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert reader.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    reader.close()
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_later_version_is_not_touched(opened, tmp_path):
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    with pytest.raises(NewerStore, match="written by a later version"):
        opened()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("how", ["closed", "released"])
async def test_a_file_has_one_owner_at_a_time(opened, monkeypatch, how):
    monkeypatch.setattr(stores, "_CLAIM_SECONDS", 0.1)
    first, _ = opened()
    await first.save(row(), [entry(first, "one")])
    with pytest.raises(StoreTaken, match=r"state\.db: another process runs .* state\.path"):
        opened()
    await first.save(row(clock=20.0), [])
    first.close() if how == "closed" else first.release()
    second, rows = opened()
    assert rows == {"shop": row(clock=20.0)}
    await second.save(row(clock=30.0), [])


def test_who_is_about_to_end_is_waited_for(opened):
    first, _ = opened()
    timer = threading.Timer(0.2, first.close)
    timer.start()
    opened()
    timer.join()


@pytest.mark.parametrize("damage", ["absent", "folder", "text"])
async def test_a_file_that_cannot_be_used_is_an_alarm_and_tried_again_with_every_save(opened, tmp_path, damage):
    path = tmp_path / "deep" / "state.db"
    if damage != "absent":
        path.parent.mkdir()
    if damage == "folder":
        path.mkdir()
    if damage == "text":
        path.write_text("this is no database" * 100)
    store = Store(path)
    with pytest.raises(StoreError, match=r"state\.db"):
        store.load()
    assert "state.db" in store.alarm
    early = entry(store, "kept by its rollout")
    with pytest.raises(StoreError, match=r"state\.db"):
        await store.save(row(), [early])
    if damage == "folder":
        path.rmdir()
    if damage == "text":
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    await store.save(row(), [early])
    assert store.alarm == ""
    assert [one.text for one in store.newest("shop", 5)] == ["kept by its rollout"]
    store.close()


async def test_a_file_that_turns_up_late_keeps_what_it_holds(opened, tmp_path):
    store, _ = opened()
    await store.save(row(), [entry(store, "of an earlier life")])
    store.close()
    path = tmp_path / "state.db"
    path.rename(tmp_path / "away")
    path.mkdir()
    late = Store(path)
    with pytest.raises(StoreError):
        late.load()
    path.rmdir()
    (tmp_path / "away").rename(path)
    await late.save(row(), [entry(late, "of this life")])
    assert [one.text for one in late.newest("shop", 5)] == ["of an earlier life", "of this life"]
    late.close()


async def test_a_full_disk_is_an_alarm_until_there_is_room(opened):
    store, _ = opened()
    await store.save(row(), [])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = entry(store, "x" * 100_000)
    with pytest.raises(StoreError, match="full"):
        await store.save(row(clock=99.0), [large])
    assert "full" in store.alarm
    store._connection.execute("PRAGMA max_page_count = 100000")
    await store.save(row(clock=99.0), [large])
    assert (store.alarm, store.newest("shop", 5)) == ("", [large])
