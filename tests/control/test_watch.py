import os

import pytest

from splitproxy.control.watch import Watch

GOOD = "routes: []\n"
NEW = "routes: [{name: shop}]\n"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "splitproxy.yaml"
    file.write_text(GOOD)
    return file


def watching(path, sources=None):
    watch = Watch(str(path))
    watch.look()
    watch.follow(sources if sources is not None else [str(path)])
    assert not watch.changed()
    return watch


def in_place(file):
    file.write_text(NEW)


def by_rename(file):
    other = file.with_suffix(".tmp")
    other.write_text(NEW)
    other.rename(file)


def same_size_and_time(file):
    facts = file.stat()
    file.write_text(GOOD.replace("[]", "{}"))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def vanished(file):
    file.unlink()


@pytest.mark.parametrize("change", [in_place, by_rename, same_size_and_time, vanished])
def test_a_change_counts_at_the_second_look(change, file):
    watch = watching(file)
    change(file)
    assert not watch.changed()
    assert watch.changed()


def test_a_file_that_is_still_being_written_is_waited_for(file):
    watch = watching(file)
    for part in ("routes:\n", "routes:\n- name: a\n", "routes:\n- name: a\n- name: b\n"):
        file.write_text(part)
        assert not watch.changed()
    assert watch.changed()


def test_what_was_loaded_is_not_reported_again(file):
    watch = watching(file)
    file.write_text(NEW)
    watch.changed()
    assert watch.changed()
    watch.look()  # as a load does, whether or not it succeeds
    assert [watch.changed(), watch.changed()] == [False, False]


def test_a_change_that_is_taken_back_between_two_looks_is_none(file):
    watch = watching(file)
    file.write_text(NEW)
    watch.changed()
    file.write_text(GOOD)
    assert [watch.changed(), watch.changed()] == [False, False]


def test_rewriting_the_same_content_is_no_change(file):
    watch = watching(file)
    by_rename(file)
    file.write_text(GOOD)
    assert [watch.changed(), watch.changed()] == [False, False]


def test_the_swap_of_a_config_maps_data_link_is_seen(tmp_path):
    for version, text in (("..1", GOOD), ("..2", NEW)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "splitproxy.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    mounted = tmp_path / "splitproxy.yaml"
    mounted.symlink_to("..data/splitproxy.yaml")
    watch = watching(mounted)
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    watch.changed()
    assert watch.changed()


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_files_that_appear_in_a_folder_or_vanish_from_it_are_seen(tmp_path, suffix):
    (tmp_path / "a.yaml").write_text(GOOD)
    watch = watching(tmp_path, [str(tmp_path / "a.yaml")])
    added = tmp_path / f"b{suffix}"
    added.write_text(NEW)
    watch.changed()
    assert watch.changed()
    watch.look()
    watch.follow([str(tmp_path / "a.yaml"), str(added)])
    assert not watch.changed()
    added.unlink()
    watch.changed()
    assert watch.changed()


def test_a_secret_beside_the_configuration_is_watched(file, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("one")
    watch = watching(file, [str(file), str(secret)])
    secret.write_text("two")
    watch.changed()
    assert watch.changed()


def test_a_change_between_the_look_and_the_end_of_the_load_is_not_missed(file):
    watch = Watch(str(file))
    watch.look()
    file.write_text(NEW)  # the load read GOOD
    watch.follow([str(file)])
    watch.changed()
    assert watch.changed()
