"""Files that are whole or absent."""

import contextlib
import errno
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from jaxdiff import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_with_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "result.txt"
    with files.written(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with files.written(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("name", ["run", "replaced"])
def test_a_folder_is_replaced_with_all_its_files(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "old").write_text("1")
    with files.written(str(folder)) as draft:
        draft.mkdir()
        (draft / "new").write_text("2")
    assert names(folder) == ["new"]
    assert names(tmp_path) == [name]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with files.written(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_an_old_folder_survives_when_nothing_was_written(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "old").write_text("1")
    with pytest.raises(FileNotFoundError), files.written(folder):
        pass
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["run"]


def test_a_record_is_read_back_as_it_was(tmp_path):
    record = {"kl": 0.1, "unknown": None, "name": "Ω"}
    files.write_json(tmp_path / "record.json", record)
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert json.loads(text) == record
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_with_nan_is_refused_and_the_old_one_kept(tmp_path, value):
    path = tmp_path / "record.json"
    files.write_json(path, {"kl": 1.0})
    record = {"kl": 1.0, "terms": [{"value": 0.5}, {"value": value, "error": (0.0, value)}]}
    with pytest.raises(ValueError, match=rf"^terms\[1\]\.value is {value}: JSON has finite numbers alone"):
        files.write_json(path, record)
    assert json.loads(path.read_text()) == {"kl": 1.0}
    assert names(tmp_path) == ["record.json"]


def test_the_old_file_stands_when_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("disk gone")

    path = tmp_path / "result.txt"
    path.write_text("old")
    monkeypatch.setattr(pathlib.Path, "replace", refuse)
    with pytest.raises(OSError, match="disk gone"), files.written(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused_by_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    files.check_folder(tmp_path / "a" / "b")
    assert names(tmp_path) == ["file"]
    with pytest.raises(OSError, match=rf"{tmp_path}/file is a file"):
        files.check_folder(tmp_path / "file" / "run")


def test_a_disk_that_is_full_is_told_in_a_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with files.written(path) as outer, files.written(outer) as draft:
            draft.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(files.WriteError) as caught:
        fail()
    assert str(caught.value) == f"{path} cannot be written: {os.strerror(errno.ENOSPC)}."
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere") as caught, files.written(tmp_path / "result.txt"):
        (tmp_path / "elsewhere").read_text()
    assert type(caught.value) is FileNotFoundError


def test_a_folder_that_is_a_file_is_told_by_the_name_of_what_was_to_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "result.txt"
    with pytest.raises(files.WriteError, match=re.escape(f"{path} cannot be written: ")), files.written(path):
        pass


HOLDER = """
import contextlib, runpy, sys, time
files = runpy.run_path(sys.argv[1])
with contextlib.ExitStack() as stack:
    place = stack.enter_context(files["draft_folder"](sys.argv[2], "result.txt"))
    (place / "result.txt").write_text("half")
    stack.enter_context(files["locked"](sys.argv[2]))
    print(place, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that writes a draft of result.txt and holds the lock of the folder, and its draft folder."""
    command = [sys.executable, "-c", HOLDER, files.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, pathlib.Path(process.stdout.readline().strip())
        process.kill()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(holder, tmp_path):
    process, place = holder
    others = [tmp_path / name for name in (".result.txt-backup", ".other-abcdefgh", ".result.txt-abcdefg")]
    for other in others:
        other.mkdir()
    left_behind = tmp_path / ".result.txt-abc_efg1"  # by a version without locks
    left_behind.mkdir()
    with files.draft_folder(tmp_path, "result.txt") as own:
        files.clear(tmp_path, ["result.txt"])
        assert own.exists()
    assert (place / "result.txt").read_text() == "half"
    assert not left_behind.exists()
    process.kill()
    process.wait()
    assert place.exists()
    files.clear(tmp_path, ["result.txt"])
    assert names(tmp_path) == sorted(other.name for other in others)


def test_a_lock_shuts_others_out_and_goes_with_its_process(holder, tmp_path):
    process, _ = holder
    with pytest.raises(BlockingIOError), files.locked(tmp_path, wait=False):
        pass
    process.kill()
    process.wait()
    with files.locked(tmp_path, wait=False) as held:
        assert held
        with pytest.raises(BlockingIOError), files.locked(tmp_path, wait=False, shared=True):
            pass


def test_readers_share_a_lock(tmp_path):
    with files.locked(tmp_path, shared=True), files.locked(tmp_path, shared=True, wait=False) as held:
        assert held
        with pytest.raises(BlockingIOError), files.locked(tmp_path, wait=False):
            pass


@pytest.mark.parametrize("opened", [False, True])
def test_a_draft_folder_that_was_cleared_before_it_was_locked_is_made_again(opened, tmp_path, monkeypatch):
    locked, tried = files.locked, []

    @contextlib.contextmanager
    def slow(path, **options):
        if not tried and not opened:
            path.rmdir()
        tried.append(path)
        with locked(path, **options) as held:
            if len(tried) == 1 and opened:
                path.rmdir()
            yield held

    monkeypatch.setattr(files, "locked", slow)
    with files.written(tmp_path / "result.txt") as draft:
        draft.write_text("whole")
    assert len(tried) == 2
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("missing", ["fcntl", "flock"])
def test_without_locks_files_are_written_and_nothing_is_cleared(missing, tmp_path, monkeypatch):
    def unsupported(handle, how):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    if missing == "fcntl":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", unsupported)
    (tmp_path / ".result.txt-abcdefgh").mkdir()
    files.clear(tmp_path, ["result.txt"])
    with files.written(tmp_path / "result.txt") as draft:
        draft.write_text("whole")
    assert names(tmp_path) == [".result.txt-abcdefgh", "result.txt"]
